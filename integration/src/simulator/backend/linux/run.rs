//! The one place of the simulator that runs programs.

use std::ffi::OsStr;
use std::io;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use super::super::Error;

/// Longer than anything that is run here takes, even in an emulated guest.
const DEADLINE: Duration = Duration::from_mins(1);

/// Runs a program to its end and returns its standard output; a failure or the deadline is an error.
pub(super) fn run<A: AsRef<OsStr>>(program: &str, arguments: &[A]) -> Result<String, Error> {
    let words: Vec<String> = std::iter::once(program.to_owned())
        .chain(arguments.iter().map(|argument| argument.as_ref().to_string_lossy().into_owned()))
        .collect();
    let failed = |output: String| Error::Program { program: words.join(" "), output };
    let child = Command::new(program)
        .args(arguments)
        .env_clear()
        .env("LC_ALL", "C")
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(error.to_string()))?;

    let process = rustix::process::Pid::from_child(&child);
    let (sender, ended) = mpsc::channel();
    // Reads both pipes while it waits, so that no amount of output blocks the program.
    let waiting = std::thread::spawn(move || sender.send(child.wait_with_output()));
    let output = ended.recv_timeout(DEADLINE).unwrap_or_else(|_| {
        // Not yet waited for, so the number still is this child's.
        let killed = rustix::process::kill_process(process, rustix::process::Signal::KILL);
        let outcome =
            killed.map_or_else(|errno| format!("cannot be killed: {errno}"), |()| "killed".to_owned());
        Err(io::Error::new(io::ErrorKind::TimedOut, format!("{outcome} after {DEADLINE:?}")))
    });
    waiting.join().expect("waiting for a child does not panic").ok();
    let output = output.map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    Err(failed(format!("{}: {}", output.status, complaint.trim())))
}
