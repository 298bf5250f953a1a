//! What each operation runs: constants, so that nothing which anybody gave is ever part of one.
//!
//! A body observes, does what is left to do, and shows what there is then. Cut off behind any statement, it is put right by
//! its repeat.

use super::fragments::{
    disks, new_disk, nqn, of_a_disk, open_or_go_on, ours_or_stop, set_hosts, show, show_disk, show_snapshot,
    size_or_stop, strangers_or_go_on, subvolumes, switch,
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

/// The name of what stands beside a copy until it is whole.
macro_rules! making {
    () => {
        "\"$volume.$cluster.making\""
    };
}

/// A copy that is not whole has an empty subvolume `<slot>.<cluster>.making` beside it: made before its first part, and
/// removed once all of it is there, before anybody hears of it. So what lies beside one was never written to, and is made
/// anew; a subvolume without a disk and without one may hold data, and is left alone.
macro_rules! copy {
    ($source:expr, $parent:literal, $limit:expr) => {
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
            "/disk/btrfs/subvolume remove [find fs=$pool name=$volume]; ",
            "/disk/btrfs/subvolume add fs=$pool parent=",
            $parent,
            " name=$volume; ",
            "/disk add ",
            new_disk!(),
            "}; ",
            ":if (",
            disks!("slot=$volume comment=$note"),
            ">0) do={",
            $limit,
            "/disk set [find slot=$volume file-size<$least] file-size=$least; ",
            "/disk/btrfs/subvolume remove [find fs=$pool name=$mark]}; ",
            show_disk!()
        )
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

/// Stops if the copy is larger than it may be, and says how large.
macro_rules! limit {
    () => {
        concat!(
            ":if (",
            disks!("slot=$volume file-size>$most"),
            ">0) ",
            "do={:error (\"rds-csi: too large \" . [/disk get [find slot=$volume] file-size])}; "
        )
    };
}

/// A volume of what a snapshot holds.
pub(super) const RESTORE: &str = copy!(of_a_snapshot!(), "$full", "");

/// The same, of a limited size.
pub(super) const RESTORE_WITHIN: &str = copy!(of_a_snapshot!(), "$full", limit!());

/// A volume of what another one holds at that moment.
pub(super) const CLONE: &str = copy!(of_a_volume!(), "$source", "");

/// The same, of a limited size.
pub(super) const CLONE_WITHIN: &str = copy!(of_a_volume!(), "$source", limit!());

/// Takes back what a create that failed has left: a copy that is not whole, or an empty subvolume.
pub(super) const TAKE_BACK: &str = concat!(
    ":local half [:len ",
    subvolumes!(concat!("name=", making!())),
    "]; ",
    ":if ($half>0) do={/disk remove [find slot=$volume comment=$note]}; ",
    ":if (",
    disks!("slot=$volume"),
    "=0 && ($half>0 || [:len [/file find name~\"^$pool/$pattern/\"]]=0)) ",
    "do={/disk/btrfs/subvolume remove [find fs=$pool name=$volume]; ",
    "/disk/btrfs/subvolume remove [find fs=$pool name=",
    making!(),
    "]}"
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

/// Removes disk and subvolume, as far as they are there and ours, and unless hosts are let in by name.
///
/// A subvolume goes only if there is nothing but our image in it, which is looked at before the first effect.
macro_rules! delete {
    ($flat:expr) => {
        concat!(
            ":if ([:len [/file find name~\"^$pool/$pattern/\"]]>[:len [/file find name=\"$pool/$volume/disk.img\"]]) ",
            "do={:error \"rds-csi: other files\"}; ",
            ":if (", disks!("slot=$volume"), ">0) do={", ours_or_stop!(), "; ", strangers_or_go_on!(), "; ",
            ":local image [/disk get $ours file-path]; ",
            ":if ($image!=\"/$pool/$volume/disk.img\" && !($image~\"^/$pool/(.+/)\\?$pattern\\\\.img\\$\")) ",
            "do={:error \"rds-csi: not a volume\"}; /disk remove $ours; ",
            ":if ($image!=\"/$pool/$volume/disk.img\") do={/file remove [/file find name=[:pick $image 1 [:len $image]]]}}; ",
            $flat,
            ":foreach subvolume in=", subvolumes!("name=$volume"),
            " do={:if (", disks!("file-path~\"^/$pool/$pattern/\""), ">0) do={:error \"rds-csi: other files\"}; ",
            "/disk/btrfs/subvolume remove $subvolume}; ",
            "/disk/btrfs/subvolume remove [find fs=$pool name=", making!(), "]"
        )
    };
}

/// Of a volume that this driver made.
pub(super) const DELETE: &str = delete!("");

/// Of one that the Go driver made, whose name nothing else has: its file goes, even if an earlier call was cut off when it had
/// removed the disk, which leaves the file behind.
pub(super) const DELETE_OF_GO: &str = delete!(concat!(
    ":foreach file in=[/file find name~\"^$pool/(.+/)\\?$pattern\\\\.img\\$\"] do={",
    ":local image (\"/\" . [/file get $file name]); :if (",
    disks!("file-path=$image"),
    "=0) do={/file remove $file}}; "
));

/// Lets these hosts in, unless others are let in already, or all.
pub(super) const ADMIT_HOSTS: &str = concat!(
    ours_or_stop!(),
    "; ",
    strangers_or_go_on!(),
    "; ",
    open_or_go_on!(),
    "; ",
    set_hosts!(),
    "; ",
    switch!("yes"),
    "; ",
    show_disk!()
);

/// Lets nobody in, unless others are let in already, or all.
pub(super) const ADMIT_NOBODY: &str = concat!(
    ours_or_stop!(),
    "; ",
    strangers_or_go_on!(),
    "; ",
    open_or_go_on!(),
    "; ",
    switch!("no"),
    "; ",
    set_hosts!(),
    "; ",
    show_disk!()
);

/// Lets hosts in, or every host, unless others than known ones are let in by name. The list is set before the switch, so that
/// an empty one lets nobody in meanwhile.
pub(super) const SET_HOSTS: &str = concat!(
    ours_or_stop!(),
    "; ",
    strangers_or_go_on!(),
    "; ",
    set_hosts!(),
    "; ",
    switch!("yes"),
    "; ",
    show_disk!()
);

/// Lets nobody in, unless others than known ones are let in by name.
pub(super) const SHUT: &str = concat!(
    ours_or_stop!(),
    "; ",
    strangers_or_go_on!(),
    "; ",
    switch!("no"),
    "; ",
    set_hosts!(),
    "; ",
    show_disk!()
);

/// Lets hosts in, with the export off meanwhile, since a list alone cuts no connection.
pub(super) const FENCE: &str = concat!(
    ours_or_stop!(),
    "; ",
    strangers_or_go_on!(),
    "; ",
    switch!("no"),
    "; ",
    set_hosts!(),
    "; ",
    switch!("yes"),
    "; ",
    show_disk!()
);

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

/// Removes the snapshot. A subvolume of that name that can be written to is somebody's data.
pub(super) const DELETE_SNAPSHOT: &str = concat!(
    ":local mine ",
    subvolumes!(r#"name~"^$snap\\.$cluster\\.""#),
    "; ",
    ":if ([:len $mine]=0 && [:len ",
    subvolumes!(r#"name~"^$snap\\.""#),
    "]>0) do={:error \"rds-csi: other cluster\"}; ",
    ":if ([:len $mine]>[:len ",
    subvolumes!(r#"read-only=yes name~"^$snap\\.$cluster\\.""#),
    "]) ",
    "do={:error \"rds-csi: no snapshot\"}; ",
    ":if (",
    disks!(r#"file-path~"^/$pool/$snap\\.$cluster\\.""#),
    ">0) do={:error \"rds-csi: other files\"}; ",
    "/disk/btrfs/subvolume remove $mine"
);

/// Removes what the Go driver called a snapshot: a disk with the settings of its volume, over a file that none of its data is
/// in. Its name is nobody else's, so the file goes even if an earlier call was cut off when it had removed the disk.
pub(super) const DELETE_SNAPSHOT_OF_GO: &str = concat!(
    ":local there [/disk find slot=$snap]; :if ([:len $there]>",
    disks!("slot=$snap type=\"file\" file-path~\"^/$pool/(.+/)\\?$snap\\\\.img\\$\""),
    ") do={:error \"rds-csi: not a volume\"}; ",
    ":if (",
    disks!("slot=$snap comment~\"^rds-csi:\""),
    ">",
    disks!("slot=$snap comment~\"^rds-csi:$cluster( |\\$)\""),
    ") do={:error \"rds-csi: other cluster\"}; ",
    ":if (",
    disks!("slot=$snap nvme-tcp-export=yes nvme-tcp-server-allow-host-name~\".\""),
    ">0) do={:error \"rds-csi: other hosts\"}; ",
    "/disk remove $there; ",
    ":foreach file in=[/file find name~\"^$pool/(.+/)\\?$snap\\\\.img\\$\"] do={",
    ":local image (\"/\" . [/file get $file name]); :if (",
    disks!("file-path=$image"),
    "=0) do={/file remove $file}}"
);

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
