//! Whose calls got no answer lately.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// A call that hangs is repeated within seconds, or by then is another matter.
const REMEMBERED: Duration = Duration::from_mins(5);

/// More than can hang at a time, and few enough to look through.
const MOST: usize = 256;

/// What calls were about that got no answer, those first that are forgotten first.
#[derive(Default)]
pub(super) struct Suspects(VecDeque<(Instant, String)>);

impl Suspects {
    pub(super) fn contains(&mut self, about: &str, now: Instant) -> bool {
        self.0.retain(|(since, _)| now.duration_since(*since) < REMEMBERED);
        self.0.iter().any(|(_, suspect)| suspect == about)
    }

    pub(super) fn add(&mut self, about: String) {
        self.remove(&about);
        self.0.push_back((Instant::now(), about));
        self.0.drain(..self.0.len().saturating_sub(MOST));
    }

    pub(super) fn remove(&mut self, about: &str) {
        self.0.retain(|(_, suspect)| suspect != about);
    }
}
