//! Errors that happen while a script runs, in the device's words.

use std::fmt;

/// A run-time error: it ends the script unless `on-error` or `:onerror` catches it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure(String);

impl Failure {
    /// An error with the text that the user sees.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }

    /// What was named is not there.
    pub(crate) fn no_such_item() -> Self {
        Self::new("no such item")
    }

    /// The user's group does not have the policy that this needs.
    pub(crate) fn not_permitted() -> Self {
        Self::new("not enough permissions (9)")
    }

    /// An argument that the command cannot do without is not there.
    pub(crate) fn missing(argument: &str) -> Self {
        Self::new(format!("missing value(s) of argument(s) {argument}"))
    }

    /// An argument has a value that it cannot have.
    pub(crate) fn invalid(argument: &str) -> Self {
        Self::new(format!("invalid value for argument {argument}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
