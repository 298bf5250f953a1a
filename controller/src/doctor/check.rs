//! Every line that the doctor reports: what the driver relies on, and what to do where it does not hold.
//!
//! What RouterOS documents nowhere, or documents and was not seen by us, is a line here: an array that differs is told from
//! one that fits before a volume depends on it.

/// Something that the driver relies on, in the order in which it is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Check {
    Address,
    HostKey,
    Login,
    Version,
    Errors,
    Policies,
    LeastPrivilege,
    Sessions,
    Functions,
    Interpolation,
    Quoting,
    Patterns,
    LongLines,
    RemoveNothing,
    Json,
    ExactNumbers,
    Pool,
    Space,
    Prefix,
    Firewall,
    Alone,
    Leftovers,
    Create,
    ExactSize,
    PlainSize,
    CompareSizes,
    Comment,
    SlotLength,
    Repeat,
    HostListRead,
    NvmeConnect,
    NvmeData,
    Counters,
    AclAdmits,
    AclRefuses,
    Snapshot,
    Grow,
    GrowSeen,
    HostList,
    AclLive,
    AclCuts,
    AclFenced,
    AclSurvivor,
    EpochCuts,
    EpochOld,
    EpochNew,
    OffCuts,
    OffRefuses,
    Clone,
    ExistingFile,
    SnapshotData,
    SubvolumeInUse,
    SubvolumeRemoval,
    NothingLeft,
    Fence,
}

const MEND_UPDATE: &str =
    "update the array to RouterOS 7.21 or newer; if it is, report this text to the driver's authors";
const MEND_FENCE: &str =
    "do not configure a fence that rests on this; report the array's version and this text";
const MEND_NVME: &str =
    "check --nvme-address, --nvme-port and the array's firewall, and run this where a node would be";

impl Check {
    pub(super) const ALL: [Self; 55] = [
        Self::Address,
        Self::HostKey,
        Self::Login,
        Self::Version,
        Self::Errors,
        Self::Policies,
        Self::LeastPrivilege,
        Self::Sessions,
        Self::Functions,
        Self::Interpolation,
        Self::Quoting,
        Self::Patterns,
        Self::LongLines,
        Self::RemoveNothing,
        Self::Json,
        Self::ExactNumbers,
        Self::Pool,
        Self::Space,
        Self::Prefix,
        Self::Firewall,
        Self::Alone,
        Self::Leftovers,
        Self::Create,
        Self::ExactSize,
        Self::PlainSize,
        Self::CompareSizes,
        Self::Comment,
        Self::SlotLength,
        Self::Repeat,
        Self::HostListRead,
        Self::NvmeConnect,
        Self::NvmeData,
        Self::Counters,
        Self::AclAdmits,
        Self::AclRefuses,
        Self::Snapshot,
        Self::Grow,
        Self::GrowSeen,
        Self::HostList,
        Self::AclLive,
        Self::AclCuts,
        Self::AclFenced,
        Self::AclSurvivor,
        Self::EpochCuts,
        Self::EpochOld,
        Self::EpochNew,
        Self::OffCuts,
        Self::OffRefuses,
        Self::Clone,
        Self::ExistingFile,
        Self::SnapshotData,
        Self::SubvolumeInUse,
        Self::SubvolumeRemoval,
        Self::NothingLeft,
        Self::Fence,
    ];

    pub(super) const fn id(self) -> &'static str {
        self.row().0
    }

    /// What is looked at.
    pub(super) const fn says(self) -> &'static str {
        self.row().1
    }

    /// What to do if it does not hold.
    pub(super) const fn mend(self) -> &'static str {
        self.row().2
    }

    const fn row(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Address => (
                "address",
                "the array's SSH port takes TCP connections",
                "check --array-address, --array-port, the network between, and that /ip/service has ssh enabled",
            ),
            Self::HostKey => (
                "host-key",
                "the array shows the host key that --array-known-hosts has",
                "if the array was replaced or reset, compare its key at its console and write the new one into the file; \
                 otherwise somebody else answers at its address",
            ),
            Self::Login => (
                "login",
                "the user and its key are let in, and a command is answered",
                "check --array-user and --array-key, import the public key with /user/ssh-keys/import, and give the user's \
                 group the policy ssh",
            ),
            Self::Errors => ("script-errors", "a script that fails tells why (:onerror)", MEND_UPDATE),
            Self::Version => ("version", "RouterOS is 7.21 or newer", MEND_UPDATE),
            Self::Policies => (
                "policies",
                "the user's group has the policies ssh, read and write",
                "/user/group/set GROUP policy=ssh,read,write",
            ),
            Self::LeastPrivilege => (
                "least-privilege",
                "the user's group has no more policies than ssh, read, write and test",
                "make a group of the driver's own: /user/group/add name=rds-csi policy=ssh,read,write, and put the user in it",
            ),
            Self::Sessions => (
                "sessions",
                "the array takes as many SSH sessions as --array-sessions, and some for people",
                "lower --array-sessions, or /ip/service/set ssh max-sessions=20",
            ),
            Self::Functions => (
                "script-functions",
                "scripts have functions with named arguments, and cut and split texts",
                MEND_UPDATE,
            ),
            Self::Interpolation => {
                ("interpolation", "a variable in a text stands for its value, in a pattern too", MEND_UPDATE)
            }
            Self::RemoveNothing => {
                ("remove-nothing", "removing what is not there is no failure", MEND_UPDATE)
            }
            Self::PlainSize => ("plain-size", "a script reads that size in digits", MEND_UPDATE),
            Self::CompareSizes => ("compare-sizes", "a script compares it as a number", MEND_UPDATE),
            Self::Quoting => {
                ("quoting", "a quoted text comes back as it was sent, whatever is in it", MEND_UPDATE)
            }
            Self::Patterns => (
                "patterns",
                "a pattern is a regular expression, with \\. for a dot and [^/] for what is no slash",
                MEND_UPDATE,
            ),
            Self::LongLines => (
                "long-lines",
                "a command as long as --array-line-limit allows arrives whole",
                "lower --array-line-limit, and report the array's version",
            ),
            Self::Json => ("json", "what is printed can be had as JSON (:serialize to=json)", MEND_UPDATE),
            Self::ExactNumbers => ("exact-numbers", "numbers in JSON are exact up to 8 PiB", MEND_UPDATE),
            Self::Pool => (
                "pool",
                "the pool is a btrfs that is mounted under its name",
                "check --pool; make it with /disk/format-drive file-system=btrfs label=POOL and mount-point-template",
            ),
            Self::Space => {
                ("space", "the pool has 1 GiB free", "remove what is not needed, or add drives to the pool")
            }
            Self::Prefix => (
                "nqn-prefix",
                "--managed-nqn-prefix covers the volumes that the driver makes",
                "give nqn.2000-02.com.mikrotik:pvc-, as the nodes' agents must have it",
            ),
            Self::Firewall => (
                "firewall",
                "the user may read the firewall's raw rules, and put an address on a list (no fence uses this yet)",
                "nothing rests on this yet",
            ),
            Self::Alone => (
                "alone",
                "no other doctor examines the array for this cluster",
                "wait until it ends; if it runs no more, give --leftovers-after 0",
            ),
            Self::Leftovers => (
                "leftovers",
                "what an earlier run left behind is gone",
                "remove disks and subvolumes named pvc-doctor-… and snap-doctor-… on the array",
            ),
            Self::Create => (
                "create",
                "a volume is made: a subvolume, a file disk in it, its own NQN",
                "see what the array said; /log/print has more",
            ),
            Self::ExactSize => ("exact-size", "its size in plain bytes is kept to the byte", MEND_UPDATE),
            Self::Comment => (
                "comment",
                "a disk keeps its comment, which says whose it is",
                "do not let two clusters share this array; report its version",
            ),
            Self::SlotLength => ("slot-length", "a slot's name of 30 characters is kept whole", MEND_UPDATE),
            Self::Repeat => ("repeat", "making it again finds it, and changes nothing", MEND_UPDATE),
            Self::HostListRead => (
                "host-list-read",
                "a list of two hosts reads back as these two, and who knows of one alone is told of the other",
                MEND_FENCE,
            ),
            Self::NvmeConnect => {
                ("nvme-connect", "its export is reached over NVMe/TCP, and has the volume's size", MEND_NVME)
            }
            Self::NvmeData => ("nvme-data", "what is written there is read back", MEND_NVME),
            Self::Counters => (
                "write-counters",
                "the array counts what is written to a disk, which must stand still after a fence",
                "a fence rests on the cut alone here",
            ),
            Self::AclAdmits => ("acl-admits", "a host on the export's list connects", MEND_FENCE),
            Self::AclRefuses => ("acl-refuses", "a host that is not on it is refused", MEND_FENCE),
            Self::Snapshot => ("snapshot", "a snapshot is taken of a volume in use", MEND_UPDATE),
            Self::Grow => ("grow", "a volume in use grows, to the byte", MEND_UPDATE),
            Self::GrowSeen => ("grow-seen", "a live connection sees the new size", MEND_UPDATE),
            Self::HostList => ("host-list", "the list takes two hosts, and both connect", MEND_FENCE),
            Self::AclLive => (
                "acl-live",
                "it is known what happens to a live connection whose host is taken off the list",
                MEND_FENCE,
            ),
            Self::AclCuts => {
                ("acl-cuts", "switching the export off and on cuts who was taken off the list", MEND_FENCE)
            }
            Self::AclFenced => ("acl-fenced", "it is refused when it comes back", MEND_FENCE),
            Self::AclSurvivor => {
                ("acl-survivor", "who is on the list comes back, and finds its data", MEND_FENCE)
            }
            Self::EpochCuts => ("epoch-cuts", "a new NQN cuts who is connected by the old one", MEND_FENCE),
            Self::EpochOld => ("epoch-old", "the old NQN is refused from then on", MEND_FENCE),
            Self::EpochNew => ("epoch-new", "the new NQN connects, and has the same data", MEND_FENCE),
            Self::OffCuts => ("off-cuts", "switching the export off cuts who is connected", MEND_FENCE),
            Self::OffRefuses => ("off-refuses", "nobody connects while it is off", MEND_FENCE),
            Self::Clone => ("clone", "a volume is made of a snapshot, with an NQN of its own", MEND_UPDATE),
            Self::ExistingFile => {
                ("existing-file", "a disk over a file that is there has its size and its bytes", MEND_UPDATE)
            }
            Self::SnapshotData => (
                "snapshot-data",
                "it holds what was written before the snapshot, and nothing that was written after",
                "do not use snapshots on this array; report its version and this text",
            ),
            Self::SubvolumeInUse => (
                "subvolume-in-use",
                "a subvolume that a disk's file lies in is not removed",
                "nothing but the driver's own look protects a volume here: make no disk by hand over a file in a volume's \
                 subvolume, and report the array's version",
            ),
            Self::SubvolumeRemoval => (
                "subvolume-removal",
                "removing a volume takes disk, subvolume and file along",
                "look for leftovers below the pool in /file; report the array's version",
            ),
            Self::NothingLeft => (
                "nothing-left",
                "nothing of this examination is left on the array",
                "remove disks and subvolumes named pvc-doctor-… and snap-doctor-… on the array, or run this again",
            ),
            Self::Fence => (
                "fence",
                "the fence that is configured was proved",
                "configure what the end of this report names; with `none` whoever forces a detach must shut the node down",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_check_has_its_own_id_and_its_place() {
        let ids: BTreeSet<_> = Check::ALL.iter().map(|check| check.id()).collect();
        assert_eq!(ids.len(), Check::ALL.len());
        for (place, check) in Check::ALL.iter().enumerate() {
            assert_eq!(*check as usize, place, "{check:?}");
        }
    }

    #[test]
    fn the_document_for_operators_tells_every_check() {
        let document = include_str!("../../../docs/array.md");
        let (_, section) = document.split_once("## What doctor proves").unwrap();
        let (section, _) = section.split_once("\n## ").unwrap();
        let lines = section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once(" |"));
        let told: BTreeSet<_> =
            lines.flat_map(|(ids, _)| ids.split(", ")).map(|id| id.trim_matches('`')).collect();
        assert_eq!(told, Check::ALL.iter().map(|check| check.id()).collect());
    }
}
