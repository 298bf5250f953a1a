//! Commands of menus as they run: which items they are for, what they do to them, and what they show.

use super::Machine;
use crate::simulator::device::Item;
use crate::simulator::menus::{Arguments, Menu, Shape, Verb};
use crate::simulator::print;
use crate::simulator::script::ast::{Expression, MenuCommand, Operator};
use crate::simulator::script::failure::Failure;
use crate::simulator::script::value::{ItemId, Value};

impl Machine<'_> {
    pub(super) fn menu_command(&mut self, command: &MenuCommand) -> Result<Value, Failure> {
        let mut arguments = Arguments::default();
        for (parameter, expression) in &command.arguments {
            let value = match expression {
                Expression::Word(word) => Value::text(word),
                other => self.value(other)?,
            };
            let fitting = parameter.kind.read(&value);
            arguments.push(parameter, fitting.ok_or_else(|| Failure::invalid(parameter.name))?);
        }
        // A command in brackets is no statement of its own.
        self.go_on()?;
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
            Verb::Add => {
                self.session.changing();
                self.go_on()?;
                let made = self.session.add(menu, &arguments)?;
                self.session.changed();
                Ok(Value::Id(made))
            }
            Verb::Set | Verb::Remove => {
                let items = self.items(command)?;
                if !items.is_empty() {
                    self.session.changing();
                    self.go_on()?;
                }
                for id in &items {
                    match command.verb {
                        Verb::Set => self.session.set(menu, *id, &arguments)?,
                        _ => self.session.remove(menu, *id)?,
                    }
                }
                if !items.is_empty() {
                    self.session.changed();
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
        if command.flags.contains(&"stats") {
            items.iter_mut().for_each(Item::show_counters);
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
        let Some(condition) = condition else { return self.session.items(menu) };
        let items = match self.wanted_name(menu, condition) {
            Some(name) => self.session.items_called(menu, &name)?,
            None => self.session.items(menu)?,
        };
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

    /// The name that an item must have to meet a condition, if the condition says so plainly.
    fn wanted_name(&self, menu: Menu, condition: &Expression) -> Option<String> {
        let Expression::Operation(operator, left, right) = condition else { return None };
        match (operator, &**left, &**right) {
            (Operator::And, left, right) => {
                self.wanted_name(menu, left).or_else(|| self.wanted_name(menu, right))
            }
            (Operator::Equal, Expression::Property(property), right) if *property == menu.name_property() => {
                let value = match right {
                    Expression::Literal(value) => value.clone(),
                    Expression::Variable(name) if menu.property(name).is_none() => self.scopes.read(name),
                    _ => return None,
                };
                // Only texts are equal to nothing but themselves.
                if let Value::Text(name) = value { Some(name) } else { None }
            }
            _ => None,
        }
    }

    fn single_item(&mut self, command: &MenuCommand) -> Result<Item, Failure> {
        if command.menu.shape() == Shape::Single {
            return self.session.items(command.menu)?.pop().ok_or_else(Failure::no_such_item);
        }
        match self.items(command)?.as_slice() {
            [id] => self.session.item(command.menu, *id),
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
        let wanted: Vec<Value> = match wanted {
            Value::Array(elements) => elements.into_iter().map(|(_, value)| value).collect(),
            Value::Nothing => Vec::new(),
            single => vec![single],
        };
        let resolve = |value: &Value| {
            if let Value::Id(id) = value {
                return Ok(*id);
            }
            let items = self.session.items(command.menu)?;
            let text = value.to_string();
            let found = items.iter().find(|item| item.id.to_string() == text || item.is_called(&text));
            found.map(|item| item.id).ok_or_else(Failure::no_such_item)
        };
        wanted.iter().map(resolve).collect()
    }
}
