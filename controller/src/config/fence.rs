//! How nodes are shut out of an array, and on which release `doctor` has proved that it works.

use std::fmt;
use std::str::FromStr;

use rds_csi_api::text::Malformed;

use crate::attachments::Fence;

/// How nodes are shut out of an array.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fencing {
    way: Fence,
    proved_on: Option<Release>,
}

/// A release of RouterOS as the array tells it, such as `7.21.2` or `7.22rc1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release(String);

impl Fencing {
    /// They are not.
    pub const NONE: Self = Self { way: Fence::None, proved_on: None };

    /// What it does, whoever has proved it.
    pub const fn way(&self) -> Fence {
        self.way
    }

    /// Where it was proved that it works, if anybody says so.
    pub const fn proved_on(&self) -> Option<&Release> {
        self.proved_on.as_ref()
    }

    /// Whether it is to work, and nobody says that it does.
    pub fn is_only_believed_in(&self) -> bool {
        self.way != Fence::None && self.proved_on.is_none()
    }
}

impl FromStr for Fencing {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let is_release = |text: &str| {
            (1..=32).contains(&text.len())
                && text.starts_with(|c: char| c.is_ascii_digit())
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.')
        };
        let (way, release) = text.split_once('@').map_or((text, None), |(way, release)| (way, Some(release)));
        let way = Fence::ALL.into_iter().find(|known| known.as_str() == way);
        match (way, release) {
            (Some(way), None) => Ok(Self { way, proved_on: None }),
            (Some(way), Some(release)) if way != Fence::None && is_release(release) => {
                Ok(Self { way, proved_on: Some(Release(release.into())) })
            }
            _ => {
                let rule = "give none, or acl@ or epoch@ and the RouterOS release that doctor proved it on, such as acl@7.21.2";
                Err(Malformed::new("fence", text, rule))
            }
        }
    }
}

/// As it is configured.
impl fmt::Display for Fencing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.way.as_str())?;
        self.proved_on.as_ref().map_or(Ok(()), |release| write!(f, "@{release}"))
    }
}

impl Release {
    /// As the array tells it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fence_is_read_as_it_is_shown() {
        for text in ["none", "acl", "acl@7.21.2", "acl@7.22rc1", "epoch", "epoch@7.21.2"] {
            assert_eq!(text.parse::<Fencing>().unwrap().to_string(), text);
        }
        assert!("acl".parse::<Fencing>().unwrap().is_only_believed_in());
        assert!(
            !["none", "epoch@7.21"].iter().any(|text| text.parse::<Fencing>().unwrap().is_only_believed_in())
        );
        for text in ["", "ACL", "acl@", "acl@new", "acl@7.21 (stable)", "none@7.21", "epoch@", "e2"] {
            let error = text.parse::<Fencing>().unwrap_err().to_string();
            assert!(error.contains("such as acl@7.21.2"), "{error}");
        }
    }
}
