//! What clients sent: enough to assert that an operation takes one connection and one round trip.

use std::sync::{Mutex, PoisonError};

use serde::Serialize;

/// Everything received so far.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Commands {
    /// Connections that authenticated.
    pub connections: u64,
    /// Connections and channels that were refused for the session limit or by a fault.
    pub refused: u64,
    /// Command lines in the order of their arrival, whatever became of them.
    pub lines: Vec<CommandLine>,
}

/// One command line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CommandLine {
    /// Number of the connection that it came over, counted from 1.
    pub connection: u64,
    /// Its text.
    pub line: String,
}

/// Takes notes for [`Commands`].
#[derive(Debug, Default)]
pub struct Journal(Mutex<Commands>);

impl Journal {
    /// What was received so far.
    pub fn read(&self) -> Commands {
        self.with(|commands| commands.clone())
    }

    /// Counts a connection.
    pub fn connected(&self) {
        self.with(|commands| commands.connections += 1);
    }

    /// Counts a refusal.
    pub fn refused(&self) {
        self.with(|commands| commands.refused += 1);
    }

    /// Notes a command line.
    pub fn received(&self, connection: u64, line: &str) {
        self.with(|commands| commands.lines.push(CommandLine { connection, line: line.to_owned() }));
    }

    fn with<T>(&self, work: impl FnOnce(&mut Commands) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
