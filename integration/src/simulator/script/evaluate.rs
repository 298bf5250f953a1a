//! Runs statements: variables, control flow, and commands handed on to the device.

mod commands;

use std::time::{Duration, Instant};

use super::ast::{Block, Command, Expression, MenuCommand, Statement};
use super::failure::Failure;
use super::parse::Script;
use super::scopes::Scopes;
use super::value::Value;
use super::{builtins, operators};
use crate::simulator::device::{Item, Session};
use crate::simulator::menus::{Menu, Verb, time};

/// How deep functions may call each other; the device has a limit too, and a function that calls itself
/// without end must not end the simulator.
const DEEPEST_CALL: usize = 16;

/// Runs a script to its end or first failure, and returns what it printed, lines ended by CRLF.
pub(crate) fn run(script: &Script, session: &Session) -> String {
    let scopes = Scopes::new(session.globals());
    let mut machine = Machine { session, output: String::new(), scopes, calls: 0, item: None };
    match machine.block(&script.statements) {
        // Outside functions there is nobody to take the value.
        Ok(()) | Err(Stop::Return(_)) => {}
        // Errors are ordinary output here: there is no other stream, and the exit status stays 0.
        Err(Stop::Failure(failure)) => machine.print(&failure.to_string()),
    }
    machine.output
}

/// Why statements after this one do not run.
enum Stop {
    Failure(Failure),
    Return(Value),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

struct Machine<'run> {
    session: &'run Session,
    output: String,
    scopes: Scopes<'run>,
    /// Functions that have begun and not ended.
    calls: usize,
    /// The item that a condition is about, and its menu.
    item: Option<(Menu, Item)>,
}

impl Machine<'_> {
    fn print(&mut self, line: &str) {
        self.output.push_str(line);
        self.output.push_str("\r\n");
    }

    fn block(&mut self, statements: &Block) -> Result<(), Stop> {
        self.block_with([], statements)
    }

    /// A block in which these variables are known besides those outside.
    fn block_with<const N: usize>(
        &mut self,
        variables: [(String, Value); N],
        statements: &Block,
    ) -> Result<(), Stop> {
        self.scopes.enter(variables);
        let result = statements.iter().try_for_each(|statement| self.statement(statement));
        self.scopes.leave();
        result
    }

    /// An error if the script must end here; handlers of errors end at it as well.
    fn go_on(&self) -> Result<(), Failure> {
        if self.session.ended() { Err(Failure::new("interrupted")) } else { Ok(()) }
    }

    fn statement(&mut self, statement: &Statement) -> Result<(), Stop> {
        self.go_on()?;
        match statement {
            Statement::Local { name, value } => {
                let value = value.as_ref().map_or(Ok(Value::Nothing), |value| self.value(value))?;
                self.scopes.declare(name, value);
            }
            Statement::Global { name, value } => {
                let value = value.as_ref().map(|value| self.value(value)).transpose()?;
                self.scopes.declare_global(name, value);
            }
            Statement::Set { name, value } => {
                let value = self.value(value)?;
                self.scopes.set(name, value)?;
            }
            Statement::Put(value) => {
                let text = self.value(value)?.to_string();
                self.print(&text);
            }
            Statement::Error(message) => return Err(Failure::new(self.value(message)?.to_string()).into()),
            Statement::Return(value) => return Err(Stop::Return(self.value(value)?)),
            Statement::Delay(time) => self.delay(time)?,
            Statement::If { condition, then, otherwise } => {
                let branch = if self.truth(condition)? { then } else { otherwise };
                self.block(branch)?;
            }
            Statement::While { condition, body } => {
                while self.truth(condition)? {
                    self.block(body)?;
                }
            }
            Statement::ForEach { key, element, array, body } => {
                self.for_each(key.as_deref(), element, array, body)?;
            }
            Statement::Do { body, on_error } => match (self.block(body), on_error) {
                (Err(Stop::Failure(_)), Some(handler)) => self.block(handler)?,
                (result, _) => result?,
            },
            Statement::OnError { name, body, handler } => match self.block(body) {
                Err(Stop::Failure(failure)) => {
                    self.block_with([(name.clone(), Value::Text(failure.to_string()))], handler)?;
                }
                result => result?,
            },
            Statement::Block(statements) => self.block(statements)?,
            Statement::Command(command) => {
                let value = self.command(command)?;
                if let (Command::Menu(MenuCommand { verb: Verb::Print, .. }), Value::Array(_)) =
                    (command, &value)
                {
                    self.print(&value.to_string());
                }
            }
        }
        Ok(())
    }

    fn for_each(
        &mut self,
        key: Option<&str>,
        element: &str,
        array: &Expression,
        body: &Block,
    ) -> Result<(), Stop> {
        let elements = match self.value(array)? {
            Value::Array(elements) => elements,
            Value::Nothing => Vec::new(),
            single => vec![(None, single)],
        };
        for (position, (own_key, value)) in elements.into_iter().enumerate() {
            let element = (element.to_owned(), value);
            match key {
                None => self.block_with([element], body)?,
                Some(key) => {
                    let position = Value::Number(i64::try_from(position).unwrap_or(i64::MAX));
                    let key = (key.to_owned(), own_key.map_or(position, Value::Text));
                    self.block_with([key, element], body)?;
                }
            }
        }
        Ok(())
    }

    /// Waits in short steps, so that a simulator that is stopped need not wait for its scripts.
    fn delay(&self, time: &Expression) -> Result<(), Stop> {
        const STEP: Duration = Duration::from_millis(10);
        let text = match time {
            Expression::Word(word) => word.clone(),
            _ => return Err(Failure::invalid("delay-time").into()),
        };
        let wait = time::read(&text).ok_or_else(|| Failure::invalid("delay-time"))?;
        let end = Instant::now() + wait;
        while Instant::now() < end && !self.session.ended() {
            std::thread::sleep(STEP.min(end.saturating_duration_since(Instant::now())));
        }
        Ok(())
    }

    fn truth(&mut self, condition: &Expression) -> Result<bool, Failure> {
        let value = self.value(condition)?;
        operators::truth(&value)
    }

    fn value(&mut self, expression: &Expression) -> Result<Value, Failure> {
        Ok(match expression {
            Expression::Literal(value) => value.clone(),
            Expression::Word(word) => Value::word(word),
            Expression::Variable(name) => self.variable(name),
            Expression::Property(name) => {
                self.item.as_ref().and_then(|(_, item)| item.property(name)).unwrap_or(Value::Nothing)
            }
            Expression::Joined(pieces) => {
                let mut text = String::new();
                for piece in pieces {
                    text.push_str(&self.value(piece)?.to_string());
                }
                Value::Text(text)
            }
            Expression::Array(elements) => {
                let mut values = Vec::with_capacity(elements.len());
                for (key, element) in elements {
                    values.push((key.clone(), self.value(element)?));
                }
                Value::Array(values)
            }
            Expression::Command(command) => self.command(command)?,
            Expression::Not(operand) => Value::Bool(!self.truth(operand)?),
            Expression::Negative(operand) => {
                let number = self.value(operand)?.as_number().and_then(i64::checked_neg);
                Value::Number(number.ok_or_else(|| Failure::new("cannot negate: not a number"))?)
            }
            Expression::Operation(..) => self.operation(expression)?,
        })
    }

    /// `a . b . c` is as deep as it is long, so its left sides are not visited by recursion.
    fn operation(&mut self, expression: &Expression) -> Result<Value, Failure> {
        let (mut leftmost, mut pending) = (expression, Vec::new());
        while let Expression::Operation(operator, left, right) = leftmost {
            pending.push((*operator, right));
            leftmost = left;
        }
        let mut value = self.value(leftmost)?;
        while let Some((operator, right)) = pending.pop() {
            let right = self.value(right)?;
            value = operators::apply(operator, &value, &right)?;
        }
        Ok(value)
    }

    /// Inside a condition a property hides a variable of the same name, a known trap of the language:
    /// `:local slot "x"; /disk find slot=$slot` finds every disk.
    fn variable(&self, name: &str) -> Value {
        match &self.item {
            Some((menu, item)) if menu.property(name).is_some() => {
                item.property(name).unwrap_or(Value::Nothing)
            }
            Some(_) | None => self.scopes.read(name),
        }
    }

    fn command(&mut self, command: &Command) -> Result<Value, Failure> {
        match command {
            Command::Function { name, arguments, to_json } => {
                let mut values = Vec::with_capacity(arguments.len());
                for argument in arguments {
                    values.push(self.value(argument)?);
                }
                builtins::call(*name, &values, *to_json, self.session.dialect().numbers)
            }
            Command::Menu(command) => self.apart(|machine| machine.menu_command(command)),
            Command::Call { name, arguments } => {
                let function = self.variable(name);
                let mut given = Vec::with_capacity(arguments.len());
                let mut position = 0;
                for (key, argument) in arguments {
                    let value = self.value(argument)?;
                    let key = key.clone().unwrap_or_else(|| {
                        position += 1;
                        position.to_string()
                    });
                    given.push((key, value));
                }
                self.apart(|machine| machine.call(name, &function, given))
            }
        }
    }

    /// Inside a condition, a command is not about the item of that condition.
    fn apart<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> T {
        let item = self.item.take();
        let result = work(self);
        self.item = item;
        result
    }

    /// Runs a function, which knows its arguments and no variable of its caller.
    fn call(
        &mut self,
        name: &str,
        function: &Value,
        arguments: Vec<(String, Value)>,
    ) -> Result<Value, Failure> {
        let Value::Code(code) = function else {
            return Err(Failure::new(format!("variable {name} is no function")));
        };
        if self.calls == DEEPEST_CALL {
            return Err(Failure::new("maximum recursion depth reached"));
        }
        self.calls += 1;
        let outside = self.scopes.wall_off(arguments);
        let ended = self.block(code.statements());
        self.scopes.restore(outside);
        self.calls -= 1;
        match ended {
            Ok(()) => Ok(Value::Nothing),
            Err(Stop::Return(value)) => Ok(value),
            Err(Stop::Failure(failure)) => Err(failure),
        }
    }
}
