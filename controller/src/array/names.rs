//! Names that stand on the array beside the volumes' own: the pool, the cluster that owns a volume, and what a volume is
//! to people.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use rds_csi_api::SnapshotId;
use rds_csi_api::text::Malformed;
use uuid::Uuid;

/// The btrfs pool that volumes live in: its name, which is its mount point too, without slashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool(String);

/// Who owns a volume on an array that several clusters share. It is written into every disk's comment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterId(String);

/// What a volume is to people, for whoever stands at the array. Nothing is decided by it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Label {
    /// The persistent volume.
    pub pv: Option<KubeName>,
    /// The namespace of the claim.
    pub namespace: Option<KubeName>,
    /// The claim.
    pub pvc: Option<KubeName>,
}

/// What a volume was asked for with, in short: two requests with the same one asked for the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digest(u32);

/// The name of a Kubernetes object: a DNS-1123 subdomain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KubeName(String);

/// Whether the Go driver made that id, `snap-<uuid>` or `snap-<uuid>-at-<hexadecimal>`: no snapshot of ours has such a one.
///
/// What it named so is a disk with the settings of its volume, and none of its data.
pub(super) fn is_snapshot_of_go(id: &SnapshotId) -> bool {
    let Some(name) = id.slot().strip_prefix(SnapshotId::PREFIX) else { return false };
    let (uuid, taken) = name.split_once("-at-").unwrap_or((name, "0"));
    is_uuid(uuid) && !taken.is_empty() && taken.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether it is a slot that only this driver gives: `pvc-` and a UUID in base32.
pub(crate) fn is_of_this_driver(slot: &str) -> bool {
    let digits = slot.strip_prefix("pvc-").filter(|digits| digits.len() == 26);
    digits.is_some_and(|digits| digits.bytes().all(|b| matches!(b, b'a'..=b'z' | b'2'..=b'7')))
}

/// Whether it is a slot that only the Go driver gives: `pvc-<uuid>`.
pub(super) fn is_of_go(slot: &str) -> bool {
    slot.strip_prefix("pvc-").is_some_and(is_uuid)
}

/// Whether it is a UUID with its four hyphens.
fn is_uuid(text: &str) -> bool {
    text.len() == 36 && Uuid::try_parse(text).is_ok()
}

/// One closed alphabet for pools and clusters: letters, digits, `_` and `-`, a letter or digit first.
fn plain(text: &str, longest: usize) -> bool {
    (1..=longest).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
}

/// Separates these hashes from all others. Changing it would make every repeated CreateVolume a conflict.
const DIGESTS: Uuid = Uuid::from_u128(0x9b1d_70c4_5f0e_5c1b_8a37_41f2_be06_93d8);

impl Digest {
    /// Of keys and values, in whatever order they came.
    pub fn of<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let sorted: BTreeMap<_, _> = pairs.into_iter().collect();
        // Lengths before the texts, so that no two lists read the same.
        let mut text = String::new();
        for part in sorted.iter().flat_map(|(key, value)| [key, value]) {
            text.push_str(&part.len().to_string());
            text.push(':');
            text.push_str(part);
        }
        Self(Uuid::new_v5(&DIGESTS, text.as_bytes()).as_fields().0)
    }
}

/// Eight hexadecimal digits.
impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl FromStr for Digest {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let digits = text.len() == 8 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let number = digits.then(|| u32::from_str_radix(text, 16).ok()).flatten();
        number.map(Self).ok_or_else(|| Malformed::new("digest", text, "give eight hexadecimal digits"))
    }
}

impl FromStr for Pool {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        if plain(text, 32) {
            Ok(Self(text.into()))
        } else {
            let rule = "give the name of the btrfs pool without slashes: 1 to 32 letters, digits, '_' or '-'";
            Err(Malformed::new("pool", text, rule))
        }
    }
}

impl FromStr for ClusterId {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        if plain(text, 36) {
            Ok(Self(text.into()))
        } else {
            let rule =
                "give a name that no other cluster on the array has: 1 to 36 letters, digits, '_' or '-'";
            Err(Malformed::new("cluster id", text, rule))
        }
    }
}

impl KubeName {
    /// Reads the name that stands in the field `what`.
    pub fn parse(what: &'static str, text: &str) -> Result<Self, Malformed> {
        let valid = (1..=253).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.'));
        if valid {
            Ok(Self(text.into()))
        } else {
            let rule =
                "give the name of a Kubernetes object: lower-case letters, digits, '-' and '.', 253 at most";
            Err(Malformed::new(what, text, rule))
        }
    }
}

impl Pool {
    /// The name itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl ClusterId {
    /// The id itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for KubeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// ` pv=<name> pvc=<namespace>/<claim>`, each with a space before it and left out if it is not known.
impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Three names of full length would not fit into one command; people recognise them by less.
        let short = |name: &KubeName, most| name.0.chars().take(most).collect::<String>();
        if let Some(pv) = &self.pv {
            write!(f, " pv={}", short(pv, 40))?;
        }
        match (&self.namespace, &self.pvc) {
            (Some(namespace), Some(pvc)) => write!(f, " pvc={}/{}", short(namespace, 24), short(pvc, 26)),
            (None, Some(pvc)) => write!(f, " pvc={}", short(pvc, 26)),
            (_, None) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use rds_csi_api::VolumeId;

    use super::*;

    #[test]
    fn names_keep_to_their_alphabet_and_say_so() {
        for text in ["", "/storage-pool", "a b", "a\"b", "-a", "a.b", "ä", &"x".repeat(41)] {
            assert!(text.parse::<Pool>().unwrap_err().to_string().contains("without slashes"), "{text:?}");
            assert!(
                text.parse::<ClusterId>().unwrap_err().to_string().contains("no other cluster"),
                "{text:?}"
            );
        }
        for text in ["", "A", "a b", "a/b", "a_b", &"x".repeat(254)] {
            assert!(KubeName::parse("name", text).is_err(), "{text:?}");
        }
        assert!("storage-pool".parse::<Pool>().is_ok());
    }

    #[test]
    fn a_digest_tells_requests_apart_and_never_changes() {
        let digest = Digest::of([("nvmePort", "4421"), ("ctrlLossTmo", "600")]);
        assert_eq!(digest, Digest::of([("ctrlLossTmo", "600"), ("nvmePort", "4421")]));
        assert_ne!(digest, Digest::of([("ctrlLossTmo", "601"), ("nvmePort", "4421")]));
        assert_ne!(Digest::of([("a", "b1:c")]), Digest::of([("a", "b"), ("c", "")]));
        assert_eq!(digest.to_string().parse(), Ok(digest));
        assert_eq!(Digest::of([]).to_string(), "c66e7f43");
    }

    #[test]
    fn the_go_drivers_snapshots_are_told_from_ours_by_their_ids() {
        let uuid = "123e4567-e89b-12d3-a456-426614174000";
        let of_go = |id: String| is_snapshot_of_go(&id.parse().unwrap());
        for id in ["", "-at-3a9f8c02d1", "-at-1739800000"].map(|end| format!("snap-{uuid}{end}")) {
            assert!(of_go(id.clone()), "{id}");
        }
        for id in ["snap-ci7ekz7itmjnhjcwijtbif2aaa", "snap-123e4567e89b12d3a456426614174000", "snap-a-at-1"]
        {
            assert!(!of_go(id.into()), "{id}");
        }
        assert!(!of_go(format!("snap-{uuid}-at-x")) && !of_go(format!("snap-{uuid}-at-1-at-2")));
    }

    #[test]
    fn each_drivers_volumes_are_told_by_their_slots() {
        let of_name = VolumeId::for_name(None, &"pvc-123e4567-e89b-12d3-a456-426614174000".parse().unwrap());
        let other = VolumeId::for_name(Some(&"far".parse().unwrap()), &"my volume".parse().unwrap());
        for ours in [of_name.slot(), other.slot()] {
            assert!(is_of_this_driver(ours) && !is_of_go(ours), "{ours}");
        }
        let go = "pvc-123e4567-e89b-12d3-a456-426614174000";
        assert!(is_of_go(go) && !is_of_this_driver(go));
        for nobodys in [
            "",
            "pvc-",
            "backup",
            "pvc-a",
            "ci7ekz7itmjnhjcwijtbif2aaa",
            "pvc-ci7ekz7itmjnhjcwijtbif2aa",
            "pvc-ci7ekz7itmjnhjcwijtbif2aaaa",
            "pvc-Ci7ekz7itmjnhjcwijtbif2aaa",
            "pvc-ci7ekz7itmjnhjcwijtbif2aa1",
            "snap-ci7ekz7itmjnhjcwijtbif2aaa",
            "pvc-123e4567e89b12d3a456426614174000",
            "pvc-doctor-c66e7f43-0123456789",
        ] {
            assert!(!is_of_this_driver(nobodys) && !is_of_go(nobodys), "{nobodys}");
        }
    }

    #[test]
    fn a_label_names_what_is_known() {
        let name = |text| Some(KubeName::parse("name", text).unwrap());
        let label = Label { pv: name("pvc-1"), namespace: name("shop"), pvc: name("db-0") };
        assert_eq!(label.to_string(), " pv=pvc-1 pvc=shop/db-0");
        assert_eq!(Label { pv: None, namespace: None, pvc: name("db-0") }.to_string(), " pvc=db-0");
        assert_eq!(Label::default().to_string(), "");
    }
}
