//! Every child of PID 1 in one place: our own, whose end somebody waits for, and orphans, which are only reaped.

use std::{
    collections::HashMap,
    io,
    process::Command,
    sync::{Mutex, PoisonError},
};

use rustix::process::{Pid, WaitOptions, WaitStatus};
use tokio::sync::watch;

use crate::rig::protocol::Exit;

#[derive(Default)]
pub(super) struct Children {
    /// Who waits for whom. Held while a child is started, so that no child can be reaped before it is listed.
    waiting: Mutex<HashMap<Pid, watch::Sender<Option<Exit>>>>,
}

impl Children {
    /// Starts a child and tells its end once it is known.
    pub(super) fn spawn(&self, command: &mut Command) -> io::Result<(Pid, watch::Receiver<Option<Exit>>)> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let child = command.spawn().map_err(|error| {
            io::Error::new(error.kind(), format!("cannot run {}: {error}", command.get_program().display()))
        })?;
        let pid = Pid::from_child(&child);
        let (tell, end) = watch::channel(None);
        waiting.insert(pid, tell);
        Ok((pid, end))
    }

    /// Reaps whoever is dead. Signals coalesce, so one call reaps all of them.
    pub(super) fn reap(&self) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            if let Some(tell) = waiting.remove(&pid) {
                tell.send_replace(Some(exit(status)));
            }
        }
    }
}

fn exit(status: WaitStatus) -> Exit {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, Some(signal)) => Exit::Signal(signal),
        (None, None) => Exit::TimedOut,
    }
}
