//! Menus that only tell about the device itself.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::Item;
use crate::simulator::script::{ItemId, Value};
use crate::simulator::version::Version;

pub(super) fn filesystems(pool: &str) -> Vec<Item> {
    let properties = vec![("label", Value::text(pool)), ("present-devs", Value::text("raid1"))];
    vec![Item::new(ItemId(1), properties)]
}

pub(super) fn services(max_sessions: usize) -> Vec<Item> {
    let max_sessions = i64::try_from(max_sessions).unwrap_or(i64::MAX);
    let properties = vec![
        ("name", Value::text("ssh")),
        ("port", Value::Number(22)),
        ("disabled", Value::Bool(false)),
        ("max-sessions", Value::Number(max_sessions)),
    ];
    vec![Item::new(ItemId(1), properties)]
}

pub(super) fn identity(name: &str) -> Vec<Item> {
    vec![Item::new(ItemId(0), vec![("name", Value::text(name))])]
}

pub(super) fn packages(version: Version) -> Vec<Item> {
    let package = |(number, name): (u64, &str)| {
        let properties = vec![
            ("name", Value::text(name)),
            ("version", Value::text(version.to_string())),
            ("disabled", Value::Bool(false)),
        ];
        Item::new(ItemId(number), properties)
    };
    [(1, "routeros"), (2, "rose-storage")].map(package).to_vec()
}

pub(super) fn resource(version: Version, uptime: Duration) -> Vec<Item> {
    let properties = vec![
        ("uptime", Value::text(format!("{}s", uptime.as_secs()))),
        ("version", Value::text(format!("{version} (stable)"))),
        ("architecture-name", Value::text("arm64")),
        ("board-name", Value::text("RDS2216 (simulated)")),
        ("platform", Value::text("MikroTik")),
    ];
    vec![Item::new(ItemId(0), properties)]
}

/// `2026-11-21 09:35:46`, in UTC.
pub(super) fn date_time(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Days are counted from a first of March, so that a leap day is the last of its year.
    let since = days + 719_468;
    let (era, of_era) = (since / 146_097, since % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_civil_dates() {
        let at = |seconds| date_time(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01 00:00:00");
        assert_eq!(at(951_782_400), "2000-02-29 00:00:00");
        assert_eq!(at(1_795_253_746), "2026-11-21 09:35:46");
    }
}
