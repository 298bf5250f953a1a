//! Times as the device writes and reads them: `1d2h3m4s`, `500ms`, `00:10:00`, or seconds alone.

use std::time::Duration;

const UNITS: [(&str, u64); 6] =
    [("ms", 1), ("w", 604_800_000), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)];

/// The time that a text stands for.
pub(in crate::simulator) fn read(text: &str) -> Option<Duration> {
    if let Some(clock) = text.contains(':').then(|| text.split(':')) {
        let seconds = clock.map(|part| part.parse::<u64>().ok());
        let seconds = seconds.collect::<Option<Vec<_>>>()?;
        let [hours, minutes, seconds] = seconds[..] else { return None };
        return Some(Duration::from_secs(hours.checked_mul(3_600)? + minutes * 60 + seconds));
    }
    let (mut rest, mut milliseconds) = (text, 0_u64);
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let (unit, factor) = match UNITS.iter().find(|(unit, _)| rest.starts_with(unit)) {
            Some((unit, factor)) => (*unit, *factor),
            // Only the last number may go without a unit.
            None if rest.is_empty() => ("", 1_000),
            None => return None,
        };
        rest = &rest[unit.len()..];
        milliseconds = milliseconds.checked_add(number.checked_mul(factor)?)?;
    }
    Some(Duration::from_millis(milliseconds))
}

/// A time in whole seconds; what is left of one counts as one.
pub(in crate::simulator) fn rounded(time: Duration) -> Duration {
    Duration::from_secs(time.as_millis().div_ceil(1_000).try_into().unwrap_or(u64::MAX))
}

/// The time as the device shows it.
pub(in crate::simulator) fn shown(time: Duration) -> String {
    let mut seconds = time.as_secs();
    let mut text = String::new();
    for (unit, factor) in &UNITS[1..] {
        let factor = factor / 1_000;
        if seconds >= factor {
            text += &(seconds / factor).to_string();
            text += unit;
            seconds %= factor;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_shown() {
        let table = [
            ("5", 5_000, "5s"),
            ("500ms", 500, "0s"),
            ("1d2h", 93_600_000, "1d2h"),
            ("10m", 600_000, "10m"),
            ("00:10:05", 605_000, "10m5s"),
            ("1w", 604_800_000, "1w"),
            ("1m30", 90_000, "1m30s"),
        ];
        for (text, milliseconds, told) in table {
            let time = read(text).unwrap();
            assert_eq!(time, Duration::from_millis(milliseconds), "{text}");
            assert_eq!(shown(time), told, "{text}");
        }
        for bad in ["", "soon", "1y", "1:2", "-1s", "99999999999999999999"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
