//! What the array's answer to one call says: done, with the disk as it now is; failed, and why; or neither.
//!
//! RouterOS prints its errors on standard output and exits with 0, so nothing counts but our own frame.

mod items;

use super::script::Mark;

pub(crate) use items::exact;
pub(super) use items::{Disk, File, Pool, Subvolume, Unreadable, list};

/// How much of an answer is kept for an error's message.
const KEPT: usize = 600;

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reply {
    /// It ran to its end. What it printed before that.
    Done(String),
    /// It stopped at one of our own checks.
    Stopped(Mark),
    /// It failed while it ran.
    Failed(Known, String),
    /// RouterOS could not read it, and ran nothing of it.
    NotUnderstood(String),
    /// Nothing says how it ended.
    Unknown(String),
}

/// The failures that RouterOS tells in words that are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    NoSpace,
    NoPermission,
    /// What was looked at before came or went since.
    Raced,
    /// RouterOS gave up waiting for a command that may go on.
    Unfinished,
    /// Any other words.
    Other,
}

impl Reply {
    /// What a frame reported that failed: one of our own checks, or RouterOS.
    pub(super) fn failed(message: &str) -> Self {
        // RouterOS may say behind it where it stopped.
        match Mark::ALL.into_iter().find(|mark| message.starts_with(mark.as_str())) {
            Some(mark) => Self::Stopped(mark),
            None => Self::Failed(known(message), kept(message)),
        }
    }
}

fn known(message: &str) -> Known {
    const TEXTS: [(&str, Known); 6] = [
        ("not enough space", Known::NoSpace),
        ("not enough permissions", Known::NoPermission),
        ("already have such", Known::Raced),
        ("no such item", Known::Raced),
        ("timed out", Known::Unfinished),
        ("interrupted", Known::Unfinished),
    ];
    TEXTS.iter().find(|(text, _)| message.contains(text)).map_or(Known::Other, |(_, known)| *known)
}

/// Whether RouterOS says so of a line that it cannot read.
pub(super) fn is_syntax_complaint(line: &str) -> bool {
    const TEXTS: [&str; 5] = [
        "expected end of command",
        "syntax error",
        "bad command name",
        "input does not match any value of",
        "invalid value for argument",
    ];
    TEXTS.iter().any(|text| line.starts_with(text))
}

/// An answer as an error's message may carry it.
pub(super) fn kept(text: &str) -> String {
    let text = text.trim();
    match text.char_indices().nth(KEPT) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests;
