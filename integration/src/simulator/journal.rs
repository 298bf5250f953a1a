//! What clients sent: enough to assert that an operation takes one connection and one round trip, and to see how
//! long each took.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

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
    /// How many of them were under way at once, at most.
    pub most_at_once: usize,
    /// How often anything arrived on any connection, keepalives included. What is encrypted cannot be told
    /// apart: a client that does nothing is seen by the growth of this number.
    pub arrivals: u64,
    /// Bytes of all that arrived.
    pub bytes: u64,
}

/// One command line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CommandLine {
    /// Number of the connection that it came over, counted from 1.
    pub connection: u64,
    /// Its text.
    pub line: String,
    /// When it came, since the simulator's start.
    pub arrived: Duration,
    /// How long until its answer was ready; none if it is still under way or was cut off.
    pub took: Option<Duration>,
}

/// A command line's place in [`Commands::lines`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Arrival(usize);

/// Takes notes for [`Commands`].
#[derive(Debug)]
pub struct Journal {
    started: Instant,
    notes: Mutex<Notes>,
}

#[derive(Debug, Default)]
struct Notes {
    commands: Commands,
    under_way: usize,
}

impl Default for Journal {
    fn default() -> Self {
        Self { started: Instant::now(), notes: Mutex::default() }
    }
}

impl Journal {
    /// What was received so far.
    pub fn read(&self) -> Commands {
        self.with(|notes| notes.commands.clone())
    }

    /// Counts a connection.
    pub fn connected(&self) {
        self.with(|notes| notes.commands.connections += 1);
    }

    /// Counts a refusal.
    pub fn refused(&self) {
        self.with(|notes| notes.commands.refused += 1);
    }

    /// Counts bytes that came together.
    pub fn arrived(&self, bytes: usize) {
        self.with(|notes| {
            notes.commands.arrivals += 1;
            notes.commands.bytes += u64::try_from(bytes).unwrap_or(u64::MAX);
        });
    }

    /// Notes a command line, which is under way from now on.
    pub fn received(&self, connection: u64, line: &str) -> Arrival {
        let arrived = self.started.elapsed();
        self.with(|Notes { commands, under_way }| {
            commands.lines.push(CommandLine { connection, line: line.to_owned(), arrived, took: None });
            *under_way += 1;
            commands.most_at_once = commands.most_at_once.max(*under_way);
            Arrival(commands.lines.len() - 1)
        })
    }

    /// Notes how a command line ended.
    pub fn ended(&self, Arrival(number): Arrival, end: End) {
        let now = self.started.elapsed();
        self.with(|Notes { commands, under_way }| {
            *under_way -= 1;
            let line = &mut commands.lines[number];
            line.took = (end == End::Answered).then(|| now.saturating_sub(line.arrived));
        });
    }

    fn with<T>(&self, work: impl FnOnce(&mut Notes) -> T) -> T {
        work(&mut self.notes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// How a command line ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// With an answer.
    Answered,
    /// With its connection.
    CutOff,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_answered_lines_have_taken_a_time_and_the_busiest_moment_is_kept() {
        let journal = Journal::default();
        let (first, second) = (journal.received(1, "a"), journal.received(1, "b"));
        journal.ended(first, End::Answered);
        journal.ended(second, End::CutOff);
        let third = journal.received(2, "c");
        let commands = journal.read();
        assert_eq!(commands.most_at_once, 2);
        let took: Vec<bool> = commands.lines.iter().map(|line| line.took.is_some()).collect();
        assert_eq!(took, [true, false, false]);
        assert_eq!(third, Arrival(2));
    }
}
