//! FakeHost.
