//! What each operation runs: constants, so that nothing which anybody gave is ever part of one.
//!
//! A body observes, does what is left to do, and shows what there is then. Cut off behind any statement, it is put right by
//! its repeat.

use super::fragments::{
    disks, hosts, is_to_be_cut, known_or_stop, new_disk, nqn, of_a_disk, open, ours_or_stop, show, show_disk,
    show_snapshot, shut, size_or_stop, subvolumes,
};

/// The disk, and the file that it says it is in.
pub(super) const LOOK: &str = concat!(
    show_disk!(),
    "; ",
    ":foreach disk in=[/disk find slot=$volume type=\"file\"] do={:local image [/disk get $disk file-path]; ",
    ":set image [:pick $image 1 [:len $image]]; ",
    show!("/file", "name,size", "name=$image"),
    "}"
);

/// Makes subvolume and disk unless the disk is there. A file without a disk stops it before its first effect.
pub(super) const CREATE: &str = concat!(
    ":if (",
    disks!("slot=$volume"),
    "=0) do={",
    ":if ([:len [/file find name=\"$pool/$volume/disk.img\"]]>0) do={:error \"rds-csi: leftover\"}; ",
    ":if ([:len ",
    subvolumes!("name=$volume"),
    "]=0) do={/disk/btrfs/subvolume add fs=$pool name=$volume}; ",
    "/disk add file-size=$bytes ",
    new_disk!(),
    "}; ",
    show_disk!()
);

/// Never smaller.
pub(super) const EXPAND: &str = concat!(
    ours_or_stop!(),
    "; ",
    size_or_stop!(),
    "; :if ($to>[:tonum $bytes]) do={/disk set $ours file-size=$to}; ",
    show_disk!()
);

/// Replaces the policy, which is the end of the comment.
pub(super) const MODIFY: &str = concat!(
    ours_or_stop!(),
    "; :local note ([/disk get $ours comment] . \"\"); ",
    ":if (!($note~\"^rds-csi:\")) do={:set note (\"rds-csi:\" . $cluster . \" \" . $note)}; ",
    ":local end [:find $note \" reconnect=\"]; :if ([:typeof $end]=\"num\") do={:set note [:pick $note 0 $end]}; ",
    "/disk set $ours comment=($note . \" reconnect=\" . $policy); ",
    show_disk!()
);

/// Changes who is let in, unless somebody is already whom `$known` does not match.
macro_rules! letting_in {
    ($($step:expr),+) => {
        concat!(ours_or_stop!(), "; ", known_or_stop!(), "; ", $($step, "; ",)+ show_disk!())
    };
}

/// Lets hosts in, or every host.
pub(super) const OPEN: &str = letting_in!(open!());

/// Lets nobody in.
pub(super) const SHUT: &str = letting_in!(shut!(""));

/// Does something to the disk `$ours` if it still has the name `$cut`, and nobody is let in whom `$known` does not match.
macro_rules! fencing {
    ($($step:expr),+) => {
        concat!(
            ours_or_stop!(), "; :if (", is_to_be_cut!(), ") do={", known_or_stop!(), $("; ", $step,)+ "}; ", show_disk!()
        )
    };
}

/// Lets hosts in, with the export off before, since a list alone cuts no connection. It is switched off together with whoever is
/// not to come back, so that nobody slips in while it is switched on.
pub(super) const FENCE: &str = fencing!(
    shut!(" nvme-tcp-server-allow-host-name=$hosts"),
    "/disk set $ours nvme-tcp-server-allow-host-name=$hosts nvme-tcp-export=yes"
);

/// Lets nobody in, and never again under that name. One command does both: nothing that holds the old name finds it, whatever
/// opens the export later.
pub(super) const RENAME: &str = fencing!("/disk set $ours nvme-tcp-export=no nvme-tcp-server-nqn=$next");

/// What was done to the disk since it is there.
pub(super) const COUNTERS: &str = show!("/disk", "write-ops,write-bytes,in-flight-ops", "slot=$volume");

/// Takes a snapshot unless there is one of this id. All that is known of it is in its name, since a subvolume has no comment.
///
/// Two that are taken at the same time, by a call and its repeat, would be two snapshots of one id: neither stays.
pub(super) const TAKE: &str = concat!(
    ":if ([:len ",
    subvolumes!(r#"name~"^$snap\\.""#),
    "]=0) do={",
    ours_or_stop!(),
    "; ",
    ":if ([/disk get $ours file-path]!=\"/$pool/$volume/disk.img\") do={:error \"rds-csi: flat file\"}; ",
    ":if ([:len [/file find name=\"$pool/$volume/disk.img\"]]=0) do={:error \"rds-csi: no image\"}; ",
    size_or_stop!(),
    "; ",
    ":local made ($snap . \".\" . $cluster . \".\" . $now . \".\" . $bytes . \".\" . $volume); ",
    "/disk/btrfs/subvolume add fs=$pool parent=$volume name=$made read-only=yes; ",
    ":if ([:len ",
    subvolumes!(r#"name~"^$snap\\.""#),
    "]>1) ",
    "do={/disk/btrfs/subvolume remove [find fs=$pool name=$made]",
    "; :error \"rds-csi: twice\"}",
    "}; ",
    show_snapshot!()
);

/// Whatever snapshots there are of this id.
pub(super) const LOOK_AT_SNAPSHOT: &str = show_snapshot!();

/// Everything in the pool: disks, subvolumes, image files.
pub(super) const INVENTORY: &str = concat!(
    show!("/disk", concat!("slot,", of_a_disk!()), "type=\"file\" file-path~\"^/$pool/\""),
    "; ",
    show!("/disk/btrfs/subvolume", "name,read-only", "fs=$pool"),
    "; ",
    show!("/file", "name,size", r#"name~"^$pool/.*\\.img\$""#)
);

/// How much room the pool has.
pub(super) const CAPACITY: &str = show!("/disk", "slot,size,free", "mount-point=$pool");
