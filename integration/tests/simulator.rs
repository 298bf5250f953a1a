//! The simulator as a driver meets it: through the system's `ssh`, with one line of script per command.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops there")]

#[path = "simulator/breaks.rs"]
mod breaks;
#[path = "simulator/client.rs"]
mod client;
#[path = "simulator/faults.rs"]
mod faults;
#[path = "simulator/preflight.rs"]
mod preflight;
#[path = "simulator/program.rs"]
mod program;
#[path = "simulator/samples.rs"]
mod samples;
#[path = "simulator/sessions.rs"]
mod sessions;
#[path = "simulator/volumes.rs"]
mod volumes;
