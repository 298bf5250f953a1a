//! The controller of rds-csi: it decides who may hold a volume, and makes the array do so. It holds all the credentials
//! and needs no privileges.

#![forbid(unsafe_code)]

pub mod array;
pub mod attachments;
pub mod backends;
pub mod capacity;
pub mod cluster;
pub mod condition;
pub mod config;
pub mod create;
pub mod csi;
pub mod delete;
pub mod doctor;
pub mod expand;
pub mod get_volume;
pub mod holders;
pub mod list_snapshots;
pub mod list_volumes;
pub mod metrics;
pub mod modify;
pub mod node_agents;
pub mod orphans;
pub mod page;
pub mod parameters;
pub mod proofs;
pub mod publish;
pub mod run;
pub mod size;
pub mod snapshot;
pub mod unpublish;
pub mod validate;
