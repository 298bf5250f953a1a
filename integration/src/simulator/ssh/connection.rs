//! One client's connection: its channels, each with one command or a shell.

use std::collections::HashMap;
use std::sync::Arc;

use russh::server::{Auth, ChannelOpenHandle, Handle, Handler, Msg, Session, VerifiedPublicKey};
use russh::{Channel, ChannelId, ChannelOpenFailure, Pty};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_util::sync::CancellationToken;

use super::Server;
use super::shell::{self, Terminal};

pub(super) struct Connection {
    server: Arc<Server>,
    number: u64,
    cut: CancellationToken,
    user: String,
    /// Channels that do not run anything yet.
    idle: HashMap<ChannelId, OpenChannel>,
    /// Where keystrokes go of channels that run a shell.
    shells: HashMap<ChannelId, mpsc::Sender<Vec<u8>>>,
}

/// Goes with what the channel runs, and ends with it: russh reports only closes that the client begins.
pub(super) struct OpenChannel {
    pub(super) terminal: Terminal,
    _session: OwnedSemaphorePermit,
}

impl Connection {
    pub(super) fn new(server: Arc<Server>, number: u64, cut: CancellationToken) -> Self {
        Self { server, number, cut, user: String::new(), idle: HashMap::new(), shells: HashMap::new() }
    }
}

impl Handler for Connection {
    type Error = russh::Error;

    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, Self::Error> {
        let access = &self.server.access;
        let known_user = access.user.as_ref().is_none_or(|only| only == user);
        let known_key = access.keys.iter().any(|known| known.key_data() == key.public_key.key_data());
        if known_user && known_key && self.server.device.allows("ssh") {
            user.clone_into(&mut self.user);
            self.server.journal.connected();
            Ok(Auth::Accept)
        } else {
            Ok(Auth::reject())
        }
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        if let Ok(session) = Arc::clone(&self.server.channels).try_acquire_owned() {
            self.idle.insert(channel.id(), OpenChannel { terminal: Terminal::None, _session: session });
            reply.accept().await;
        } else {
            self.server.journal.refused();
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
        }
        Ok(())
    }

    async fn channel_close(&mut self, channel: ChannelId, _: &mut Session) -> Result<(), Self::Error> {
        self.idle.remove(&channel);
        self.shells.remove(&channel);
        Ok(())
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        data: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let Some(open) = self.idle.remove(&channel) else { return session.channel_failure(channel) };
        session.channel_success(channel)?;
        let text = String::from_utf8_lossy(data).into_owned();
        let arrival = self.server.journal.received(self.number, &text);
        let (server, cut, handle) = (Arc::clone(&self.server), self.cut.clone(), session.handle());
        self.server.tasks.spawn(async move {
            match server.run(server.console(), arrival, text).await {
                Some((_, output)) => answer(&handle, channel, output).await,
                None => cut.cancel(),
            }
            drop(open);
        });
        Ok(())
    }

    async fn pty_request(
        &mut self,
        channel: ChannelId,
        _term: &str,
        _columns: u32,
        _rows: u32,
        _width: u32,
        _height: u32,
        _modes: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        if let Some(open) = self.idle.get_mut(&channel) {
            open.terminal = Terminal::Person;
        }
        session.channel_success(channel)
    }

    async fn shell_request(&mut self, channel: ChannelId, session: &mut Session) -> Result<(), Self::Error> {
        let Some(open) = self.idle.remove(&channel) else { return session.channel_failure(channel) };
        session.channel_success(channel)?;
        let (input, keys) = mpsc::channel(64);
        self.shells.insert(channel, input);
        let shell = shell::Shell {
            server: Arc::clone(&self.server),
            connection: self.number,
            cut: self.cut.clone(),
            user: self.user.clone(),
            open,
            handle: session.handle(),
            channel,
        };
        self.server.tasks.spawn(shell.run(keys));
        Ok(())
    }

    async fn data(&mut self, channel: ChannelId, data: &[u8], _: &mut Session) -> Result<(), Self::Error> {
        if let Some(input) = self.shells.get(&channel)
            && input.send(data.to_vec()).await.is_err()
        {
            // The shell has ended: what is typed after its end goes nowhere.
            self.shells.remove(&channel);
        }
        Ok(())
    }

    async fn channel_eof(&mut self, channel: ChannelId, _: &mut Session) -> Result<(), Self::Error> {
        self.shells.remove(&channel);
        Ok(())
    }
}

/// Sends a command's whole output and closes its channel. A client that left does not get it.
async fn answer(handle: &Handle, channel: ChannelId, output: Vec<u8>) {
    let _ = handle.data(channel, output).await;
    close(handle, channel).await;
}

pub(super) async fn close(handle: &Handle, channel: ChannelId) {
    let _ = handle.exit_status_request(channel, 0).await;
    let _ = handle.eof(channel).await;
    let _ = handle.close(channel).await;
}
