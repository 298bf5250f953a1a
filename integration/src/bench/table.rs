//! The figures, each beside what it should be.

use std::time::Duration;

/// A line of the table.
pub(super) struct Figure {
    pub(super) name: String,
    /// How many commands, and how many there may be; none if the controller does not serve this.
    pub(super) commands: Option<(usize, usize)>,
    pub(super) took: Option<Duration>,
    /// What a bare command takes.
    pub(super) command: Duration,
    pub(super) goal: Goal,
}

/// How long something should take.
#[derive(Clone, Copy)]
pub(super) enum Goal {
    None,
    /// So many command times.
    AtMost(f64),
}

/// All lines, and how many counts were missed.
#[derive(Default)]
pub(super) struct Table {
    lines: Vec<String>,
    missed: usize,
}

impl Table {
    pub(super) fn title(&mut self, text: &str) {
        self.lines.push(format!("\n{text}"));
        let (what, commands, goal) = ("", "commands", "goal");
        self.lines
            .push(format!("  {what:<28}{commands:>10}{goal:>8}{:>12}{:>15}{goal:>8}", "ms", "command times"));
    }

    pub(super) fn add(&mut self, figure: Figure) {
        let Figure { name, commands, took, command, goal } = figure;
        let Some((count, most)) = commands else {
            self.lines.push(format!("  {name:<28}{:>10}", "not served"));
            return;
        };
        let mut cells = vec![format!("  {name:<28}{count:>10}{:>8}", format!("≤ {most}"))];
        let mut remarks = Vec::new();
        if count > most {
            self.missed += 1;
            remarks.push("TOO MANY");
        }
        if let Some(took) = took {
            let times = took.as_secs_f64() / command.as_secs_f64();
            cells.push(format!("{:>12.1}{times:>15.2}", took.as_secs_f64() * 1000.0));
            if let Goal::AtMost(most) = goal {
                cells.push(format!("{:>8}", format!("≤ {most}")));
                if times > most {
                    remarks.push("slower");
                }
            }
        }
        cells.push(format!("  {}", remarks.join(", ")));
        self.lines.push(cells.concat().trim_end().to_owned());
    }

    pub(super) fn print(&self) {
        println!("{}", self.lines.join("\n"));
    }

    pub(super) fn missed(&self) -> usize {
        self.missed
    }
}
