//! The RouterOS release of the array, asked once for each connection.

use std::fmt;

use crate::array::routeros::reply;

/// The command that tells it.
pub(super) const ASK: &str = ":put [/system/resource get version]";

/// More than any answer to it.
pub(super) const LONGEST_ANSWER: usize = 1 << 10;

/// A release such as `7.21.2 (stable)`. Releases are compared by their first two numbers, which is what features came with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::array::routeros) struct Version {
    major: u32,
    minor: u32,
    text: String,
}

impl Version {
    /// What an array said, if it is a release that can be used; else why not.
    pub(super) fn supported(said: &str) -> Result<Self, String> {
        const OLDEST: (u32, u32) = (7, 21);
        let said = said.trim();
        let version = Self::parse(said).ok_or_else(|| {
            format!(
                "asked for its RouterOS version, the array said {:?}: 7.21 or newer is needed",
                reply::kept(said)
            )
        })?;
        if (version.major, version.minor) < OLDEST {
            return Err(format!(
                "RouterOS {version} is too old: 7.21 or newer is needed (NVMe/TCP exports with an NQN of their own)"
            ));
        }
        Ok(version)
    }

    /// Whatever follows the two numbers, as in `7.22rc1 (testing)`, is for people.
    fn parse(said: &str) -> Option<Self> {
        if said.lines().count() != 1 {
            return None;
        }
        let (major, rest) = said.split_once('.')?;
        let minor = &rest[..rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len())];
        let plain = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
        let text = said.split_once(" (").map_or(said, |(version, _)| version).to_owned();
        plain(major).then_some(())?;
        Some(Self { major: major.parse().ok()?, minor: minor.parse().ok()?, text })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_read_as_devices_tell_them() {
        for (said, told) in [
            ("7.21.2 (stable)\r\n", "7.21.2"),
            ("7.21 (stable)", "7.21"),
            ("7.22rc1 (testing)", "7.22rc1"),
            ("7.100beta3 (development)", "7.100beta3"),
            ("8.0", "8.0"),
        ] {
            assert_eq!(Version::supported(said).unwrap().to_string(), told);
        }
    }

    #[test]
    fn an_old_release_and_an_answer_that_is_none_are_refused_by_what_was_said() {
        for old in ["7.18.2 (stable)", "7.9 (long-term)", "6.49.17 (stable)"] {
            let reason = Version::supported(old).unwrap_err();
            assert!(reason.starts_with("RouterOS ") && reason.contains("too old: 7.21 or newer"), "{reason}");
        }
        for odd in
            ["", "seven", "7", "7.", "+7.21", "expected end of command", "7.21\r\n7.21", "99999999999.1"]
        {
            let reason = Version::supported(odd).unwrap_err();
            assert!(reason.contains(&format!("{odd:?}")), "{reason}");
        }
    }
}
