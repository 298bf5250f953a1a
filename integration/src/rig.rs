//! MicroVMs.
