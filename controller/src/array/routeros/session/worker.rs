//! One of an array's sessions: it takes what waits, sends it in one line, and tells each caller how its own call ended.

use std::pin::pin;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::exchange::exchange;
use super::keeper::State;
use super::master::Link;
use super::queue::{Queue, Share};
use super::{Error, Settings};
use crate::array::routeros::reply::Reply;

/// How many times its own time a line may hold its session before the connection is made anew for it.
const PATIENCE: u32 = 4;

/// A session. There are as many as may run at the same time, so none waits for another.
pub(super) struct Worker {
    queue: Arc<Queue>,
    state: watch::Receiver<State>,
    settings: Arc<Settings>,
}

impl Worker {
    pub(super) fn new(queue: Arc<Queue>, state: watch::Receiver<State>, settings: Arc<Settings>) -> Self {
        Self { queue, state, settings }
    }

    /// As long as it is wanted.
    pub(super) async fn serve(mut self) {
        loop {
            self.queue.arrival().await;
            match self.link().await {
                // What waits is looked at only now, so that it is as much as possible.
                Ok(link) => {
                    if let Some(share) = self.queue.take(self.settings.sessions, self.settings.line_limit) {
                        self.run(&link, share).await;
                    }
                }
                Err(reason) => self.queue.refuse(&Error::Unreachable(reason)),
            }
        }
    }

    /// The link once there is one; why there is none once that is known.
    async fn link(&mut self) -> Result<Arc<Link>, String> {
        let is_settled = |state: &State| match state {
            State::Up { link, .. } => !link.distrusted().is_cancelled(),
            State::Down(_) => true,
            State::Connecting => false,
        };
        let Ok(state) = self.state.wait_for(is_settled).await else {
            return Err("nobody connects to the array any more".into());
        };
        match &*state {
            State::Up { link, .. } => Ok(Arc::clone(link)),
            State::Down(reason) => Err(reason.clone()),
            State::Connecting => Err("still connecting".into()),
        }
    }

    /// Sends the line, and tells callers as their frames report. Those who have waited before go earlier than the line.
    async fn run(&self, link: &Link, share: Share<'_>) {
        let Share { batch, calls, line: _line } = share;
        let sharing = calls.len();
        // Its own time, since callers that have waited long would have it judged too soon.
        let deadline = Instant::now() + self.settings.command_timeout;
        let mut open: Vec<_> = calls.into_iter().map(Some).collect();
        let mut tell = |at: usize, reply| {
            link.hear();
            let Some(call) = open.get_mut(at).and_then(Option::take) else { return };
            match reply {
                // Nothing of the line ran, and which call was at fault is not known.
                Reply::NotUnderstood(_) if sharing > 1 => self.queue.put_back(call),
                reply => self.queue.end(call, Ok(reply)),
            }
        };
        let (text, mut answers) = (batch.text(), batch.answers());
        tracing::debug!(text, sharing, "to the array");
        let heard = link.heard();
        let ended = {
            let mut exchange = pin!(exchange(link, text, |printed| answers.read(printed, &mut tell)));
            match timeout_at(deadline, &mut exchange).await {
                Ok(ended) => Some(ended),
                // The connection may be dead: what it has swallowed is left to it.
                Err(_) if link.heard() == heard => None,
                // The connection is alive, so the array still works at it. It would at a second line, too: the session is
                // held, and nobody else is.
                Err(_) => match self.queue.stick(self.settings.sessions) {
                    None => None,
                    Some(_stuck) => {
                        let patience = deadline + self.settings.command_timeout * PATIENCE;
                        tokio::select! {
                            ended = timeout_at(patience, &mut exchange) => ended.ok(),
                            () = link.distrusted().cancelled() => None,
                        }
                    }
                },
            }
        };
        match ended.unwrap_or(Err(Error::Late)) {
            Ok(()) => answers.end(&mut tell),
            Err(error) => {
                if let Error::Late | Error::Lost(_) = error {
                    // It is given no other line. Those that are on their way over it may still arrive.
                    link.distrusted().cancel();
                }
                for call in open.into_iter().flatten() {
                    self.queue.end(call, Err(error.clone()));
                }
            }
        }
    }
}
