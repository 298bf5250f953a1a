//! A command line in, what the device prints out.

use super::device::Session;
use super::menus::Place;
use super::script;

/// A place in the menus from which lines are read, and the session they run in.
pub(super) struct Console {
    session: Session,
    place: Place,
}

impl Console {
    /// A console at the root of the menus.
    pub(super) fn new(session: Session) -> Self {
        Self { session, place: Place::default() }
    }

    /// Runs one line and returns all that it printed, errors included, in lines ended by CRLF.
    pub(super) fn run(&mut self, line: &str) -> String {
        match script::parse(line, self.place.clone(), self.session.dialect().version) {
            Ok(script) => {
                self.place = script.place.clone();
                script::run(&script, &self.session)
            }
            Err(error) => format!("{error}\r\n"),
        }
    }

    /// What a person is asked with.
    pub(super) fn prompt(user: &str, identity: &str, place: &Place) -> String {
        match place.as_str() {
            "" => format!("[{user}@{identity}] > "),
            path => format!("[{user}@{identity}] /{path}> "),
        }
    }

    /// Where in the menus the console stands.
    pub(super) fn place(&self) -> &Place {
        &self.place
    }
}
