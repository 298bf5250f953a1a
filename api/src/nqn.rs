//! NVMe qualified names: of the subsystems that volumes are exported as, and the prefix that says which are ours.

use std::str::FromStr;

use crate::text::{Malformed, text_newtype};
use crate::volume_id::VolumeId;

/// What RouterOS itself would name the export of a slot, and what the Go driver named every volume.
const VOLUME_NQN_PREFIX: &str = "nqn.2000-02.com.mikrotik:";

/// An NVMe qualified name: `nqn.`, at most 223 bytes (NVMe 2.0, 4.5), and a closed alphabet of letters, digits and
/// `.`, `:`, `_`, `-`, since it is written into RouterOS scripts and the kernel's comma-separated options.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nqn(String);

text_newtype!(Nqn);

impl Nqn {
    /// The NQN a new volume is exported under.
    pub fn of_volume(volume: &VolumeId) -> Self {
        Self(format!("{VOLUME_NQN_PREFIX}{}", volume.slot()))
    }

    /// Whether the volume is exported under this name, or was, or may be yet: the one that it was made under, or the same
    /// with the number of a later epoch behind it, `…:e2` and so on. Each fence begins an epoch.
    pub fn is_of(&self, volume: &VolumeId) -> bool {
        self.epoch(volume).is_some()
    }

    /// The volume's name in the epoch after this one's; none if this is not a name of the volume.
    pub fn next(&self, volume: &VolumeId) -> Option<Self> {
        let next = self.epoch(volume)?.checked_add(1)?;
        Some(Self(format!("{}:e{next}", Self::of_volume(volume))))
    }

    fn epoch(&self, volume: &VolumeId) -> Option<u32> {
        let rest = self.0.strip_prefix(VOLUME_NQN_PREFIX)?.strip_prefix(volume.slot())?;
        if rest.is_empty() {
            return Some(1);
        }
        let digits = rest.strip_prefix(":e")?;
        let number: u32 = digits.parse().ok().filter(|number| *number > 1)?;
        // One spelling only: `02` is a number, too.
        (number.to_string() == digits).then_some(number)
    }
}

impl FromStr for Nqn {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        if is_nqn_text(text) && text.len() > "nqn.".len() && text.len() <= 223 {
            Ok(Self(text.into()))
        } else {
            Err(Malformed::new(
                "NQN",
                text,
                "give 'nqn.' and letters, digits, '.', ':', '_' or '-', 223 bytes at most",
            ))
        }
    }
}

fn is_nqn_text(text: &str) -> bool {
    text.starts_with("nqn.")
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | ':' | '_' | '-'))
}

/// The beginning of the NQNs this driver may touch. Everything else on the array belongs to somebody else: nodes may mount
/// their own `/var` from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManagedPrefix(String);

text_newtype!(ManagedPrefix);

impl ManagedPrefix {
    /// Whether a subsystem of this name is the driver's.
    pub fn covers(&self, nqn: &Nqn) -> bool {
        nqn.0.starts_with(&self.0)
    }

    /// Whether this is a name that the volume is exported under. It tells nothing of the backend: ids that this driver makes never
    /// share a slot, but those of replicated or taken-over arrays may, and then two volumes have one name.
    pub fn is_of(&self, nqn: &Nqn, volume: &VolumeId) -> bool {
        self.volume(nqn).is_some_and(|named| named.slot() == volume.slot())
    }

    /// The volume that the driver exports under this NQN, which does not tell its backend; none if it is not the driver's.
    pub fn volume(&self, nqn: &Nqn) -> Option<VolumeId> {
        if !self.covers(nqn) {
            return None;
        }
        let (_, name) = nqn.0.split_once(':')?;
        // A volume that was fenced goes on under the same name with an epoch behind it: `pvc-x:e2`.
        name.split(':').next()?.parse().ok()
    }
}

impl FromStr for ManagedPrefix {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let rule = "give the authority and the beginning of the names, such as 'nqn.2000-02.com.mikrotik:pvc-'; \
                    a prefix that ends at the colon would cover the system's own volumes";
        let names = text.split_once(':').map_or("", |(_, names)| names);
        let dated = text.strip_prefix("nqn.").is_some_and(is_dated_authority);
        if is_nqn_text(text) && dated && !names.is_empty() && text.len() < 223 {
            Ok(Self(text.into()))
        } else {
            Err(Malformed::new("managed NQN prefix", text, rule))
        }
    }
}

/// `2000-02.com.mikrotik:…`: year, month and the reversed domain that held it then (NVMe 2.0, 4.5).
fn is_dated_authority(text: &str) -> bool {
    let digits = |part: &str, count| part.len() == count && part.bytes().all(|b| b.is_ascii_digit());
    let Some((date, rest)) = text.split_once('.') else {
        return false;
    };
    let Some((year, month)) = date.split_once('-') else {
        return false;
    };
    digits(year, 4) && digits(month, 2) && rest.split_once(':').is_some_and(|(domain, _)| !domain.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_is_exported_under_its_id() {
        let nqn = Nqn::of_volume(&"pvc-x".parse().unwrap());
        assert_eq!(nqn.as_str(), "nqn.2000-02.com.mikrotik:pvc-x");
        assert_eq!(nqn.as_str().parse::<Nqn>().unwrap(), nqn);
    }

    #[test]
    fn each_epoch_of_a_volume_has_a_name_of_its_own() {
        let volume: VolumeId = format!("far/{}", "x".repeat(63)).parse().unwrap();
        let first = Nqn::of_volume(&volume);
        let second = first.next(&volume).unwrap();
        assert_eq!(second.as_str(), format!("{first}:e2"));
        assert_eq!(second.next(&volume).unwrap().as_str(), format!("{first}:e3"));
        let last: Nqn = format!("{first}:e{}", u32::MAX).parse().unwrap();
        assert!(last.is_of(&volume) && last.next(&volume).is_none());
        let other: VolumeId = "pvc-a".parse().unwrap();
        for name in ["pvc-a:e1", "pvc-a:e02", "pvc-a:e", "pvc-a:2", "pvc-a:e2:e3", "pvc-ab", "pvc-ab:e2"] {
            let nqn: Nqn = format!("{VOLUME_NQN_PREFIX}{name}").parse().unwrap();
            assert!(!nqn.is_of(&other) && nqn.next(&other).is_none(), "{name}");
        }
    }

    #[test]
    fn an_nqn_cannot_smuggle_an_option_or_a_command() {
        for text in [
            "",
            "nqn.",
            "eui.01",
            "nqn.a,hostid=1",
            "nqn.a b",
            "nqn.a;b",
            "nqn.a\n",
            &format!("nqn.{}", "x".repeat(220)),
        ] {
            assert!(text.parse::<Nqn>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_managed_prefix_names_more_than_an_authority() {
        assert!("nqn.2000-02.com.mikrotik:pvc-".parse::<ManagedPrefix>().is_ok());
        for text in [
            "",
            "nqn.",
            "nqn.2000-02.com.mikrotik",
            "nqn.2000-02.com.mikrotik:",
            "pvc-",
            "nqn.x:pvc-",
            "nqn.2000-02.:pvc-",
        ] {
            let error = text.parse::<ManagedPrefix>().unwrap_err().to_string();
            assert!(error.contains("nqn.2000-02.com.mikrotik:pvc-"), "{error}");
        }
    }

    #[test]
    fn the_prefix_leaves_system_volumes_alone() {
        let prefix: ManagedPrefix = "nqn.2000-02.com.mikrotik:pvc-".parse().unwrap();
        let system: Nqn = "nqn.2000-02.com.mikrotik:nixos-var".parse().unwrap();
        let ours: Nqn = "nqn.2000-02.com.mikrotik:pvc-a:e2".parse().unwrap();
        assert!(!prefix.covers(&system) && prefix.volume(&system).is_none());
        assert_eq!(prefix.volume(&ours), Some("pvc-a".parse().unwrap()));
    }
}
