//! The guests' side of the rig: PID 1 of every guest once `integration/guest/init` has set it up.
//! It does what the host asks for (see `protocol`) and reaps what others leave behind.

mod children;

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::Path,
    process::Command,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rustix::process::{Pid, Signal};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, UnixStream},
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::JoinSet,
};

use self::children::Children;
use super::protocol::{self, Exit, Process, Reply, Request, Target};

/// Serves the host until the guest dies.
pub async fn serve() -> io::Result<()> {
    let listener = TcpListener::bind(("0.0.0.0", protocol::PORT)).await?;
    let mut deaths = signal(SignalKind::child())?;
    let guest = Arc::new(Guest::default());
    let mut connections = JoinSet::new();
    println!("{}", protocol::READY);
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted?;
                connections.spawn(answer(Arc::clone(&guest), stream));
            }
            _ = deaths.recv() => guest.children.reap(),
            Some(_) = connections.join_next() => {}
        }
    }
}

/// What the host may ask about later.
#[derive(Default)]
struct Guest {
    children: Children,
    programs: Mutex<HashMap<String, Program>>,
}

struct Program {
    pid: Pid,
    end: watch::Receiver<Option<Exit>>,
}

/// One connection's life. A host that hangs up early needs no answer, so errors of the stream end here.
async fn answer(guest: Arc<Guest>, mut stream: TcpStream) {
    let Ok((request, body)) = protocol::receive::<Request>(&mut stream).await else { return };
    if let Request::Connect(target) = request {
        join(stream, &target).await;
        return;
    }
    let (reply, body) = match guest.perform(request, body).await {
        Ok(done) => done,
        Err(error) => (Reply::Failed(error.to_string()), Vec::new()),
    };
    let _ = protocol::send(&mut stream, &reply, &body).await;
}

async fn join(stream: TcpStream, target: &Target) {
    match target {
        Target::Unix(path) => relay(stream, UnixStream::connect(path).await).await,
        Target::Port(port) => relay(stream, TcpStream::connect(("127.0.0.1", *port)).await).await,
    }
}

async fn relay<S: AsyncRead + AsyncWrite + Unpin>(mut stream: TcpStream, target: io::Result<S>) {
    let told = match &target {
        Ok(_) => protocol::send(&mut stream, &Reply::Connected, &[]).await,
        Err(error) => protocol::send(&mut stream, &Reply::Failed(error.to_string()), &[]).await,
    };
    if let (Ok(()), Ok(mut target)) = (told, target) {
        let _ = tokio::io::copy_bidirectional(&mut stream, &mut target).await;
    }
}

impl Guest {
    async fn perform(&self, request: Request, body: Vec<u8>) -> io::Result<(Reply, Vec<u8>)> {
        let done = |reply| Ok((reply, Vec::new()));
        match request {
            Request::Run { argv, timeout } => self.run(&argv, timeout, &body).await,
            Request::Start { name, argv, env } => {
                self.start(name, &argv, env)?;
                done(Reply::Done)
            }
            Request::Signal { name, signal } => {
                let signal = Signal::from_named_raw(signal)
                    .ok_or_else(|| io::Error::other(format!("{signal} is not a signal")))?;
                rustix::process::kill_process(self.program(&name)?.0, signal)?;
                done(Reply::Done)
            }
            Request::Wait { name } => {
                let mut end = self.program(&name)?.1;
                let exit = end.wait_for(Option::is_some).await.map_err(io::Error::other)?;
                done(Reply::Ended(exit.unwrap_or(Exit::TimedOut)))
            }
            Request::Write { path, mode } => {
                if let Some(parent) = path.parent() {
                    fs::create_dir_all(parent)?;
                }
                fs::write(&path, body)?;
                fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
                done(Reply::Done)
            }
            Request::Read { path } => Ok((Reply::Done, fs::read(path)?)),
            Request::Processes => done(Reply::Processes(processes(Path::new("/proc"))?)),
            Request::Connect(_) => Err(io::Error::other("a connection is joined before it gets here")),
        }
    }

    /// Input and output are files in memory: a child that leaves its output to another process cannot hold us up,
    /// and no pipe can fill.
    async fn run(&self, argv: &[String], timeout: Duration, stdin: &[u8]) -> io::Result<(Reply, Vec<u8>)> {
        let mut input = memory()?;
        input.write_all(stdin)?;
        input.rewind()?;
        let (mut stdout, mut stderr) = (memory()?, memory()?);
        let mut command = command(argv)?;
        command.stdin(input).stdout(stdout.try_clone()?).stderr(stderr.try_clone()?);
        let (pid, mut end) = self.children.spawn(&mut command)?;

        let exit = if let Ok(exit) = tokio::time::timeout(timeout, end.wait_for(Option::is_some)).await {
            exit.ok().and_then(|exit| *exit).unwrap_or(Exit::TimedOut)
        } else {
            let _ = rustix::process::kill_process_group(pid, Signal::KILL);
            Exit::TimedOut
        };
        let mut body = Vec::new();
        stdout.rewind()?;
        let stdout = stdout.read_to_end(&mut body)?;
        stderr.rewind()?;
        stderr.read_to_end(&mut body)?;
        Ok((Reply::Ran { exit, stdout }, body))
    }

    fn start(&self, name: String, argv: &[String], env: Vec<(String, String)>) -> io::Result<()> {
        let mut programs = self.programs.lock().unwrap_or_else(PoisonError::into_inner);
        if programs.get(&name).is_some_and(|program| program.end.borrow().is_none()) {
            return Err(io::Error::other(format!("{name} runs already")));
        }
        let log = OpenOptions::new().create(true).append(true).open(format!("/var/log/{name}.log"))?;
        let mut command = command(argv)?;
        command.envs(env).stdin(File::open("/dev/null")?).stdout(log.try_clone()?).stderr(log);
        let (pid, end) = self.children.spawn(&mut command)?;
        programs.insert(name, Program { pid, end });
        Ok(())
    }

    fn program(&self, name: &str) -> io::Result<(Pid, watch::Receiver<Option<Exit>>)> {
        let programs = self.programs.lock().unwrap_or_else(PoisonError::into_inner);
        let program = programs.get(name);
        let program = program.ok_or_else(|| io::Error::other(format!("no program {name} was started")))?;
        Ok((program.pid, program.end.clone()))
    }
}

fn command(argv: &[String]) -> io::Result<Command> {
    let (program, arguments) = argv.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let mut command = Command::new(program);
    command.args(arguments).process_group(0);
    Ok(command)
}

fn memory() -> io::Result<File> {
    Ok(rustix::fs::memfd_create("rig", rustix::fs::MemfdFlags::CLOEXEC)?.into())
}

/// Reads the processes from procfs. One that ends meanwhile is left out.
fn processes(proc: &Path) -> io::Result<Vec<Process>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(proc)? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let (Ok(stat), Ok(cmdline)) =
            (fs::read_to_string(entry.path().join("stat")), fs::read(entry.path().join("cmdline")))
        else {
            continue;
        };
        if let Some(process) = process(pid, &stat, &cmdline) {
            found.push(process);
        }
    }
    found.sort_by_key(|process| process.pid);
    Ok(found)
}

/// `None` for PID 1 and for the kernel's threads, which are `kthreadd` (2) and its children.
fn process(pid: i32, stat: &str, cmdline: &[u8]) -> Option<Process> {
    // The name in parentheses may itself hold spaces and parentheses: the last one ends it.
    let (name, rest) = stat.rsplit_once(") ")?;
    let name = name.split_once('(')?.1;
    let mut fields = rest.split(' ');
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?;
    if pid <= 2 || parent == "2" {
        return None;
    }
    let arguments: Vec<_> = cmdline
        .split(|byte| *byte == 0)
        .filter(|word| !word.is_empty())
        .map(String::from_utf8_lossy)
        .collect();
    let command = if arguments.is_empty() { format!("[{name}]") } else { arguments.join(" ") };
    Some(Process { pid, state, command })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_with_its_arguments() {
        let stat = "812 (dd (of) x) D 90 812 0 0 -1 4194304";
        let found = process(812, stat, b"dd\0of=/dev/nvme0n1\0").unwrap();
        assert_eq!(found, Process { pid: 812, state: 'D', command: "dd of=/dev/nvme0n1".to_owned() });
    }

    #[test]
    fn a_zombie_is_named_by_its_name() {
        assert_eq!(process(9, "9 (mkfs.xfs) Z 1 9", b"").unwrap().command, "[mkfs.xfs]");
    }

    #[test]
    fn init_and_the_kernels_threads_are_left_out() {
        assert_eq!(process(1, "1 (rds-csi-guest) S 0 1", b"/bin/rds-csi-guest\0"), None);
        assert_eq!(process(2, "2 (kthreadd) S 0 0", b""), None);
        assert_eq!(process(30, "30 (nvmet_tcp_wq) I 2 0", b""), None);
    }
}
