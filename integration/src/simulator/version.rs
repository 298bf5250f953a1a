//! Which RouterOS the simulator plays: newer releases know more menus and properties.

use std::fmt;
use std::str::FromStr;

/// A RouterOS release such as 7.21; patch releases change nothing here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    major: u16,
    minor: u16,
}

impl Version {
    /// The release `major.minor`.
    pub const fn new(major: u16, minor: u16) -> Self {
        Self { major, minor }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// Why a text names no release.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no RouterOS version: give major and minor number, such as 7.21")]
pub struct InvalidVersion(String);

impl FromStr for Version {
    type Err = InvalidVersion;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidVersion(text.to_owned());
        let mut parts = text.split('.').map(str::parse);
        match (parts.next(), parts.next(), parts.next()) {
            (Some(Ok(major)), Some(Ok(minor)), None | Some(Ok(_))) => Ok(Self { major, minor }),
            _ => Err(invalid()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_ordered_by_number_not_by_text() {
        let parse = |text: &str| text.parse::<Version>().unwrap();
        assert!(parse("7.9") < parse("7.21"));
        assert_eq!(parse("7.21.1"), Version::new(7, 21));
        for bad in ["", "7", "7.", "seven.one", "7.21beta"] {
            assert_eq!(bad.parse::<Version>(), Err(InvalidVersion(bad.to_owned())));
        }
    }
}
