//! A command line in, what the device prints out.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::device::{Device, Handicaps, Session};
use super::faults::Pause;
use super::menus::Place;
use super::script;

/// A device, and a place in its menus from which lines are read.
pub(super) struct Console {
    device: Arc<Device>,
    max_line: usize,
    place: Place,
}

impl Console {
    /// A console at the root of the menus, which takes lines of up to `max_line` bytes.
    pub(super) fn new(device: Arc<Device>, max_line: usize) -> Self {
        Self { device, max_line, place: Place::default() }
    }

    /// Runs one line and returns all that it printed, errors included, in lines ended by CRLF; nothing if its
    /// session ended before it did, as `stop` or the handicaps have it.
    pub(super) fn run(
        &mut self,
        line: &str,
        handicaps: Handicaps,
        pause: Option<Pause>,
        stop: CancellationToken,
    ) -> Option<String> {
        if line.len() > self.max_line {
            return Some(format!("syntax error (line 1 column {})\r\n", self.max_line + 1));
        }
        let session = Session::new(Arc::clone(&self.device), handicaps, pause, stop);
        let printed = match script::parse(line, self.place.clone(), session.dialect().version) {
            Ok(script) => {
                self.place = script.place.clone();
                script::run(&script, &session)
            }
            Err(error) => format!("{error}\r\n"),
        };
        (!session.ended()).then_some(printed)
    }

    /// What a person is asked with.
    pub(super) fn prompt(&self, user: &str) -> String {
        let identity = self.device.identity();
        match self.place.as_str() {
            "" => format!("[{user}@{identity}] > "),
            path => format!("[{user}@{identity}] /{path}> "),
        }
    }
}
