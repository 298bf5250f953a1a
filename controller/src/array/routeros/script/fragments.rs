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

/// The NQN of the volume, as [`Nqn::of_volume`](rds_csi_api::Nqn::of_volume) has it.
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

/// Leaves the disk in `$ours`, or stops. A disk without a comment of ours counts as ours: the Go driver wrote none.
macro_rules! ours_or_stop {
    () => {
        concat!(
            ":if (",
            disks!("slot=$volume"),
            "=0) do={:error \"rds-csi: missing\"}; ",
            ":local ours [/disk find slot=$volume type=\"file\" nvme-tcp-server-nqn=",
            nqn!(),
            " file-path~\"^/$pool/\"]; ",
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

/// Stops if the array lets a host in by name that `$known` does not match. Leaves the disk in `$named` if it lets in any.
macro_rules! strangers_or_go_on {
    () => {
        concat!(
            ":local named [/disk find slot=$volume nvme-tcp-export=yes nvme-tcp-server-allow-host-name~\".\"]; ",
            ":if ([:len $named]>", disks!("slot=$volume nvme-tcp-export=yes nvme-tcp-server-allow-host-name~$known"),
            ") do={:error \"rds-csi: other hosts\"}"
        )
    };
}

/// Stops if every host is let in.
macro_rules! open_or_go_on {
    () => {
        concat!(
            ":if (",
            disks!("slot=$volume nvme-tcp-export=yes"),
            ">[:len $named]) do={:error \"rds-csi: every host\"}"
        )
    };
}

/// Sets hosts where they differ: setting a property to what it is may tear the export down on the device.
macro_rules! set_hosts {
    () => {
        concat!(
            ":if (",
            disks!("slot=$volume nvme-tcp-server-allow-host-name=$hosts"),
            "=0) do={/disk set $ours nvme-tcp-server-allow-host-name=$hosts}"
        )
    };
}

/// Sets the switch where it differs.
macro_rules! switch {
    ($to:literal) => {
        concat!(
            ":if (",
            disks!(concat!("slot=$volume nvme-tcp-export=", $to)),
            "=0) do={/disk set $ours nvme-tcp-export=",
            $to,
            "}"
        )
    };
}

pub(super) use {
    disks, making, new_disk, nqn, of_a_disk, open_or_go_on, ours_or_stop, set_hosts, show, show_disk,
    show_snapshot, size_or_stop, strangers_or_go_on, subvolumes, switch,
};
