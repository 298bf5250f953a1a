//! The identity of a volume: its CSI name, and the id made from it, which is the slot and the subvolume on the array.

use std::str::FromStr;

use uuid::Uuid;

use crate::text::{Malformed, text_newtype};

/// Separates our UUIDs from everybody else's. Changing it would give every volume another id.
const NAMES: Uuid = Uuid::from_u128(0x6d2f_9f5a_3c1e_5b7d_9a44_0c1b_7e58_d2a3);

/// RFC 4648, lower case: letters and digits only, as slots and file names like them.
const BASE32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// What the provisioner calls a volume (`CreateVolumeRequest.name`): 1 to 128 bytes, no control characters (CSI 1.13).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VolumeName(String);

text_newtype!(VolumeName);

impl FromStr for VolumeName {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let valid = (1..=128).contains(&text.len()) && !text.chars().any(char::is_control);
        if valid {
            Ok(Self(text.into()))
        } else {
            Err(Malformed::new("volume name", text, "give 1 to 128 bytes without control characters"))
        }
    }
}

/// A volume's id in Kubernetes, and its slot and subvolume name on the array.
///
/// The alphabet is closed, since an id becomes part of RouterOS scripts, paths and NQNs: a letter or digit first, then
/// letters, digits, `.`, `_` and `-`, without `..`; 63 characters at most.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VolumeId(String);

text_newtype!(VolumeId);

impl VolumeId {
    /// The id of a new volume: a pure function of its name, 30 characters, since RouterOS 7.24 was seen to refuse slots of
    /// more than 32. The provisioner's `pvc-<uuid>` keeps its UUID; any other name is hashed into one.
    pub fn for_name(name: &VolumeName) -> Self {
        let uuid = name
            .as_str()
            .strip_prefix("pvc-")
            // Only the canonical form: two spellings of one UUID are two names, and must not become one volume.
            .and_then(|text| Uuid::from_str(text).ok().filter(|uuid| uuid.hyphenated().to_string() == text))
            .unwrap_or_else(|| Uuid::new_v5(&NAMES, name.as_str().as_bytes()));
        Self(format!("pvc-{}", base32(uuid)))
    }
}

impl FromStr for VolumeId {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let alphabet = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let valid = (1..=63).contains(&text.len())
            && text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text.chars().all(alphabet)
            && !text.contains("..");
        if valid {
            Ok(Self(text.into()))
        } else {
            Err(Malformed::new(
                "volume id",
                text,
                "use 1 to 63 letters, digits, '.', '_' or '-', beginning with a letter or digit and without '..'",
            ))
        }
    }
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
        VolumeId::for_name(&name.parse().unwrap()).to_string()
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
        for text in
            ["", "../x", "a/b", "a b", "-a", ".a", "a..b", "a;b", "a\"b", "a$b", "ä", "a\n", &"x".repeat(64)]
        {
            let error = text.parse::<VolumeId>().unwrap_err().to_string();
            assert!(error.contains("volume id") && error.contains("use 1 to 63"), "{error}");
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
