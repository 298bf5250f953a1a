//! What a program needs to be a service: sockets, locks, tasks, telemetry, and one wrapper around every call.
