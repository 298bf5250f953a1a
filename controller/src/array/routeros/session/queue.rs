//! Calls that wait for a session, and which of them may share a line.
//!
//! Calls about the same never run at the same time, and go in the order in which they came, whoever still waits for them: one
//! that was given up by its caller may be changed by the array yet, and would undo what a later one has done. So a call also
//! waits for one that shares a line with a call that hangs: the array will come to it.

mod running;
mod suspects;

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout_at};

use super::Error;
use super::call::Call;
use super::frame::Batch;
use crate::array::routeros::reply::{Known, Reply};
use running::Running;
use suspects::Suspects;

/// Calls in one line, at most. One that hangs keeps those behind it waiting.
const LARGEST_SHARE: usize = 16;

/// How long the array may go on with a line that nobody hears of any more. It takes some 200 ms per command.
const GRACE: Duration = Duration::from_secs(2);

/// How a call ended.
pub(super) type Outcome = Result<Reply, Error>;

/// What waits.
#[derive(Default)]
pub(super) struct Queue {
    inner: Mutex<Inner>,
    arrived: Notify,
    late: Duration,
}

#[derive(Default)]
struct Inner {
    waiting: VecDeque<Waiting>,
    tickets: u64,
    /// Why nothing is taken any more.
    closed: Option<Error>,
    suspects: Suspects,
    running: Running,
    /// How many sessions have a line.
    lines: usize,
    /// How many lines are past their time and still hold a session.
    stuck: usize,
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
pub(super) struct Share<'queue> {
    pub(super) batch: Batch,
    pub(super) calls: Vec<Waiting>,
    pub(super) line: Line<'queue>,
}

/// A session's line. Dropped, the session is free.
pub(super) struct Line<'queue> {
    queue: &'queue Queue,
}

/// A line that is past its time and holds its session.
pub(super) struct Stuck<'queue> {
    queue: &'queue Queue,
}

impl Queue {
    /// `late` is how long a connection is kept that gave no answer in time.
    pub(super) fn new(late: Duration) -> Self {
        Self { late, ..Self::default() }
    }

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
        loop {
            let next = {
                let mut inner = self.lock();
                let next = inner.running.forget(Instant::now());
                if inner.has_takeable() {
                    return;
                }
                next
            };
            match next {
                // Either way it is looked at again.
                Some(over) => drop(timeout_at(over, self.arrived.notified()).await),
                None => self.arrived.notified().await,
            }
        }
    }

    /// What one of so many sessions takes: its fair share with those that are free too, in one line of at most so many bytes, and
    /// at least one call. None if nothing may be taken.
    pub(super) fn take(&self, sessions: NonZeroUsize, line_limit: usize) -> Option<Share<'_>> {
        let mut inner = self.lock();
        let free = sessions.get().saturating_sub(inner.lines).max(1);
        let most = inner.waiting.len().div_ceil(free).clamp(1, LARGEST_SHARE);
        let (mut batch, mut calls) = (Batch::default(), Vec::new());
        let mut passed_over = VecDeque::new();
        while let Some(next) = inner.waiting.pop_front() {
            let about = next.call.about.as_str();
            let must_wait = inner.running.is_about(about)
                // Calls about the same keep their order.
                || passed_over.iter().any(|other: &Waiting| other.call.about == about)
                || (next.company == Company::None && !calls.is_empty());
            if must_wait {
                passed_over.push_back(next);
                continue;
            }
            if calls.is_empty() {
                batch.push(&next.call);
            } else if !batch.push_within(&next.call, line_limit) {
                inner.waiting.push_front(next);
                break;
            }
            let goes_alone = next.company == Company::None;
            calls.push(next);
            if goes_alone || calls.len() == most {
                break;
            }
        }
        passed_over.append(&mut inner.waiting);
        inner.waiting = passed_over;
        for taken in &calls {
            inner.running.begin(taken.ticket, &taken.call.about);
        }
        if inner.has_takeable() {
            // Arrivals that nobody waited for are told once only, however many they were.
            self.arrived.notify_one();
        }
        if calls.is_empty() {
            return None;
        }
        inner.lines += 1;
        Some(Share { batch, calls, line: Line { queue: self } })
    }

    /// Puts a call where it was before it was taken, since it has not run. It goes alone; nobody's does not go again.
    pub(super) fn put_back(&self, call: Waiting) {
        let mut inner = self.lock();
        inner.running.end(call.ticket);
        if !call.answer.is_closed() {
            let place = inner.waiting.partition_point(|waiting| waiting.ticket < call.ticket);
            inner.waiting.insert(place, Waiting { company: Company::None, ..call });
        }
        drop(inner);
        self.arrived.notify_one();
    }

    /// Tells how a call ended that was taken. Others about the same may be taken now, or after a while if nobody knows whether
    /// it has ended.
    pub(super) fn end(&self, call: Waiting, outcome: Outcome) {
        let mut inner = self.lock();
        let over = Instant::now() + GRACE;
        match &outcome {
            // It may yet be on its way: TCP sends again what an outage swallowed, as long as the old connection is kept.
            Err(Error::Late) => inner.running.lose(call.ticket, over + self.late),
            // What RouterOS gave up waiting for may go on.
            Err(Error::Lost(_)) | Ok(Reply::Unknown(_) | Reply::Failed(Known::Unfinished, _)) => {
                inner.running.lose(call.ticket, over);
            }
            Ok(_) | Err(Error::Unreachable(_)) => inner.running.end(call.ticket),
        }
        drop(inner);
        call.tell(outcome);
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

    /// A line is past its time. None if all other sessions are held by such lines already.
    pub(super) fn stick(&self, sessions: NonZeroUsize) -> Option<Stuck<'_>> {
        let mut inner = self.lock();
        (inner.stuck + 1 < sessions.get()).then(|| {
            inner.stuck += 1;
            Stuck { queue: self }
        })
    }

    /// Whether the array works at a call about this, or may still do so.
    pub(super) fn is_running(&self, about: &str) -> bool {
        self.lock().running.is_about(about)
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
    fn has_takeable(&self) -> bool {
        self.waiting.iter().any(|waiting| !self.running.is_about(&waiting.call.about))
    }
}

impl Waiting {
    fn tell(self, outcome: Outcome) {
        // Who does not wait any more does not want it.
        let _ = self.answer.send(outcome);
    }

    #[cfg(test)]
    fn about(&self) -> &str {
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

impl Drop for Line<'_> {
    fn drop(&mut self) {
        self.queue.lock().lines -= 1;
    }
}

impl Drop for Stuck<'_> {
    fn drop(&mut self) {
        self.queue.lock().stuck -= 1;
    }
}

#[cfg(test)]
mod tests;
