//! What the tests, the demo and people at a terminal stand on: a RouterOS simulator that anyone may
//! `ssh` into, and a rig of microVMs in which the Linux kernel's own NVMe/TCP initiator and target meet.

pub mod agent_server;
pub mod bench;
pub mod bench_node;
pub mod certificates;
pub mod cluster;
pub mod collector;
pub mod conformance;
pub mod demo;
pub mod driver;
pub mod kernel;
pub mod programs;
pub mod rig;
pub mod simulator;
