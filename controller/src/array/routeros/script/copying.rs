//! What makes a volume of another one or of a snapshot, and what takes back half of one.

use super::fragments::{disks, making, new_disk, nqn, of_a_disk, show, show_disk, subvolumes};

/// A copy that is not whole has an empty subvolume `<slot>.<cluster>.making` beside it: made before its first part, and
/// removed once all of it is there, before anybody hears of it. So what lies beside one was never written to, and is made
/// anew unless a disk uses it after all; a subvolume without a disk and without one may hold data, and is left alone.
///
/// Whoever repeats it ends it, with whatever labels. A copy of nothing, or of `$below` bytes and more, is no end: it is shown
/// as it is.
macro_rules! copy {
    ($source:expr, $parent:literal) => {
        concat!(
            ":local mark ",
            making!(),
            "; :if (",
            disks!("slot=$volume"),
            "=0) do={",
            $source,
            "; ",
            ":if ([:len ",
            subvolumes!("name=$mark"),
            "]=0) do={",
            ":if ([:len ",
            subvolumes!("name=$volume"),
            "]>0) do={:error \"rds-csi: leftover\"}; ",
            "/disk/btrfs/subvolume add fs=$pool name=$mark}; ",
            ":if (",
            disks!("file-path~\"^/$pool/$volume/\""),
            "=0) do={/disk/btrfs/subvolume remove [find fs=$pool name=$volume]}; ",
            "/disk/btrfs/subvolume add fs=$pool parent=",
            $parent,
            " name=$volume; ",
            "/disk add ",
            new_disk!(),
            "}; ",
            ":if (",
            disks!(concat!("slot=$volume file-size>0 file-size<$below ", of_this_request!())),
            ">0) do={",
            "/disk set [find slot=$volume file-size<$least] file-size=$least; ",
            "/disk/btrfs/subvolume remove [find fs=$pool name=$mark]}; ",
            show_disk!()
        )
    };
}

/// Finds disks whose comments begin with these facts, whatever the labels say.
macro_rules! of_this_request {
    () => {
        "comment~\"^$facts( |\\$)\""
    };
}

/// Leaves the name of a snapshot of ours in `$full`.
macro_rules! of_a_snapshot {
    () => {
        concat!(
            ":local full ",
            subvolumes!(r#"read-only=yes name~"^$source\\.$cluster\\.""#),
            "; ",
            ":if ([:len $full]=0) do={:error \"rds-csi: no source\"}; ",
            ":set full [/disk/btrfs/subvolume get $full name]"
        )
    };
}

/// Stops unless there is a volume of ours with a subvolume.
macro_rules! of_a_volume {
    () => {
        concat!(
            ":if (",
            disks!("slot=$source comment~\"^rds-csi:$cluster( |\\$)\" file-path=\"/$pool/$source/disk.img\""),
            "=0) do={:error \"rds-csi: no source\"}"
        )
    };
}

/// A volume of what a snapshot holds.
pub(super) const RESTORE: &str = copy!(of_a_snapshot!(), "$full");

/// A volume of what another one holds at that moment.
pub(super) const CLONE: &str = copy!(of_a_volume!(), "$source");

/// Takes back what a create that failed has left: a copy that is not whole, or an empty subvolume. Nothing that a host was let
/// in to by name: whoever was told of it has it.
pub(super) const TAKE_BACK: &str = concat!(
    ":local half [:len ",
    subvolumes!(concat!("name=", making!())),
    "]; ",
    ":if ($half>0 && ",
    disks!("slot=$volume nvme-tcp-server-allow-host-name~\".\""),
    "=0) do={/disk remove [find slot=$volume ",
    of_this_request!(),
    "]}; ",
    ":if (",
    disks!("slot=$volume"),
    "=0 && ",
    disks!("file-path~\"^/$pool/$pattern/\""),
    "=0 && ($half>0 || [:len [/file find name~\"^$pool/$pattern/\"]]=0)) ",
    "do={/disk/btrfs/subvolume remove [find fs=$pool name=$volume]; ",
    "/disk/btrfs/subvolume remove [find fs=$pool name=",
    making!(),
    "]}"
);
