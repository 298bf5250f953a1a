//! Expressions: operators, strings with what `$` puts into them, arrays, and the conditions of `where`.

use super::ast::{Expression, Operator};
use super::parse::{Parser, Result, SyntaxError};
use super::reader::is_name;
use super::value::Value;
use crate::simulator::menus::Menu;

/// How many operators may follow each other: each puts what is left of it one deeper.
const LONGEST_CHAIN: usize = 1000;

/// What an unquoted word means: in a condition it may name a property of the item looked at.
#[derive(Clone, Copy)]
enum Words {
    Literals,
    PropertiesOf(Menu),
}

impl Parser<'_> {
    /// The condition of `find` or `where`: comparisons side by side must all hold.
    pub(super) fn condition(&mut self, menu: Menu) -> Result<Expression> {
        let mut condition = self.operation(0, Words::PropertiesOf(menu))?;
        for _ in 0..LONGEST_CHAIN {
            self.reader.skip_space();
            if matches!(self.reader.peek(), None | Some(';' | ']' | ')' | '}')) {
                return Ok(condition);
            }
            let next = self.operation(0, Words::PropertiesOf(menu))?;
            condition = Expression::Operation(Operator::And, Box::new(condition), Box::new(next));
        }
        self.syntax()
    }

    /// Precedence climbing: takes operators that bind at least as tightly as `weakest`.
    fn operation(&mut self, weakest: u8, words: Words) -> Result<Expression> {
        let mut left = self.nested(|parser| parser.unary(words))?;
        for _ in 0..LONGEST_CHAIN {
            self.reader.skip_space();
            let mut ahead = self.reader.clone();
            let Some((operator, binding)) = operator(&mut ahead) else { return Ok(left) };
            if binding < weakest {
                return Ok(left);
            }
            self.reader = ahead;
            let right = match words {
                Words::PropertiesOf(_) if operator.compares() => self.compared()?,
                _ => self.operation(binding + 1, words)?,
            };
            left = Expression::Operation(operator, Box::new(left), Box::new(right));
        }
        self.syntax()
    }

    /// The right side of a comparison in a condition, where `slot=pvc-x` needs no quotes.
    fn compared(&mut self) -> Result<Expression> {
        let value = match self.value()? {
            Expression::Word(word) => Expression::Literal(Value::Text(word)),
            other => other,
        };
        self.elements(value)
    }

    fn unary(&mut self, words: Words) -> Result<Expression> {
        self.reader.skip_space();
        if self.reader.eat("!") || self.reader.eat_word("not") {
            return Ok(Expression::Not(Box::new(self.nested(|parser| parser.unary(words))?)));
        }
        if self.reader.eat("-") {
            return Ok(Expression::Negative(Box::new(self.nested(|parser| parser.unary(words))?)));
        }
        let operand = match (self.reader.peek(), words) {
            (Some('('), Words::PropertiesOf(menu)) => {
                self.reader.next();
                let inner = self.condition(menu)?;
                self.expect(")")?;
                inner
            }
            (Some('"' | '$' | '[' | '(' | '{'), _) => self.primary()?,
            (Some(_), Words::PropertiesOf(menu)) => {
                let column = self.reader.column();
                let name = self.reader.take_while(is_name);
                let unknown = SyntaxError::ExpectedEnd(column);
                Expression::Property(menu.property(name).ok_or(unknown)?)
            }
            (Some(_), Words::Literals) => {
                let mut ahead = self.reader.clone();
                let value = Value::word(ahead.take_while(|c| c.is_ascii_alphanumeric()));
                if !matches!(value, Value::Number(_) | Value::Bool(_)) {
                    return self.syntax();
                }
                self.reader = ahead;
                Expression::Literal(value)
            }
            (None, _) => return self.syntax(),
        };
        self.elements(operand)
    }

    /// `array->key`, as often as it follows.
    fn elements(&mut self, mut operand: Expression) -> Result<Expression> {
        for _ in 0..LONGEST_CHAIN {
            if !self.reader.eat("->") {
                return Ok(operand);
            }
            let key = self.key()?;
            operand = Expression::Operation(Operator::Element, Box::new(operand), Box::new(key));
        }
        self.syntax()
    }

    /// What stands behind `->`; a key with other than letters and digits needs quotes.
    fn key(&mut self) -> Result<Expression> {
        if matches!(self.reader.peek(), Some('"' | '$' | '[' | '(')) {
            return self.nested(Self::primary);
        }
        let word = self.reader.take_while(|c| c.is_ascii_alphanumeric());
        if word.is_empty() { self.syntax() } else { Ok(Expression::Literal(Value::word(word))) }
    }

    /// Anything that shows what it is by its first character.
    pub(super) fn primary(&mut self) -> Result<Expression> {
        match self.reader.peek() {
            Some('"') => self.string(),
            Some('[') => Ok(Expression::Command(Box::new(self.substitution()?))),
            Some('{') => self.array(),
            Some('$') => {
                self.reader.next();
                self.variable()
            }
            Some('(') => {
                self.reader.next();
                let inner = self.operation(0, Words::Literals)?;
                self.expect(")")?;
                Ok(inner)
            }
            _ => self.syntax(),
        }
    }

    /// A variable's name after its `$`; names of other than letters and digits stand in quotes.
    fn variable(&mut self) -> Result<Expression> {
        let name = if self.reader.eat("\"") {
            let name = self.reader.take_while(|c| c != '"');
            self.expect("\"")?;
            name
        } else {
            self.reader.take_while(|c| c.is_ascii_alphanumeric())
        };
        if name.is_empty() { self.syntax() } else { Ok(Expression::Variable(name.to_owned())) }
    }

    /// `{1;2}`, `{"a"=1;"b"=2}`
    fn array(&mut self) -> Result<Expression> {
        self.expect("{")?;
        let mut elements = Vec::new();
        loop {
            self.reader.skip_space();
            if self.reader.eat("}") {
                return Ok(Expression::Array(elements));
            }
            let value = self.value()?;
            if self.reader.eat("=") {
                let (Expression::Word(key) | Expression::Literal(Value::Text(key))) = value else {
                    return self.syntax();
                };
                elements.push((Some(key), self.value()?));
            } else {
                elements.push((None, value));
            }
            self.reader.skip_space();
            if !self.reader.eat(";") && self.reader.peek() != Some('}') {
                return self.syntax();
            }
        }
    }

    fn string(&mut self) -> Result<Expression> {
        self.expect("\"")?;
        let mut pieces = Vec::new();
        let mut text = Vec::new();
        loop {
            let before = self.reader.clone();
            match self.reader.next() {
                None => return self.syntax(),
                Some('"') => break,
                Some('\\') => text.push(self.escape()?),
                Some('$') => {
                    pieces.push(literal(&std::mem::take(&mut text)));
                    pieces.push(match self.reader.peek() {
                        Some('[' | '(') => self.nested(Self::primary)?,
                        _ => self.variable()?,
                    });
                }
                Some(c) if c.is_control() => {
                    self.reader = before;
                    return self.syntax();
                }
                Some(c) => text.extend(c.encode_utf8(&mut [0; 4]).bytes()),
            }
        }
        let tail = literal(&text);
        if pieces.is_empty() {
            return Ok(tail);
        }
        pieces.push(tail);
        Ok(Expression::Joined(pieces))
    }

    /// What follows a backslash in a string: one byte, so that `\C3\BC` is one letter.
    fn escape(&mut self) -> Result<u8> {
        let mut ahead = self.reader.clone();
        let escaped = match ahead.next() {
            Some('"') => b'"',
            Some('\\') => b'\\',
            Some('$') => b'$',
            Some('?') => b'?',
            Some('n') => b'\n',
            Some('r') => b'\r',
            Some('t') => b'\t',
            Some('_') => b' ',
            Some('a') => 0x07,
            Some('b') => 0x08,
            Some('f') => 0x0c,
            Some('v') => 0x0b,
            Some(high) => match (hexadecimal(high), ahead.next().and_then(hexadecimal)) {
                (Some(high), Some(low)) => high * 16 + low,
                _ => return self.syntax(),
            },
            None => return self.syntax(),
        };
        self.reader = ahead;
        Ok(escaped)
    }
}

fn literal(bytes: &[u8]) -> Expression {
    Expression::Literal(Value::Text(String::from_utf8_lossy(bytes).into_owned()))
}

/// Hexadecimal digits of an escape are capitals.
fn hexadecimal(digit: char) -> Option<u8> {
    match digit {
        '0'..='9' => Some(digit as u8 - b'0'),
        'A'..='F' => Some(digit as u8 - b'A' + 10),
        _ => None,
    }
}

/// The operator that comes next, and how tightly it binds.
fn operator(reader: &mut super::reader::Reader<'_>) -> Option<(Operator, u8)> {
    const WORDS: [(&str, Operator, u8); 3] =
        [("or", Operator::Or, 1), ("and", Operator::And, 2), ("in", Operator::In, 3)];
    const SIGNS: [(&str, Operator, u8); 16] = [
        ("||", Operator::Or, 1),
        ("&&", Operator::And, 2),
        ("->", Operator::Element, 9),
        ("!=", Operator::NotEqual, 4),
        ("<=", Operator::LessOrEqual, 4),
        (">=", Operator::GreaterOrEqual, 4),
        ("=", Operator::Equal, 4),
        ("<", Operator::Less, 4),
        (">", Operator::Greater, 4),
        ("~", Operator::Matches, 4),
        (".", Operator::Concatenate, 5),
        ("+", Operator::Add, 6),
        ("-", Operator::Subtract, 6),
        ("*", Operator::Multiply, 7),
        ("/", Operator::Divide, 7),
        ("%", Operator::Remainder, 7),
    ];
    if let Some((_, operator, binding)) = WORDS.iter().find(|(word, ..)| reader.eat_word(word)) {
        return Some((*operator, *binding));
    }
    SIGNS.iter().find(|(sign, ..)| reader.eat(sign)).map(|(_, operator, binding)| (*operator, *binding))
}

impl Operator {
    fn compares(self) -> bool {
        matches!(
            self,
            Self::Equal
                | Self::NotEqual
                | Self::Less
                | Self::Greater
                | Self::LessOrEqual
                | Self::GreaterOrEqual
                | Self::Matches
        )
    }
}
