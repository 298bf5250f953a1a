//! What a person wants to see when a test has failed.

use std::{fs, future::Future, time::Duration};

use anyhow::Result;
use tokio::time;

use super::{Guest, Rig};

/// A guest that is paused or cut off must not keep the others from being asked.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) async fn tell(rig: &Rig) -> String {
    let mut sections = vec![section("what there is on the guests", &rig.leftovers().await.join("\n"))];
    let array = rig.array();
    sections.push(section("array: kernel", &kernel(array.guest()).await));
    sections.push(section("array: simulator", &patiently(array.log()).await));
    let state = async { Ok(format!("{:#}", array.state().await?)) };
    sections.push(section("array: state", &patiently(state).await));
    for worker in rig.workers() {
        let name = worker.name();
        sections.push(section(&format!("{name}: kernel"), &kernel(worker.guest()).await));
        sections.push(section(&format!("{name}: node agent"), &patiently(worker.agent_log()).await));
    }
    if let Ok(log) = fs::read_to_string(rig.controller_directory().join("log")) {
        sections.push(section("controller", &last_lines(&log, 200)));
    }
    sections.concat()
}

/// The end of a log that holds the tests before, too.
pub(crate) fn last_lines(log: &str, lines: usize) -> String {
    let all: Vec<_> = log.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

fn section(title: &str, text: &str) -> String {
    format!("--- {title}\n{}\n", text.trim_end())
}

/// What the kernel has said since the guest was up; of one that cannot be asked, its console.
async fn kernel(guest: &Guest) -> String {
    let messages = guest.sh("dmesg | sed '1,/rig: up/d' | tail -n 60");
    match time::timeout(PATIENCE, messages).await {
        Ok(Ok(messages)) => messages,
        _ => format!("(does not answer; its console:)\n{}", guest.console_tail(40)),
    }
}

async fn patiently(log: impl Future<Output = Result<String>>) -> String {
    match time::timeout(PATIENCE, log).await {
        Ok(Ok(log)) => log,
        Ok(Err(error)) => format!("({error:#})"),
        Err(_) => "(no answer)".to_owned(),
    }
}
