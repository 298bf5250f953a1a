//! Keeps one master connected for as long as the program runs.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::exchange::exchange;
use super::master::{Destination, Link, Master};
use super::queue::Queue;
use super::version::{self, Version};
use super::worker::Worker;
use super::{Error, Settings};

/// The first pause after a failed attempt; each further one is twice as long.
const SHORTEST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A connection that breaks sooner is not made again without a pause, lest an array that drops everybody be flooded.
const BRIEF: Duration = Duration::from_secs(1);

const SHUTTING_DOWN: &str = "the program is shutting down";

/// Whether the array is connected, and if not, why.
pub(super) enum State {
    Connecting,
    Up {
        link: Arc<Link>,
        version: Version,
    },
    /// In ssh's words.
    Down(String),
}

/// The task that connects, notices a broken connection at once, and connects again.
pub struct Keeper {
    settings: Arc<Settings>,
    state: watch::Sender<State>,
    queue: Arc<Queue>,
    /// Masters that are no longer trusted, while commands may still be under way on them.
    retired: JoinSet<()>,
}

impl Keeper {
    pub(super) fn new(settings: Arc<Settings>, state: watch::Sender<State>, queue: Arc<Queue>) -> Self {
        Self { settings, state, queue, retired: JoinSet::new() }
    }

    /// Until cancelled; then no ssh is left.
    pub async fn run(mut self, cancelled: CancellationToken) {
        let mut workers = JoinSet::new();
        for _ in 0..self.settings.sessions.get() {
            let (queue, settings) = (Arc::clone(&self.queue), Arc::clone(&self.settings));
            workers.spawn(Worker::new(queue, self.state.subscribe(), settings).serve());
        }
        tokio::select! {
            () = self.keep(cancelled) => {}
            // They have no end of their own.
            Some(Err(error)) = workers.join_next() => tracing::error!(%error, "a session crashed"),
        }
    }

    async fn keep(&mut self, cancelled: CancellationToken) {
        let Destination { host, port, .. } = self.settings.destination.clone();
        let mut pause = SHORTEST_PAUSE;
        loop {
            while self.retired.try_join_next().is_some() {}
            self.state.send_replace(State::Connecting);
            let reason = match self.connect(&cancelled).await {
                Ok((master, version)) => {
                    tracing::info!(host, port, %version, "connected to the array");
                    pause = SHORTEST_PAUSE;
                    let begun = Instant::now();
                    let reason = self.serve(master, version, &cancelled).await;
                    if cancelled.is_cancelled() {
                        break;
                    }
                    tracing::warn!(host, port, reason, "the connection to the array ended");
                    if begun.elapsed() > BRIEF {
                        continue;
                    }
                    reason
                }
                Err(_) if cancelled.is_cancelled() => break,
                Err(reason) => {
                    tracing::warn!(host, port, reason, "the array cannot be reached");
                    reason
                }
            };
            self.state.send_replace(State::Down(format!("ssh to {host} port {port}: {reason}")));
            if cancelled.run_until_cancelled(sleep(jittered(pause))).await.is_none() {
                break;
            }
            pause = LONGEST_PAUSE.min(pause * 2);
        }
        self.state.send_replace(State::Down(SHUTTING_DOWN.into()));
        while self.retired.join_next().await.is_some() {}
    }

    async fn connect(&self, cancelled: &CancellationToken) -> Result<(Master, Version), String> {
        let limit = self.settings.connect_timeout;
        let mut master = Master::start(&self.settings.destination, self.settings.keep_alive)?;
        let (attempt, link) = (Instant::now(), master.link());
        let connected = async {
            timeout_at(attempt + limit, master.connected())
                .await
                .map_err(|_| format!("no connection within {} s", limit.as_secs()))??;
            timeout_at(attempt + limit, ask_version(&link)).await.map_err(|_| {
                format!("connected, but within {} s the array did not tell its version", limit.as_secs())
            })?
        };
        let attempt = tokio::select! {
            () = cancelled.cancelled() => Err(SHUTTING_DOWN.into()),
            attempt = connected => attempt,
        };
        match attempt {
            Ok(version) => Ok((master, version)),
            Err(reason) => {
                master.kill().await;
                Err(reason)
            }
        }
    }

    /// Until the master ends, is distrusted, or nobody wants it any more; which of them.
    async fn serve(&mut self, mut master: Master, version: Version, cancelled: &CancellationToken) -> String {
        let link = master.link();
        self.state.send_replace(State::Up { link: Arc::clone(&link), version });
        tokio::select! {
            () = cancelled.cancelled() => {
                master.kill().await;
                SHUTTING_DOWN.into()
            }
            reason = master.ended() => reason,
            () = link.distrusted().cancelled() => {
                // Every command that is under way on it ends by its own deadline.
                let grace = self.settings.command_timeout;
                let cancelled = cancelled.clone();
                self.retired.spawn(async move {
                    let _ = cancelled.run_until_cancelled(timeout(grace, master.ended())).await;
                    master.kill().await;
                });
                "a command was left without an answer".into()
            }
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.queue.close(&Error::Unreachable(SHUTTING_DOWN.into()));
    }
}

/// The array's version, over a link that was just made, which so proves that it answers commands.
async fn ask_version(link: &Link) -> Result<Version, String> {
    let mut said = Vec::new();
    let keep = |chunk: &[u8]| {
        let room = version::LONGEST_ANSWER - said.len();
        said.extend_from_slice(&chunk[..chunk.len().min(room)]);
    };
    exchange(link, version::ASK.into(), keep).await.map_err(|error| error.to_string())?;
    Version::supported(&String::from_utf8_lossy(&said))
}

/// Between half and the whole of a pause, so that controllers that lost an array together do not return together.
fn jittered(pause: Duration) -> Duration {
    let random = uuid::Uuid::new_v4().as_u128() % 1000;
    let share = u32::try_from(random).unwrap_or_default();
    pause / 2 + pause / 2 * share / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_neither_none_nor_longer_than_said() {
        for _ in 0..1000 {
            let pause = jittered(LONGEST_PAUSE);
            assert!(pause >= LONGEST_PAUSE / 2 && pause <= LONGEST_PAUSE);
        }
    }
}
