//! The one SSH connection to an array: calls in, replies out, each with a deadline.
//!
//! So many sessions run at a time, and no more. A call goes at once if one of them is free and none about the same runs; what
//! is waiting when one gets free goes out together, in one command line. The connection itself is the business of [`Keeper`], which lives as long as the
//! program does, so that the driver starts and serves while the array is away.

mod call;
mod exchange;
mod frame;
mod keeper;
mod master;
mod queue;
mod version;
mod worker;

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::reply::Reply;

pub(super) use call::Call;
pub use keeper::Keeper;
pub use master::Destination;
pub(super) use version::Version;

use keeper::State;
use queue::Queue;

/// How an array's SSH service is used.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where, as whom, and who is there.
    pub destination: Destination,
    /// Lines that run at the same time. The array takes 20 from everybody together unless told otherwise.
    pub sessions: NonZeroUsize,
    /// How long a line with several calls may be, in bytes. What RouterOS takes is not documented.
    pub line_limit: usize,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// How long a call may take, waiting for its turn included.
    pub command_timeout: Duration,
    /// How often an idle connection is shown to be in use.
    pub keep_alive: Duration,
}

/// How much longer a call waits that was sent: its line ends at the same time, and the connection is judged by it, before the
/// caller goes on to the next call.
const VERDICT: Duration = Duration::from_millis(250);

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Error {
    #[error("{0}")]
    Unreachable(String),
    #[error("{0}")]
    Lost(String),
    #[error("no answer in time")]
    Late,
}

/// The connection as calls see it. Cheap to clone.
#[derive(Clone)]
pub(super) struct Session {
    state: watch::Receiver<State>,
    queue: Arc<Queue>,
    settings: Arc<Settings>,
}

impl Session {
    /// A connection, and the task that keeps it. Nothing happens until that runs.
    pub(super) fn new(settings: Settings) -> (Self, Keeper) {
        let settings = Arc::new(settings);
        let (sender, state) = watch::channel(State::Connecting);
        let queue = Arc::new(Queue::new(settings.command_timeout));
        let keeper = Keeper::new(Arc::clone(&settings), sender, Arc::clone(&queue));
        (Self { state, queue, settings }, keeper)
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Whether the array is connected now.
    pub(super) fn is_up(&self) -> bool {
        matches!(*self.state.borrow(), State::Up { .. })
    }

    /// What the array runs, if it is connected now.
    pub(super) fn version(&self) -> Option<Version> {
        match &*self.state.borrow() {
            State::Up { version, .. } => Some(version.clone()),
            State::Connecting | State::Down(_) => None,
        }
    }

    /// Until the connection comes or goes. One that nobody keeps any more never does.
    pub(super) async fn changed(&mut self) {
        if self.state.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Runs one call; how it ended. Given up before it was sent, it is never sent.
    pub(super) async fn run(&self, call: Call) -> Result<Reply, Error> {
        let deadline = Instant::now() + self.settings.command_timeout;
        let about = call.about.clone();
        let mut ticket = self.queue.enter(call);
        let mut waited = timeout_at(deadline, ticket.outcome()).await;
        if waited.is_err() && !ticket.give_up() {
            waited = timeout_at(deadline + VERDICT, ticket.outcome()).await;
        }
        let outcome = match waited {
            Ok(Some(outcome)) => outcome,
            Ok(None) => Err(Error::Lost("the program is shutting down".into())),
            Err(_) if ticket.was_sent() => Err(Error::Late),
            Err(_) => Err(Error::Unreachable(self.why_it_waited(&about))),
        };
        self.queue.note(about, &outcome);
        outcome
    }

    fn why_it_waited(&self, about: &str) -> String {
        let (sessions, timeout) = (self.settings.sessions, self.settings.command_timeout.as_secs());
        if self.queue.is_running(about) {
            format!("it still works at an earlier command about {about}")
        } else if self.is_up() {
            format!("all {sessions} sessions were busy for {timeout} s")
        } else {
            "still connecting".into()
        }
    }
}
