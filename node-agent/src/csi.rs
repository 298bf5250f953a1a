//! CSI as kubelet speaks it: each call is parsed, handed to its verb, and answered. Nothing is decided here.

mod identity;
mod node;
mod parse;

pub use identity::Identity;
pub use node::Node;
