//! The figures, each beside what it should be.

use std::time::Duration;

use super::guest::Programs;
use super::millis;

/// All lines, and how many calls ran programs that they should not run.
#[derive(Default)]
pub(super) struct Table {
    lines: Vec<String>,
    missed: usize,
}

impl Table {
    pub(super) fn title(&mut self, text: &str) {
        self.lines.push(format!("\n{text}"));
    }

    pub(super) fn heads(&mut self) {
        let what = "";
        self.lines.push(format!(
            "  {what:<26}{:>10}{:>11}{:>8}{:>8}{:>10}",
            "bare ms", "driver ms", "ratio", "goal", "programs"
        ));
    }

    /// A call beside the system calls that it wraps.
    pub(super) fn ratio(
        &mut self,
        what: &str,
        bare: Duration,
        driver: Duration,
        goal: Option<f64>,
        programs: Programs,
    ) {
        let ratio = driver.as_secs_f64() / bare.as_secs_f64();
        let remark = if goal.is_some_and(|goal| ratio > goal) { "slower" } else { "" };
        let goal = goal.map(|goal| format!("≤ {goal}")).unwrap_or_default();
        let (bare, driver) = (millis(bare), millis(driver));
        let head = format!("  {what:<26}{bare:>10.2}{driver:>11.2}{ratio:>8.2}{goal:>8}");
        self.end(&head, programs, Programs::None, remark);
    }

    /// A call that wraps no system calls that one could time.
    pub(super) fn alone(&mut self, what: &str, took: Duration, programs: Programs, most: Programs) {
        let head = format!("  {what:<26}{:>10}{:>11.2}{:>16}", "", millis(took), "");
        self.end(&head, programs, most, "");
    }

    /// Something else's duration, and what it needs of all processors together.
    pub(super) fn time(&mut self, what: &str, wall: Duration, cpu: Duration, goal: Duration) {
        let remark = if wall > goal { "  slower" } else { "" };
        let (wall, cpu, goal) = (millis(wall), millis(cpu), goal.as_millis());
        self.lines
            .push(format!("  {what:<26}{wall:>10.1} ms (≤ {goal}), {cpu:.1} ms of all processors{remark}"));
    }

    fn end(&mut self, head: &str, programs: Programs, most: Programs, remark: &'static str) {
        let mut remarks = vec![remark];
        if programs > most {
            self.missed += 1;
            remarks.push("TOO MANY");
        }
        let programs = match programs {
            Programs::None => "0",
            Programs::Some => "some",
        };
        let line = format!("{head}{programs:>10}  {}", remarks.join(" "));
        self.lines.push(line.trim_end().to_owned());
    }

    pub(super) fn print(&self) {
        println!("{}", self.lines.join("\n"));
    }

    pub(super) fn missed(&self) -> usize {
        self.missed
    }
}
