//! A process's tasks by name, and its end: a signal stops them all, and a task that ends by itself stops the process.

use std::future::Future;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// What a task ends with if it fails.
pub type TaskError = Box<dyn std::error::Error + Send + Sync>;

/// The named tasks of a process.
#[derive(Debug)]
pub struct Tasks {
    running: JoinSet<(&'static str, Result<(), TaskError>)>,
    shutdown: CancellationToken,
    terminate: Signal,
    interrupt: Signal,
}

/// Why the process must end with an error.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Signals cannot be waited for.
    #[error("cannot wait for signals")]
    Signals(#[source] std::io::Error),
    /// A task ended while nobody had asked it to.
    #[error("{name} ended before the process was asked to")]
    Ended {
        /// The task.
        name: &'static str,
        /// Its error, if it gave one.
        #[source]
        source: Option<TaskError>,
    },
    /// A task panicked.
    #[error("a task panicked")]
    Panicked(#[source] tokio::task::JoinError),
}

impl Tasks {
    /// No tasks yet. A signal that comes from now on waits for [`Self::run`] and does not kill the process.
    pub fn new() -> Result<Self, Error> {
        Ok(Self {
            running: JoinSet::new(),
            shutdown: CancellationToken::new(),
            terminate: signal(SignalKind::terminate()).map_err(Error::Signals)?,
            interrupt: signal(SignalKind::interrupt()).map_err(Error::Signals)?,
        })
    }

    /// Cancelled when the process is to end. Every task watches it.
    pub fn shutdown(&self) -> CancellationToken {
        self.shutdown.clone()
    }

    /// Adds a task. It runs until the process is told to stop.
    pub fn spawn<F>(&mut self, name: &'static str, task: F)
    where
        F: Future<Output = Result<(), TaskError>> + Send + 'static,
    {
        self.running.spawn(async move { (name, task.await) });
    }

    /// Runs until SIGTERM or SIGINT, or until a task ends by itself, which is an error. Then the tasks are told, and get
    /// `grace` to end; the names of those that do not are lost with them, so each says itself what it leaves.
    pub async fn run(mut self, grace: Duration) -> Result<(), Error> {
        let outcome = tokio::select! {
            _ = self.terminate.recv() => Ok(()),
            _ = self.interrupt.recv() => Ok(()),
            Some(ended) = self.running.join_next() => Err(match ended {
                Ok((name, result)) => Error::Ended { name, source: result.err() },
                Err(panic) => Error::Panicked(panic),
            }),
        };
        self.shutdown.cancel();
        let rest = async { while self.running.join_next().await.is_some() {} };
        if tokio::time::timeout(grace, rest).await.is_err() {
            tracing::warn!(left = self.running.len(), grace = ?grace, "tasks did not end in time and are left");
        }
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_ends_by_itself_ends_the_process_by_name() {
        let mut tasks = Tasks::new().unwrap();
        let shutdown = tasks.shutdown();
        tasks.spawn("the good task", async move {
            shutdown.cancelled().await;
            Ok(())
        });
        tasks.spawn("the bad task", async { Err("no more work".into()) });
        let error = tasks.run(Duration::from_mins(1)).await.unwrap_err();
        assert_eq!(error.to_string(), "the bad task ended before the process was asked to");
    }
}
