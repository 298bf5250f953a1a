//! The search for orphans: how often, and what becomes of what is found.

use std::time::Duration;

use rds_csi_api::text::Malformed;

use super::{Error, Kubernetes};
use crate::orphans::Removal;

/// What nobody in Kubernetes claims.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct OrphanArgs {
    /// How often to look for volumes and snapshots that nobody claims, such as 1h; 0 is never
    #[arg(long, env = "RDS_CSI_ORPHAN_REPORT_INTERVAL", value_name = "TIME", default_value = "1h", value_parser = time)]
    orphan_report_interval: Duration,
    /// Remove volumes of this cluster that nobody has claimed for so long, such as 7d; without it nothing is removed
    #[arg(long, env = "RDS_CSI_REMOVE_ORPHANS_AFTER", value_name = "TIME", value_parser = time)]
    remove_orphans_after: Option<Duration>,
}

/// Whether and how orphans are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Orphans {
    /// They are not, and why.
    Off(&'static str),
    /// They are.
    Reported {
        /// How often.
        interval: Duration,
        /// Whether they are removed.
        removal: Removal,
    },
}

impl Orphans {
    /// As the flags say; Kubernetes is who knows what is claimed.
    pub fn read(args: OrphanArgs, kubernetes: Option<&Kubernetes>) -> Result<Self, Error> {
        let OrphanArgs { orphan_report_interval: interval, remove_orphans_after } = args;
        let removal = match remove_orphans_after {
            None => Removal::Off,
            Some(Duration::ZERO) => return Err(Error::RemoveAtOnce),
            Some(_) if kubernetes.is_none() => {
                return Err(Error::RemoveUnasked("--kubernetes says whom to ask"));
            }
            Some(_) if interval.is_zero() => {
                return Err(Error::RemoveUnasked("--orphan-report-interval is not 0"));
            }
            Some(age) => Removal::After(age),
        };
        Ok(match kubernetes {
            None => Self::Off("nobody can be asked who claims what: give --kubernetes"),
            Some(_) if interval.is_zero() => Self::Off("--orphan-report-interval is 0"),
            Some(_) => Self::Reported { interval, removal },
        })
    }
}

/// A whole number of seconds, minutes, hours or days.
pub(crate) fn time(text: &str) -> Result<Duration, Malformed> {
    let malformed =
        || Malformed::new("time", text, "give a number with s, m, h or d behind it, such as 90s or 7d, or 0");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let unit = match text.chars().last() {
        Some('s') => 1,
        Some('m') => 60,
        Some('h') => 3600,
        Some('d') => 86_400,
        _ => return Err(malformed()),
    };
    let number = &text[..text.len() - 1];
    // A year is long enough; what is longer has mistaken a unit.
    let seconds = number.parse().ok().and_then(|number: u64| number.checked_mul(unit));
    seconds.filter(|seconds| *seconds <= 365 * 86_400).map(Duration::from_secs).ok_or_else(malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_its_unit() {
        for (text, seconds) in [("0", 0), ("0s", 0), ("90s", 90), ("5m", 300), ("1h", 3600), ("7d", 604_800)]
        {
            assert_eq!(time(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "h", "1", "-1h", "1.5h", "1w", "366d", "1 h", "ä", "99999999999999999999d"] {
            assert!(time(text).unwrap_err().to_string().contains("such as 90s or 7d"), "{text:?}");
        }
    }
}
