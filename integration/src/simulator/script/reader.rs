//! A place in a line of text, and the lexical pieces that can be read from there.

/// Reads a line from left to right.
#[derive(Debug, Clone)]
pub(super) struct Reader<'line> {
    line: &'line str,
    at: usize,
}

impl<'line> Reader<'line> {
    pub(super) fn new(line: &'line str) -> Self {
        Self { line, at: 0 }
    }

    /// The one-based column of what comes next, as error messages give it.
    pub(super) fn column(&self) -> usize {
        self.at + 1
    }

    fn rest(&self) -> &'line str {
        &self.line[self.at..]
    }

    pub(super) fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    pub(super) fn at_end(&self) -> bool {
        self.peek().is_none()
    }

    pub(super) fn next(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.at += next.len_utf8();
        Some(next)
    }

    /// Takes `expected` if it comes next.
    pub(super) fn eat(&mut self, expected: &str) -> bool {
        let found = self.rest().starts_with(expected);
        if found {
            self.at += expected.len();
        }
        found
    }

    /// Takes the whole word `expected` if it comes next, and not a longer word that begins with it.
    pub(super) fn eat_word(&mut self, expected: &str) -> bool {
        let mut ahead = self.clone();
        let found = ahead.take_while(is_name) == expected;
        if found {
            *self = ahead;
        }
        found
    }

    pub(super) fn skip_space(&mut self) {
        self.take_while(|c| c == ' ' || c == '\t');
    }

    pub(super) fn take_while(&mut self, belongs: impl Fn(char) -> bool) -> &'line str {
        let rest = self.rest();
        let length = rest.find(|c| !belongs(c)).unwrap_or(rest.len());
        self.at += length;
        &rest[..length]
    }
}

/// Letters of menu, command and argument names.
pub(super) fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_')
}

/// Letters of an unquoted value; everything else needs quotes.
pub(super) fn is_bare(c: char) -> bool {
    const SPECIAL: &str = ";[](){}\"$\\=~&|";
    !c.is_whitespace() && !c.is_control() && !SPECIAL.contains(c)
}
