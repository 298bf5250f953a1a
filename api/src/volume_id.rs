//! The identity of a volume: its CSI name, and the id made from it, which is the slot and the subvolume on the array.
//! Snapshots have theirs in the same way.

use std::str::FromStr;

use uuid::Uuid;

use crate::text::{Malformed, text_newtype};

/// Separates our UUIDs from everybody else's. Changing it would give every volume another id.
const NAMES: Uuid = Uuid::from_u128(0x6d2f_9f5a_3c1e_5b7d_9a44_0c1b_7e58_d2a3);

/// RFC 4648, lower case: letters and digits only, as slots and file names like them.
const BASE32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// A name that a sidecar gives, in CSI's alphabet.
macro_rules! name {
    ($name:ident, $what:literal) => {
        text_newtype!($name);

        impl FromStr for $name {
            type Err = Malformed;

            fn from_str(text: &str) -> Result<Self, Malformed> {
                if (1..=128).contains(&text.len()) && !text.chars().any(char::is_control) {
                    Ok(Self(text.into()))
                } else {
                    Err(Malformed::new($what, text, "give 1 to 128 bytes without control characters"))
                }
            }
        }
    };
}

/// An id that names something on an array: its slot, with `<backend>/` before it if that is not the default one.
macro_rules! id {
    ($id:ident, $what:literal, $prefix:expr) => {
        text_newtype!($id);

        impl $id {
            /// Of what is in this slot of a backend.
            pub fn in_slot(backend: Option<&BackendName>, slot: &str) -> Result<Self, Malformed> {
                match backend {
                    None if slot.contains('/') => Err(malformed($what, slot)),
                    None => slot.parse(),
                    Some(backend) => format!("{backend}/{slot}").parse(),
                }
            }

            /// The array that it is on; none for the default one.
            pub fn backend(&self) -> Option<BackendName> {
                self.0.split_once('/').map(|(backend, _)| BackendName(backend.into()))
            }

            /// Its slot on that array.
            pub fn slot(&self) -> &str {
                self.0.split_once('/').map_or(&self.0, |(_, slot)| slot)
            }
        }

        impl FromStr for $id {
            type Err = Malformed;

            fn from_str(text: &str) -> Result<Self, Malformed> {
                if is_id(text, $prefix) { Ok(Self(text.into())) } else { Err(malformed($what, text)) }
            }
        }
    };
}

/// What the provisioner calls a volume (`CreateVolumeRequest.name`): 1 to 128 bytes, no control characters (CSI 1.13).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VolumeName(String);

name!(VolumeName, "volume name");

/// The name of one array among several (`backend` in the configuration and in a StorageClass): 1 to 24 lower-case letters,
/// digits and `-`, a letter first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackendName(String);

text_newtype!(BackendName);

impl FromStr for BackendName {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let valid = (1..=24).contains(&text.len())
            && text.starts_with(|c: char| c.is_ascii_lowercase())
            && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
        if valid {
            Ok(Self(text.into()))
        } else {
            let rule = "give 1 to 24 lower-case letters, digits or '-', a letter first";
            Err(Malformed::new("backend", text, rule))
        }
    }
}

/// A volume's id in Kubernetes: its slot, which is its subvolume's name too, and before it `<backend>/` if it is not on the
/// default backend.
///
/// The slot's alphabet is closed, since it becomes part of RouterOS scripts, paths and NQNs: a letter or digit first, then
/// letters, digits, `.`, `_` and `-`, without `..`; 63 characters at most.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VolumeId(String);

id!(VolumeId, "volume id", "");

impl VolumeId {
    /// The id of a new volume: a pure function of its backend and its name. Its slot has 30 characters, since RouterOS 7.24
    /// was seen to refuse more than 32. On the default backend the provisioner's `pvc-<uuid>` keeps its UUID; any other name
    /// is hashed into one, together with its backend, so that two arrays never export the same NQN.
    pub fn for_name(backend: Option<&BackendName>, name: &VolumeName) -> Self {
        Self(identify(backend, "pvc-", name.as_str()))
    }
}

/// What the snapshotter calls a snapshot (`CreateSnapshotRequest.name`): 1 to 128 bytes, no control characters (CSI 1.13).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapshotName(String);

name!(SnapshotName, "snapshot name");

/// A snapshot's id: `snap-…`, with `<backend>/` before it if it is not on the default backend. Its alphabet is a volume id's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapshotId(String);

id!(SnapshotId, "snapshot id", Self::PREFIX);

impl SnapshotId {
    /// What every snapshot's slot begins with.
    pub const PREFIX: &str = "snap-";

    /// The id of a new snapshot: a pure function of its backend and its name, as a volume's.
    pub fn for_name(backend: Option<&BackendName>, name: &SnapshotName) -> Self {
        let name = name.as_str();
        // The snapshotter's `snapshot-<uuid>` keeps its UUID.
        let name = name.strip_prefix("snapshot-").map_or_else(|| name.into(), |uuid| format!("snap-{uuid}"));
        Self(identify(backend, Self::PREFIX, &name))
    }
}

fn malformed(what: &'static str, text: &str) -> Malformed {
    let rule = "use 1 to 63 letters, digits, '.', '_' or '-', beginning with a letter or digit (a snapshot's with 'snap-') and \
                without '..'; before it, the backend and a '/' if it is not the default one";
    Malformed::new(what, text, rule)
}

fn is_id(text: &str, prefix: &str) -> bool {
    let (backend, slot) = match text.split_once('/') {
        Some((backend, slot)) => (Some(backend), slot),
        None => (None, text),
    };
    let alphabet = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    backend.is_none_or(|backend| backend.parse::<BackendName>().is_ok())
        && (1..=63).contains(&slot.len())
        && slot.starts_with(|c: char| c.is_ascii_alphanumeric())
        && slot.strip_prefix(prefix).is_some_and(|rest| prefix.is_empty() || !rest.is_empty())
        && slot.chars().all(alphabet)
        && !slot.contains("..")
}

/// `<prefix><26 characters>`, and the backend before it.
fn identify(backend: Option<&BackendName>, prefix: &str, name: &str) -> String {
    let Some(backend) = backend else {
        let uuid = name
            .strip_prefix(prefix)
            // Only the canonical form: two spellings of one UUID are two names, and must not become one volume.
            .and_then(|text| Uuid::from_str(text).ok().filter(|uuid| uuid.hyphenated().to_string() == text))
            .unwrap_or_else(|| Uuid::new_v5(&NAMES, name.as_bytes()));
        return format!("{prefix}{}", base32(uuid));
    };
    let uuid = Uuid::new_v5(&NAMES, format!("{backend}/{name}").as_bytes());
    format!("{backend}/{prefix}{}", base32(uuid))
}

/// 128 bits as 26 characters, the most significant first; the last character carries three of them.
fn base32(uuid: Uuid) -> String {
    let bits = uuid.as_u128();
    (0..26)
        .map(|place| {
            let shift = 123 - 5 * place;
            let digit = if shift >= 0 { bits >> shift } else { bits << -shift } & 31;
            char::from(BASE32[digit as usize])
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(name: &str) -> String {
        VolumeId::for_name(None, &name.parse().unwrap()).to_string()
    }

    #[test]
    fn the_id_of_a_name_never_changes() {
        assert_eq!(id("pvc-123e4567-e89b-12d3-a456-426614174000"), "pvc-ci7ekz7itmjnhjcwijtbif2aaa");
        assert_eq!(id("my volume"), "pvc-rsozmbw3bbm4xldlird4qe4j3y");
    }

    #[test]
    fn another_spelling_of_a_uuid_is_another_volume() {
        let lower = id("pvc-123e4567-e89b-12d3-a456-426614174abc");
        assert_ne!(lower, id("pvc-123E4567-E89B-12D3-A456-426614174ABC"));
        assert_ne!(lower, id("pvc-123e4567e89b12d3a456426614174abc"));
    }

    #[test]
    fn ids_of_the_go_driver_are_ids() {
        assert!("pvc-123e4567-e89b-12d3-a456-426614174000".parse::<VolumeId>().is_ok());
    }

    #[test]
    fn an_id_cannot_leave_its_place() {
        for text in [
            "",
            "../x",
            "A/b",
            "/b",
            "a/",
            "a/b/c",
            "a b",
            "-a",
            ".a",
            "a..b",
            "a;b",
            "a\"b",
            "a$b",
            "ä",
            "a\n",
            &"x".repeat(64),
        ] {
            let error = text.parse::<VolumeId>().unwrap_err().to_string();
            assert!(error.contains("volume id") && error.contains("use 1 to 63"), "{error}");
        }
    }

    #[test]
    fn an_id_names_its_backend_unless_that_is_the_default() {
        let backend: BackendName = "rack-2".parse().unwrap();
        let name = "pvc-123e4567-e89b-12d3-a456-426614174000".parse().unwrap();
        let elsewhere = VolumeId::for_name(Some(&backend), &name);
        assert_eq!((elsewhere.backend(), elsewhere.slot().len()), (Some(backend.clone()), 30));
        assert!(
            elsewhere.as_str().starts_with("rack-2/pvc-")
                && elsewhere.as_str().parse() == Ok(elsewhere.clone())
        );
        let here = VolumeId::for_name(None, &name);
        assert_eq!((here.backend(), here.slot()), (None, here.as_str()));
        assert_ne!(here.slot(), elsewhere.slot(), "two arrays would export one NQN");
        assert_eq!(VolumeId::in_slot(Some(&backend), elsewhere.slot()), Ok(elsewhere));
        assert!(VolumeId::in_slot(None, "a/pvc-b").is_err());
    }

    #[test]
    fn a_snapshot_is_told_from_a_volume_by_its_id() {
        let id =
            SnapshotId::for_name(None, &"snapshot-123e4567-e89b-12d3-a456-426614174000".parse().unwrap());
        assert_eq!(id.as_str(), "snap-ci7ekz7itmjnhjcwijtbif2aaa");
        assert_eq!(id.as_str().parse(), Ok(id));
        for text in ["", "snap-", "pvc-a", "a/pvc-b", "snap-a/b", "snap-a b"] {
            assert!(text.parse::<SnapshotId>().unwrap_err().to_string().contains("snapshot id"), "{text:?}");
        }
    }

    #[test]
    fn a_name_is_1_to_128_bytes_without_control_characters() {
        assert!("x".repeat(128).parse::<VolumeName>().is_ok());
        for text in ["", "a\nb", "\0", &"x".repeat(129)] {
            assert!(text.parse::<VolumeName>().is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn every_name_gives_a_valid_id_of_30_characters(name in "[^\\p{Cc}]{1,32}") {
            let made = id(&name);
            prop_assert_eq!(made.len(), 30);
            prop_assert!(made.parse::<VolumeId>().is_ok());
        }

        #[test]
        fn two_uuids_give_two_ids(a: u128, b: u128) {
            prop_assume!(a != b);
            prop_assert_ne!(base32(Uuid::from_u128(a)), base32(Uuid::from_u128(b)));
        }
    }
}
