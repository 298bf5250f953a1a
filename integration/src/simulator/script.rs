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

pub(super) use evaluate::run;
pub(crate) use failure::Failure;
pub use json::Numbers;
pub(super) use parse::parse;
pub(super) use scopes::Globals;
pub(super) use value::{ItemId, Value};
