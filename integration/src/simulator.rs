//! RouterOS.
