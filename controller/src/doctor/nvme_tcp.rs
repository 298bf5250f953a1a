//! An NVMe/TCP initiator of our own, without the kernel and without root: as much as it takes to hold a live connection to
//! an export, to write and read a block, and to see how the array refuses and cuts.
//!
//! Each queue is one TCP connection with one command at a time. Everything has a deadline.

mod command;
mod pdu;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rds_csi_api::{Bytes, HostNqn, Nqn};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use command::{Data, Entry, Property};
use pdu::{Completion, Ends, Pdu};

pub(crate) use pdu::{Malformed, Status};

/// How long the array may take to accept a connection, and to answer one command.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a controller may take to get ready.
const READY: Duration = Duration::from_secs(10);

/// After how long a silence the array may give us up. Longer than the longest step between two commands.
const KEEP_ALIVE: Duration = Duration::from_mins(2);

/// Enabled, with queue entries of 64 and 16 bytes (NVMe Base 2.0, 3.1.3.5).
const ENABLED: u32 = 0x0046_0001;

/// What a connection begins with.
const HELLO: &str = "ICReq";

/// How much is written and read at a time.
pub(crate) const BLOCK: usize = 4096;

/// Who connects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Host {
    nqn: HostNqn,
    id: Uuid,
}

impl Host {
    /// A host that was never there before.
    pub(crate) fn fresh() -> Self {
        let id = Uuid::new_v4();
        let nqn = format!("nqn.2014-08.org.nvmexpress:uuid:{id}").parse();
        Self { nqn: nqn.expect("a UUID is within the alphabet of an NQN"), id }
    }

    /// By which name the array lets it in.
    pub(crate) fn nqn(&self) -> &HostNqn {
        &self.nqn
    }
}

/// Why there is no connection, or no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// No way there, or none that answers: it says nothing about the array.
    #[error("{address} cannot be reached over TCP: {reason}")]
    Unreachable {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        reason: String,
    },
    /// Whoever is there takes no TCP connection.
    #[error("{address} takes no TCP connection: {source}")]
    Closed {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A connection that is silent.
    #[error("no answer to {0} within {seconds} s", seconds = PATIENCE.as_secs())]
    Late(&'static str),
    /// A connection that the array, or something in between, has ended.
    #[error("the connection was cut before {0} was answered")]
    Cut(&'static str),
    /// A command that the array refused.
    #[error("{command} was refused: {status}")]
    Refused {
        /// Which.
        command: &'static str,
        /// How.
        status: Status,
    },
    /// A connection that the array ended with a reason.
    #[error("the array ended the connection with reason {0:#06x}")]
    Terminated(u16),
    /// A controller that never got ready.
    #[error("the controller was not ready within {} s", READY.as_secs())]
    NotReady,
    /// Whoever is there does not speak NVMe/TCP as we do.
    #[error("this is not the NVMe/TCP that was expected: {0}")]
    Malformed(#[from] Malformed),
}

/// An export's namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Namespace {
    /// How large it is.
    pub(crate) size: Bytes,
    /// The size of one of its blocks.
    block: u32,
}

/// A live connection to an export.
pub(crate) struct Controller {
    address: SocketAddr,
    nqn: Nqn,
    host: Host,
    id: u16,
    admin: Queue,
    /// For commands with data, once there was one.
    data: Option<DataQueue>,
}

struct DataQueue {
    queue: Queue,
    namespace: Namespace,
    /// Where a block that is written goes. Linux's target waits for ever for one that would fit into its capsule and is
    /// not there.
    writes: Data,
}

impl Controller {
    /// Connects as an initiator does, until the controller is ready.
    pub(crate) async fn connect(address: SocketAddr, nqn: &Nqn, host: &Host) -> Result<Self, Error> {
        let mut admin = Queue::open(address).await?;
        let id = admin.join(0, 0xffff, nqn, host).await?;
        let enable = command::property_set(Property::Configuration, ENABLED);
        admin.run("Property Set", enable, Payload::None).await?;
        let mut controller = Self { address, nqn: nqn.clone(), host: host.clone(), id, admin, data: None };
        timeout(READY, controller.ready()).await.map_err(|_| Error::NotReady)??;
        Ok(controller)
    }

    async fn ready(&mut self) -> Result<(), Error> {
        loop {
            let status = command::property_get(Property::Status);
            let answer = self.admin.run("Property Get", status, Payload::None).await?;
            if answer.result & 1 == 1 {
                return Ok(());
            }
            // The register can only be asked.
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Whether it lives: one command there, and its answer back.
    pub(crate) async fn answers(&mut self) -> Result<(), Error> {
        self.admin.run("Keep Alive", command::keep_alive(), Payload::None).await.map(drop)
    }

    /// Whether the array cuts it within this time. One that only falls silent is not cut: nobody knows what it does later.
    pub(crate) async fn is_cut(&mut self, within: Duration) -> Result<bool, Error> {
        if timeout(within, self.admin.ended()).await.is_ok() {
            return Ok(true);
        }
        match self.answers().await {
            Ok(()) => Ok(false),
            Err(Error::Cut(_) | Error::Terminated(_)) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// The namespace as it is now.
    pub(crate) async fn namespace(&mut self) -> Result<Namespace, Error> {
        let mut told = [0; 4096];
        self.admin.run("Identify", command::identify_namespace(), Payload::In(&mut told)).await?;
        namespace(&told).ok_or(Error::Malformed(Malformed::Data))
    }

    /// Writes a block, and has it kept. `place` counts blocks of 4 KiB.
    pub(crate) async fn write(&mut self, place: u32, bytes: &[u8; BLOCK]) -> Result<(), Error> {
        let (queue, blocks, first) = self.data_queue(place).await?;
        let payload = match queue.writes {
            Data::InCapsule => Payload::Capsule(bytes),
            Data::Apart => Payload::Out(bytes),
        };
        let write = command::write(first, blocks, 4096, queue.writes);
        queue.queue.run("Write", write, payload).await?;
        queue.queue.run("Flush", command::flush(), Payload::None).await.map(drop)
    }

    /// Reads a block.
    pub(crate) async fn read(&mut self, place: u32) -> Result<[u8; BLOCK], Error> {
        let (queue, blocks, first) = self.data_queue(place).await?;
        let mut bytes = [0; BLOCK];
        queue.queue.run("Read", command::read(first, blocks, 4096), Payload::In(&mut bytes)).await?;
        Ok(bytes)
    }

    /// The queue for data, how many of the namespace's blocks are 4 KiB, and the first of those at `place`.
    async fn data_queue(&mut self, place: u32) -> Result<(&mut DataQueue, u16, u64), Error> {
        if self.data.is_none() {
            let namespace = self.namespace().await?;
            let mut told = [0; 4096];
            self.admin.run("Identify", command::identify_controller(), Payload::In(&mut told)).await?;
            let writes = if capsule_data(&told) >= BLOCK as u64 { Data::InCapsule } else { Data::Apart };
            self.admin.run("Set Features", command::one_queue(), Payload::None).await?;
            let mut queue = Queue::open(self.address).await?;
            queue.join(1, self.id, &self.nqn, &self.host).await?;
            self.data = Some(DataQueue { queue, namespace, writes });
        }
        let queue = self.data.as_mut().expect("it was just opened");
        let blocks = u16::try_from(BLOCK / queue.namespace.block as usize);
        let blocks = blocks.expect("4 KiB have no more blocks than bytes");
        Ok((queue, blocks, u64::from(place) * u64::from(blocks)))
    }
}

/// How many bytes of data a capsule takes beside its command (NVMe Base 2.0, 5.17.2.1: IOCCSZ).
fn capsule_data(told: &[u8; 4096]) -> u64 {
    let size = u32::from_le_bytes(told[1792..1796].try_into().expect("four bytes"));
    (u64::from(size) * 16).saturating_sub(64)
}

/// Size and block size of a namespace from what Identify tells (NVM Command Set 1.0, 4.1.5.1).
fn namespace(told: &[u8; 4096]) -> Option<Namespace> {
    let blocks = u64::from_le_bytes(told[..8].try_into().expect("eight bytes"));
    let format = usize::from(told[26] & 0xf);
    let shift = u32::from(told[128 + 4 * format + 2]);
    let block = (9..=12).contains(&shift).then(|| 1 << shift)?;
    Some(Namespace { size: Bytes::new(blocks.checked_mul(u64::from(block))?), block })
}

/// What a command carries.
enum Payload<'a> {
    None,
    /// Within its capsule.
    Capsule(&'a [u8]),
    /// Handed over when the array asks for it.
    Out(&'a [u8]),
    /// Filled by the array.
    In(&'a mut [u8]),
}

/// One queue of a controller: one TCP connection.
struct Queue {
    stream: TcpStream,
    alignment: usize,
    next: u16,
}

impl Queue {
    async fn open(address: SocketAddr) -> Result<Self, Error> {
        let unreachable = |reason: String| Error::Unreachable { address, reason };
        let stream = match timeout(PATIENCE, TcpStream::connect(address)).await {
            Err(_) => return Err(unreachable(format!("no connection within {} s", PATIENCE.as_secs()))),
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                return Err(match error.kind() {
                    io::ErrorKind::TimedOut
                    | io::ErrorKind::HostUnreachable
                    | io::ErrorKind::NetworkUnreachable => unreachable(error.to_string()),
                    _ => Error::Closed { address, source: error },
                });
            }
        };
        let mut queue = Self { stream, alignment: 4, next: 0 };
        let hello = async {
            queue.send(HELLO, &pdu::init_request()).await?;
            queue.receive(HELLO).await
        };
        match timeout(PATIENCE, hello).await.map_err(|_| Error::Late(HELLO))?? {
            Pdu::Ready { alignment } => queue.alignment = alignment,
            Pdu::Terminated(reason) => return Err(Error::Terminated(reason)),
            _ => return Err(Malformed::Stray.into()),
        }
        Ok(queue)
    }

    /// Fabrics' Connect; the controller that this is a queue of.
    async fn join(&mut self, queue: u16, controller: u16, nqn: &Nqn, host: &Host) -> Result<u16, Error> {
        let data = command::connect_data(controller, nqn, host);
        let keep_alive = if queue == 0 { KEEP_ALIVE } else { Duration::ZERO };
        let answer =
            self.run("Connect", command::connect(queue, keep_alive), Payload::Capsule(&data)).await?;
        let [low, high, ..] = answer.result.to_le_bytes();
        Ok(u16::from_le_bytes([low, high]))
    }

    async fn run(
        &mut self,
        what: &'static str,
        entry: Entry,
        payload: Payload<'_>,
    ) -> Result<Completion, Error> {
        timeout(PATIENCE, self.exchange(what, entry, payload)).await.map_err(|_| Error::Late(what))?
    }

    async fn exchange(
        &mut self,
        what: &'static str,
        mut entry: Entry,
        mut payload: Payload<'_>,
    ) -> Result<Completion, Error> {
        self.next = self.next.wrapping_add(1);
        let id = self.next;
        entry[2..4].copy_from_slice(&id.to_le_bytes());
        let capsule = if let Payload::Capsule(data) = payload { data } else { &[] };
        let sent = pdu::command(&entry, capsule, self.alignment);
        self.send(what, &sent).await?;
        let completion = loop {
            match self.receive(what).await? {
                Pdu::Response(completion) if completion.command == id => break completion,
                Pdu::Data { command, offset, bytes, ends } if command == id => {
                    let Payload::In(buffer) = &mut payload else { return Err(Malformed::Data.into()) };
                    let place = buffer.get_mut(offset..).and_then(|rest| rest.get_mut(..bytes.len()));
                    place.ok_or(Malformed::Data)?.copy_from_slice(&bytes);
                    if ends == Ends::TheCommand {
                        return Ok(Completion::successful(id));
                    }
                }
                Pdu::Wanted { command, tag, offset, length } if command == id => {
                    let Payload::Out(data) = payload else { return Err(Malformed::Data.into()) };
                    let part =
                        data.get(offset..).and_then(|rest| rest.get(..length)).ok_or(Malformed::Data)?;
                    let sent = pdu::data_out(id, tag, offset, part, self.alignment);
                    self.send(what, &sent).await?;
                }
                Pdu::Terminated(reason) => return Err(Error::Terminated(reason)),
                _ => return Err(Malformed::Stray.into()),
            }
        };
        if completion.status.is_success() {
            Ok(completion)
        } else {
            Err(Error::Refused { command: what, status: completion.status })
        }
    }

    async fn send(&mut self, what: &'static str, bytes: &[u8]) -> Result<(), Error> {
        self.stream.write_all(bytes).await.map_err(|error| cut(&error, what))
    }

    async fn receive(&mut self, what: &'static str) -> Result<Pdu, Error> {
        let mut common = [0; pdu::COMMON];
        self.stream.read_exact(&mut common).await.map_err(|error| cut(&error, what))?;
        let mut unit = vec![0; pdu::length(common)?];
        unit[..pdu::COMMON].copy_from_slice(&common);
        self.stream.read_exact(&mut unit[pdu::COMMON..]).await.map_err(|error| cut(&error, what))?;
        Ok(pdu::read(&unit)?)
    }

    /// Until the other side has ended the connection. It has nothing to say unasked.
    async fn ended(&mut self) {
        let mut byte = [0; 1];
        while let Ok(1..) = self.stream.peek(&mut byte).await {
            // Said unasked all the same: the next command tells what it is.
            sleep(PATIENCE).await;
        }
    }
}

/// However a connection ends, it has ended.
fn cut(_: &io::Error, what: &'static str) -> Error {
    Error::Cut(what)
}

#[cfg(test)]
mod tests;
