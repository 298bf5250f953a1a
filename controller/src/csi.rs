//! CSI over gRPC: every method reads its request, calls its verb, and turns the outcome into a response.

mod answer;
mod controller;
mod parse;

pub use controller::{Controller, Driver};
