//! What a failure means to the caller: not what went wrong, but what may be done next.

/// What the caller of an RPC may do next. `status.rs` turns it into a gRPC code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The request can never succeed as it is: mend it.
    Invalid,
    /// Whoever asks may not: nothing that is in the request changes that.
    Forbidden,
    /// A number in the request is beyond what the array or the driver takes.
    OutOfRange,
    /// What the request names is not there.
    Missing,
    /// It exists already, and is another than the one asked for.
    Conflict,
    /// The state of the volume forbids it, and only somebody else can change that.
    Refused,
    /// Something holds the volume: it must let go first.
    InUse,
    /// Another operation on the same volume is still running: come again.
    Busy,
    /// The listing that a token belongs to is not there any more: begin again.
    Stale,
    /// No space is left.
    Full,
    /// Whoever is needed could not be reached, and nothing was begun: come again.
    Unreachable,
    /// It was begun, and may or may not have happened, or be happening still: come again.
    Unsure,
    /// The driver, the kernel or the array did what nobody expected.
    Bug,
}

impl Kind {
    /// All of them, for tables and tests.
    pub const ALL: [Self; 13] = [
        Self::Invalid,
        Self::Forbidden,
        Self::OutOfRange,
        Self::Missing,
        Self::Conflict,
        Self::Refused,
        Self::InUse,
        Self::Busy,
        Self::Stale,
        Self::Full,
        Self::Unreachable,
        Self::Unsure,
        Self::Bug,
    ];
}

/// An error that knows what it means to the caller. Every verb's and every seam's error enum is one.
pub trait Failure: std::error::Error {
    /// What the caller may do next.
    fn kind(&self) -> Kind;
}
