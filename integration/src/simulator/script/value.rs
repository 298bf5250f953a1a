//! Values of the script language, and how they turn into one another.

use std::fmt;
use std::sync::Arc;

use super::ast::Block;

/// A value of the script language.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    /// No value: an unset variable, a search without a hit.
    Nothing,
    /// `true` or `false`; menus also say `yes` and `no`.
    Bool(bool),
    /// A signed 64-bit integer; the language has no fractions.
    Number(i64),
    /// Text.
    Text(String),
    /// A reference to an item of a menu.
    Id(ItemId),
    /// A list or a map, or a mixture: each element may have a key.
    Array(Vec<(Option<String>, Value)>),
    /// A function.
    Code(Code),
}

/// The statements of a function.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Code(Arc<Block>);

impl Code {
    pub(super) fn new(body: Block) -> Self {
        Self(Arc::new(body))
    }

    pub(super) fn statements(&self) -> &Block {
        &self.0
    }
}

/// The internal number of an item, printed as `*` and hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ItemId(pub u64);

impl fmt::Display for ItemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "*{:X}", self.0)
    }
}

impl Value {
    /// A text value.
    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// A size or another unsigned quantity; what does not fit the language's integers becomes text.
    pub(crate) fn unsigned(number: u64) -> Self {
        i64::try_from(number).map_or_else(|_| Self::Text(number.to_string()), Self::Number)
    }

    /// A list without keys.
    pub(crate) fn list(values: impl IntoIterator<Item = Value>) -> Self {
        Self::Array(values.into_iter().map(|value| (None, value)).collect())
    }

    /// What an unquoted word means where any type is possible.
    pub(crate) fn word(word: &str) -> Self {
        match word {
            "true" | "yes" => Self::Bool(true),
            "false" | "no" => Self::Bool(false),
            _ => parse_number(word).map_or_else(|| Self::text(word), Self::Number),
        }
    }

    /// The number this value stands for, if it stands for one.
    pub(crate) fn as_number(&self) -> Option<i64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Text(text) => parse_number(text),
            Self::Nothing | Self::Bool(_) | Self::Id(_) | Self::Array(_) | Self::Code(_) => None,
        }
    }

    /// The truth value this value stands for, if it stands for one.
    pub(crate) fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(truth) => Some(*truth),
            Self::Text(text) => match text.as_str() {
                "true" | "yes" => Some(true),
                "false" | "no" => Some(false),
                _ => None,
            },
            Self::Nothing | Self::Number(_) | Self::Id(_) | Self::Array(_) | Self::Code(_) => None,
        }
    }

    /// What `:typeof` says.
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Bool(_) => "bool",
            Self::Number(_) => "num",
            Self::Text(_) => "str",
            Self::Id(_) => "id",
            // A function is an array of its code to the language.
            Self::Array(_) | Self::Code(_) => "array",
        }
    }

    /// What `:len` says: elements of an array, bytes of anything else as text.
    pub(crate) fn length(&self) -> usize {
        match self {
            Self::Array(elements) => elements.len(),
            other => other.to_string().len(),
        }
    }

    /// Equality as the language sees it: numbers and truth values also equal their spelling.
    pub(crate) fn equals(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Number(number), text @ Self::Text(_)) | (text @ Self::Text(_), Self::Number(number)) => {
                text.as_number() == Some(*number)
            }
            (Self::Bool(truth), text @ Self::Text(_)) | (text @ Self::Text(_), Self::Bool(truth)) => {
                text.as_bool() == Some(*truth)
            }
            (Self::Id(id), Self::Text(text)) | (Self::Text(text), Self::Id(id)) => *text == id.to_string(),
            // A list of one item may stand for the item: `[find …]` is used as if it were one.
            (Self::Array(elements), single) | (single, Self::Array(elements))
                if elements.len() == 1 && !matches!(single, Self::Array(_)) =>
            {
                elements[0].1.equals(single)
            }
            (left, right) => left == right,
        }
    }
}

/// As `:put` and `:tostr` show a value.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => Ok(()),
            Self::Bool(truth) => write!(f, "{truth}"),
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) => f.write_str(text),
            Self::Id(id) => write!(f, "{id}"),
            Self::Code(_) => f.write_str(";(code)"),
            Self::Array(elements) => {
                for (position, (key, value)) in elements.iter().enumerate() {
                    if position > 0 {
                        f.write_str(";")?;
                    }
                    if let Some(key) = key {
                        write!(f, "{key}=")?;
                    }
                    write!(f, "{value}")?;
                }
                Ok(())
            }
        }
    }
}

fn parse_number(text: &str) -> Option<i64> {
    if let Some(hexadecimal) = text.strip_prefix("0x") {
        return i64::from_str_radix(hexadecimal, 16).ok();
    }
    // `+5` is no number of the language, though Rust would read it.
    if text.starts_with('+') { None } else { text.parse().ok() }
}
