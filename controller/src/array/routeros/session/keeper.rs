//! Keeps one master connected for as long as the program runs.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::Settings;
use super::master::{Destination, Link, Master};

/// The first pause after a failed attempt; each further one is twice as long.
const SHORTEST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Whether the array is connected, and if not, why.
pub(super) enum State {
    Connecting,
    Up(Arc<Link>),
    /// In ssh's words.
    Down(String),
}

/// The task that connects, notices a broken connection at once, and connects again.
pub struct Keeper {
    settings: Arc<Settings>,
    state: watch::Sender<State>,
    /// Masters that are no longer trusted, while commands may still be under way on them.
    retired: JoinSet<()>,
}

impl Keeper {
    pub(super) fn new(settings: Arc<Settings>, state: watch::Sender<State>) -> Self {
        Self { settings, state, retired: JoinSet::new() }
    }

    /// Until cancelled; then no ssh is left.
    pub async fn run(mut self, cancelled: CancellationToken) {
        let mut pause = SHORTEST_PAUSE;
        while !cancelled.is_cancelled() {
            while self.retired.try_join_next().is_some() {}
            self.state.send_replace(State::Connecting);
            match cancelled.run_until_cancelled(self.connect()).await {
                None => break,
                Some(Ok(master)) => {
                    pause = SHORTEST_PAUSE;
                    self.serve(master, &cancelled).await;
                }
                Some(Err(reason)) => {
                    self.state.send_replace(State::Down(reason));
                    cancelled.run_until_cancelled(sleep(jittered(pause))).await;
                    pause = LONGEST_PAUSE.min(pause * 2);
                }
            }
        }
        self.state.send_replace(State::Down("the program is shutting down".into()));
        self.retired.shutdown().await;
    }

    async fn connect(&self) -> Result<Master, String> {
        let Destination { host, port, .. } = &self.settings.destination;
        let limit = self.settings.connect_timeout;
        let attempt = timeout(limit, Master::connect(&self.settings.destination)).await;
        match attempt.unwrap_or_else(|_| Err(format!("no SSH connection within {} s", limit.as_secs()))) {
            Ok(master) => {
                tracing::info!(host, port, "connected to the array");
                Ok(master)
            }
            Err(reason) => {
                tracing::warn!(host, port, reason, "the array cannot be reached");
                Err(format!("ssh to {host} port {port}: {reason}"))
            }
        }
    }

    /// Until the master ends, is distrusted, or nobody wants it any more.
    async fn serve(&mut self, mut master: Master, cancelled: &CancellationToken) {
        let link = master.link();
        self.state.send_replace(State::Up(Arc::clone(&link)));
        tokio::select! {
            () = cancelled.cancelled() => master.kill().await,
            reason = master.ended() => tracing::warn!(reason, "the connection to the array broke"),
            () = link.distrusted().cancelled() => {
                tracing::warn!("the array left a command without an answer; connecting anew");
                // Every command that is under way on it ends by its own deadline.
                let grace = self.settings.command_timeout;
                self.retired.spawn(async move {
                    let _ = timeout(grace, master.ended()).await;
                    master.kill().await;
                });
            }
        }
    }
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
