//! `docs/try-it.md` works as it stands there: its commands are run, in their order, against `./just cluster --keep`.
//!
//! That needs Kubernetes' programs, so it is left out of `cargo test` and is part of `./just cluster`.

#![allow(clippy::unwrap_used, reason = "a test's own functions may fail as its tests do")]

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

const DOCUMENT: &str = include_str!("../../docs/try-it.md");
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// A cluster that somebody keeps, in a process group of its own, as a shell would start it.
struct Kept(Child);

impl Kept {
    fn signal(&self, signal: Signal) {
        let group = Pid::from_raw(self.0.id().try_into().unwrap()).unwrap();
        // It may be gone.
        let _ = kill_process_group(group, signal);
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        let _ = self.0.wait();
    }
}

#[test]
#[ignore = "needs Kubernetes' programs: ./just cluster runs it"]
fn the_document_works_as_it_stands_there() {
    use std::os::unix::process::CommandExt as _;
    let mut command = Command::new("./just");
    command.args(["cluster", "--keep"]).current_dir(ROOT).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut kept = Kept(command.process_group(0).spawn().unwrap());
    let mut lines = BufReader::new(kept.0.stdout.take().unwrap()).lines().map(Result::unwrap);
    let told: Vec<_> = lines.by_ref().take_while(|line| !line.contains("Ctrl-C ends it")).collect();
    let exports: Vec<_> =
        told.iter().map(|line| line.trim()).filter(|line| line.starts_with("export ")).collect();
    assert_eq!(exports.len(), 2, "{told:#?}");
    let kubeconfig = exports[0].strip_prefix("export KUBECONFIG=").unwrap();
    assert!(Path::new(kubeconfig).exists(), "{kubeconfig}");

    let blocks = DOCUMENT.split("```sh\n").skip(1).filter_map(|rest| rest.split("```\n").next());
    let script = format!("{}\n{}", exports.join("\n"), blocks.collect::<String>());
    let ran = Command::new("bash")
        .args(["-euxo", "pipefail", "-c", &script])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = [ran.stdout, ran.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(ran.status.success(), "{}", said.concat());

    kept.signal(Signal::INT);
    let deadline = Instant::now() + Duration::from_mins(1);
    while Path::new(kubeconfig).exists() || kept.0.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline, "Ctrl-C does not end it, or leaves {kubeconfig} behind");
        std::thread::sleep(Duration::from_millis(100));
    }
}
