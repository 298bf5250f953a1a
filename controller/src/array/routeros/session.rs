//! The one SSH connection to an array: commands in, answers out, at most so many at a time, each with a deadline.
//!
//! The connection itself is the business of [`Keeper`], which lives as long as the program does, so that the driver starts
//! and serves while the array is away.

mod call;
mod frame;
mod keeper;
mod master;

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use openssh::Stdio;
use rds_csi_api::status;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout_at};

pub(super) use call::Call;
pub use keeper::Keeper;
pub use master::Destination;

use frame::Batch;
use keeper::State;
use master::Link;

use super::reply::Reply;

/// How much is kept of what ssh says on standard error.
const LONGEST_COMPLAINT: usize = 4 << 10;

/// How an array's SSH service is used.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where, as whom, and who is there.
    pub destination: Destination,
    /// Commands that run at the same time. The array takes 20 from everybody together unless told otherwise.
    pub sessions: NonZeroUsize,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// How long a command may take, waiting for its turn included.
    pub command_timeout: Duration,
}

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

/// The connection as commands see it. Cheap to clone.
#[derive(Clone)]
pub(super) struct Session {
    state: watch::Receiver<State>,
    turns: Arc<Semaphore>,
    settings: Arc<Settings>,
}

impl Session {
    /// A connection, and the task that keeps it. Nothing happens until that runs.
    pub(super) fn new(settings: Settings) -> (Self, Keeper) {
        let settings = Arc::new(settings);
        let (sender, state) = watch::channel(State::Connecting);
        let turns = Arc::new(Semaphore::new(settings.sessions.get()));
        (Self { state, turns, settings: Arc::clone(&settings) }, Keeper::new(settings, sender))
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Whether the array is connected now.
    pub(super) fn is_up(&self) -> bool {
        matches!(*self.state.borrow(), State::Up(_))
    }

    /// Runs one call; how it ended. The exit status is dropped: RouterOS exits with 0 either way.
    pub(super) async fn run(&self, call: Call) -> Result<Reply, Error> {
        let deadline = Instant::now() + self.settings.command_timeout;
        let busy = || {
            let (sessions, timeout) = (self.settings.sessions, self.settings.command_timeout.as_secs());
            Error::Unreachable(format!("all {sessions} sessions were busy for {timeout} s"))
        };
        let turn = timeout_at(deadline, self.turns.acquire()).await.map_err(|_| busy())?;
        let _turn = turn.map_err(|_| Error::Unreachable("the program is shutting down".into()))?;
        let link = self.link(deadline).await?;
        let mut batch = Batch::default();
        batch.push(&call);
        let answered = timeout_at(deadline, exchange(&link, batch)).await.unwrap_or(Err(Error::Late));
        if let Err(Error::Late | Error::Lost(_)) = answered {
            // It is given no other command. Those that are on their way over it may still arrive.
            link.distrusted().cancel();
        }
        answered
    }

    /// The link, if there is one or one is just being made; else at once why there is none.
    async fn link(&self, deadline: Instant) -> Result<Arc<Link>, Error> {
        let mut state = self.state.clone();
        let is_settled = |state: &State| match state {
            State::Up(link) => !link.distrusted().is_cancelled(),
            State::Down(_) => true,
            State::Connecting => false,
        };
        let settled = timeout_at(deadline, state.wait_for(is_settled)).await;
        let Ok(Ok(state)) = settled else {
            return Err(Error::Unreachable("still connecting, or the program is shutting down".into()));
        };
        match &*state {
            State::Up(link) => Ok(Arc::clone(link)),
            State::Down(reason) => Err(Error::Unreachable(reason.clone())),
            State::Connecting => Err(Error::Unreachable("still connecting".into())),
        }
    }
}

/// One line over the link.
async fn exchange(link: &Link, batch: Batch) -> Result<Reply, Error> {
    let (text, mut answers) = (batch.text(), batch.answers());
    tracing::debug!(text, "to the array");
    let mut remote = link.session().raw_command(text);
    remote.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = remote.spawn().await.map_err(|error| not_started(&error))?;
    let pipes = (child.stdout().take(), child.stderr().take());
    let (Some(mut stdout), Some(stderr)) = pipes else { return Err(Error::Lost("ssh gave no pipes".into())) };
    let mut reply = None;
    let read = async {
        let (mut chunk, mut silent) = ([0; 4096], true);
        while let Ok(count @ 1..) = stdout.read(&mut chunk).await {
            silent = false;
            answers.read(&chunk[..count], |_, told| reply = Some(told));
        }
        silent
    };
    let (silent, complaint) = tokio::join!(read, bounded(stderr));
    let ended = child.wait().await;
    if silent {
        answers.read(&complaint, |_, told| reply = Some(told));
    }
    answers.end(|_, told| reply = Some(told));
    match (reply, ended) {
        // The link broke, yet what was printed before may be the whole answer.
        (Some(Reply::Unknown(_)) | None, Err(error)) if !matches!(error, openssh::Error::Remote(_)) => {
            Err(Error::Lost(status::chain(&error)))
        }
        (Some(reply), _) => Ok(reply),
        (None, _) => Err(Error::Lost("ssh ended".into())),
    }
}

/// An array that opens no further session has not seen the command. After anything else that went wrong it may have.
fn not_started(error: &openssh::Error) -> Error {
    let text = status::chain(error);
    if text.contains("refused the request") {
        Error::Unreachable(format!("the array opened no session: {text}"))
    } else {
        Error::Lost(text)
    }
}

/// What a pipe gives until its end, and no more than is of use; the rest is read and dropped.
async fn bounded(mut pipe: impl AsyncRead + Unpin) -> Vec<u8> {
    let mut kept = Vec::new();
    let mut chunk = [0; 4096];
    while let Ok(count @ 1..) = pipe.read(&mut chunk).await {
        let room = LONGEST_COMPLAINT - kept.len();
        kept.extend_from_slice(&chunk[..count.min(room)]);
    }
    kept
}
