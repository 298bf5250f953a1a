//! A prompt for a person, or lines from a pipe.

use std::sync::Arc;

use russh::ChannelId;
use russh::server::Handle;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Server;
use super::connection::{OpenChannel, close};
use crate::simulator::console::Console;

/// Who is at the other end of a shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Terminal {
    /// A pipe: no prompt, no echo.
    None,
    /// A person at a terminal, who wants to see what is typed.
    Person,
}

pub(super) struct Shell {
    pub(super) server: Arc<Server>,
    pub(super) connection: u64,
    pub(super) cut: CancellationToken,
    pub(super) user: String,
    pub(super) open: OpenChannel,
    pub(super) handle: Handle,
    pub(super) channel: ChannelId,
}

impl Shell {
    pub(super) async fn run(self, mut keys: mpsc::Receiver<Vec<u8>>) {
        let mut console = self.server.console();
        let mut editor = Editor::new(self.open.terminal);
        self.prompt(&console).await;
        'typing: while let Some(typed) = keys.recv().await {
            for event in editor.type_in(&typed) {
                match event {
                    Event::Echo(text) => self.send(text.into_bytes()).await,
                    Event::Leave => break 'typing,
                    Event::Line(line) if matches!(line.trim(), "quit" | "/quit") => break 'typing,
                    Event::Line(line) => match self.execute(console, line).await {
                        Some(after) => console = after,
                        None => return self.cut.cancel(),
                    },
                }
            }
        }
        close(&self.handle, self.channel).await;
    }

    async fn execute(&self, mut console: Console, line: String) -> Option<Console> {
        if !line.trim().is_empty() {
            let arrival = self.server.journal.received(self.connection, &line);
            let (after, output) = self.server.run(console, arrival, line).await?;
            self.send(output).await;
            console = after;
        }
        self.prompt(&console).await;
        Some(console)
    }

    async fn prompt(&self, console: &Console) {
        if self.open.terminal == Terminal::Person {
            self.send(console.prompt(&self.user).into_bytes()).await;
        }
    }

    async fn send(&self, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            // A client that left sees nothing; its keystrokes end then, too.
            let _ = self.handle.data(self.channel, bytes).await;
        }
    }
}

/// Keystrokes become lines.
struct Editor {
    terminal: Terminal,
    line: Vec<u8>,
    after_return: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Event {
    Echo(String),
    Line(String),
    Leave,
}

impl Editor {
    fn new(terminal: Terminal) -> Self {
        Self { terminal, line: Vec::new(), after_return: false }
    }

    fn type_in(&mut self, keys: &[u8]) -> Vec<Event> {
        let mut events = Vec::new();
        for key in keys {
            let second_half = std::mem::replace(&mut self.after_return, *key == b'\r');
            match *key {
                // CRLF is one end of line.
                b'\n' if second_half => {}
                b'\r' | b'\n' => {
                    self.echo(&mut events, "\r\n");
                    events.push(Event::Line(self.take()));
                }
                0x03 => {
                    self.line.clear();
                    self.echo(&mut events, "^C\r\n");
                    events.push(Event::Line(String::new()));
                }
                0x04 if self.line.is_empty() => {
                    self.echo(&mut events, "\r\n");
                    events.push(Event::Leave);
                }
                0x08 | 0x7f => {
                    if self.line.pop().is_some() {
                        self.echo(&mut events, "\x08 \x08");
                    }
                }
                0x00..=0x1f => {}
                other => {
                    self.line.push(other);
                    self.echo(&mut events, &String::from_utf8_lossy(&[other]));
                }
            }
        }
        events
    }

    fn take(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.line)).into_owned()
    }

    fn echo(&self, events: &mut Vec<Event>, text: &str) {
        if self.terminal == Terminal::Person {
            match events.last_mut() {
                Some(Event::Echo(before)) => before.push_str(text),
                _ => events.push(Event::Echo(text.to_owned())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Event {
        Event::Line(text.to_owned())
    }

    #[test]
    fn a_person_sees_what_is_typed_and_may_correct_it() {
        let mut editor = Editor::new(Terminal::Person);
        let events = editor.type_in(b"/dist\x7fk\r");
        assert_eq!(events, [Event::Echo("/dist\x08 \x08k\r\n".to_owned()), line("/disk")]);
        assert_eq!(editor.type_in(b"abc\x03"), [Event::Echo("abc^C\r\n".to_owned()), line("")]);
        assert!(editor.type_in(b"\x04").contains(&Event::Leave));
    }

    #[test]
    fn a_pipe_gets_no_echo_and_any_end_of_line() {
        let mut editor = Editor::new(Terminal::None);
        assert_eq!(editor.type_in(b"a\r\nb\nc"), [line("a"), line("b")]);
        assert_eq!(editor.type_in(b"\r"), [line("c")]);
        assert_eq!(editor.type_in(b"\n"), []);
    }
}
