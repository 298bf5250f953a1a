//! CSI as kubelet speaks it: each call is parsed, handed to its verb, and answered. Nothing is decided here.

mod answer;
mod mount_failures;
mod node;
mod parse;

pub use node::{Node, Place};
