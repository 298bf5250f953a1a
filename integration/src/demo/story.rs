//! How the demo tells what it does: chapters of steps, each with its time, and a table at the end.

use std::fmt::Display;
use std::future::Future;
use std::io::{IsTerminal as _, Write as _, stdout};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

/// How wide a line is before its time.
const WIDTH: usize = 92;

/// A story that is being told on standard output.
#[derive(Debug)]
pub(super) struct Story {
    began: Instant,
    colours: bool,
    chapters: Vec<Chapter>,
}

#[derive(Debug)]
struct Chapter {
    title: &'static str,
    began: Instant,
    took: Option<Duration>,
    finding: String,
}

impl Story {
    pub(super) fn begin(title: &str) -> Self {
        let story = Self { began: Instant::now(), colours: stdout().is_terminal(), chapters: Vec::new() };
        println!("{}\n", story.bold(title));
        story
    }

    /// Begins a chapter.
    pub(super) fn chapter(&mut self, title: &'static str) {
        println!("{}", self.bold(&format!("{}. {title}", self.chapters.len() + 1)));
        self.chapters.push(Chapter { title, began: Instant::now(), took: None, finding: String::new() });
    }

    /// Ends the chapter with what it showed.
    pub(super) fn showed(&mut self, finding: impl Into<String>) {
        if let Some(chapter) = self.chapters.last_mut() {
            chapter.took = Some(chapter.began.elapsed());
            chapter.finding = finding.into();
            println!();
        }
    }

    /// One step: what is done, and how long it took. While it runs, its line stands there without a time.
    pub(super) async fn step<T, E>(&self, what: &str, doing: impl Future<Output = Result<T, E>>) -> Result<T>
    where
        Result<T, E>: anyhow::Context<T, E>,
    {
        print!("   {what:<WIDTH$}");
        // A line that does not show at once is only late.
        let _ = stdout().flush();
        let began = Instant::now();
        let done = doing.await;
        println!("{:>7.2} s", began.elapsed().as_secs_f64());
        done.with_context(|| format!("in the step '{what}'"))
    }

    /// What can be seen after a step.
    pub(super) fn see(&self, what: impl Display) {
        for line in what.to_string().lines().flat_map(wrap) {
            println!("     {}", self.dim(&line));
        }
    }

    /// The table at the end.
    pub(super) fn end(self) {
        println!("{}", self.bold("What was shown"));
        for (number, chapter) in self.chapters.iter().enumerate() {
            let took = chapter.took.unwrap_or_default().as_secs_f64();
            println!("   {}. {:<42} {:<50} {took:>6.1} s", number + 1, chapter.title, chapter.finding);
        }
        println!("   {:<96} {:>6.1} s", "all of it", self.began.elapsed().as_secs_f64());
    }

    fn bold(&self, text: &str) -> String {
        self.styled("1", text)
    }

    fn dim(&self, text: &str) -> String {
        self.styled("2", text)
    }

    fn styled(&self, style: &str, text: &str) -> String {
        if self.colours { format!("\x1b[{style}m{text}\x1b[0m") } else { text.into() }
    }
}

/// Breaks a line between words, so that it stays within the width of the story.
fn wrap(line: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in line.split(' ') {
        let last = lines.len() - 1;
        if lines[last].is_empty() {
            lines[last] = word.into();
        } else if lines[last].chars().count() + 1 + word.chars().count() <= WIDTH {
            lines[last] = format!("{} {word}", lines[last]);
        } else {
            lines.push(format!("  {word}"));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_message_is_broken_between_words() {
        let message = "volume pvc-a is not detached: ".repeat(6);
        let lines = wrap(message.trim());
        assert!(lines.len() > 1 && lines.iter().all(|line| line.chars().count() <= WIDTH), "{lines:?}");
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(words(&lines.join(" ")), words(&message));
    }
}
