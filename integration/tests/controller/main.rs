//! The controller as its sidecars meet it: the real program on its socket, the system's ssh, a simulated array.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops there")]

mod agent;
mod array;
mod attachments;
mod backends;
mod damaged;
mod doctor;
mod growth;
mod kubernetes;
mod listing;
mod orphans;
mod outages;
mod snapshots;
mod stress;
mod takeover;
mod volumes;
mod world;
