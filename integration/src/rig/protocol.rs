//! What the host and `rds-csi-guest` say to each other: one request and one reply per connection, each a
//! JSON head and a body of bytes. After `Connected` the connection itself is the stream.

use std::{io, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// The port that `rds-csi-guest` listens on, inside the guest.
pub const PORT: u16 = 7000;

/// The line on the console that tells the host that requests are served.
pub const READY: &str = "rds-csi-guest: ready";

/// What the host asks for.
#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    /// Run a program to its end. The body is its standard input.
    Run {
        /// Program and arguments.
        argv: Vec<String>,
        /// After this time it is killed, with its whole process group.
        timeout: Duration,
    },
    /// Start a program that stays; its output goes to `/var/log/NAME.log`.
    Start {
        /// How later requests call it.
        name: String,
        /// Program and arguments.
        argv: Vec<String>,
        /// Added to its environment.
        env: Vec<(String, String)>,
    },
    /// Send a signal to a started program.
    Signal {
        /// Its name.
        name: String,
        /// The signal's number.
        signal: i32,
    },
    /// Wait for a started program's end.
    Wait {
        /// Its name.
        name: String,
    },
    /// Write the body to a file, whose directory is made.
    Write {
        /// Where.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// Read a file.
    Read {
        /// Which.
        path: PathBuf,
    },
    /// List the processes, without the kernel's threads and PID 1.
    Processes,
    /// Join this connection to one inside the guest.
    Connect(Target),
}

/// Something in the guest that listens.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Target {
    /// A unix socket's path.
    Unix(PathBuf),
    /// A port on the guest's loopback.
    Port(u16),
}

/// The guest's answer.
#[derive(Debug, Serialize, Deserialize)]
pub enum Reply {
    /// A program ended; the body is its standard output, then its standard error.
    Ran {
        /// How it ended.
        exit: Exit,
        /// Where in the body standard error begins.
        stdout: usize,
    },
    /// A started program ended.
    Ended(Exit),
    /// Done, nothing to tell; the body is the content of a file that was read.
    Done,
    /// The processes.
    Processes(Vec<Process>),
    /// From here on the connection is the target's.
    Connected,
    /// It could not be done.
    Failed(String),
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    /// By itself.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// It ran too long and was killed.
    TimedOut,
}

/// A process in a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its id.
    pub pid: i32,
    /// Its state's letter, as in proc(5).
    pub state: char,
    /// Program and arguments, joined by spaces; a zombie's name in brackets.
    pub command: String,
}

/// Sends one message.
pub async fn send<T: Serialize>(
    stream: &mut (impl AsyncWrite + Unpin),
    head: &T,
    body: &[u8],
) -> io::Result<()> {
    let head = serde_json::to_vec(head)?;
    let mut message = Vec::with_capacity(16 + head.len() + body.len());
    message.extend_from_slice(&(head.len() as u64).to_be_bytes());
    message.extend_from_slice(&(body.len() as u64).to_be_bytes());
    message.extend_from_slice(&head);
    message.extend_from_slice(body);
    stream.write_all(&message).await?;
    stream.flush().await
}

/// Receives one message.
pub async fn receive<T: DeserializeOwned>(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<(T, Vec<u8>)> {
    let head = stream.read_u64().await?;
    let body = stream.read_u64().await?;
    let head = take(stream, head).await?;
    let body = take(stream, body).await?;
    Ok((serde_json::from_slice(&head)?, body))
}

async fn take(stream: &mut (impl AsyncRead + Unpin), length: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stream.take(length).read_to_end(&mut bytes).await?;
    if bytes.len() as u64 == length { Ok(bytes) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}
