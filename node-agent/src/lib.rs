//! The node-agent.
