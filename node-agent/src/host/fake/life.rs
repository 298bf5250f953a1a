//! How long a program lives: tests let it die before any one of the changes it makes.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

/// The changes that a program makes to the machine and to its own records, one after the other. Clones are one life.
#[derive(Debug, Clone, Default)]
pub struct Life {
    end: Arc<RwLock<Option<usize>>>,
    made: Arc<AtomicUsize>,
}

impl Life {
    /// Lets the program make that many changes from now on, and die before the next one.
    pub fn end_after(&self, changes: usize) {
        self.made.store(0, Ordering::SeqCst);
        *self.end.write().unwrap_or_else(PoisonError::into_inner) = Some(changes);
    }

    /// How many changes the program made, or began, since its end was set.
    pub fn changes(&self) -> usize {
        self.made.load(Ordering::SeqCst)
    }

    /// Another program is started, which lives.
    pub fn begin_again(&self) {
        *self.end.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Before a change. A death unwinds without a word, and nothing is tidied up on the way.
    pub(crate) fn change(&self) {
        let end = *self.end.read().unwrap_or_else(PoisonError::into_inner);
        if end.is_some_and(|end| self.made.fetch_add(1, Ordering::SeqCst) >= end) {
            resume_unwind(Box::new("the program was killed"));
        }
    }
}
