//! Runs statements: variables, control flow, and commands handed on to the device.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::ast::{Block, Command, Expression, MenuCommand, Statement};
use super::failure::Failure;
use super::parse::Script;
use super::value::{ItemId, Value};
use super::{builtins, operators};
use crate::simulator::device::{Item, Session};
use crate::simulator::menus::{Arguments, Menu, Shape, Verb};
use crate::simulator::print;

/// Runs a script to its end or first failure, and returns what it printed, lines ended by CRLF.
pub(crate) fn run(script: &Script, session: &Session) -> String {
    let mut machine = Machine { session, output: String::new(), scopes: Vec::new(), item: None };
    match machine.block(&script.statements) {
        Ok(()) | Err(Stop::Return) => {}
        // Errors are ordinary output here: there is no other stream, and the exit status stays 0.
        Err(Stop::Failure(failure)) => machine.print(&failure.to_string()),
    }
    machine.output
}

/// Why statements after this one do not run.
enum Stop {
    Failure(Failure),
    Return,
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

struct Machine<'run> {
    session: &'run Session,
    output: String,
    scopes: Vec<HashMap<String, Value>>,
    /// The item that a condition is about, and its menu.
    item: Option<(Menu, Item)>,
}

impl Machine<'_> {
    fn print(&mut self, line: &str) {
        self.output.push_str(line);
        self.output.push_str("\r\n");
    }

    fn block(&mut self, statements: &Block) -> Result<(), Stop> {
        self.scopes.push(HashMap::new());
        let result = statements.iter().try_for_each(|statement| self.statement(statement));
        self.scopes.pop();
        result
    }

    fn statement(&mut self, statement: &Statement) -> Result<(), Stop> {
        if self.session.ended() {
            return Err(Failure::new("interrupted").into());
        }
        match statement {
            Statement::Local { name, value } => {
                let value = value.as_ref().map_or(Ok(Value::Nothing), |value| self.value(value))?;
                self.declare(name, value);
            }
            Statement::Set { name, value } => {
                let value = self.value(value)?;
                let declared = self.scopes.iter_mut().rev().find_map(|scope| scope.get_mut(name));
                *declared.ok_or_else(|| Failure::new(format!("variable {name} not defined")))? = value;
            }
            Statement::Put(value) => {
                let text = self.value(value)?.to_string();
                self.print(&text);
            }
            Statement::Error(message) => return Err(Failure::new(self.value(message)?.to_string()).into()),
            Statement::Return(value) => {
                // There are no functions that could be returned from: the script ends, its value is lost.
                self.value(value)?;
                return Err(Stop::Return);
            }
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
                    self.scopes.push(HashMap::from([(name.clone(), Value::Text(failure.to_string()))]));
                    let result = self.block(handler);
                    self.scopes.pop();
                    result?;
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

    fn declare(&mut self, name: &str, value: Value) {
        if let Some(scope) = self.scopes.last_mut() {
            scope.insert(name.to_owned(), value);
        }
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
            let mut scope = HashMap::from([(element.to_owned(), value)]);
            if let Some(key) = key {
                let position = Value::Number(i64::try_from(position).unwrap_or(i64::MAX));
                scope.insert(key.to_owned(), own_key.map_or(position, Value::Text));
            }
            self.scopes.push(scope);
            let result = self.block(body);
            self.scopes.pop();
            result?;
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
        let wait = duration(&text).ok_or_else(|| Failure::invalid("delay-time"))?;
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
            Expression::Operation(operator, left, right) => {
                let (left, right) = (self.value(left)?, self.value(right)?);
                operators::apply(*operator, &left, &right)?
            }
        })
    }

    /// Inside a condition a property hides a variable of the same name, a known trap of the language:
    /// `:local slot "x"; /disk find slot=$slot` finds every disk.
    fn variable(&self, name: &str) -> Value {
        let variable = || self.scopes.iter().rev().find_map(|scope| scope.get(name)).cloned();
        let value = match &self.item {
            Some((menu, item)) if menu.property(name).is_some() => item.property(name),
            Some(_) | None => variable(),
        };
        value.unwrap_or(Value::Nothing)
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
            Command::Menu(command) => {
                // A command inside a condition is not about the item of that condition.
                let item = self.item.take();
                let result = self.menu_command(command);
                self.item = item;
                result
            }
        }
    }

    fn menu_command(&mut self, command: &MenuCommand) -> Result<Value, Failure> {
        let mut arguments = Arguments::default();
        for (parameter, expression) in &command.arguments {
            let value = match expression {
                Expression::Word(word) => Value::text(word),
                other => self.value(other)?,
            };
            let fitting = parameter.kind.read(&value);
            arguments.push(parameter, fitting.ok_or_else(|| Failure::invalid(parameter.name))?);
        }
        let menu = command.menu;
        match command.verb {
            Verb::Find => {
                let found = self.matching(menu, command.condition.as_ref())?;
                Ok(Value::list(found.iter().map(|item| Value::Id(item.id))))
            }
            Verb::Print => self.show(command, &arguments),
            Verb::Get => {
                let item = self.single_item(command)?;
                Ok(match command.property {
                    Some(property) => item.property(property).unwrap_or(Value::Nothing),
                    None => item.as_value(),
                })
            }
            Verb::Add => self.session.add(menu, &arguments).map(Value::Id),
            Verb::Set | Verb::Remove => {
                for id in self.items(command)? {
                    match command.verb {
                        Verb::Set => self.session.set(menu, id, &arguments)?,
                        _ => self.session.remove(menu, id)?,
                    }
                }
                Ok(Value::Nothing)
            }
            Verb::MonitorTraffic => {
                let item = self.single_item(command)?;
                let rates = print::traffic(&item);
                self.output.push_str(&rates);
                Ok(Value::Nothing)
            }
        }
    }

    /// `print` in its ways: a count, an array, or text for people.
    fn show(&mut self, command: &MenuCommand, arguments: &Arguments) -> Result<Value, Failure> {
        let mut items = self.matching(command.menu, command.condition.as_ref())?;
        if command.flags.contains(&"count-only") {
            let count = Value::Number(i64::try_from(items.len()).unwrap_or(i64::MAX));
            self.print(&count.to_string());
            return Ok(count);
        }
        if let Some(list) = arguments.text("proplist") {
            let wanted: Vec<&str> = list.split(',').collect();
            if wanted.iter().any(|name| command.menu.property(name).is_none()) {
                return Err(Failure::new("input does not match any value of proplist"));
            }
            for item in &mut items {
                item.keep_only(&wanted);
            }
        }
        if command.flags.contains(&"as-value") {
            return Ok(match command.menu.shape() {
                Shape::List => Value::list(items.iter().map(Item::as_value)),
                Shape::Single => items.first().map_or(Value::Nothing, Item::as_value),
            });
        }
        let text = print::for_people(command.menu, &items, command.flags.contains(&"detail"));
        self.output.push_str(&text);
        Ok(Value::Nothing)
    }

    /// The items of a menu that meet a condition, as they were at one moment.
    fn matching(&mut self, menu: Menu, condition: Option<&Expression>) -> Result<Vec<Item>, Failure> {
        let items = self.session.items(menu)?;
        let Some(condition) = condition else { return Ok(items) };
        let mut found = Vec::new();
        for item in items {
            self.item = Some((menu, item));
            let verdict = self.value(condition);
            let item = self.item.take().map(|(_, item)| item);
            // A property alone, as in `where comment`, asks whether it is set.
            let holds = match verdict? {
                Value::Bool(truth) => truth,
                other => other.length() > 0,
            };
            found.extend(item.filter(|_| holds));
        }
        Ok(found)
    }

    fn single_item(&mut self, command: &MenuCommand) -> Result<Item, Failure> {
        let mut items = self.session.items(command.menu)?;
        if command.menu.shape() == Shape::Single {
            return items.pop().ok_or_else(Failure::no_such_item);
        }
        match self.items(command)?.as_slice() {
            [id] => items.into_iter().find(|item| item.id == *id).ok_or_else(Failure::no_such_item),
            [] => Err(Failure::no_such_item()),
            _ => Err(Failure::new("invalid internal item number")),
        }
    }

    /// The items a command is for: ids, or names; an empty list is nothing to do, not an error.
    fn items(&mut self, command: &MenuCommand) -> Result<Vec<ItemId>, Failure> {
        let wanted = match &command.items {
            Some(Expression::Word(word)) => Value::text(word),
            Some(expression) => self.value(expression)?,
            None if command.menu.shape() == Shape::Single => {
                let items = self.session.items(command.menu)?;
                return Ok(items.iter().map(|item| item.id).collect());
            }
            None => return Err(Failure::no_such_item()),
        };
        let wanted = match wanted {
            Value::Array(elements) => elements.into_iter().map(|(_, value)| value).collect(),
            Value::Nothing => Vec::new(),
            single => vec![single],
        };
        let items = self.session.items(command.menu)?;
        let resolve = |value: &Value| {
            let text = value.to_string();
            let found = items.iter().find(|item| item.id.to_string() == text || item.is_called(&text));
            found.map(|item| item.id).ok_or_else(Failure::no_such_item)
        };
        wanted.iter().map(resolve).collect()
    }
}

/// `2`, `2s`, `500ms`
fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let number = number.parse().ok()?;
    match unit {
        "" | "s" => Some(Duration::from_secs(number)),
        "ms" => Some(Duration::from_millis(number)),
        "m" => Some(Duration::from_secs(number * 60)),
        _ => None,
    }
}
