//! From a line to statements. Menus, commands and argument names are looked up here, as RouterOS does,
//! so that a misspelt one stops the whole line before its first effect.

use super::ast::{Block, Command, Expression, Function, JsonOptions, Statement};
use super::reader::{Reader, is_bare, is_name};
use super::value::{Code, Value};
use crate::simulator::menus::Place;
use crate::simulator::version::Version;

/// A line that was understood.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Script {
    pub(super) statements: Block,
    /// Where a prompt stands after this line.
    pub place: Place,
}

/// Why a line was not understood, in the device's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SyntaxError {
    /// No such menu or command.
    #[error("bad command name {name} (line 1 column {column})")]
    BadCommand {
        /// What was written.
        name: String,
        /// Where, counted from 1.
        column: usize,
    },
    /// An unknown argument, or anything else that does not belong to the command.
    #[error("expected end of command (line 1 column {0})")]
    ExpectedEnd(usize),
    /// Not the language.
    #[error("syntax error (line 1 column {0})")]
    Syntax(usize),
    /// A word that is not one of those that an argument takes.
    #[error("input does not match any value of {0}")]
    NoMatch(String),
    /// A value of the wrong kind.
    #[error("invalid value for argument {0}")]
    InvalidValue(String),
}

/// Reads `line` as typed at `place`.
pub(crate) fn parse(line: &str, place: Place, version: Version) -> Result<Script, SyntaxError> {
    // Over SSH the device takes one line per command and nothing that continues it.
    if let Some(at) = line.find(['\n', '\r']) {
        return Err(SyntaxError::Syntax(at + 1));
    }
    let mut parser = Parser { reader: Reader::new(line), place, version, nesting: 0 };
    let statements = parser.statements()?;
    if parser.reader.at_end() {
        Ok(Script { statements, place: parser.place })
    } else {
        Err(SyntaxError::Syntax(parser.reader.column()))
    }
}

pub(super) type Result<T, E = SyntaxError> = std::result::Result<T, E>;

/// How deep brackets and blocks may lie in each other: what is read recursively must not use up the stack.
const DEEPEST_NESTING: usize = 60;

pub(super) struct Parser<'line> {
    pub(super) reader: Reader<'line>,
    pub(super) place: Place,
    pub(super) version: Version,
    nesting: usize,
}

impl Parser<'_> {
    pub(super) fn syntax<T>(&self) -> Result<T> {
        Err(SyntaxError::Syntax(self.reader.column()))
    }

    /// Reads what may hold others of its kind.
    pub(super) fn nested<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.nesting == DEEPEST_NESTING {
            return self.syntax();
        }
        self.nesting += 1;
        let result = read(self);
        self.nesting -= 1;
        result
    }

    pub(super) fn expect(&mut self, text: &str) -> Result<()> {
        self.reader.skip_space();
        if self.reader.eat(text) { Ok(()) } else { self.syntax() }
    }

    fn statements(&mut self) -> Result<Block> {
        let mut statements = Vec::new();
        loop {
            self.reader.skip_space();
            match self.reader.peek() {
                None | Some('}') => return Ok(statements),
                Some(';') => {
                    self.reader.next();
                }
                Some('#') if statements.is_empty() => {
                    self.reader.take_while(|_| true);
                }
                Some(_) => {
                    statements.extend(self.statement()?);
                    self.reader.skip_space();
                    if !matches!(self.reader.peek(), None | Some(';' | '}')) {
                        return Err(SyntaxError::ExpectedEnd(self.reader.column()));
                    }
                }
            }
        }
    }

    /// `{ … }`; a menu entered inside is left at its end.
    fn block(&mut self) -> Result<Block> {
        self.expect("{")?;
        let outside = self.place.clone();
        let statements = self.nested(Self::statements)?;
        self.place = outside;
        self.expect("}")?;
        Ok(statements)
    }

    /// `name={ … }`
    fn named_block(&mut self, name: &str) -> Result<Block> {
        self.argument_name(name)?;
        self.block()
    }

    fn named_block_if_given(&mut self, name: &str) -> Result<Option<Block>> {
        self.reader.skip_space();
        let mut ahead = self.reader.clone();
        if ahead.eat_word(name) { self.named_block(name).map(Some) } else { Ok(None) }
    }

    fn argument_name(&mut self, name: &str) -> Result<()> {
        self.reader.skip_space();
        if self.reader.eat_word(name) && self.reader.eat("=") { Ok(()) } else { self.syntax() }
    }

    /// One statement; none if it only enters a menu.
    fn statement(&mut self) -> Result<Option<Statement>> {
        match self.reader.peek() {
            Some('{') => Ok(Some(Statement::Block(self.block()?))),
            Some('$') => Ok(Some(Statement::Command(self.call()?))),
            Some(':') => self.colon_statement().map(Some),
            _ => Ok(self.menu_command()?.map(|command| Statement::Command(Command::Menu(command)))),
        }
    }

    fn colon_statement(&mut self) -> Result<Statement> {
        let column = self.reader.column();
        let mut ahead = self.reader.clone();
        ahead.next();
        let name = ahead.take_while(is_name);
        if let Some(function) = function(name) {
            self.reader = ahead;
            return Ok(Statement::Command(self.function_call(function)?));
        }
        self.reader = ahead;
        match name {
            "local" => Ok(Statement::Local { name: self.variable_name()?, value: self.initial_value()? }),
            "global" => Ok(Statement::Global { name: self.variable_name()?, value: self.initial_value()? }),
            "set" => Ok(Statement::Set { name: self.variable_name()?, value: self.value()? }),
            "put" => Ok(Statement::Put(self.value()?)),
            "error" => Ok(Statement::Error(self.value()?)),
            "delay" => Ok(Statement::Delay(self.value()?)),
            "return" => Ok(Statement::Return(self.value()?)),
            "if" => Ok(Statement::If {
                condition: self.value()?,
                then: self.named_block("do")?,
                otherwise: self.named_block_if_given("else")?.unwrap_or_default(),
            }),
            "while" => Ok(Statement::While { condition: self.value()?, body: self.named_block("do")? }),
            "do" => {
                Ok(Statement::Do { body: self.block()?, on_error: self.named_block_if_given("on-error")? })
            }
            "onerror" => Ok(Statement::OnError {
                name: self.variable_name()?,
                body: self.named_block("in")?,
                handler: self.named_block("do")?,
            }),
            "foreach" => {
                let first = self.variable_name()?;
                let (key, element) =
                    if self.reader.eat(",") { (Some(first), self.variable_name()?) } else { (None, first) };
                self.argument_name("in")?;
                Ok(Statement::ForEach { key, element, array: self.value()?, body: self.named_block("do")? })
            }
            _ => Err(SyntaxError::BadCommand { name: format!(":{name}"), column }),
        }
    }

    fn variable_name(&mut self) -> Result<String> {
        self.reader.skip_space();
        let name = self.reader.take_while(|c| c.is_ascii_alphanumeric());
        if name.is_empty() { self.syntax() } else { Ok(name.to_owned()) }
    }

    pub(super) fn at_end_of_command(&mut self) -> bool {
        self.reader.skip_space();
        matches!(self.reader.peek(), None | Some(';' | '}' | ']' | ')'))
    }

    /// What a declaration gives its variable: a value, a function by `do={ … }`, or nothing.
    fn initial_value(&mut self) -> Result<Option<Expression>> {
        if let Some(body) = self.named_block_if_given("do")? {
            return Ok(Some(Expression::Literal(Value::Code(Code::new(body)))));
        }
        if self.at_end_of_command() { Ok(None) } else { self.value().map(Some) }
    }

    /// `$name key=value value …`
    fn call(&mut self) -> Result<Command> {
        self.expect("$")?;
        let name = self.variable_name()?;
        let mut arguments = Vec::new();
        while !self.at_end_of_command() {
            let mut ahead = self.reader.clone();
            let key = ahead.take_while(|c| c.is_ascii_alphanumeric());
            let key = (!key.is_empty() && ahead.eat("=")).then(|| key.to_owned());
            if key.is_some() {
                self.reader = ahead;
            }
            arguments.push((key, self.value()?));
        }
        Ok(Command::Call { name, arguments })
    }

    /// What stands in `[ … ]`.
    pub(super) fn substitution(&mut self) -> Result<Command> {
        self.expect("[")?;
        self.reader.skip_space();
        let outside = self.place.clone();
        let column = self.reader.column();
        let command = if self.reader.eat(":") {
            let name = self.reader.take_while(is_name);
            match function(name) {
                Some(function) => self.function_call(function)?,
                None => return Err(SyntaxError::BadCommand { name: format!(":{name}"), column }),
            }
        } else if self.reader.peek() == Some('$') {
            self.call()?
        } else {
            match self.menu_command()? {
                Some(command) => Command::Menu(command),
                None => return self.syntax(),
            }
        };
        self.place = outside;
        self.expect("]")?;
        Ok(command)
    }

    fn function_call(&mut self, name: Function) -> Result<Command> {
        let mut arguments = Vec::new();
        let mut to_json = None;
        while !self.at_end_of_command() {
            if name == Function::Serialize {
                if self.reader.eat("to=") {
                    if !self.reader.eat_word("json") || self.version < Version::new(7, 13) {
                        return Err(SyntaxError::NoMatch("to".to_owned()));
                    }
                    to_json.get_or_insert(JsonOptions::ConvertText);
                    continue;
                }
                let column = self.reader.column();
                if self.reader.eat("options=") {
                    if self.version < Version::new(7, 16) {
                        return Err(SyntaxError::ExpectedEnd(column));
                    }
                    if !self.reader.eat_word("json.no-string-conversion") {
                        return Err(SyntaxError::NoMatch("options".to_owned()));
                    }
                    to_json = Some(JsonOptions::KeepText);
                    continue;
                }
                self.reader.eat("value=");
            }
            if arguments.len() == name.arity() {
                return Err(SyntaxError::ExpectedEnd(self.reader.column()));
            }
            arguments.push(self.value()?);
        }
        if name == Function::Serialize && to_json.is_none() {
            return self.syntax();
        }
        Ok(Command::Function { name, arguments, to_json })
    }

    /// The value of an argument: an unquoted word, or anything that an expression may begin with.
    pub(super) fn value(&mut self) -> Result<Expression> {
        self.reader.skip_space();
        match self.reader.peek() {
            Some('"' | '$' | '[' | '(' | '{') => self.nested(Self::primary),
            Some(c) if is_bare(c) => Ok(Expression::Word(self.reader.take_while(is_bare).to_owned())),
            _ => self.syntax(),
        }
    }
}

fn function(name: &str) -> Option<Function> {
    Some(match name {
        "len" => Function::Len,
        "tostr" => Function::ToStr,
        "tonum" => Function::ToNum,
        "toarray" => Function::ToArray,
        "typeof" => Function::TypeOf,
        "pick" => Function::Pick,
        "find" => Function::Find,
        "serialize" => Function::Serialize,
        "nothing" => Function::Nothing,
        _ => return None,
    })
}

impl Function {
    /// How many values it takes at most.
    fn arity(self) -> usize {
        match self {
            Self::Nothing => 0,
            Self::Len | Self::ToStr | Self::ToNum | Self::ToArray | Self::TypeOf | Self::Serialize => 1,
            Self::Pick | Self::Find => 3,
        }
    }
}
