//! The one place that runs programs: absolute path, arguments as given, an empty environment, a deadline.
//!
//! What a program's exit status means is for its caller to know; here only a program that could not run to its end is an
//! error. Whatever happens, the whole process group is killed and the child is reaped before anybody hears of it.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rds_csi_api::{Failure, Kind};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::OFlags;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

/// Where programs are looked for; nobody's `PATH` is asked.
const DIRECTORIES: [&str; 4] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// What is kept of each of a program's two outputs. The rest is read and dropped, so that it never blocks.
const KEPT: usize = 16 << 10;

/// How a program ended, and what it said.
#[derive(Debug)]
pub struct Outcome {
    /// Its exit status; what a number means depends on the program.
    pub status: ExitStatus,
    /// The beginning of its standard output.
    pub stdout: String,
    /// The beginning of its standard error.
    pub stderr: String,
}

/// Why a program did not run to its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not installed.
    #[error("{0} is not installed: it is looked for in /usr/sbin, /usr/bin, /sbin and /bin")]
    NotInstalled(&'static str),
    /// The system could not run it.
    #[error("cannot run {}", program.display())]
    System {
        /// The program.
        program: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// It took too long, and was killed.
    #[error("{} was killed after {} s", program.display(), limit.as_secs())]
    Late {
        /// The program.
        program: PathBuf,
        /// How long it was given.
        limit: Duration,
    },
}

impl Failure for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::NotInstalled(_) | Self::System { .. } => Kind::Bug,
            Self::Late { .. } => Kind::Unsure,
        }
    }
}

/// Runs a program by its name.
pub fn run<A: AsRef<std::ffi::OsStr>>(
    program: &'static str,
    arguments: &[A],
    limit: Duration,
) -> Result<Outcome, Error> {
    let path = DIRECTORIES
        .iter()
        .map(|directory| Path::new(directory).join(program))
        .find(|path| path.is_file())
        .ok_or(Error::NotInstalled(program))?;
    let failed = |source: io::Error| Error::System { program: path.clone(), source };

    let mut child = Command::new(&path)
        .args(arguments)
        .env_clear()
        .env("LC_ALL", "C")
        .env("PATH", DIRECTORIES.join(":"))
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(failed)?;
    let talk = listen(&mut child, limit);
    // The group, since a program that ended may have left children; it is ours until its leader is reaped below.
    let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
    let status = child.wait().map_err(failed)?;
    match talk.map_err(failed)? {
        Talk::Ended { stdout, stderr } => Ok(Outcome { status, stdout, stderr }),
        Talk::Late => Err(Error::Late { program: path, limit }),
    }
}

enum Talk {
    Ended { stdout: String, stderr: String },
    Late,
}

/// Reads both outputs at once until the child ends: a program that fills one pipe while we wait at the other hangs.
fn listen(child: &mut Child, limit: Duration) -> io::Result<Talk> {
    let end = Instant::now() + limit;
    let process = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    let mut stdout = Pipe::new(child.stdout.take().map(OwnedFd::from))?;
    let mut stderr = Pipe::new(child.stderr.take().map(OwnedFd::from))?;
    loop {
        let mut watched = vec![PollFd::new(&process, PollFlags::IN)];
        watched.extend(
            [&stdout, &stderr]
                .into_iter()
                .filter_map(|pipe| pipe.end.as_ref())
                .map(|end| PollFd::from_borrowed_fd(end.as_fd(), PollFlags::IN)),
        );
        let Some(left) = end.checked_duration_since(Instant::now()) else {
            return Ok(Talk::Late);
        };
        let timeout = left.try_into().map_err(io::Error::other)?;
        match poll(&mut watched, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ended = !watched[0].revents().is_empty();
        stdout.drain()?;
        stderr.drain()?;
        if ended {
            return Ok(Talk::Ended { stdout: stdout.text(), stderr: stderr.text() });
        }
    }
}

/// The reading end of one of the child's outputs, until it is closed.
struct Pipe {
    end: Option<File>,
    kept: Vec<u8>,
}

impl Pipe {
    fn new(end: Option<OwnedFd>) -> io::Result<Self> {
        if let Some(end) = &end {
            let flags = rustix::fs::fcntl_getfl(end)?;
            rustix::fs::fcntl_setfl(end, flags | OFlags::NONBLOCK)?;
        }
        Ok(Self { end: end.map(File::from), kept: Vec::new() })
    }

    /// Takes what is there now.
    fn drain(&mut self) -> io::Result<()> {
        let mut buffer = [0; 4096];
        while let Some(end) = &mut self.end {
            match end.read(&mut buffer) {
                Ok(0) => self.end = None,
                Ok(count) => {
                    let room = KEPT.saturating_sub(self.kept.len()).min(count);
                    self.kept.extend_from_slice(&buffer[..room]);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.kept).trim().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);

    fn shell(script: &str, limit: Duration) -> Result<Outcome, Error> {
        run("sh", &["-c", script], limit)
    }

    #[test]
    fn an_exit_status_is_data_and_both_outputs_are_kept() {
        let outcome = shell("echo out; echo err >&2; exit 3", MINUTE).unwrap();
        assert_eq!(outcome.status.code(), Some(3));
        assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("out", "err"));
    }

    #[test]
    fn nothing_of_our_environment_is_inherited() {
        let outcome = run("env", &[] as &[&str], MINUTE).unwrap();
        let mut lines: Vec<_> = outcome.stdout.lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, ["LC_ALL=C", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"]);
    }

    #[test]
    fn nothing_that_is_open_here_is_inherited() {
        use std::os::fd::{AsFd as _, AsRawFd as _};
        let inherits = |number: i32| {
            let flags = std::fs::read_to_string(format!("/proc/self/fdinfo/{number}")).unwrap_or_default();
            let flags = flags.lines().find_map(|line| line.strip_prefix("flags:"));
            let flags = flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok());
            flags.is_some_and(|flags| flags & OFlags::CLOEXEC.bits() == 0)
        };
        // What whoever runs the tests lets us inherit is not ours to close.
        let own = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
        let own = own.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let given: Vec<i32> = own.filter(|number| inherits(*number)).collect();

        let folder = tempfile::tempdir().unwrap();
        let kubelet = crate::host::KubeletDir::open(folder.path()).unwrap();
        let path = kubelet.beneath(folder.path().join("pods").to_str().unwrap()).unwrap();
        let file = File::open("/proc/self/mountinfo").unwrap();
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let directory = path.open_parent().unwrap().unwrap();
        for open in [file.as_fd(), socket.as_fd(), directory.as_fd()] {
            assert!(!given.contains(&open.as_raw_fd()));
        }
        // What the shell itself had open to look is closed by then.
        let script = "for fd in /proc/$$/fd/*; do if [ -e $fd ]; then echo ${fd##*/}; fi; done";
        let outcome = shell(script, MINUTE).unwrap();
        let mut seen: Vec<i32> = outcome.stdout.lines().map(|line| line.parse().unwrap()).collect();
        seen.retain(|number| *number < 3 || !given.contains(number));
        seen.sort_unstable();
        assert_eq!(seen, [0, 1, 2], "beside {given:?}");
    }

    #[test]
    fn much_output_on_both_pipes_neither_hangs_nor_piles_up() {
        let script = "head -c 1000000 /dev/zero | tr '\\0' x; head -c 1000000 /dev/zero | tr '\\0' y >&2";
        let outcome = shell(script, MINUTE).unwrap();
        assert!(outcome.status.success());
        assert_eq!((outcome.stdout.len(), outcome.stderr.len()), (KEPT, KEPT));
    }

    #[test]
    fn lesson_16_a_late_program_is_killed_with_its_children_and_reaped() {
        let begun = Instant::now();
        let marker = "97531";
        let error =
            shell(&format!("sleep {marker} & sleep {marker}"), Duration::from_millis(200)).unwrap_err();
        assert!(matches!(error, Error::Late { .. }), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(20));
        let end = Instant::now() + Duration::from_secs(10);
        // An orphan is reaped by init, in its own time.
        while sleepers(marker) > 0 {
            assert!(Instant::now() < end, "a child outlived its group");
            std::thread::yield_now();
        }
    }

    fn sleepers(marker: &str) -> usize {
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        processes
            .filter_map(|process| std::fs::read(process.path().join("cmdline")).ok())
            .filter(|line| {
                line.starts_with(b"sleep\0") && line.windows(5).any(|part| part == marker.as_bytes())
            })
            .count()
    }

    #[test]
    fn a_child_that_is_left_behind_does_not_keep_us_waiting() {
        let begun = Instant::now();
        let outcome = shell("sleep 86420 & echo done", MINUTE).unwrap();
        assert_eq!(outcome.stdout, "done");
        assert!(begun.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn a_missing_program_is_told_by_its_name() {
        let error = run("mkfs.nothing", &[] as &[&str], MINUTE).unwrap_err();
        assert!(error.to_string().contains("mkfs.nothing is not installed"), "{error}");
    }
}
