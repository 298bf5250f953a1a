//! Menu commands: where they are in the tree of menus, and which arguments they take.

use super::ast::{Expression, MenuCommand};
use super::parse::{Parser, Result, SyntaxError};
use super::reader::is_name;
use super::value::Value;
use crate::simulator::menus::{Kind, Menu, Parameter, Place, Shape, Verb};

const PROPLIST: &str = "proplist";

impl Parser<'_> {
    /// A path with a command, such as `/disk btrfs/subvolume/add …`; none if it only enters a menu.
    pub(super) fn menu_command(&mut self) -> Result<Option<MenuCommand>> {
        let before = self.place.clone();
        if self.reader.eat("/") {
            self.place = Place::default();
        }
        loop {
            self.reader.skip_space();
            let column = self.reader.column();
            let word = self.reader.take_while(is_name);
            if let Some(inner) = self.place.enter(word, self.version) {
                self.place = inner;
            } else if let Some((menu, verb)) =
                self.place.menu(self.version).and_then(|m| Some((m, m.verb(word)?)))
            {
                let command = self.arguments(menu, verb)?;
                // A path alone enters the menu; a command only visits it.
                self.place = before;
                return Ok(Some(command));
            } else if word.is_empty() && self.at_end_of_command() {
                return Ok(None);
            } else if word.is_empty() {
                return self.syntax();
            } else {
                return Err(SyntaxError::BadCommand { name: word.to_owned(), column });
            }
            self.reader.eat("/");
        }
    }

    fn arguments(&mut self, menu: Menu, verb: Verb) -> Result<MenuCommand> {
        // Inside brackets of this command, `find` alone is this menu's.
        let outside = std::mem::replace(&mut self.place, Place::of(menu));
        let mut command = MenuCommand {
            menu,
            verb,
            items: None,
            property: None,
            arguments: Vec::new(),
            flags: Vec::new(),
            condition: None,
        };
        while !self.at_end_of_command() {
            self.argument(&mut command)?;
        }
        let needs_items = menu.shape() == Shape::List && matches!(verb, Verb::Set | Verb::Remove | Verb::Get);
        if needs_items && command.items.is_none() {
            return self.syntax();
        }
        self.place = outside;
        Ok(command)
    }

    fn argument(&mut self, command: &mut MenuCommand) -> Result<()> {
        let (menu, verb) = (command.menu, command.verb);
        let column = self.reader.column();
        let mut ahead = self.reader.clone();
        let name = ahead.take_while(is_name);
        let assigned = ahead.eat("=");

        if verb == Verb::Find || (verb == Verb::Print && name == "where" && !assigned) {
            if name == "where" {
                self.reader = ahead;
            }
            command.condition = Some(self.condition(menu)?);
            return Ok(());
        }
        if assigned {
            if name == "numbers" && takes_items(menu, verb) {
                self.reader = ahead;
                command.items = Some(self.value()?);
                return Ok(());
            }
            if name == "value-name" && verb == Verb::Get {
                self.reader = ahead;
                return self.property(command);
            }
            let Some(parameter) = menu.parameter(verb, name, self.version) else {
                return Err(SyntaxError::ExpectedEnd(column));
            };
            if command.arguments.iter().any(|(given, _)| given.name == name) {
                return Err(SyntaxError::ExpectedEnd(column));
            }
            self.reader = ahead;
            let value = self.value()?;
            check(parameter, &value)?;
            if parameter.name == PROPLIST {
                check_list(menu, &value)?;
            }
            command.arguments.push((parameter, value));
            return Ok(());
        }
        if let Some(flag) = verb.flag(name) {
            self.reader = ahead;
            command.flags.push(flag);
            return Ok(());
        }
        if takes_items(menu, verb) && command.items.is_none() {
            command.items = Some(self.value()?);
            return Ok(());
        }
        if verb == Verb::Get && command.property.is_none() && !name.is_empty() {
            return self.property(command);
        }
        Err(SyntaxError::ExpectedEnd(column))
    }

    /// The property that `get` reads.
    fn property(&mut self, command: &mut MenuCommand) -> Result<()> {
        let known = command.menu.property(self.reader.take_while(is_name));
        command.property = Some(known.ok_or_else(|| SyntaxError::NoMatch("value-name".to_owned()))?);
        Ok(())
    }
}

/// Properties that a line names itself are looked up while it is read.
fn check_list(menu: Menu, value: &Expression) -> Result<()> {
    let (Expression::Literal(Value::Text(list)) | Expression::Word(list)) = value else { return Ok(()) };
    let known = list.split(',').all(|name| menu.property(name).is_some());
    if known { Ok(()) } else { Err(SyntaxError::NoMatch(PROPLIST.to_owned())) }
}

fn takes_items(menu: Menu, verb: Verb) -> bool {
    menu.shape() == Shape::List && matches!(verb, Verb::Set | Verb::Remove | Verb::Get | Verb::MonitorTraffic)
}

/// Literal values are checked while reading; computed ones only when the command runs.
fn check(parameter: &Parameter, value: &Expression) -> Result<()> {
    let accepted = match value {
        Expression::Literal(value) => parameter.kind.read(value),
        Expression::Word(word) => parameter.kind.read(&Value::text(word)),
        _ => return Ok(()),
    };
    if accepted.is_some() {
        return Ok(());
    }
    Err(match parameter.kind {
        Kind::Choice(_) => SyntaxError::NoMatch(parameter.name.to_owned()),
        Kind::Text | Kind::Number(..) | Kind::Size | Kind::YesNo | Kind::Time | Kind::Item => {
            SyntaxError::InvalidValue(parameter.name.to_owned())
        }
    })
}
