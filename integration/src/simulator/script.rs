//! The RouterOS script language: as much of it as a driver or a person at a prompt needs.
//!
//! A line is read in full before anything runs, so a syntax error has no effect and no `on-error` sees it.
//! What menus exist is [`menus`](super::menus)' matter, what commands do is [`device`](super::device)'s.

mod ast;
mod builtins;
mod command;
mod evaluate;
mod expression;
mod failure;
mod json;
mod operators;
mod parse;
mod reader;
mod scopes;
mod value;

#[cfg(test)]
mod tests;

use std::sync::LazyLock;

use regex::Regex;

pub(super) use evaluate::run;
pub(crate) use failure::Failure;
pub use json::Numbers;
pub(super) use parse::parse;
pub(super) use scopes::Globals;
pub(super) use value::{ItemId, Value};

/// How a line is understood, without the texts in it: two lines with the same outline run the same commands. An error is
/// what the device would say.
pub fn outline(line: &str) -> Result<String, String> {
    static TEXT: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r#"Text\("(?:[^"\\]|\\.)*"\)"#).expect("it is an expression"));
    let script = parse(line, super::menus::Place::default(), super::version::Version::new(7, 21));
    let understood = format!("{:?}", script.map_err(|error| error.to_string())?);
    Ok(TEXT.replace_all(&understood, "Text").into_owned())
}
