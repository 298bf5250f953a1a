//! What a program needs to be a service: sockets, locks, tasks, telemetry, and the one wrapper around every call.
//!
//! Both programs are built from this, so that a call's life is the same in both. Nothing here knows what a call does.

pub mod admin;
pub mod call;
pub mod identity;
pub mod locks;
pub mod socket;
pub mod tasks;
pub mod telemetry;
