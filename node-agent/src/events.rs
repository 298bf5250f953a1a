//! What happened to this node's volumes, kept for a reader who may come late: the controller, which makes Kubernetes' events of it.
//!
//! A ring, so that nobody has to read it. Each event has a number, and each start of the agent a name of its own, so that a
//! reader knows what it has missed.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use rds_csi_api::{Failure, Kind, VolumeId};
use serde::{Serialize, Serializer};
use tokio::sync::watch;
use uuid::Uuid;

/// What happened. The names are those that people see in Kubernetes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// A filesystem could not be mounted.
    MountFailure,
    /// The array does not answer any more.
    ConnectionLost,
    /// It answers again.
    ConnectionRecovered,
    /// Something is mounted, or made, from a device that is gone for good.
    StaleMountDetected,
    /// A filesystem takes no more writes.
    VolumeReadOnly,
    /// A connection that nobody used was ended.
    OrphanDisconnected,
    /// Staging failed so often that it is not tried for a while.
    BreakerOpened,
    /// A device is mounted so often that nothing more is done to it.
    MountStorm,
    /// A volume was taken away though it may have been in use, because somebody asked for that.
    DetachForced,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::MountFailure,
        Self::ConnectionLost,
        Self::ConnectionRecovered,
        Self::StaleMountDetected,
        Self::VolumeReadOnly,
        Self::OrphanDisconnected,
        Self::BreakerOpened,
        Self::MountStorm,
        Self::DetachForced,
    ];

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MountFailure => "MountFailure",
            Self::ConnectionLost => "ConnectionLost",
            Self::ConnectionRecovered => "ConnectionRecovered",
            Self::StaleMountDetected => "StaleMountDetected",
            Self::VolumeReadOnly => "VolumeReadOnly",
            Self::OrphanDisconnected => "OrphanDisconnected",
            Self::BreakerOpened => "BreakerOpened",
            Self::MountStorm => "MountStorm",
            Self::DetachForced => "DetachForced",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// One more than that of the event before.
    pub sequence: u64,
    /// When, since 1970.
    pub unix_milliseconds: u64,
    /// To which volume.
    pub volume: VolumeId,
    /// What.
    pub reason: Reason,
    /// For people.
    pub message: String,
}

/// The events of this life of the agent. Clones are the same.
#[derive(Debug, Clone)]
pub struct Events(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    instance: String,
    capacity: usize,
    ring: Mutex<VecDeque<Event>>,
    /// The number of the last event.
    last: watch::Sender<u64>,
}

/// Somebody asks for what comes after an event that never was.
#[derive(Debug, thiserror::Error)]
#[error(
    "this agent's last event is number {last}, and what came after number {after} is asked for: leave the number away"
)]
pub struct Ahead {
    last: u64,
    after: u64,
}

impl Failure for Ahead {
    fn kind(&self) -> Kind {
        Kind::OutOfRange
    }
}

impl Events {
    /// None yet. Of those to come the last `capacity` are kept.
    pub fn new(capacity: usize) -> Self {
        Self(Arc::new(Inner {
            instance: Uuid::new_v4().to_string(),
            capacity: capacity.max(1),
            ring: Mutex::default(),
            last: watch::Sender::new(0),
        }))
    }

    /// Which life of the agent they are of.
    pub fn instance(&self) -> &str {
        &self.0.instance
    }

    /// Something happened.
    pub fn record(&self, volume: &VolumeId, reason: Reason, message: impl Into<String>) {
        let (mut ring, message) = (self.ring(), message.into());
        tracing::info!(%volume, %reason, "{message}");
        let sequence = *self.0.last.borrow() + 1;
        let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let unix_milliseconds = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        ring.push_back(Event { sequence, unix_milliseconds, volume: volume.clone(), reason, message });
        if ring.len() > self.0.capacity {
            ring.pop_front();
        }
        self.0.last.send_replace(sequence);
    }

    /// Those that are kept, the oldest first.
    pub fn kept(&self) -> Vec<Event> {
        self.ring().iter().cloned().collect()
    }

    /// Reads on after this event of that instance; of another one, or of none, from the beginning.
    pub fn reader(&self, instance: &str, after: u64) -> Result<Reader, Ahead> {
        let position = if instance == self.0.instance { after } else { 0 };
        let last = *self.0.last.borrow();
        if position > last {
            return Err(Ahead { last, after });
        }
        Ok(Reader { events: self.clone(), told: self.0.last.subscribe(), position })
    }

    /// A ring stays whole if a thread panicked beside it, so poison means nothing here.
    fn ring(&self) -> MutexGuard<'_, VecDeque<Event>> {
        self.0.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads events one after the other.
#[derive(Debug)]
pub struct Reader {
    events: Events,
    told: watch::Receiver<u64>,
    position: u64,
}

impl Reader {
    /// Which life of the agent it reads of.
    pub fn instance(&self) -> &str {
        self.events.instance()
    }

    /// The next event, once there is one, and how many before it are lost to this reader.
    pub async fn next(&mut self) -> (u64, Event) {
        loop {
            // Before looking, so that what comes meanwhile wakes us.
            self.told.mark_unchanged();
            let next = self.events.ring().iter().find(|event| event.sequence > self.position).cloned();
            if let Some(event) = next {
                let missed = event.sequence - self.position - 1;
                self.position = event.sequence;
                return (missed, event);
            }
            // Its other end is in `self.events`, so it cannot be closed.
            let _ = self.told.changed().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume() -> VolumeId {
        "pvc-a".parse().unwrap()
    }

    fn some(events: &Events, count: u64) {
        for number in 1..=count {
            events.record(&volume(), Reason::ConnectionLost, number.to_string());
        }
    }

    async fn read(reader: &mut Reader) -> (u64, u64) {
        let (missed, event) = reader.next().await;
        (missed, event.sequence)
    }

    #[tokio::test]
    async fn a_reader_goes_on_where_it_was() {
        let events = Events::new(10);
        some(&events, 3);
        let mut reader = events.reader("", 0).unwrap();
        assert_eq!([read(&mut reader).await, read(&mut reader).await], [(0, 1), (0, 2)]);
        let mut again = events.reader(events.instance(), 2).unwrap();
        assert_eq!(read(&mut again).await, (0, 3));
    }

    #[tokio::test]
    async fn a_reader_waits_for_what_comes() {
        let events = Events::new(10);
        let mut reader = events.reader("", 0).unwrap();
        let writer = events.clone();
        let (told, ()) = tokio::join!(reader.next(), async move { some(&writer, 1) });
        assert_eq!((told.0, told.1.sequence), (0, 1));
    }

    #[tokio::test]
    async fn a_reader_that_was_overrun_is_told_how_much_it_missed() {
        let events = Events::new(4);
        some(&events, 2);
        let mut reader = events.reader("", 0).unwrap();
        assert_eq!(read(&mut reader).await, (0, 1));
        some(&events, 7);
        assert_eq!([read(&mut reader).await, read(&mut reader).await], [(4, 6), (0, 7)]);
        assert_eq!(events.kept().len(), 4);
    }

    #[tokio::test]
    async fn after_a_restart_a_reader_begins_anew() {
        let (before, after) = (Events::new(4), Events::new(4));
        assert_ne!(before.instance(), after.instance());
        some(&after, 1);
        let mut reader = after.reader(before.instance(), 1000).unwrap();
        assert_eq!(read(&mut reader).await, (0, 1));
    }

    #[test]
    fn what_comes_after_an_event_that_never_was_is_refused() {
        let events = Events::new(4);
        some(&events, 1);
        let error = events.reader(events.instance(), 2).unwrap_err().to_string();
        assert!(error.contains("last event is number 1"), "{error}");
    }
}
