//! Switching the array off and on: what a reboot does to connections and to the commands under way.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::simulator::device::Reach;
use crate::simulator::journal::Arrival;

/// Whether the array is on, and since when.
pub(super) struct Power(Mutex<State>);

struct State {
    life: Life,
    supply: Supply,
    /// Decides what became of the commands under way when the last life ended.
    seed: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Supply {
    On,
    Off,
}

/// The time from one switching on to the next switching off; connections and scripts end with it.
pub(super) type Life = CancellationToken;

impl Power {
    /// An array that is on; it ends when `stop` says so.
    pub(super) fn on(stop: &CancellationToken) -> Self {
        Self(Mutex::new(State { life: stop.child_token(), supply: Supply::On, seed: 0 }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The present life.
    pub(super) fn life(&self) -> Life {
        self.state().life.clone()
    }

    pub(super) fn is_off(&self) -> bool {
        self.state().supply == Supply::Off
    }

    /// Ends the present life. The next one begins with this as well, but nothing is served until
    /// [`Self::switch_on`].
    pub(super) fn switch_off(&self, seed: u64, stop: &CancellationToken) {
        let mut state = self.state();
        state.supply = Supply::Off;
        state.seed = seed;
        std::mem::replace(&mut state.life, stop.child_token()).cancel();
    }

    pub(super) fn switch_on(&self) {
        self.state().supply = Supply::On;
    }

    /// What becomes of a command that has not begun when its life ends: by chance, but with the same seed
    /// always the same.
    pub(super) fn fate(&self, arrival: Arrival) -> Fate {
        let mut hasher = DefaultHasher::new();
        (self.state().seed, arrival).hash(&mut hasher);
        let chance = hasher.finish();
        match chance % 3 {
            0 => Fate::Lost,
            1 => Fate::Runs(Reach::Changes(1 + u32::from(chance.to_le_bytes()[7] % 2))),
            _ => Fate::Runs(Reach::End),
        }
    }
}

/// What becomes of a command whose answer nobody will get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It never begins.
    Lost,
    /// It runs, as far as it gets.
    Runs(Reach),
}
