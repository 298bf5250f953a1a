//! What a line means once it is read: menus, commands and arguments are resolved, nothing has run.

use crate::simulator::menus::{Menu, Parameter, Verb};

/// Statements that share a scope for local variables.
pub(super) type Block = Vec<Statement>;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Statement {
    /// `:local name value`, or `:local name do={}` for a function
    Local { name: String, value: Option<Expression> },
    /// `:global name value`; without a value it only makes the variable known here.
    Global { name: String, value: Option<Expression> },
    /// `:set name value`
    Set { name: String, value: Expression },
    /// `:put value`
    Put(Expression),
    /// `:if (condition) do={} else={}`
    If { condition: Expression, then: Block, otherwise: Block },
    /// `:foreach element in=array do={}`, or with `key,element`
    ForEach { key: Option<String>, element: String, array: Expression, body: Block },
    /// `:while (condition) do={}`
    While { condition: Expression, body: Block },
    /// `:do {} on-error={}`
    Do { body: Block, on_error: Option<Block> },
    /// `:onerror name in={} do={}`
    OnError { name: String, body: Block, handler: Block },
    /// `:error "message"`
    Error(Expression),
    /// `:delay 500ms`
    Delay(Expression),
    /// `:return value`
    Return(Expression),
    /// `{ … }`
    Block(Block),
    /// A command whose value, if any, is shown.
    Command(Command),
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Expression {
    Literal(super::Value),
    /// An unquoted value: its type is the reader's guess, its spelling is what a text argument gets.
    Word(String),
    Variable(String),
    /// A property of the item that a `where` condition looks at.
    Property(&'static str),
    /// The pieces of a string with `$` in it.
    Joined(Vec<Expression>),
    Array(Vec<(Option<String>, Expression)>),
    Command(Box<Command>),
    Not(Box<Expression>),
    Negative(Box<Expression>),
    Operation(Operator, Box<Expression>, Box<Expression>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Or,
    And,
    In,
    Equal,
    NotEqual,
    Less,
    Greater,
    LessOrEqual,
    GreaterOrEqual,
    Matches,
    Concatenate,
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    Element,
}

/// Something that may stand in `[ … ]`.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Command {
    Function {
        name: Function,
        arguments: Vec<Expression>,
        to_json: Option<JsonOptions>,
    },
    /// `$name key=value value …`: a function that a variable holds, with arguments by name or by position.
    Call {
        name: String,
        arguments: Vec<(Option<String>, Expression)>,
    },
    Menu(MenuCommand),
}

/// The language's own functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    Len,
    ToStr,
    ToNum,
    ToArray,
    TypeOf,
    Pick,
    Find,
    Serialize,
    Nothing,
}

/// The `options=` of `:serialize to=json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum JsonOptions {
    /// Text that looks like a number becomes a number.
    ConvertText,
    /// `json.no-string-conversion`: text stays text.
    KeepText,
}

/// A command of a menu, with its arguments by name.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct MenuCommand {
    pub(super) menu: Menu,
    pub(super) verb: Verb,
    /// Items the command is for: its unnamed argument, or `numbers=`.
    pub(super) items: Option<Expression>,
    /// The property that `get` reads.
    pub(super) property: Option<&'static str>,
    pub(super) arguments: Vec<(&'static Parameter, Expression)>,
    /// Words such as `detail` and `as-value`.
    pub(super) flags: Vec<&'static str>,
    /// The condition of `find` and of `print where`.
    pub(super) condition: Option<Expression>,
}
