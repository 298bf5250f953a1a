//! Several calls in one command line, each in a frame of its own, and their answers told apart again.
//!
//! A frame reports with a nonce that is made when the line is, so that nothing which is stored on the array, and nothing that
//! another call prints, can pass for its report.

use std::sync::Arc;

use uuid::Uuid;

use super::call::Call;
use crate::array::routeros::reply::{self, Reply};

/// What tells a frame's own report from everything else in an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Nonce(String);

impl Nonce {
    /// 122 random bits, in as few characters as a line can spare.
    pub(super) fn fresh() -> Self {
        const DIGITS: &[u8; 64] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-_";
        let mut rest = Uuid::new_v4().as_u128();
        let digit = |_| {
            let digit = DIGITS[(rest % 64) as usize];
            rest /= 64;
            char::from(digit)
        };
        Self((0..22).map(digit).collect())
    }

    /// The last line of a frame that ran to its end.
    pub(super) fn done(&self) -> String {
        format!("OK {}", self.0)
    }

    /// What stands before the message of a frame that failed.
    pub(super) fn failed(&self) -> String {
        format!("ERR {} ", self.0)
    }
}

/// What stands behind that message, since it may have several lines. One that holds this itself is cut short there.
const END_OF_MESSAGE: &str = " END";

/// The calls of one command line, as it grows.
#[derive(Default)]
pub(super) struct Batch {
    functions: Vec<Function>,
    frames: Vec<String>,
    expected: Vec<Expected>,
    length: usize,
}

struct Function {
    operation: &'static str,
    body: Arc<str>,
    /// As this line calls it: two bodies of one operation have two names.
    name: String,
    text: String,
}

/// A frame that is to report.
struct Expected {
    nonce: Nonce,
    limit: usize,
}

/// Between two statements.
const SEPARATOR: &str = "; ";

impl Batch {
    /// Adds a call.
    pub(super) fn push(&mut self, call: &Call) {
        let addition = self.addition(call);
        self.add(addition);
    }

    /// Adds a call if the line is no longer than `limit` with it.
    pub(super) fn push_within(&mut self, call: &Call, limit: usize) -> bool {
        let addition = self.addition(call);
        let fits = self.length + addition.length() <= limit;
        if fits {
            self.add(addition);
        }
        fits
    }

    /// What is sent.
    pub(super) fn text(&self) -> String {
        let functions = self.functions.iter().map(|function| function.text.as_str());
        functions.chain(self.frames.iter().map(String::as_str)).collect::<Vec<_>>().join(SEPARATOR)
    }

    /// What its answer is read with.
    pub(super) fn answers(self) -> Answers {
        Answers::to(self.expected)
    }

    fn addition(&self, call: &Call) -> Addition {
        let same = |function: &&Function| function.operation == call.name && *function.body == *call.body;
        let known = self.functions.iter().find(same);
        let function = known.is_none().then(|| self.function(call));
        let name = known.or(function.as_ref()).map_or(call.name, |function| &function.name);
        let nonce = Nonce::fresh();
        let frame = format!(
            ":onerror e in={{${name} {arguments}; :put \"{done}\"}} do={{:put (\"{failed}\" . $e . \"{END_OF_MESSAGE}\")}}",
            arguments = call.arguments,
            done = nonce.done(),
            failed = nonce.failed(),
        );
        Addition { function, frame, expected: Expected { nonce, limit: call.answer_limit } }
    }

    fn function(&self, call: &Call) -> Function {
        let namesakes = self.functions.iter().filter(|function| function.operation == call.name).count();
        // Letters only, whatever else a name might hold.
        let name = format!("{}{}", call.name, "X".repeat(namesakes));
        let text = format!(":local {name} do={{{}}}", call.body);
        Function { operation: call.name, body: Arc::clone(&call.body), name, text }
    }

    fn add(&mut self, addition: Addition) {
        self.length += addition.length();
        self.functions.extend(addition.function);
        self.frames.push(addition.frame);
        self.expected.push(addition.expected);
    }
}

/// What a line would have more by one call.
struct Addition {
    function: Option<Function>,
    frame: String,
    expected: Expected,
}

impl Addition {
    fn length(&self) -> usize {
        let function = self.function.as_ref().map_or(0, |function| function.text.len() + SEPARATOR.len());
        function + self.frame.len() + SEPARATOR.len()
    }
}

/// The answer to a line, told apart as it comes.
pub(super) struct Answers {
    frames: Vec<Expected>,
    /// The first of them that has not reported yet.
    next: usize,
    /// What was printed since the report before.
    printed: String,
    /// More was printed than may be.
    flooded: bool,
    /// The message of a report whose end has not come yet.
    message: Option<String>,
    /// The beginning of a line.
    line: Vec<u8>,
    /// RouterOS complains about a line that it cannot read before anything of it runs, frames included. Only a complaint
    /// that begins the answer is that; the same words further down may be data.
    opening: Opening,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Opening {
    Nothing,
    Complaint,
    Other,
}

impl Answers {
    fn to(frames: Vec<Expected>) -> Self {
        Self {
            frames,
            next: 0,
            printed: String::new(),
            flooded: false,
            message: None,
            line: Vec::new(),
            opening: Opening::Nothing,
        }
    }

    /// Reads what came next. Each call that it decides is told with its place in the line, once.
    pub(super) fn read(&mut self, chunk: &[u8], mut told: impl FnMut(usize, Reply)) {
        for piece in chunk.split_inclusive(|byte| *byte == b'\n') {
            let room = self.room().saturating_sub(self.line.len());
            self.flooded |= piece.len() > room;
            self.line.extend_from_slice(&piece[..piece.len().min(room)]);
            if piece.ends_with(b"\n") {
                self.end_line(&mut told);
            }
        }
    }

    /// Nothing more comes: how the calls ended that were not told yet.
    pub(super) fn end(mut self, mut told: impl FnMut(usize, Reply)) {
        self.end_line(&mut told);
        self.end_message(&mut told);
        let not_understood = self.next == 0 && self.opening == Opening::Complaint;
        while self.next < self.frames.len() {
            let text = reply::kept(&self.printed);
            if not_understood {
                self.tell(Reply::NotUnderstood(text), &mut told);
            } else {
                self.tell(Reply::Unknown(text), &mut told);
                self.printed.clear();
            }
        }
    }

    /// How long a line may be, and what a call prints. A report always has room.
    fn room(&self) -> usize {
        self.frames.get(self.next).map_or(0, |frame| frame.limit).max(4096)
    }

    fn end_line(&mut self, told: &mut impl FnMut(usize, Reply)) {
        let line = std::mem::take(&mut self.line);
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end();
        if text.is_empty() {
            return;
        }
        if self.opening == Opening::Nothing {
            let complaint = reply::is_syntax_complaint(text);
            self.opening = if complaint { Opening::Complaint } else { Opening::Other };
        }
        let reporting = (self.next..self.frames.len()).find_map(|at| {
            let nonce = &self.frames[at].nonce;
            let failure = || text.strip_prefix(&nonce.failed()).map(|message| (at, Report::Failed(message)));
            if text == nonce.done() { Some((at, Report::Done)) } else { failure() }
        });
        match (reporting, &mut self.message) {
            (None, Some(message)) => {
                message.push('\n');
                message.push_str(text);
                self.end_message_at_its_mark(told);
            }
            (None, None) => self.print(text),
            (Some((at, report)), _) => {
                self.end_message(told);
                self.report(at, &report, told);
            }
        }
    }

    fn print(&mut self, text: &str) {
        if self.printed.len() + text.len() > self.room() {
            self.flooded = true;
            return;
        }
        if !self.printed.is_empty() {
            self.printed.push('\n');
        }
        self.printed.push_str(text);
    }

    fn report(&mut self, at: usize, report: &Report<'_>, told: &mut impl FnMut(usize, Reply)) {
        // Whose report is missing has not run, or has, and what was printed may be its own or that of the next.
        let passed_over = self.next < at;
        while self.next < at {
            self.tell(Reply::Unknown(reply::kept(&self.printed)), told);
        }
        match report {
            Report::Done if passed_over || self.flooded => {
                self.tell(Reply::Unknown(reply::kept(&self.printed)), told);
            }
            Report::Done => {
                let printed = std::mem::take(&mut self.printed);
                self.tell(Reply::Done(printed), told);
            }
            Report::Failed(message) => {
                self.message = Some((*message).to_owned());
                self.end_message_at_its_mark(told);
            }
        }
        self.printed.clear();
        self.flooded = false;
    }

    fn end_message_at_its_mark(&mut self, told: &mut impl FnMut(usize, Reply)) {
        // A report behind which no mark ever comes is kept no longer than an answer may be.
        let ends = |message: &String| message.ends_with(END_OF_MESSAGE) || message.len() > 4096;
        if self.message.as_ref().is_some_and(ends) {
            self.end_message(told);
        }
    }

    fn end_message(&mut self, told: &mut impl FnMut(usize, Reply)) {
        if let Some(message) = self.message.take() {
            let message = message.strip_suffix(END_OF_MESSAGE).unwrap_or(&message);
            self.tell(Reply::failed(message), told);
        }
    }

    fn tell(&mut self, reply: Reply, told: &mut impl FnMut(usize, Reply)) {
        told(self.next, reply);
        self.next += 1;
    }
}

/// What a line of an answer says of a frame.
enum Report<'a> {
    Done,
    /// The message, or its first line.
    Failed(&'a str),
}

#[cfg(test)]
mod tests;
