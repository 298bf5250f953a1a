//! The CSI node agent of rds-csi: the privileged half, which holds no credentials.
//!
//! One file per verb, each a bounded loop of observe, decide and do over the machine in `host`; `csi` and `agent` are the
//! wires to kubelet and to the controller, and `run` ties them together.

pub mod agent;
pub mod breaker;
pub mod config;
pub mod csi;
pub mod debug;
pub mod detach;
pub mod events;
pub mod expand;
pub mod health;
pub mod host;
pub mod inspect;
pub mod monitor;
pub mod orphans;
pub mod privilege;
pub mod publish;
pub mod reads;
pub mod registration;
pub mod repairs;
pub mod run;
pub mod stage;
pub mod stats;
pub mod status;
pub mod storm;
pub mod unpublish;
pub mod unstage;
pub mod volumes;

#[cfg(test)]
mod protected;
#[cfg(test)]
mod restart;
#[cfg(test)]
mod world;
