//! The controller of rds-csi: it decides who may hold a volume, and makes the array do so. It holds all the credentials
//! and needs no privileges.

#![forbid(unsafe_code)]

pub mod array;
pub mod attachments;
pub mod node_agents;
