//! What can be made to go wrong between a client and the array.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// Something that goes wrong, for some commands, for some time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// What happens.
    #[serde(flatten)]
    pub effect: Effect,
    /// How often it happens; without a number until it is cleared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u32>,
    /// Happens only to command lines that contain this text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub containing: Option<String>,
}

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "effect", rename_all = "kebab-case")]
pub enum Effect {
    /// A command begins so much later.
    Latency {
        /// How much, in milliseconds.
        milliseconds: u64,
    },
    /// A command begins only when the faults are cleared.
    Hold,
    /// New connections are closed before the first byte; those that are open go on.
    RefuseConnections,
    /// Connections stay open and nothing is answered on them, keepalives and new connections included, until
    /// the fault is cleared; neither `times` nor `containing` applies.
    Silence,
    /// The connection breaks before the command does anything.
    DropBefore,
    /// The connection breaks in the middle of a line: after so many of its commands have changed something (an
    /// `add`, `set` or `remove` that succeeded and had an item), and nothing of the rest is run.
    StopAfter {
        /// How many.
        statements: u32,
    },
    /// A line waits in the middle of its work, when all that it looks at before this change was looked at: the
    /// first is 1, counted as above. It goes on when the faults are cleared.
    PauseBefore {
        /// Which one.
        change: u32,
    },
    /// All connections break at once and new ones are refused for a time; then the array is back with all that
    /// it holds, and exports it again. Of the commands under way some are lost, some are done in part and some
    /// are done, as the seed has it.
    Reboot {
        /// How long it is away.
        milliseconds: u64,
        /// Another number, another fate for each command.
        #[serde(default)]
        seed: u64,
    },
    /// The connection breaks after the command has done everything, before its first byte of output.
    DropAfter,
    /// The command runs, but what comes back is not its output.
    Garbage,
    /// There is no room for files.
    DiskFull,
    /// The user's group may not write.
    ReadOnlyUser,
}

impl Fault {
    /// A fault that lasts until it is cleared and concerns every command.
    pub fn new(effect: Effect) -> Self {
        Self { effect, times: None, containing: None }
    }

    /// A slow array.
    pub fn latency(latency: Duration) -> Self {
        let milliseconds = u64::try_from(latency.as_millis()).unwrap_or(u64::MAX);
        Self::new(Effect::Latency { milliseconds })
    }

    /// An array that reboots at the next command and is away for so long.
    pub fn reboot(away: Duration, seed: u64) -> Self {
        let milliseconds = u64::try_from(away.as_millis()).unwrap_or(u64::MAX);
        Self::new(Effect::Reboot { milliseconds, seed }).times(1)
    }

    /// The same, so many times only.
    #[must_use]
    pub fn times(self, times: u32) -> Self {
        Self { times: Some(times), ..self }
    }

    /// The same, only for command lines that contain `text`.
    #[must_use]
    pub fn containing(self, text: &str) -> Self {
        Self { containing: Some(text.to_owned()), ..self }
    }
}

/// The faults that are still to happen.
#[derive(Debug)]
pub struct Faults {
    pending: Mutex<Vec<Fault>>,
    silent: watch::Sender<bool>,
    cleared: watch::Sender<()>,
    /// How many lines wait before a change.
    paused: watch::Sender<usize>,
}

/// A line that is to wait before one of its changes.
#[derive(Debug)]
pub(super) struct Pause {
    /// Before which one.
    pub(super) change: u32,
    cleared: watch::Receiver<()>,
    paused: watch::Sender<usize>,
}

impl Pause {
    /// Ends when the faults are cleared.
    pub(super) async fn over(&self) {
        self.paused.send_modify(|lines| *lines += 1);
        // Nobody can clear them any more when the simulator is about to end.
        let _ = self.cleared.clone().changed().await;
        self.paused.send_modify(|lines| *lines -= 1);
    }
}

impl Default for Faults {
    fn default() -> Self {
        let (silent, cleared) = (watch::Sender::new(false), watch::Sender::new(()));
        Self { pending: Mutex::default(), silent, cleared, paused: watch::Sender::default() }
    }
}

impl Faults {
    /// Adds one.
    pub fn inject(&self, fault: Fault) {
        self.with(|faults| faults.push(fault));
    }

    /// Forgets all.
    pub fn clear(&self) {
        self.with(Vec::clear);
        self.cleared.send_replace(());
    }

    /// Tells of each time that all are forgotten, from now on.
    pub(super) fn cleared(&self) -> watch::Receiver<()> {
        self.cleared.subscribe()
    }

    /// The pause among the effects on a line that began when `cleared` was taken.
    pub(super) fn pause(&self, effects: &[Effect], cleared: &watch::Receiver<()>) -> Option<Pause> {
        let change = effects.iter().find_map(|effect| match effect {
            Effect::PauseBefore { change } => Some(*change),
            _ => None,
        })?;
        Some(Pause { change, cleared: cleared.clone(), paused: self.paused.clone() })
    }

    /// Ends when a line waits before a change.
    pub(super) async fn paused(&self) {
        // The sender is here, so it cannot be gone.
        let _ = self.paused.subscribe().wait_for(|lines| *lines > 0).await;
    }

    /// All that are pending.
    pub fn pending(&self) -> Vec<Fault> {
        self.with(|faults| faults.clone())
    }

    /// What happens to this command line; each fault that does is counted.
    pub fn for_command(&self, line: &str) -> Vec<Effect> {
        self.take(|fault| {
            let concerned = fault.containing.as_ref().is_none_or(|text| line.contains(text.as_str()));
            concerned && !matches!(fault.effect, Effect::RefuseConnections | Effect::Silence)
        })
    }

    /// Whether the array is silent, now and from now on.
    pub(super) fn silence(&self) -> watch::Receiver<bool> {
        self.silent.subscribe()
    }

    /// Whether a new connection is refused.
    pub fn refuse_connection(&self) -> bool {
        !self.take(|fault| fault.effect == Effect::RefuseConnections).is_empty()
    }

    fn take(&self, concerned: impl Fn(&Fault) -> bool) -> Vec<Effect> {
        self.with(|faults| {
            let mut effects = Vec::new();
            for fault in faults.iter_mut().filter(|fault| concerned(fault)) {
                effects.push(fault.effect);
                fault.times = fault.times.map(|times| times.saturating_sub(1));
            }
            faults.retain(|fault| fault.times != Some(0));
            effects
        })
    }

    fn with<T>(&self, work: impl FnOnce(&mut Vec<Fault>) -> T) -> T {
        let mut faults = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        let result = work(&mut faults);
        self.silent.send_replace(faults.iter().any(|fault| fault.effect == Effect::Silence));
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counted_fault_happens_so_often_and_only_where_it_applies() {
        let faults = Faults::default();
        faults.inject(Fault::new(Effect::DropAfter).times(2).containing("/disk/add"));
        assert_eq!(faults.for_command("/disk/print"), []);
        assert_eq!(faults.for_command("/disk/add slot=a"), [Effect::DropAfter]);
        assert_eq!(faults.for_command("/disk/add slot=a"), [Effect::DropAfter]);
        assert_eq!(faults.for_command("/disk/add slot=a"), []);
    }

    #[test]
    fn refusing_connections_leaves_commands_alone() {
        let faults = Faults::default();
        faults.inject(Fault::new(Effect::RefuseConnections));
        assert_eq!(faults.for_command(":put 1"), []);
        assert!(faults.refuse_connection() && faults.refuse_connection());
        faults.clear();
        assert!(!faults.refuse_connection());
    }

    #[test]
    fn faults_are_told_as_flat_json() {
        let told = r#"{"effect":"latency","milliseconds":200,"times":3}"#;
        let fault: Fault = serde_json::from_str(told).unwrap();
        assert_eq!(fault, Fault::latency(Duration::from_millis(200)).times(3));
        assert!(serde_json::from_str::<Fault>(r#"{"effect":"meteor"}"#).is_err());
    }
}
