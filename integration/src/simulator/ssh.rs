//! The SSH server in front of the console: public keys, one line per exec request, a shell for people, and a
//! limit on sessions. Exit status is 0 whatever happened, as on the device.

mod connection;
pub mod keys;
mod line;
mod power;
mod shell;

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use russh::keys::{PrivateKey, PublicKey};
use russh::{MethodKind, MethodSet, server};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{RwLock, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::backend;
use super::console::Console;
use super::device::{Device, Handicaps, Policy, Reach, Space};
use super::faults::{Effect, Faults};
use super::journal::{Arrival, End, Journal};

use connection::Connection;
use power::{Fate, Power};

/// Who may log in.
#[derive(Debug, Clone)]
pub struct Access {
    /// The only user name, if it matters.
    pub user: Option<String>,
    /// Keys of that user.
    pub keys: Vec<PublicKey>,
}

/// How much the server takes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Connections, and channels.
    pub(super) sessions: usize,
    /// Bytes of a command line.
    pub(super) line: usize,
}

/// The server, shared by all connections.
pub(super) struct Server {
    pub(super) device: Arc<Device>,
    pub(super) faults: Faults,
    pub(super) journal: Journal,
    access: Access,
    /// Connections and channels each count as sessions.
    connections: Arc<Semaphore>,
    channels: Arc<Semaphore>,
    connected: AtomicU64,
    max_line: usize,
    power: Power,
    /// Read while a command is under way.
    commands: RwLock<()>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Server {
    pub(super) fn new(
        device: Arc<Device>,
        access: Access,
        limits: Limits,
        stop: CancellationToken,
        tasks: TaskTracker,
    ) -> Self {
        Self {
            device,
            faults: Faults::default(),
            journal: Journal::default(),
            access,
            connections: Arc::new(Semaphore::new(limits.sessions)),
            channels: Arc::new(Semaphore::new(limits.sessions)),
            connected: AtomicU64::new(0),
            max_line: limits.line,
            power: Power::on(&stop),
            commands: RwLock::default(),
            stop,
            tasks,
        }
    }

    /// Accepts connections until the simulator stops.
    pub(super) async fn serve(self: Arc<Self>, listener: TcpListener, host_key: PrivateKey) {
        let config = Arc::new(server::Config {
            methods: MethodSet::from(&[MethodKind::PublicKey][..]),
            auth_rejection_time: Duration::ZERO,
            keys: vec![host_key],
            inactivity_timeout: None,
            ..server::Config::default()
        });
        loop {
            let accepted = tokio::select! {
                () = self.stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    self.tasks.spawn(Arc::clone(&self).connection(stream, Arc::clone(&config)));
                }
                Err(error) => tracing::warn!(%error, "a connection could not be accepted"),
            }
        }
    }

    async fn connection(self: Arc<Self>, stream: TcpStream, config: Arc<server::Config>) {
        let Ok(_session) = Arc::clone(&self.connections).try_acquire_owned() else {
            return self.journal.refused();
        };
        // Taken before the look at the switch: who slips in between is cut.
        let cut = self.power.life().child_token();
        if self.power.is_off() || self.faults.refuse_connection() {
            return self.journal.refused();
        }
        // Answers are small and awaited: held back for more, each would cost its client 40 ms.
        if let Err(error) = stream.set_nodelay(true) {
            return tracing::debug!(%error, "a connection ended at its beginning");
        }
        let number = self.connected.fetch_add(1, Ordering::Relaxed) + 1;
        let connection = Connection::new(Arc::clone(&self), number, cut.clone());
        let (inside, outside) = tokio::io::duplex(line::CAPACITY);
        let mut session = pin!(async {
            match server::run_stream(config, inside, connection).await {
                Ok(running) => running.await,
                Err(error) => Err(error),
            }
        });
        let ended = {
            let mut wire = pin!(line::carry(stream, outside, self.faults.silence(), &self.journal));
            tokio::select! {
                ended = &mut session => {
                    // What the session said last is still to be carried.
                    tokio::select! {
                        () = &mut wire => {}
                        () = cut.cancelled() => {}
                    }
                    Some(ended)
                }
                () = &mut wire => None,
                () = cut.cancelled() => None,
            }
        };
        // The wire is gone, which the session reads as its end.
        let ended = match ended {
            Some(ended) => ended,
            None => session.await,
        };
        if let Err(error) = ended {
            tracing::debug!(connection = number, %error, "an SSH session broke");
        }
    }

    /// What one line of one client does; none if the connection breaks instead of an answer.
    async fn run(
        self: &Arc<Self>,
        console: Console,
        arrival: Arrival,
        line: String,
    ) -> Option<(Console, Vec<u8>)> {
        let ran = self.answer(console, arrival, line).await;
        self.journal.ended(arrival, if ran.is_some() { End::Answered } else { End::CutOff });
        ran
    }

    async fn answer(
        self: &Arc<Self>,
        mut console: Console,
        arrival: Arrival,
        line: String,
    ) -> Option<(Console, Vec<u8>)> {
        // From before the faults are looked at, so that no clearing of them is missed.
        let mut cleared = self.faults.cleared();
        let _under_way = self.commands.read().await;
        let powered = self.power.life();
        let effects = self.faults.for_command(&line);
        let latency = effects.iter().map(|effect| match effect {
            Effect::Latency { milliseconds } => Duration::from_millis(*milliseconds),
            _ => Duration::ZERO,
        });
        let begin = async {
            if effects.contains(&Effect::Hold) {
                // If nobody can clear them any more, the simulator is about to end.
                let _ = cleared.changed().await;
            }
            tokio::time::sleep(latency.sum()).await;
        };
        tokio::select! {
            () = begin => {}
            () = powered.cancelled() => {}
        }
        for effect in &effects {
            if let Effect::Reboot { milliseconds, seed } = *effect {
                self.tasks.spawn(self.reboot(Duration::from_millis(milliseconds), seed));
            }
        }
        if effects.contains(&Effect::DropBefore) || self.stop.is_cancelled() {
            return None;
        }
        let mut handicaps = handicaps(&effects);
        let ends_with = if powered.is_cancelled() {
            // What was on its way into the device when the power went may still have had its effect.
            match self.power.fate(arrival) {
                Fate::Lost => return None,
                Fate::Runs(reach) => handicaps.reach = reach,
            }
            self.stop.clone()
        } else {
            powered.clone()
        };
        let pause = self.faults.pause(&effects, &cleared);
        // Scripts may wait and the storage may take its time: neither belongs on the runtime's threads.
        let ran = tokio::task::spawn_blocking(move || {
            let output = console.run(&line, handicaps, pause, ends_with);
            (console, output)
        });
        let (console, output) =
            ran.await.inspect_err(|error| tracing::error!(%error, "a console crashed")).ok()?;
        if effects.contains(&Effect::DropAfter) || powered.is_cancelled() {
            return None;
        }
        let output = output?;
        if effects.contains(&Effect::Garbage) {
            return Some((console, b"\x1b[9999B\xff\xfe#!{\"OK\":\r\n".to_vec()));
        }
        Some((console, output.into_bytes()))
    }

    /// Switches off at once, and on again after a time. What is returned ends when the array serves again.
    fn reboot(self: &Arc<Self>, away: Duration, seed: u64) -> impl Future<Output = ()> + use<> {
        let off = self.switch_off(seed);
        let server = Arc::clone(self);
        async move {
            off.await;
            tokio::select! {
                () = tokio::time::sleep(away) => server.switch_on().await,
                () = server.stop.cancelled() => {}
            }
        }
    }

    /// Cuts all connections at once and takes no more. What is returned ends when nothing is exported any more.
    pub(super) fn switch_off(self: &Arc<Self>, seed: u64) -> impl Future<Output = ()> + use<> {
        self.power.switch_off(seed, &self.stop);
        let server = Arc::clone(self);
        async move {
            // Exports go when no command is left that might still change them.
            drop(server.commands.write().await);
            server.of_device(Device::switch_off).await;
        }
    }

    /// Exports and serves again.
    pub(super) async fn switch_on(&self) {
        self.of_device(Device::switch_on).await;
        self.power.switch_on();
    }

    async fn of_device(&self, work: fn(&Device) -> Result<(), backend::Error>) {
        let device = Arc::clone(&self.device);
        let worked = tokio::task::spawn_blocking(move || work(&device));
        match worked.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "the array did not come through its reboot whole"),
            Err(error) => tracing::error!(%error, "the array did not come through its reboot"),
        }
    }

    fn console(&self) -> Console {
        Console::new(Arc::clone(&self.device), self.max_line)
    }
}

fn handicaps(effects: &[Effect]) -> Handicaps {
    Handicaps {
        space: if effects.contains(&Effect::DiskFull) { Space::Exhausted } else { Space::AsItIs },
        reach: effects.iter().find_map(stop_after).unwrap_or_default(),
        policy: if effects.contains(&Effect::ReadOnlyUser) { Policy::Read } else { Policy::AsGranted },
    }
}

fn stop_after(effect: &Effect) -> Option<Reach> {
    match effect {
        Effect::StopAfter { statements } => Some(Reach::Changes(*statements)),
        _ => None,
    }
}
