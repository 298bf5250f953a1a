//! `print` for people, with what makes it unfit for programs: a legend even when nothing follows, lines
//! broken at 80 columns inside values, digits in groups, 1 GiB as `1024.0MiB`.

use std::fmt::Write;

use super::device::Item;
use super::menus::{Menu, Shape};
use super::script::Value;

const WIDTH: usize = 80;

/// The items as `print` or `print detail` shows them, lines ended by CRLF.
pub(super) fn for_people(menu: Menu, items: &[Item], detail: bool) -> String {
    let mut lines = Vec::new();
    if menu.shape() == Shape::Single {
        let properties = items.iter().flat_map(Item::properties);
        lines.extend(properties.map(|(name, value)| format!("{name:>20}: {value}")));
    } else {
        lines.extend(legend(menu).map(str::to_owned));
        if detail {
            lines.extend(items.iter().enumerate().flat_map(|(number, item)| details(menu, number, item)));
        } else {
            lines.extend(columns(menu, items));
        }
    }
    lines.iter().fold(String::new(), |text, line| text + line.trim_end() + "\r\n")
}

/// `monitor-traffic`: rates in bits. Nothing here measures them.
pub(super) fn traffic(item: &Item) -> String {
    let slot = item.property("slot").unwrap_or(Value::Nothing);
    format!("          slot: {slot}\r\n     read-rate: 0bps\r\n    write-rate: 0bps\r\n")
}

fn legend(menu: Menu) -> Option<&'static str> {
    match menu {
        Menu::Disk => Some("Flags: B - BLOCK-DEVICE; M - MOUNTED, F - FORMATTING; t - NVME-TCP-EXPORT"),
        Menu::Subvolume => Some("Flags: S - SNAPSHOT; r - READ-ONLY; D - DEAD; M - MOUNTED"),
        Menu::Service => Some("Flags: X - DISABLED, I - INVALID"),
        Menu::Package => Some("Flags: X - DISABLED, A - AVAILABLE"),
        Menu::User => Some("Flags: X - DISABLED, E - EXPIRED"),
        Menu::AddressList => Some("Flags: X - DISABLED, D - DYNAMIC"),
        Menu::Raw => Some("Flags: X - DISABLED, I - INVALID; D - DYNAMIC"),
        Menu::File | Menu::Filesystem | Menu::Connection | Menu::Identity | Menu::Resource | Menu::Group => {
            None
        }
    }
}

fn flags(menu: Menu, item: &Item) -> String {
    let known: &[(&str, char)] = match menu {
        Menu::Disk => &[("block-device", 'B'), ("mounted", 'M'), ("nvme-tcp-export", 't')],
        Menu::Subvolume => &[("snapshot", 'S'), ("read-only", 'r')],
        Menu::AddressList | Menu::Raw => &[("disabled", 'X'), ("dynamic", 'D')],
        Menu::Service | Menu::Package | Menu::User => &[("disabled", 'X')],
        Menu::File | Menu::Filesystem | Menu::Connection | Menu::Identity | Menu::Resource | Menu::Group => {
            &[]
        }
    };
    let set = |property: &str| item.property(property) == Some(Value::Bool(true));
    known.iter().map(|(property, flag)| if set(property) { *flag } else { ' ' }).collect()
}

/// Flags have a place of their own and are no properties in this view.
fn is_flag(menu: Menu, property: &str) -> bool {
    match menu {
        Menu::Disk => matches!(property, "block-device" | "mounted"),
        Menu::Subvolume => property == "snapshot",
        _ => matches!(property, "disabled" | "dynamic" | "invalid" | "expired"),
    }
}

fn details(menu: Menu, number: usize, item: &Item) -> Vec<String> {
    let mut text = format!("{number:>2} {} ", flags(menu, item));
    let indent = text.len();
    if let Some(comment) = item.property("comment").filter(|comment| comment.length() > 0) {
        let _ = write!(text, ";;; {comment} ");
    }
    for (name, value) in item.properties() {
        if *name != "comment" && !is_flag(menu, name) {
            let _ = write!(text, "{name}={} ", shown(name, value));
        }
    }
    wrapped(text.trim_end(), indent)
}

/// Breaks at the last space that fits, be it inside a value, and in the middle of what is longer than a line.
fn wrapped(text: &str, indent: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut rest: Vec<char> = text.chars().collect();
    while rest.len() > WIDTH {
        let space = rest[indent + 1..WIDTH].iter().rposition(|c| *c == ' ').map(|at| at + indent + 1);
        let (end, next) = space.map_or((WIDTH, WIDTH), |at| (at, at + 1));
        lines.push(rest[..end].iter().collect());
        rest = std::iter::repeat_n(' ', indent).chain(rest[next..].iter().copied()).collect();
    }
    lines.push(rest.into_iter().collect());
    lines
}

fn columns(menu: Menu, items: &[Item]) -> Vec<String> {
    let names: &[&str] = match menu {
        Menu::Disk => &["slot", "type", "size", "mount-point", "file-path"],
        Menu::Subvolume => &["name", "fs", "parent", "creation-time"],
        Menu::File => &["name", "type", "size", "last-modified"],
        Menu::Filesystem => &["label", "present-devs"],
        Menu::Service => &["name", "port", "max-sessions"],
        Menu::Package => &["name", "version"],
        Menu::User => &["name", "group", "address"],
        Menu::Group => &["name", "policy", "skin"],
        Menu::AddressList => &["list", "address", "creation-time", "timeout"],
        Menu::Raw => &["chain", "action", "protocol", "dst-port", "src-address-list"],
        Menu::Connection => &["protocol", "src-address", "dst-address", "tcp-state", "timeout"],
        Menu::Identity | Menu::Resource => &[],
    };
    if items.is_empty() {
        return Vec::new();
    }
    let heads: Vec<String> = names.iter().map(|name| name.to_uppercase()).collect();
    let mut rows = vec![std::iter::once("#".to_owned()).chain(heads.clone()).collect::<Vec<_>>()];
    for (number, item) in items.iter().enumerate() {
        let cell = |name: &&str| {
            let value = item.property(name).unwrap_or(Value::Nothing);
            if *name == "size" { quantity(&value) } else { value.to_string() }
        };
        let first = format!("{number} {}", flags(menu, item));
        rows.push(std::iter::once(first).chain(names.iter().map(cell)).collect());
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..=names.len()).map(width).collect();
    let mut lines = vec![format!("Columns: {}", heads.join(", "))];
    for row in &rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        lines.push(cells.collect::<Vec<_>>().join("  "));
    }
    lines
}

fn shown(name: &str, value: &Value) -> String {
    const WORDS: [&str; 8] =
        ["type", "fs", "file-path", "raid-master", "media-interface", "mount-point", "fs-label", "snapshot"];
    match value {
        Value::Bool(truth) => if *truth { "yes" } else { "no" }.to_owned(),
        Value::Number(_) if matches!(name, "size" | "free") => grouped(value),
        Value::Number(_) if name == "file-size" => quantity(value),
        Value::Text(text) if !WORDS.contains(&name) => format!("\"{text}\""),
        Value::Text(text) if text.is_empty() => "-".to_owned(),
        other => other.to_string(),
    }
}

/// `53 687 091 200`
fn grouped(value: &Value) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// `50.0GiB`; the next unit is taken only *above* 1024, so that 1 GiB reads `1024.0MiB`.
fn quantity(value: &Value) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let Some(bytes) = value.as_number() else { return value.to_string() };
    let (mut unit, mut factor) = (0, 1_i64);
    while unit + 1 < UNITS.len() && bytes > factor * 1024 {
        (unit, factor) = (unit + 1, factor * 1024);
    }
    match unit {
        0 => format!("{bytes}B"),
        _ => format!("{}.{}{}", bytes / factor, bytes % factor * 10 / factor, UNITS[unit]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulator::script::ItemId;

    #[test]
    fn sizes_read_as_on_the_device() {
        let shown = |bytes| (quantity(&Value::Number(bytes)), grouped(&Value::Number(bytes)));
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(shown(1 << 30), pair("1024.0MiB", "1 073 741 824"));
        assert_eq!(shown(50 << 30), pair("50.0GiB", "53 687 091 200"));
        assert_eq!(shown(1_649_267_441_664), pair("1.5TiB", "1 649 267 441 664"));
        assert_eq!(shown(0), pair("0B", "0"));
    }

    #[test]
    fn detail_breaks_lines_inside_values() {
        let long = "nqn.2000-02.com.mikrotik:".to_owned() + &"x".repeat(80);
        let properties = vec![("slot", Value::text("pvc-x")), ("nvme-tcp-server-nqn", Value::text(long))];
        let text = for_people(Menu::Disk, &[Item::new(ItemId(1), properties)], true);
        let lines: Vec<&str> = text.split("\r\n").collect();
        assert!(lines[0].starts_with("Flags: B - BLOCK-DEVICE"));
        assert!(lines.iter().all(|line| line.len() <= 80), "{text}");
        assert!(!text.contains(&"x".repeat(80)), "the long value is broken: {text}");
    }

    #[test]
    fn nothing_found_still_prints_the_legend() {
        assert_eq!(for_people(Menu::Disk, &[], true).lines().count(), 1);
        assert_eq!(for_people(Menu::File, &[], true), "");
    }
}
