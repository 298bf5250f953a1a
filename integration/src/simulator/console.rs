//! A command line in, what the device prints out.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::device::{Device, Handicaps, Session};
use super::menus::Place;
use super::script;

/// A device, and a place in its menus from which lines are read.
pub(super) struct Console {
    device: Arc<Device>,
    stop: CancellationToken,
    place: Place,
}

impl Console {
    /// A console at the root of the menus; its scripts end when `stop` says so.
    pub(super) fn new(device: Arc<Device>, stop: CancellationToken) -> Self {
        Self { device, stop, place: Place::default() }
    }

    /// Runs one line and returns all that it printed, errors included, in lines ended by CRLF.
    pub(super) fn run(&mut self, line: &str, handicaps: Handicaps) -> String {
        let session = Session::new(Arc::clone(&self.device), handicaps, self.stop.clone());
        match script::parse(line, self.place.clone(), session.dialect().version) {
            Ok(script) => {
                self.place = script.place.clone();
                script::run(&script, &session)
            }
            Err(error) => format!("{error}\r\n"),
        }
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
