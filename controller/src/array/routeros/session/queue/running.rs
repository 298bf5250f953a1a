//! What the array works at, or may still work at.

use tokio::time::Instant;

/// Calls that were taken, until their end is known.
#[derive(Default)]
pub(super) struct Running(Vec<Entry>);

struct Entry {
    ticket: u64,
    about: String,
    /// When it counts as over that nobody hears of any more.
    over: Option<Instant>,
}

impl Running {
    pub(super) fn begin(&mut self, ticket: u64, about: &str) {
        self.0.push(Entry { ticket, about: about.into(), over: None });
    }

    /// It has ended, or has not begun.
    pub(super) fn end(&mut self, ticket: u64) {
        self.0.retain(|entry| entry.ticket != ticket);
    }

    /// Whether and when it ends will not be known: it counts as over then.
    pub(super) fn lose(&mut self, ticket: u64, over: Instant) {
        self.0.iter_mut().filter(|entry| entry.ticket == ticket).for_each(|entry| entry.over = Some(over));
    }

    /// Forgets what is over. When the next one is, of those that nobody hears of any more.
    pub(super) fn forget(&mut self, now: Instant) -> Option<Instant> {
        self.0.retain(|entry| entry.over.is_none_or(|over| now < over));
        self.0.iter().filter_map(|entry| entry.over).min()
    }

    pub(super) fn is_about(&self, about: &str) -> bool {
        self.0.iter().any(|entry| entry.about == about)
    }
}
