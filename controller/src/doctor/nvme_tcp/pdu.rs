//! The units that NVMe/TCP carries (NVMe/TCP Transport 1.0, 3.6), as bytes and back. Nothing here reads or waits.
//!
//! Without digests. What an array sends is bounded in length before it is read, and every field is looked for where it
//! must be.

/// What every unit begins with: type, flags, length of the header, offset of the data, length of all.
pub(super) const COMMON: usize = 8;

/// More than any answer to what is asked here: one data unit of 8 KiB and its header.
const LONGEST: usize = 16 << 10;

const INIT: usize = 128;
const CAPSULE: usize = COMMON + 64;
const SHORT: usize = 24;

const INIT_REQUEST: u8 = 0x00;
const INIT_RESPONSE: u8 = 0x01;
const TERMINATION: u8 = 0x03;
const COMMAND: u8 = 0x04;
const RESPONSE: u8 = 0x05;
const DATA_OUT: u8 = 0x06;
const DATA_IN: u8 = 0x07;
const READY_TO_TRANSFER: u8 = 0x09;

const LAST: u8 = 1 << 2;
const SUCCESS: u8 = 1 << 3;

/// What an array sends.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Pdu {
    /// It speaks NVMe/TCP, and wants data in units of ours at multiples of so many bytes.
    Ready { alignment: usize },
    /// A command's end.
    Response(Completion),
    /// A part of what a command reads. Data may stand for the command's end, too.
    Data { command: u16, offset: usize, bytes: Vec<u8>, ends: Ends },
    /// A command's data are wanted: so many bytes from there on, under this tag.
    Wanted { command: u16, tag: u16, offset: usize, length: usize },
    /// It ends the connection, and says why.
    Terminated(u16),
}

/// What a data unit is the last of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ends {
    Nothing,
    /// No completion follows: the command succeeded.
    TheCommand,
}

/// A completion queue entry (NVMe Base 2.0, 3.3.3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Completion {
    pub(super) command: u16,
    /// Its first eight bytes: what a property is, or which controller it became.
    pub(super) result: u64,
    pub(super) status: Status,
}

impl Completion {
    /// Of a command whose data said that it succeeded.
    pub(super) fn successful(command: u16) -> Self {
        Self { command, result: 0, status: Status(0) }
    }
}

/// How a command ended: the status field without its phase bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Status(u16);

impl Status {
    /// Connect was refused since the array does not offer that subsystem under that NQN.
    pub(crate) const INVALID_PARAMETERS: Self = Self(0x182);
    /// Connect was refused since the host is not among those that are let in.
    pub(crate) const INVALID_HOST: Self = Self(0x184);

    /// From the last two bytes of a completion, whose lowest bit is the phase.
    const fn of(field: u16) -> Self {
        Self(field >> 1)
    }

    /// Type and code, without hints on trying again.
    pub(crate) fn is(self, other: Self) -> bool {
        self.0 & 0x7ff == other.0
    }

    pub(super) fn is_success(self) -> bool {
        self.is(Self(0))
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = match self.0 & 0x7ff {
            0x000 => "Successful Completion",
            0x001 => "Invalid Command Opcode",
            0x002 => "Invalid Field in Command",
            0x006 => "Internal Error",
            0x00c => "Command Sequence Error",
            0x020 => "Namespace is Write Protected",
            0x080 => "LBA Out of Range",
            0x081 => "Capacity Exceeded",
            0x180 => "Connect Incompatible Format",
            0x181 => "Connect Controller Busy",
            0x182 => "Connect Invalid Parameters",
            0x184 => "Connect Invalid Host",
            0x191 => "Authentication Required",
            _ => "status",
        };
        let again = if self.0 & 0x4000 == 0 { "" } else { ", do not retry" };
        write!(f, "{name} (type {}, code {:#04x}{again})", self.0 >> 8 & 7, self.0 & 0xff)
    }
}

/// What an array sent that is no unit of NVMe/TCP.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    #[error("a unit of {0} bytes")]
    Length(usize),
    #[error("a unit of type {0:#04x} where an answer was due")]
    Type(u8),
    #[error("a unit of type {kind:#04x} with a header of {header} bytes and data at {data}, {length} in all")]
    Shape { kind: u8, header: usize, data: usize, length: usize },
    #[error("version {0} of its format")]
    Version(u16),
    #[error("digests, which were not asked for")]
    Digests,
    #[error("an answer to another command, or to none")]
    Stray,
    #[error("data where none belong")]
    Data,
}

/// The first unit: our version of the format (0), no alignment, no digests, one transfer at a time.
pub(super) fn init_request() -> Vec<u8> {
    let mut pdu = begun(INIT_REQUEST, 0, INIT, 0, INIT);
    pdu.resize(INIT, 0);
    pdu
}

/// A command, and data within its capsule.
pub(super) fn command(entry: &[u8; 64], data: &[u8], alignment: usize) -> Vec<u8> {
    let at = if data.is_empty() { 0 } else { CAPSULE.next_multiple_of(alignment) };
    let mut pdu = begun(COMMAND, 0, CAPSULE, at, CAPSULE.max(at + data.len()));
    pdu.extend_from_slice(entry);
    pdu.resize(CAPSULE.max(at), 0);
    pdu.extend_from_slice(data);
    pdu
}

/// All the data that [`Pdu::Wanted`] asked for.
pub(super) fn data_out(command: u16, tag: u16, offset: usize, data: &[u8], alignment: usize) -> Vec<u8> {
    let at = SHORT.next_multiple_of(alignment);
    let mut pdu = begun(DATA_OUT, LAST, SHORT, at, at + data.len());
    pdu.extend_from_slice(&command.to_le_bytes());
    pdu.extend_from_slice(&tag.to_le_bytes());
    pdu.extend_from_slice(&narrow(offset));
    pdu.extend_from_slice(&narrow(data.len()));
    pdu.resize(at, 0);
    pdu.extend_from_slice(data);
    pdu
}

fn begun(kind: u8, flags: u8, header: usize, data: usize, length: usize) -> Vec<u8> {
    let byte = |value: usize| u8::try_from(value).expect("headers and offsets are short");
    let mut pdu = vec![kind, flags, byte(header), byte(data)];
    pdu.extend_from_slice(&narrow(length));
    pdu
}

fn narrow(length: usize) -> [u8; 4] {
    u32::try_from(length).expect("what is sent is short").to_le_bytes()
}

/// How long a unit is that begins so.
pub(super) fn length(common: [u8; COMMON]) -> Result<usize, Malformed> {
    let length = wide(&common, 4);
    if (COMMON..=LONGEST).contains(&length) { Ok(length) } else { Err(Malformed::Length(length)) }
}

/// Reads a whole unit.
pub(super) fn read(pdu: &[u8]) -> Result<Pdu, Malformed> {
    let [kind, flags, header, data, ..] = *pdu else { return Err(Malformed::Length(pdu.len())) };
    let (header, data) = (usize::from(header), usize::from(data));
    let shape = Malformed::Shape { kind, header, data, length: pdu.len() };
    let expected = match kind {
        INIT_RESPONSE => INIT,
        TERMINATION | RESPONSE | DATA_IN | READY_TO_TRANSFER => SHORT,
        _ => return Err(Malformed::Type(kind)),
    };
    if header != expected || pdu.len() < header {
        return Err(shape);
    }
    Ok(match kind {
        INIT_RESPONSE => {
            let (version, alignment, digests) = (short(pdu, 8), pdu[10], pdu[11]);
            if version != 0 {
                return Err(Malformed::Version(version));
            }
            if digests != 0 {
                return Err(Malformed::Digests);
            }
            // In units of four bytes, one less than it is; 31 at most.
            Pdu::Ready { alignment: (usize::from(alignment & 0x1f) + 1) * 4 }
        }
        TERMINATION => Pdu::Terminated(short(pdu, 8)),
        RESPONSE => Pdu::Response(Completion {
            result: u64::from_le_bytes(pdu[8..16].try_into().expect("eight bytes")),
            command: short(pdu, 20),
            status: Status::of(short(pdu, 22)),
        }),
        DATA_IN => {
            let bytes = pdu.get(data..).filter(|bytes| data >= SHORT && bytes.len() == wide(pdu, 16));
            Pdu::Data {
                command: short(pdu, 8),
                offset: wide(pdu, 12),
                bytes: bytes.ok_or(shape)?.to_vec(),
                ends: if flags & (LAST | SUCCESS) == LAST | SUCCESS {
                    Ends::TheCommand
                } else {
                    Ends::Nothing
                },
            }
        }
        _ => Pdu::Wanted {
            command: short(pdu, 8),
            tag: short(pdu, 10),
            offset: wide(pdu, 12),
            length: wide(pdu, 16),
        },
    })
}

fn short(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn wide(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes")) as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn answer(kind: u8, flags: u8, header: u8, data: u8, rest: &[u8]) -> Vec<u8> {
        let length = u32::try_from(COMMON + rest.len()).unwrap().to_le_bytes();
        [&[kind, flags, header, data], &length[..], rest].concat()
    }

    #[test]
    fn the_first_unit_is_that_of_the_specification() {
        let pdu = init_request();
        assert_eq!((pdu.len(), &pdu[..8]), (128, &[0, 0, 128, 0, 128, 0, 0, 0][..]));
        assert!(pdu[8..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn data_stand_where_the_array_wants_them() {
        let entry = [7; 64];
        assert_eq!(command(&entry, &[], 4)[..8], [4, 0, 72, 0, 72, 0, 0, 0]);
        let pdu = command(&entry, &[1, 2], 4);
        assert_eq!((&pdu[..8], &pdu[72..]), (&[4, 0, 72, 72, 74, 0, 0, 0][..], &[1, 2][..]));
        let pdu = command(&entry, &[1, 2], 128);
        assert_eq!((&pdu[..8], &pdu[128..]), (&[4, 0, 72, 128, 130, 0, 0, 0][..], &[1, 2][..]));
        let pdu = data_out(9, 5, 4096, &[1, 2, 3], 4);
        assert_eq!(pdu[..8], [6, 4, 24, 24, 27, 0, 0, 0]);
        assert_eq!(pdu[8..], [9, 0, 5, 0, 0, 16, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3]);
    }

    #[test]
    fn what_an_array_answers_is_read() {
        let mut rest = [0; 120];
        rest[2] = 1;
        assert_eq!(read(&answer(1, 0, 128, 0, &rest)), Ok(Pdu::Ready { alignment: 8 }));
        let response = [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0x08, 0x83];
        let Ok(Pdu::Response(completion)) = read(&answer(5, 0, 24, 0, &response)) else { panic!() };
        assert_eq!((completion.result, completion.command), (1, 3));
        assert!(completion.status.is(Status::INVALID_HOST) && !completion.status.is_success());
        assert_eq!(completion.status.to_string(), "Connect Invalid Host (type 1, code 0x84, do not retry)");
        let data = [3, 0, 0, 0, 0, 2, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 8, 9];
        for (flags, ends) in [(LAST, Ends::Nothing), (LAST | SUCCESS, Ends::TheCommand)] {
            let expected = Pdu::Data { command: 3, offset: 512, bytes: vec![8, 9], ends };
            assert_eq!(read(&answer(7, flags, 24, 24, &data)), Ok(expected));
        }
        let wanted = [3, 0, 7, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0];
        let expected = Pdu::Wanted { command: 3, tag: 7, offset: 0, length: 4096 };
        assert_eq!(read(&answer(9, 0, 24, 0, &wanted)), Ok(expected));
        assert_eq!(read(&answer(3, 0, 24, 0, &[2; 16])), Ok(Pdu::Terminated(0x202)));
    }

    #[test]
    fn what_is_no_answer_is_told() {
        assert_eq!(length(*b"HTTP/1.1"), Err(Malformed::Length(0x312e_312f)));
        assert_eq!(length([5, 0, 24, 0, 7, 0, 0, 0]), Err(Malformed::Length(7)));
        assert_eq!(read(&answer(4, 0, 72, 0, &[0; 64])), Err(Malformed::Type(4)));
        let mut rest = [0; 120];
        rest[3] = 1;
        assert_eq!(read(&answer(1, 0, 128, 0, &rest)), Err(Malformed::Digests));
        // Data that begin in the header, and data that are fewer than said.
        let data = [3, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 8, 9];
        assert!(matches!(read(&answer(7, 0, 24, 8, &data)), Err(Malformed::Shape { .. })));
        assert!(matches!(read(&answer(7, 0, 24, 24, &data[..17])), Err(Malformed::Shape { .. })));
    }

    proptest! {
        #[test]
        fn no_bytes_break_the_reader(bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 0_u8..10) {
            let _ = read(&bytes);
            let header = if kind == 1 { 128 } else { 24 };
            let _ = read(&[&[kind, 0, header, 24][..], &bytes].concat());
        }
    }
}
