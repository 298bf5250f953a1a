//! The controller of rds-csi: it decides who may hold a volume, and makes the array do so. It holds all the credentials
//! and needs no privileges.

#![forbid(unsafe_code)]

pub mod array;
pub mod attachments;
pub mod backends;
pub mod cluster;
pub mod config;
pub mod create;
pub mod csi;
pub mod delete;
pub mod metrics;
pub mod node_agents;
pub mod orphans;
pub mod parameters;
pub mod publish;
pub mod run;
pub mod unpublish;
pub mod validate;
