//! Pieces that several bodies are made of, as literals, so that a body is a constant and holds nothing that anybody gave.
//!
//! Inside the condition of a `find` the name of a property hides a variable of that name (`$slot`, `$name`, `$path`), so no
//! variable here is called like one. A property that a device does not know stops the line before its first effect.

/// Finds subvolumes of the pool.
macro_rules! subvolumes {
    ($condition:expr) => {
        concat!("[/disk/btrfs/subvolume find fs=$pool ", $condition, "]")
    };
}

/// How many disks meet a condition.
macro_rules! disks {
    ($condition:expr) => {
        concat!("[:len [/disk find ", $condition, "]]")
    };
}

/// Shows a menu's items as a line of JSON.
macro_rules! show {
    ($menu:literal, $properties:expr, $condition:literal) => {
        concat!(
            ":put [:serialize to=json [",
            $menu,
            " print detail as-value proplist=",
            $properties,
            " where ",
            $condition,
            "]]"
        )
    };
}

/// What is read of a disk, and nothing else: a password is a property too.
macro_rules! of_a_disk {
    () => {
        "type,file-path,file-size,nvme-tcp-export,nvme-tcp-server-port,nvme-tcp-server-nqn,\
         nvme-tcp-server-allow-host-name,comment"
    };
}

/// Shows the disk as JSON, an empty list if there is none.
macro_rules! show_disk {
    () => {
        show!("/disk", of_a_disk!(), "slot=$volume")
    };
}

/// Shows every snapshot of this id, whosever it is.
macro_rules! show_snapshot {
    () => {
        show!("/disk/btrfs/subvolume", "name,read-only", r#"fs=$pool name~"^$snap\\.""#)
    };
}

/// The NQN of a new volume, as [`Nqn::of_volume`](rds_csi_api::Nqn::of_volume) has it.
macro_rules! nqn {
    () => {
        "\"nqn.2000-02.com.mikrotik:$volume\""
    };
}

/// The name of what stands beside a copy until it is whole.
macro_rules! making {
    () => {
        "\"$volume.$cluster.making\""
    };
}

/// What every new disk is, but for its file's size.
macro_rules! new_disk {
    () => {
        concat!(
            "type=file file-path=\"/$pool/$volume/disk.img\" slot=$volume mount-filesystem=no nvme-tcp-server-port=$tcp ",
            "nvme-tcp-server-nqn=", nqn!(), " nvme-tcp-server-allow-host-name=$hosts nvme-tcp-export=$switch \
             comment=($facts . $label)"
        )
    };
}

/// Leaves the disk in `$ours`, or stops. `$names` matches whatever the volume may be exported as. A disk without a comment of ours counts as ours: the Go driver wrote none.
macro_rules! ours_or_stop {
    () => {
        concat!(
            ":if (",
            disks!("slot=$volume"),
            "=0) do={:error \"rds-csi: missing\"}; ",
            ":local ours [/disk find slot=$volume type=\"file\" nvme-tcp-server-nqn~\"$names\" file-path~\"^/$pool/\"]; ",
            ":if ([:len $ours]=0) do={:error \"rds-csi: not a volume\"}; ",
            ":if (",
            disks!("slot=$volume comment~\"^rds-csi:\""),
            ">",
            disks!("slot=$volume comment~\"^rds-csi:$cluster( |\\$)\""),
            ") do={:error \"rds-csi: other cluster\"}"
        )
    };
}

/// Leaves the exact size of the disk `$ours` in `$bytes`, or stops: a size that is not written in digits is not guessed at.
macro_rules! size_or_stop {
    () => {
        concat!(
            ":local bytes [:tostr [/disk get $ours file-size]]; ",
            ":if (!($bytes~\"^[0-9]+\\$\")) do={:error \"rds-csi: no plain size\"}"
        )
    };
}

/// The names of the hosts on a disk's list, as one text: empty if it has none, whether the device keeps the list as a text or
/// as an array, and whether or not it shows one that was never set.
macro_rules! hosts {
    ($disk:literal) => {
        concat!("[:tostr [/disk get ", $disk, " nvme-tcp-server-allow-host-name]]")
    };
}

/// Leaves the list of hosts in `$named`, and stops if the disk `$ours` is exported to somebody whom `$known` does not match: a list that reads otherwise than expected
/// is one of strangers. The comma before the list lets an expression say what it thinks of an empty one. While the export is
/// off its list means nothing.
macro_rules! known_or_stop {
    () => {
        concat!(
            ":local named ",
            hosts!("$ours"),
            "; ",
            ":if (",
            disks!("slot=$volume nvme-tcp-export=yes"),
            ">0 && !((\",\" . $named)~$known)) do={",
            ":if ([:len $named]=0) do={:error \"rds-csi: every host\"}; :error \"rds-csi: other hosts\"}"
        )
    };
}

/// Exports the disk `$ours` to `$hosts`, unless it is so by `$named`: setting a property to what it is may tear the export down
/// on the device. A list that is kept as an array reads otherwise than it was set. List and switch are set by one command, and
/// none sets the list alone: whatever another line does in between, an export is never on with a list that was not meant for it.
macro_rules! open {
    () => {
        concat!(
            ":if (($named!=$hosts && $named!=[:tostr [:toarray $hosts]]) || ",
            disks!("slot=$volume nvme-tcp-export=yes"),
            "=0) ",
            "do={/disk set $ours nvme-tcp-server-allow-host-name=$hosts nvme-tcp-export=yes}"
        )
    };
}

/// Switches the export off, unless it is. Its list stays, and means nothing until the export is opened again, with another.
///
/// `$and` is what the same command sets besides, such as a list of those who may come back.
macro_rules! shut {
    ($and:literal) => {
        concat!(
            ":if (",
            disks!("slot=$volume nvme-tcp-export=no"),
            "=0) do={/disk set $ours nvme-tcp-export=no",
            $and,
            "}"
        )
    };
}

/// Whether the disk still has the name that is to be fenced.
macro_rules! is_to_be_cut {
    () => {
        concat!(disks!("slot=$volume nvme-tcp-server-nqn=$cut"), ">0")
    };
}

pub(super) use {
    disks, hosts, is_to_be_cut, known_or_stop, making, new_disk, nqn, of_a_disk, open, ours_or_stop, show,
    show_disk, show_snapshot, shut, size_or_stop, subvolumes,
};
