//! A guest as the host sees it: a machine that boots, dies and runs what it is told.

use std::{
    fmt, fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::json;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Mutex, watch},
    task::JoinSet,
    time,
};

use super::{
    diagnosis::last_lines,
    image::Image,
    machine::{Hardware, Keeper, Machine, console},
    protocol::{self, Exit, Process, Reply, Request, Target},
};

/// How long `run` waits before it kills.
const RUN_TIMEOUT: Duration = Duration::from_mins(1);

/// Network and a slow guest, on top of what a request itself may take.
const ANSWER_MARGIN: Duration = Duration::from_secs(15);

/// The file in a guest's directory that says where its requests go.
const CONTROL: &str = "control";

/// The link that requests come by.
pub(super) const MANAGEMENT: &str = "management";

/// A microVM: storage guest or worker.
#[derive(Debug)]
pub struct Guest {
    hardware: Hardware,
    image: Image,
    directory: PathBuf,
    keeper: Keeper,
    machine: Mutex<Option<Machine>>,
    /// Where requests go; `None` while the guest is dead. A new boot has a new port.
    control: watch::Sender<Option<SocketAddr>>,
    forwards: Mutex<JoinSet<()>>,
}

impl Guest {
    pub(super) fn new(hardware: Hardware, image: Image, directory: PathBuf, keeper: Keeper) -> Result<Self> {
        fs::create_dir_all(&directory)?;
        Ok(Self {
            hardware,
            image,
            directory,
            keeper,
            machine: Mutex::new(None),
            control: watch::Sender::new(None),
            forwards: Mutex::new(JoinSet::new()),
        })
    }

    /// Its name, such as `w1`.
    pub fn name(&self) -> &str {
        &self.hardware.name
    }

    /// Boots it, and returns once it takes requests. Its disk holds what it held.
    pub async fn boot(&self) -> Result<()> {
        let mut machine = self.machine.lock().await;
        ensure!(machine.is_none(), "{} runs already", self.name());
        let booted = Machine::start(&self.keeper, &self.hardware, &self.image, &self.directory)
            .await
            .with_context(|| format!("cannot boot {}", self.name()))?;
        let control = booted.control().await?;
        // For people, whose commands come from another process; see `run_in`.
        fs::write(self.directory.join(CONTROL), control.to_string())?;
        self.control.send_replace(Some(control));
        *machine = Some(booted);
        Ok(())
    }

    /// A power cut: what was not yet on its disk is lost.
    pub async fn kill(&self) -> Result<()> {
        let dead = self.machine.lock().await.take();
        ensure!(dead.is_some(), "{} is dead already", self.name());
        self.control.send_replace(None);
        Ok(())
    }

    /// The reset button, and the wait until it takes requests again.
    pub async fn reset(&self) -> Result<()> {
        self.machine.lock().await.as_mut().with_context(|| self.dead())?.reset().await
    }

    /// Freezes it, as a hypervisor does with a guest that is about to become a zombie.
    pub async fn pause(&self) -> Result<()> {
        self.qmp("stop", json!({})).await
    }

    /// Lets a frozen guest go on.
    pub async fn resume(&self) -> Result<()> {
        self.qmp("cont", json!({})).await
    }

    /// Pulls a link's cable, or plugs it in.
    pub(super) async fn set_link(&self, link: &str, cable: Cable) -> Result<()> {
        self.qmp("set_link", json!({ "name": link, "up": cable == Cable::Plugged })).await
    }

    async fn qmp(&self, command: &str, arguments: serde_json::Value) -> Result<()> {
        let machine = self.machine.lock().await;
        machine.as_ref().with_context(|| self.dead())?.qmp(command, arguments).await?;
        Ok(())
    }

    /// The id of its QEMU on this machine.
    pub async fn qemu(&self) -> Option<u32> {
        self.machine.lock().await.as_ref().map(Machine::pid)
    }

    /// Whether it is switched on (it may be paused).
    pub fn is_on(&self) -> bool {
        self.control.borrow().is_some()
    }

    /// Runs a shell command and returns its standard output, without the last newline.
    /// An exit status other than 0 is an error that tells all.
    pub async fn sh(&self, script: &str) -> Result<String> {
        self.run(script).await?.ok()
    }

    /// Runs a shell command, for at most a minute, and returns whatever it did.
    pub async fn run(&self, script: &str) -> Result<Output> {
        self.run_for(RUN_TIMEOUT, script).await
    }

    /// Runs a shell command for at most this long.
    pub async fn run_for(&self, timeout: Duration, script: &str) -> Result<Output> {
        let answer = self.ask(shell(script, timeout), &[], timeout + ANSWER_MARGIN).await?;
        Output::of(self.name(), script, answer)
    }

    /// Starts a program that stays; `log` reads what it prints, under the same name.
    pub async fn start<S: Into<String>>(
        &self,
        name: &str,
        argv: impl IntoIterator<Item = S>,
        env: &[(&str, &str)],
    ) -> Result<()> {
        let argv = argv.into_iter().map(Into::into).collect();
        let env = env.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        self.order(Request::Start { name: name.to_owned(), argv, env }).await
    }

    /// Sends a signal (its number) to a started program.
    pub async fn signal(&self, name: &str, signal: i32) -> Result<()> {
        self.order(Request::Signal { name: name.to_owned(), signal }).await
    }

    /// Waits until a started program ends.
    pub async fn wait(&self, name: &str, timeout: Duration) -> Result<Exit> {
        match self.ask(Request::Wait { name: name.to_owned() }, &[], timeout).await?.0 {
            Reply::Ended(exit) => Ok(exit),
            other => bail!("{}: unexpected answer {other:?}", self.name()),
        }
    }

    /// What a started program has printed since the guest's boot.
    pub async fn log(&self, name: &str) -> Result<String> {
        Ok(String::from_utf8_lossy(&self.read(format!("/var/log/{name}.log")).await?).into_owned())
    }

    /// Reads a file.
    pub async fn read(&self, path: impl Into<PathBuf>) -> Result<Vec<u8>> {
        Ok(self.ask(Request::Read { path: path.into() }, &[], ANSWER_MARGIN).await?.1)
    }

    /// Writes a file with these permissions; its directory is made.
    pub async fn write(&self, path: impl Into<PathBuf>, mode: u32, content: &[u8]) -> Result<()> {
        self.ask(Request::Write { path: path.into(), mode }, content, ANSWER_MARGIN).await?;
        Ok(())
    }

    /// Its processes, without PID 1 and the kernel's threads.
    pub async fn processes(&self) -> Result<Vec<Process>> {
        match self.ask(Request::Processes, &[], ANSWER_MARGIN).await?.0 {
            Reply::Processes(processes) => Ok(processes),
            other => bail!("{}: unexpected answer {other:?}", self.name()),
        }
    }

    /// Whether something in the guest takes connections there.
    pub async fn listens(&self, target: Target) -> Result<bool> {
        let mut stream = self.connect().await?;
        protocol::send(&mut stream, &Request::Connect(target), &[]).await?;
        let answer = time::timeout(ANSWER_MARGIN, protocol::receive::<Reply>(&mut stream)).await??;
        Ok(matches!(answer.0, Reply::Connected))
    }

    /// A port on this machine's loopback that leads into the guest. It stays the same when the guest dies and boots
    /// again; while nobody listens behind it, it hangs up.
    pub async fn forward(&self, target: Target) -> Result<SocketAddr> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let control = self.control.subscribe();
        self.forwards.lock().await.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        let Ok((outer, _)) = accepted else { continue };
                        let control = *control.borrow();
                        connections.spawn(relay(outer, control, target.clone()));
                    }
                    Some(_) = connections.join_next() => {}
                }
            }
        });
        Ok(address)
    }

    /// The last lines of its console.
    pub fn console_tail(&self, lines: usize) -> String {
        let console = fs::read(console(&self.directory)).unwrap_or_default();
        let console = String::from_utf8_lossy(&console).replace('\r', "");
        last_lines(&console, lines)
    }

    /// Its directory on this machine: console, QEMU's log and monitor.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    async fn order(&self, request: Request) -> Result<()> {
        self.ask(request, &[], ANSWER_MARGIN).await.map(drop)
    }

    async fn ask(&self, request: Request, body: &[u8], deadline: Duration) -> Result<(Reply, Vec<u8>)> {
        let what = format!("{}: {request:?}", self.name());
        let answered = time::timeout(deadline, async {
            let mut stream = self.connect().await?;
            protocol::send(&mut stream, &request, body).await?;
            anyhow::Ok(protocol::receive::<Reply>(&mut stream).await?)
        });
        match answered.await {
            Err(_) => bail!("{what}: no answer in {deadline:?}"),
            Ok(Err(error)) => Err(error.context(what)),
            Ok(Ok((Reply::Failed(reason), _))) => bail!("{what}: {reason}"),
            Ok(Ok(answer)) => Ok(answer),
        }
    }

    async fn connect(&self) -> Result<TcpStream> {
        let control = *self.control.borrow();
        Ok(TcpStream::connect(control.with_context(|| self.dead())?).await?)
    }

    fn dead(&self) -> String {
        format!("{} is switched off", self.name())
    }
}

/// A link's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cable {
    Plugged,
    Pulled,
}

/// One connection through a forward. Whatever breaks, both sides hang up: that is all a network says, too.
async fn relay(mut outer: TcpStream, control: Option<SocketAddr>, target: Target) {
    let Some(control) = control else { return };
    let Ok(mut inner) = TcpStream::connect(control).await else { return };
    if protocol::send(&mut inner, &Request::Connect(target), &[]).await.is_err() {
        return;
    }
    if let Ok((Reply::Connected, _)) = protocol::receive::<Reply>(&mut inner).await {
        let _ = tokio::io::copy_bidirectional(&mut outer, &mut inner).await;
    }
}

/// What a command in a guest did.
#[derive(Debug, Clone)]
pub struct Output {
    command: String,
    /// How it ended.
    pub exit: Exit,
    /// What it printed.
    pub stdout: String,
    /// What it complained.
    pub stderr: String,
}

/// Runs a shell command in a guest of a rig that another process keeps, for as long as it takes: `directory` is the
/// guest's, as the rig's owner prints it.
pub async fn run_in(directory: &Path, script: &str) -> Result<Output> {
    const FOR_EVER: Duration = Duration::from_hours(24);

    let control = fs::read_to_string(directory.join(CONTROL))
        .with_context(|| format!("{} is no guest's directory, or its rig is gone", directory.display()))?;
    let mut stream = TcpStream::connect(&control).await.with_context(|| format!("no guest at {control}"))?;
    protocol::send(&mut stream, &shell(script, FOR_EVER), &[]).await?;
    Output::of(&directory.display().to_string(), script, protocol::receive(&mut stream).await?)
}

fn shell(script: &str, timeout: Duration) -> Request {
    Request::Run { argv: ["sh", "-c", script].map(str::to_owned).to_vec(), timeout }
}

impl Output {
    fn of(guest: &str, script: &str, (reply, mut body): (Reply, Vec<u8>)) -> Result<Self> {
        let Reply::Ran { exit, stdout } = reply else { bail!("{guest}: unexpected answer {reply:?}") };
        let stderr = body.split_off(stdout.min(body.len()));
        Ok(Self {
            command: format!("{guest}# {script}"),
            exit,
            stdout: String::from_utf8_lossy(&body).into_owned(),
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
        })
    }

    /// Whether it exited with 0.
    pub fn succeeded(&self) -> bool {
        self.exit == Exit::Code(0)
    }

    /// Its standard output without the last newline, if it exited with 0.
    pub fn ok(self) -> Result<String> {
        ensure!(self.succeeded(), "{self}");
        Ok(self.stdout.trim_end_matches('\n').to_owned())
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { command, exit, stdout, stderr } = self;
        write!(f, "{command}\n{exit:?}\n{stdout}{stderr}")
    }
}
