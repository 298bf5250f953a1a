//! What removes volumes and snapshots. Nothing goes by its name alone, unless nobody but a driver gives such names, and only
//! from where that driver puts it.

use super::fragments::{disks, hosts, known_or_stop, making, ours_or_stop, subvolumes};

/// Removes the disk if it is ours and nobody is let in whom `$known` does not match, and leaves the path of its image in `$image`. Stops before that
/// if `$image` is none of a volume.
macro_rules! remove_disk {
    ($wrong:expr) => {
        concat!(
            ours_or_stop!(),
            "; ",
            known_or_stop!(),
            "; :local image [/disk get $ours file-path]; :if (",
            $wrong,
            ") do={:error \"rds-csi: not a volume\"}; /disk remove $ours"
        )
    };
}

/// Whether `$image` is not in the volume's own subvolume.
macro_rules! outside {
    () => {
        "$image!=\"/$pool/$volume/disk.img\""
    };
}

/// Whether `$image` is no file of the volume's name.
macro_rules! not_flat {
    () => {
        r#"!($image~"^/$pool/(.+/)\?$pattern\\.img\$")"#
    };
}

/// Stops if there is more in the subvolume than our image.
macro_rules! only_image_or_stop {
    () => {
        concat!(
            ":if ([:len [/file find name~\"^$pool/$pattern/\"]]>[:len [/file find name=\"$pool/$volume/disk.img\"]]) ",
            "do={:error \"rds-csi: other files\"}"
        )
    };
}

/// Removes the subvolume, unless another disk uses what is in it, and what says that it is not whole.
macro_rules! remove_subvolume {
    () => {
        concat!(
            ":foreach subvolume in=",
            subvolumes!("name=$volume"),
            " do={:if (",
            disks!("file-path~\"^/$pool/$pattern/\""),
            ">0) do={:error \"rds-csi: other files\"}; /disk/btrfs/subvolume remove $subvolume}; ",
            "/disk/btrfs/subvolume remove [find fs=$pool name=",
            making!(),
            "]"
        )
    };
}

/// Removes the file that a disk was made of.
macro_rules! remove_image {
    () => {
        "/file remove [/file find name=[:pick $image 1 [:len $image]]]"
    };
}

/// Removes the Go driver's file of this name where that driver puts it: in the pool or in one directory below it, which is no
/// subvolume, and under no disk. Copies that people keep elsewhere are theirs.
macro_rules! remove_flat {
    ($slot:literal) => {
        concat!(
            ":foreach file in=[/file find name~\"^$pool/([^/]+/)\\?",
            $slot,
            "\\\\.img\\$\"] do={:local image (\"/\" . [/file get $file name]); :local end ([:len $image]-[:len ",
            $slot,
            "]-5); :if (",
            disks!("file-path=$image"),
            "=0 && [:len ",
            subvolumes!("name=[:pick $image ([:len $pool]+2) $end]"),
            "]=0) do={/file remove $file}}"
        )
    };
}

/// Of a volume with an id as only this driver gives them: its subvolume is known by its name, and goes even if an earlier call
/// was cut off when it had removed the disk.
pub(super) const DELETE: &str = concat!(
    only_image_or_stop!(),
    "; :if (",
    disks!("slot=$volume"),
    ">0) do={",
    remove_disk!(outside!()),
    "}; ",
    remove_subvolume!()
);

/// Of one that the Go driver made, whose name nothing else has: its file goes, even if an earlier call was cut off when it had
/// removed the disk, which leaves the file behind.
pub(super) const DELETE_OF_GO: &str = concat!(
    ":if (",
    disks!("slot=$volume"),
    ">0) do={",
    remove_disk!(not_flat!()),
    "; ",
    remove_image!(),
    "} else={",
    remove_flat!("$volume"),
    "}"
);

/// Of any other: only its disk says that what has its name is no person's.
pub(super) const DELETE_OF_OTHERS: &str = concat!(
    ":if (",
    disks!("slot=$volume"),
    ">0) do={",
    only_image_or_stop!(),
    "; ",
    remove_disk!(concat!(outside!(), " && ", not_flat!())),
    "; :if (",
    outside!(),
    ") do={",
    remove_image!(),
    "} else={",
    remove_subvolume!(),
    "}}"
);

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
    ":foreach disk in=[/disk find slot=$snap nvme-tcp-export=yes] do={:if ([:len ",
    hosts!("$disk"),
    "]>0) do={:error \"rds-csi: other hosts\"}}; ",
    ":if ([:len $there]>0) do={:local image [/disk get $there file-path]; /disk remove $there; ",
    remove_image!(),
    "} else={",
    remove_flat!("$snap"),
    "}"
);
