//! The README's commands do what it says. `./just test`, `./just conformance`, `./just cluster` and `./just demo` are steps of CI; the others
//! are run here.

#![allow(clippy::unwrap_used, reason = "a test's own functions may fail as its tests do")]

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Output, Stdio};

const README: &str = include_str!("../../README.md");
const JUSTFILE: &str = include_str!("../../Justfile");
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// A process group that is gone when the test ends, however it ends: `./just` has children.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(group) = i32::try_from(self.0.id()).ok().and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::TERM);
        }
        let _ = self.0.wait();
    }
}

fn just(arguments: &[&str]) -> Command {
    let mut command = Command::new("./just");
    command.args(arguments).current_dir(ROOT).stdin(Stdio::null());
    command
}

/// The lines of all blocks of that language.
fn commands() -> Vec<&'static str> {
    let blocks = README.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    blocks.flat_map(str::lines).collect()
}

fn text(output: Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn every_command_of_the_readme_is_run_by_ci() {
    assert_eq!(
        commands(),
        ["./just demo", "./just test", "./just conformance", "./just cluster", "./just simulator"]
    );
    assert!(
        JUSTFILE.contains("steps=(format lint deny audit test conformance kubernetes cluster demo)"),
        "test, conformance, cluster and demo are steps of `./just ci`"
    );
}

#[test]
fn just_alone_lists_each_recipe_with_a_line_of_help() {
    let list = text(just(&[]).output().unwrap());
    let recipes: Vec<_> = list.lines().skip(1).collect();
    for name in ["build", "test", "conformance", "cluster", "demo", "simulator", "ci"] {
        assert!(
            recipes.iter().any(|line| line.trim_start().starts_with(name)),
            "{name} is missing in {list}"
        );
    }
    assert!(recipes.iter().all(|line| line.contains('#')), "a recipe has no help: {list}");
}

#[test]
fn the_simulator_prints_a_line_that_opens_it() {
    use std::os::unix::process::CommandExt as _;
    let mut command = just(&["simulator", "--listen", "127.0.0.1:0"]);
    let mut simulator = Running(command.stdout(Stdio::piped()).process_group(0).spawn().unwrap());
    let mut lines = BufReader::new(simulator.0.stdout.take().unwrap()).lines().map(Result::unwrap);
    let line = lines.find(|line| line.trim_start().starts_with("ssh ")).expect("a line to log in with");
    let log_in = format!("{} ':put [/system/resource/get version]'", line.trim());
    let told = text(Command::new("sh").args(["-c", &log_in]).stdin(Stdio::null()).output().unwrap());
    assert!(told.starts_with("7.21"), "{told}");
}

#[test]
fn links_in_the_documents_lead_somewhere() {
    let root = std::path::Path::new(ROOT);
    let documents = std::fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    for document in ["README.md", "CHANGELOG.md"].map(|name| root.join(name)).into_iter().chain(documents) {
        let content = std::fs::read_to_string(&document).unwrap();
        let folder = document.parent().unwrap();
        for target in content.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let is_local = !target.contains("://");
            let (target, _) = target.split_once('#').unwrap_or((target, ""));
            assert!(
                !is_local || folder.join(target).exists(),
                "{} links to {target}, which is not there",
                document.display()
            );
        }
    }
}

#[test]
fn every_lesson_of_the_node_agent_is_held_by_tests_that_are_there() {
    let root = std::path::Path::new(ROOT);
    let document = std::fs::read_to_string(root.join("docs/lessons.md")).unwrap();
    let mut rules: Vec<u32> = Vec::new();
    for row in document.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| Rule")) {
        let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
        rules.push(cells[0].parse().unwrap());
        let (mut file, mut content, mut tests) = ("", String::new(), 0);
        for word in cells[2].split('`').skip(1).step_by(2) {
            if word.contains('/') {
                (file, content) = (word, std::fs::read_to_string(root.join(word)).expect(word));
            } else {
                assert!(content.contains(&format!("fn {word}(")), "{file} has no test {word}");
                tests += 1;
            }
        }
        assert!(tests > 0, "rule {} has no test", cells[0]);
    }
    assert_eq!(rules, (1..=21).collect::<Vec<_>>());
}
