//! The commands that are sent, as submission queue entries (NVMe Base 2.0, 3.3.3.1 and, for those of fabrics, 6).

use std::time::Duration;

use rds_csi_api::Nqn;

use super::Host;

/// A submission queue entry.
pub(super) type Entry = [u8; 64];

/// Commands that may wait in a queue, one less; the least that initiators use.
const QUEUE_SIZE: u16 = 31;

const FABRICS: u8 = 0x7f;
const FLUSH: u8 = 0x00;
const WRITE: u8 = 0x01;
const READ: u8 = 0x02;
const IDENTIFY: u8 = 0x06;
const SET_FEATURES: u8 = 0x09;
const KEEP_ALIVE: u8 = 0x18;

/// Every export has one namespace.
const NAMESPACE: u32 = 1;

/// A property of a controller, by its offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Property {
    Configuration = 0x14,
    Status = 0x1c,
}

/// Where a command's data go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Data {
    /// Behind the command, in its capsule.
    InCapsule,
    /// By units of their own.
    Apart,
}

fn entry(opcode: u8) -> Entry {
    let mut entry = [0; 64];
    entry[0] = opcode;
    // Data are described by a list of segments, as on every fabric.
    entry[1] = 0x40;
    entry
}

fn put(entry: &mut Entry, at: usize, bytes: &[u8]) {
    entry[at..at + bytes.len()].copy_from_slice(bytes);
}

fn describe(entry: &mut Entry, length: u32, data: Data) {
    put(entry, 32, &length.to_le_bytes());
    entry[39] = match data {
        // A data block at an offset within the capsule; the offset is 0.
        Data::InCapsule => 0x01,
        // A data block of the transport.
        Data::Apart => 0x5a,
    };
}

/// Opens a queue: 0 is the admin queue of a new controller.
pub(super) fn connect(queue: u16, keep_alive: Duration) -> Entry {
    let mut entry = entry(FABRICS);
    entry[4] = 0x01;
    describe(&mut entry, 1024, Data::InCapsule);
    put(&mut entry, 42, &queue.to_le_bytes());
    put(&mut entry, 44, &QUEUE_SIZE.to_le_bytes());
    let keep_alive = u32::try_from(keep_alive.as_millis()).unwrap_or(u32::MAX);
    put(&mut entry, 48, &keep_alive.to_le_bytes());
    entry
}

/// Who opens it, and of what. A controller of number 0xffff is one yet to be made.
pub(super) fn connect_data(controller: u16, nqn: &Nqn, host: &Host) -> Vec<u8> {
    let mut data = vec![0; 1024];
    data[..16].copy_from_slice(host.id.as_bytes());
    data[16..18].copy_from_slice(&controller.to_le_bytes());
    // Each in a field of 256 bytes that a zero ends; an NQN has 223 at most.
    for (at, name) in [(256, nqn.as_str()), (512, host.nqn.as_str())] {
        data[at..at + name.len()].copy_from_slice(name.as_bytes());
    }
    data
}

pub(super) fn property_get(property: Property) -> Entry {
    let mut entry = entry(FABRICS);
    entry[4] = 0x04;
    put(&mut entry, 44, &(property as u32).to_le_bytes());
    entry
}

pub(super) fn property_set(property: Property, value: u32) -> Entry {
    let mut entry = property_get(property);
    entry[4] = 0x00;
    put(&mut entry, 48, &value.to_le_bytes());
    entry
}

/// 4 KiB about the namespace.
pub(super) fn identify_namespace() -> Entry {
    let mut entry = entry(IDENTIFY);
    put(&mut entry, 4, &NAMESPACE.to_le_bytes());
    describe(&mut entry, 4096, Data::Apart);
    entry
}

/// 4 KiB about the controller.
pub(super) fn identify_controller() -> Entry {
    let mut entry = entry(IDENTIFY);
    describe(&mut entry, 4096, Data::Apart);
    entry[40] = 1;
    entry
}

/// One queue for commands with data, and one for their ends (feature 7, both one less).
pub(super) fn one_queue() -> Entry {
    let mut entry = entry(SET_FEATURES);
    entry[40] = 0x07;
    entry
}

pub(super) fn keep_alive() -> Entry {
    entry(KEEP_ALIVE)
}

pub(super) fn write(block: u64, blocks: u16, length: u32, data: Data) -> Entry {
    transfer(WRITE, block, blocks, length, data)
}

pub(super) fn read(block: u64, blocks: u16, length: u32) -> Entry {
    transfer(READ, block, blocks, length, Data::Apart)
}

fn transfer(opcode: u8, block: u64, blocks: u16, length: u32, data: Data) -> Entry {
    let mut entry = entry(opcode);
    put(&mut entry, 4, &NAMESPACE.to_le_bytes());
    describe(&mut entry, length, data);
    put(&mut entry, 40, &block.to_le_bytes());
    put(&mut entry, 48, &(blocks - 1).to_le_bytes());
    entry
}

pub(super) fn flush() -> Entry {
    let mut entry = entry(FLUSH);
    put(&mut entry, 4, &NAMESPACE.to_le_bytes());
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connect_says_who_wants_what() {
        let entry = connect(0, Duration::from_mins(2));
        assert_eq!((entry[0], entry[1], entry[4]), (0x7f, 0x40, 0x01));
        assert_eq!(entry[32..40], [0, 4, 0, 0, 0, 0, 0, 0x01]);
        assert_eq!(entry[40..52], [0, 0, 0, 0, 31, 0, 0, 0, 0xc0, 0xd4, 0x01, 0]);
        let host = Host::fresh();
        let data = connect_data(0xffff, &"nqn.2000-02.com.mikrotik:pvc-x".parse().unwrap(), &host);
        assert_eq!(
            (data.len(), &data[..16], &data[16..18]),
            (1024, &host.id.as_bytes()[..], &[255, 255][..])
        );
        assert!(data[256..].starts_with(b"nqn.2000-02.com.mikrotik:pvc-x\0"));
        assert!(data[512..].starts_with(format!("{}\0", host.nqn).as_bytes()));
    }

    #[test]
    fn properties_and_blocks_are_named_where_they_belong() {
        let entry = property_set(Property::Configuration, 0x0046_0001);
        assert_eq!((entry[0], entry[4], entry[44]), (0x7f, 0x00, 0x14));
        assert_eq!(entry[48..52], [1, 0, 0x46, 0]);
        assert_eq!((property_get(Property::Status)[4], property_get(Property::Status)[44]), (0x04, 0x1c));
        let entry = write(3, 8, 4096, Data::Apart);
        assert_eq!((entry[0], entry[4], entry[39], entry[40], entry[48]), (1, 1, 0x5a, 3, 7));
        assert_eq!(entry[32..36], 4096_u32.to_le_bytes());
    }
}
