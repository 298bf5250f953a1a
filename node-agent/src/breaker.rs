//! A circuit breaker per volume: where staging failed three times in a row, it is not tried again for a while.
//!
//! kubelet repeats for ever, and each attempt costs the array a connection and the node up to a minute. After the pause one
//! attempt is let through: the volume's lock lets no second one in beside it. Nothing is remembered over a restart. Only staging
//! is stopped: whoever lets go of a volume is never held up.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use rds_csi_api::{Failure, Kind, VolumeId, status};
use serde::{Serialize, Serializer};

use crate::events::{Events, Reason};
use crate::stage;

/// So many failures in a row open it.
const MOST: u32 = 3;

/// For so long nothing is tried then.
const PAUSE: Duration = Duration::from_mins(5);

/// After so long without an attempt nobody wants the volume here any more. kubelet waits two minutes at most.
const MEMORY: Duration = Duration::from_hours(1);

/// The breakers of all volumes. Clones are the same.
#[derive(Debug, Clone)]
pub struct Breakers {
    events: Events,
    failing: Arc<Mutex<BTreeMap<VolumeId, Failing>>>,
}

/// A volume that could not be staged when it was last tried.
#[derive(Debug)]
struct Failing {
    failures: u32,
    last: Instant,
    /// The same for people.
    at: SystemTime,
    cause: String,
}

/// A volume that is not staged for the time being.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error(
    "volume {volume} is not staged now: that failed {failures} times in a row, and since {} it is not tried; the last cause was: \
     {cause}; at {} one attempt is let through, or at once when its PersistentVolume gets the annotation \
     rds.csi.srvlab.io/reset-circuit-breaker: \"true\"",
    httpdate::fmt_http_date(*since),
    httpdate::fmt_http_date(*until)
)]
pub struct Open {
    /// Which.
    pub volume: VolumeId,
    /// How often it failed.
    pub failures: u32,
    /// Since when nothing is tried.
    #[serde(serialize_with = "date")]
    pub since: SystemTime,
    /// Until when.
    #[serde(serialize_with = "date")]
    pub until: SystemTime,
    /// Why it failed the last time.
    pub cause: String,
}

fn date<S: Serializer>(at: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&httpdate::fmt_http_date(*at))
}

impl Failure for Open {
    fn kind(&self) -> Kind {
        Kind::Unreachable
    }
}

impl Failing {
    fn opened(&self, volume: &VolumeId, now: Instant) -> Option<Open> {
        let Self { failures, last, at, cause } = self;
        (*failures >= MOST && now.saturating_duration_since(*last) < PAUSE).then(|| Open {
            volume: volume.clone(),
            failures: *failures,
            since: *at,
            until: *at + PAUSE,
            cause: cause.clone(),
        })
    }
}

impl Breakers {
    /// All closed. What opens is told there.
    pub fn new(events: Events) -> Self {
        Self { events, failing: Arc::default() }
    }

    /// Tries to stage a volume, unless its breaker is open. Whoever calls has the volume's lock.
    pub fn guard(
        &self,
        volume: &VolumeId,
        attempt: impl FnOnce() -> Result<(), stage::Error>,
    ) -> Result<(), stage::Error> {
        self.admit(volume, Instant::now())?;
        let outcome = attempt();
        self.judge(volume, &outcome, Instant::now());
        outcome
    }

    fn admit(&self, volume: &VolumeId, now: Instant) -> Result<(), Open> {
        let open = self.failing().get(volume).and_then(|failing| failing.opened(volume, now));
        open.map_or(Ok(()), Err)
    }

    fn judge(&self, volume: &VolumeId, outcome: &Result<(), stage::Error>, now: Instant) {
        let error = match outcome {
            Ok(()) => return self.forget(volume),
            Err(error) if counts(error) => error,
            Err(_) => return,
        };
        let mut all = self.failing();
        all.retain(|_, failing| now.saturating_duration_since(failing.last) < MEMORY);
        let failures = all.get(volume).map_or(1, |before| before.failures.saturating_add(1));
        let failing = Failing { failures, last: now, at: SystemTime::now(), cause: status::chain(error) };
        let open = failing.opened(volume, now);
        all.insert(volume.clone(), failing);
        drop(all);
        if let Some(open) = open {
            self.events.record(volume, Reason::BreakerOpened, open.to_string());
        }
    }

    /// Nothing is wrong with the volume any more, or nobody wants it here.
    pub fn forget(&self, volume: &VolumeId) {
        self.failing().remove(volume);
    }

    /// Closes the breaker of a volume because a person says so; returns what it was.
    pub fn reset(&self, volume: &VolumeId) -> Option<Open> {
        self.failing().remove(volume).and_then(|failing| failing.opened(volume, Instant::now()))
    }

    /// Those that are open now.
    pub fn open(&self) -> Vec<Open> {
        self.open_at(Instant::now())
    }

    fn open_at(&self, now: Instant) -> Vec<Open> {
        self.failing().iter().filter_map(|(volume, failing)| failing.opened(volume, now)).collect()
    }

    /// A map stays whole if a thread panicked beside it, so poison means nothing here.
    fn failing(&self) -> MutexGuard<'_, BTreeMap<VolumeId, Failing>> {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a failure says that the volume cannot be staged. A wrong request does not, nor does whoever holds the volume: they may
/// let go at any moment. Nor does a storm, which has an alarm of its own.
fn counts(error: &stage::Error) -> bool {
    match error {
        stage::Error::Remains { cause, .. } => counts(cause),
        stage::Error::Breaker(_)
        | stage::Error::Storm(_)
        // Refused, as others are that no repetition mends; but here somebody holds the volume or its place.
        | stage::Error::OtherConnection { .. }
        | stage::Error::Namesake { .. }
        | stage::Error::StagedElsewhere { .. }
        | stage::Error::Moved { .. }
        | stage::Error::Taken { .. } => false,
        error => match error.kind() {
            Kind::Invalid
            | Kind::Forbidden
            | Kind::OutOfRange
            | Kind::Conflict
            | Kind::InUse
            | Kind::Busy
            | Kind::Stale => false,
            Kind::Missing | Kind::Refused | Kind::Full | Kind::Unreachable | Kind::Unsure | Kind::Bug => true,
        },
    }
}

impl Collector for Breakers {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let open = i64::try_from(self.open().len()).unwrap_or(i64::MAX);
        let help = "Volumes that are not staged for the time being, because it failed again and again";
        let gauge = encoder.encode_descriptor("rds_csi_breakers_open", help, None, MetricType::Gauge)?;
        ConstGauge::new(open).encode(gauge)
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;
    use rustix::io::Errno;

    use super::*;
    use crate::host::fake::{Act, Holds};
    use crate::world::{World, world};

    fn breakers() -> Breakers {
        Breakers::new(Events::new(10))
    }

    fn attempt(breakers: &Breakers, world: &World) -> Result<(), stage::Error> {
        breakers.guard(&world.volume, || stage::stage(&world.volumes, &world.stage_filesystem()))
    }

    fn told(breakers: &Breakers) -> Vec<String> {
        breakers
            .events
            .kept()
            .into_iter()
            .map(|event| format!("{}: {}", event.reason, event.message))
            .collect()
    }

    #[test]
    fn lesson_18_three_failures_in_a_row_open_it_and_it_says_everything() {
        let (world, breakers) = (world(Holds::Foreign("gpt")), breakers());
        for failures in 1..=3 {
            assert_eq!(breakers.open(), [], "before failure {failures}");
            let error = attempt(&breakers, &world).unwrap_err();
            assert!(matches!(error, stage::Error::Foreign { .. }), "{error}");
        }
        let before = world.everything();
        let error = attempt(&breakers, &world).unwrap_err();
        assert_eq!(error.kind(), Kind::Unreachable);
        let message = error.to_string();
        for fact in
            ["pvc-a", "3 times", "holds gpt", "GMT", "rds.csi.srvlab.io/reset-circuit-breaker: \"true\""]
        {
            assert!(message.contains(fact), "{fact} is missing: {message}");
        }
        assert_eq!(world.everything(), before, "nothing is tried");
        assert_eq!(told(&breakers), [format!("BreakerOpened: {message}")]);
    }

    #[test]
    fn after_the_pause_one_attempt_decides() {
        let (world, breakers) = (world(Holds::Foreign("gpt")), breakers());
        let failure = || stage::stage(&world.volumes, &world.stage_filesystem());
        let begin = Instant::now();
        for _ in 0..3 {
            breakers.judge(&world.volume, &failure(), begin);
        }
        let last_moment = begin + PAUSE.saturating_sub(Duration::from_secs(1));
        assert!(breakers.admit(&world.volume, last_moment).is_err());
        let later = begin + PAUSE;
        breakers.admit(&world.volume, later).unwrap();
        assert_eq!(breakers.open_at(later), []);
        breakers.judge(&world.volume, &failure(), later);
        assert_eq!(breakers.open_at(later)[0].failures, 4);
        assert_eq!(told(&breakers).len(), 2);
        breakers.judge(&world.volume, &Ok(()), later + PAUSE);
        breakers.judge(&world.volume, &failure(), later + PAUSE);
        breakers.admit(&world.volume, later + PAUSE).unwrap();
    }

    #[test]
    fn a_success_between_failures_keeps_it_closed() {
        let (world, breakers) = (world(Holds::Nothing), breakers());
        for _ in 0..4 {
            for _ in 0..2 {
                world.host.fail_once(Act::Connect, Errno::IO);
                attempt(&breakers, &world).unwrap_err();
            }
            attempt(&breakers, &world).unwrap();
            crate::unstage::unstage(&world.volumes, &world.unstage()).unwrap();
        }
        assert_eq!(told(&breakers), [""; 0]);
    }

    #[test]
    fn wrong_requests_and_whoever_holds_the_volume_do_not_count() {
        let (world, breakers) =
            (world(Holds::Damaged(rds_csi_api::FsType::Ext4, crate::world::GIB)), breakers());
        stage::stage(&world.volumes, &world.stage_as(stage::Usage::Block)).unwrap();
        for _ in 0..5 {
            let error = attempt(&breakers, &world).unwrap_err();
            assert_eq!(error.kind(), Kind::Conflict, "{error}");
        }
        crate::unstage::unstage(&world.volumes, &world.unstage()).unwrap();
        world.host.connect_by_hand(&world.nqn);
        world.host.open_file(&world.nqn, 4711, "dd", "/dev/nvme1n1");
        for _ in 0..5 {
            let error = attempt(&breakers, &world).unwrap_err();
            assert!(error.to_string().contains("in use") || error.kind() == Kind::Unsure, "{error}");
        }
        assert_eq!(told(&breakers), [""; 0]);
    }

    #[test]
    fn what_is_refused_because_of_whoever_holds_it_does_not_count() {
        let (world, breakers) = (world(Holds::Nothing), breakers());
        stage::stage(&world.volumes, &world.stage_filesystem()).unwrap();
        let staged = || world.stage_filesystem();
        let elsewhere = stage::Wanted { staging: world.path("plugins/other"), ..staged() };
        let mut moved = staged();
        moved.target.portal = rds_csi_api::Portal::parse("10.77.0.2", None).unwrap();
        let mut renamed = staged();
        let new = format!("{}:e2", world.nqn).parse().unwrap();
        renamed.target.nqn = crate::host::ManagedNqn::new(&world.volumes.prefix, new).unwrap();
        let namesake = stage::Wanted { volume: "rack-2/pvc-a".parse().unwrap(), ..moved.clone() };
        for wanted in [elsewhere, moved, renamed, namesake] {
            for _ in 0..5 {
                let attempt = || stage::stage(&world.volumes, &wanted);
                let error = breakers.guard(&wanted.volume, attempt).unwrap_err();
                assert!(matches!(error.kind(), Kind::Refused | Kind::Unsure), "{error}");
                assert!(!matches!(error, stage::Error::Breaker(_)), "{error}");
            }
        }
        crate::unstage::unstage(&world.volumes, &world.unstage()).unwrap();
        world.host.mount_foreign(world.staging().as_path());
        for _ in 0..5 {
            let error = attempt(&breakers, &world).unwrap_err();
            assert!(matches!(error, stage::Error::Taken { .. }), "{error}");
        }
        assert_eq!(told(&breakers), [""; 0]);
    }

    #[test]
    fn a_reset_closes_it_and_other_volumes_are_not_concerned() {
        let (world, breakers) = (world(Holds::Foreign("gpt")), breakers());
        for _ in 0..3 {
            attempt(&breakers, &world).unwrap_err();
        }
        let other: VolumeId = "pvc-b".parse().unwrap();
        breakers.guard(&other, || Ok(())).unwrap();
        assert_eq!(breakers.reset(&other), None);
        assert_eq!(breakers.reset(&world.volume).unwrap().failures, 3);
        let error = attempt(&breakers, &world).unwrap_err();
        assert!(matches!(error, stage::Error::Foreign { .. }), "{error}");
    }

    #[test]
    fn what_is_open_is_counted() {
        let (world, breakers) = (world(Holds::Foreign("gpt")), breakers());
        let mut registry = Registry::default();
        registry.register_collector(Box::new(breakers.clone()));
        let gauge = || {
            let mut text = String::new();
            encode(&mut text, &registry).unwrap();
            text
        };
        assert!(gauge().contains("rds_csi_breakers_open 0"), "{}", gauge());
        for _ in 0..3 {
            attempt(&breakers, &world).unwrap_err();
        }
        assert!(gauge().contains("rds_csi_breakers_open 1"), "{}", gauge());
    }

    #[test]
    fn a_volume_that_nobody_wants_any_more_is_forgotten() {
        let (world, breakers) = (world(Holds::Foreign("gpt")), breakers());
        let failure = || stage::stage(&world.volumes, &world.stage_filesystem());
        let begin = Instant::now();
        let other: VolumeId = "pvc-b".parse().unwrap();
        breakers.judge(&other, &failure(), begin);
        breakers.judge(&world.volume, &failure(), begin + MEMORY);
        assert!(!breakers.failing().contains_key(&other));
    }
}
