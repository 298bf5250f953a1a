//! How nodes are shut out of an array, and on which release `doctor` has proved that it works.

use std::fmt;
use std::str::FromStr;

use rds_csi_api::text::Malformed;

use crate::attachments::Fence;

/// How nodes are shut out of an array.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fencing {
    /// They are not.
    None,
    /// By the array's list of admitted hosts, whose working was proved there, or is only believed in.
    Acl(Option<Release>),
}

/// A release of RouterOS as the array tells it, such as `7.21.2` or `7.22rc1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release(String);

impl Fencing {
    /// What it does, whoever has proved it.
    pub const fn way(&self) -> Fence {
        match self {
            Self::None => Fence::None,
            Self::Acl(_) => Fence::Acl,
        }
    }
}

impl FromStr for Fencing {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let is_release = |text: &&str| {
            (1..=32).contains(&text.len())
                && text.starts_with(|c: char| c.is_ascii_digit())
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.')
        };
        match text.split_once('@') {
            None if text == "none" => return Ok(Self::None),
            None if text == "acl" => return Ok(Self::Acl(None)),
            Some(("acl", release)) if is_release(&release) => {
                return Ok(Self::Acl(Some(Release(release.into()))));
            }
            _ => {}
        }
        let rule = "give none, or acl@ and the RouterOS release that doctor proved it on, such as acl@7.21.2";
        Err(Malformed::new("fence", text, rule))
    }
}

/// As it is configured.
impl fmt::Display for Fencing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Acl(None) => f.write_str("acl"),
            Self::Acl(Some(release)) => write!(f, "acl@{release}"),
        }
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
        for text in ["none", "acl", "acl@7.21.2", "acl@7.22rc1"] {
            assert_eq!(text.parse::<Fencing>().unwrap().to_string(), text);
        }
        for text in ["", "ACL", "acl@", "acl@new", "acl@7.21 (stable)", "none@7.21", "epoch"] {
            let error = text.parse::<Fencing>().unwrap_err().to_string();
            assert!(error.contains("such as acl@7.21.2"), "{error}");
        }
    }
}
