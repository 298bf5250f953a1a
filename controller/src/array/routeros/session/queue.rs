//! Calls that wait for a session, and which of them may share a line.

mod suspects;

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::Error;
use super::call::Call;
use super::frame::Batch;
use crate::array::routeros::reply::Reply;
use suspects::Suspects;

/// Calls in one line, at most. One that hangs keeps those behind it waiting.
const LARGEST_SHARE: usize = 16;

/// How a call ended.
pub(super) type Outcome = Result<Reply, Error>;

/// What waits.
#[derive(Default)]
pub(super) struct Queue {
    inner: Mutex<Inner>,
    arrived: Notify,
}

#[derive(Default)]
struct Inner {
    waiting: VecDeque<Waiting>,
    tickets: u64,
    /// Why nothing is taken any more.
    closed: Option<Error>,
    suspects: Suspects,
    /// What the lines are about that are past their time and still hold a session, a list for each line.
    stuck: Vec<(u64, Vec<String>)>,
}

/// A call that waits, or runs.
pub(super) struct Waiting {
    ticket: u64,
    call: Call,
    company: Company,
    answer: oneshot::Sender<Outcome>,
}

/// With whom a call goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Company {
    Any,
    /// It has had no answer before, or has perhaps made a line unreadable: it harms nobody but itself.
    None,
}

/// A place in the queue. Dropped, it is given up.
pub(super) struct Ticket<'queue> {
    queue: &'queue Queue,
    number: u64,
    answer: oneshot::Receiver<Outcome>,
    given_up: bool,
}

/// What one session takes at once.
#[derive(Default)]
pub(super) struct Share {
    pub(super) batch: Batch,
    pub(super) calls: Vec<Waiting>,
}

/// A line that is past its time and holds its session. Calls about the same wait until this is dropped.
pub(super) struct Stuck<'queue> {
    queue: &'queue Queue,
    number: u64,
}

impl Queue {
    /// Lines up.
    pub(super) fn enter(&self, call: Call) -> Ticket<'_> {
        let (sender, receiver) = oneshot::channel();
        let mut inner = self.lock();
        inner.tickets += 1;
        let ticket = inner.tickets;
        if let Some(error) = &inner.closed {
            let _ = sender.send(Err(error.clone()));
        } else {
            let company = if inner.suspects.contains(&call.about, Instant::now()) {
                Company::None
            } else {
                Company::Any
            };
            inner.waiting.push_back(Waiting { ticket, call, company, answer: sender });
            self.arrived.notify_one();
        }
        Ticket { queue: self, number: ticket, answer: receiver, given_up: false }
    }

    /// Until something waits that may be taken.
    pub(super) async fn arrival(&self) {
        while !self.lock().has_takeable() {
            self.arrived.notified().await;
        }
    }

    /// What one of so many sessions takes: its fair share, in one line of at most so many bytes, and at least one call.
    pub(super) fn take(&self, sessions: NonZeroUsize, line_limit: usize) -> Share {
        let mut inner = self.lock();
        let most = inner.waiting.len().div_ceil(sessions.get()).clamp(1, LARGEST_SHARE);
        let mut share = Share::default();
        let mut passed_over = VecDeque::new();
        while let Some(next) = inner.waiting.pop_front() {
            let about = next.call.about.as_str();
            let must_wait = inner.is_stuck(about)
                // Calls about the same keep their order.
                || passed_over.iter().any(|other: &Waiting| other.call.about == about)
                || (next.company == Company::None && !share.calls.is_empty());
            if must_wait {
                passed_over.push_back(next);
                continue;
            }
            if share.calls.is_empty() {
                share.batch.push(&next.call);
            } else if !share.batch.push_within(&next.call, line_limit) {
                inner.waiting.push_front(next);
                break;
            }
            let goes_alone = next.company == Company::None;
            share.calls.push(next);
            if goes_alone || share.calls.len() == most {
                break;
            }
        }
        passed_over.append(&mut inner.waiting);
        inner.waiting = passed_over;
        if inner.has_takeable() {
            // Arrivals that nobody waited for are told once only, however many they were.
            self.arrived.notify_one();
        }
        share
    }

    /// Puts a call in front again that has not run. It goes alone.
    pub(super) fn put_back(&self, call: Waiting) {
        self.lock().waiting.push_front(Waiting { company: Company::None, ..call });
        self.arrived.notify_one();
    }

    /// Sends everybody away.
    pub(super) fn refuse(&self, error: &Error) {
        for waiting in self.lock().waiting.drain(..) {
            waiting.tell(Err(error.clone()));
        }
    }

    /// Sends everybody away, and whoever comes later.
    pub(super) fn close(&self, error: &Error) {
        self.lock().closed = Some(error.clone());
        self.refuse(error);
    }

    /// A line about these is past its time. None if all other sessions are held by such lines already.
    pub(super) fn stick(&self, about: Vec<String>, sessions: NonZeroUsize) -> Option<Stuck<'_>> {
        let mut inner = self.lock();
        inner.tickets += 1;
        let number = inner.tickets;
        (inner.stuck.len() + 1 < sessions.get()).then(|| {
            inner.stuck.push((number, about));
            Stuck { queue: self, number }
        })
    }

    /// Whether a line about this is past its time.
    pub(super) fn is_stuck(&self, about: &str) -> bool {
        self.lock().is_stuck(about)
    }

    /// Remembers who got no answer, and forgets who got one.
    pub(super) fn note(&self, about: String, outcome: &Outcome) {
        let mut inner = self.lock();
        match outcome {
            Err(Error::Late) | Ok(Reply::Unknown(_)) => inner.suspects.add(about),
            Ok(_) => inner.suspects.remove(&about),
            // It was not sent, or the whole connection broke: nothing is known of it.
            Err(Error::Unreachable(_) | Error::Lost(_)) => {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn is_stuck(&self, about: &str) -> bool {
        self.stuck.iter().any(|(_, stuck)| stuck.iter().any(|other| other == about))
    }

    fn has_takeable(&self) -> bool {
        self.waiting.iter().any(|waiting| !self.is_stuck(&waiting.call.about))
    }
}

impl Waiting {
    pub(super) fn tell(self, outcome: Outcome) {
        // Who does not wait any more does not want it.
        let _ = self.answer.send(outcome);
    }

    pub(super) fn about(&self) -> &str {
        &self.call.about
    }
}

impl Ticket<'_> {
    /// How the call ended. None if nobody will ever tell.
    pub(super) async fn outcome(&mut self) -> Option<Outcome> {
        (&mut self.answer).await.ok()
    }

    /// Gives the place up. True if the call was still waiting, so that it is never sent.
    pub(super) fn give_up(&mut self) -> bool {
        let mut inner = self.queue.lock();
        let before = inner.waiting.len();
        inner.waiting.retain(|waiting| waiting.ticket != self.number);
        self.given_up |= inner.waiting.len() < before;
        self.given_up
    }

    /// Whether it was taken before it was given up, or may yet be.
    pub(super) fn was_sent(&self) -> bool {
        !self.given_up
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.give_up();
    }
}

impl Drop for Stuck<'_> {
    fn drop(&mut self) {
        self.queue.lock().stuck.retain(|(number, _)| *number != self.number);
        self.queue.arrived.notify_one();
    }
}

#[cfg(test)]
mod tests;
