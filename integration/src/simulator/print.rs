//! `print` for people, with what makes it unfit for programs: a legend even when nothing follows, lines
//! broken at 80 columns inside values, digits in groups, 1 GiB as `1024.0MiB`.

mod flags;

use std::fmt::Write;

use super::device::Item;
use super::menus::{Menu, Shape};
use super::script::Value;

use flags::Flags;

const WIDTH: usize = 80;

/// The items as `print` or `print detail` shows them, lines ended by CRLF.
pub(super) fn for_people(menu: Menu, items: &[Item], detail: bool) -> String {
    let mut lines = Vec::new();
    if menu.shape() == Shape::Single {
        let properties = items.iter().flat_map(Item::properties);
        lines.extend(properties.map(|(name, value)| format!("{name:>20}: {value}")));
    } else {
        let flags = Flags::of(menu, items);
        lines.extend(flags.legend());
        if detail {
            for (number, item) in items.iter().enumerate() {
                if number > 0 {
                    lines.push(String::new());
                }
                lines.extend(details(&flags, &format!("{number:>0$}", width(items)), item));
            }
        } else {
            lines.extend(columns(menu, &flags, items));
        }
    }
    lines.iter().fold(String::new(), |text, line| text + line.trim_end() + "\r\n")
}

/// How wide the numbers of the items are.
fn width(items: &[Item]) -> usize {
    items.len().saturating_sub(1).to_string().len()
}

/// `monitor-traffic`: rates in bits. Nothing here measures them.
pub(super) fn traffic(item: &Item) -> String {
    let slot = item.property("slot").unwrap_or(Value::Nothing);
    format!("          slot: {slot}\r\n     read-rate: 0bps\r\n    write-rate: 0bps\r\n")
}

fn details(flags: &Flags, number: &str, item: &Item) -> Vec<String> {
    let mut text = format!("{number} {} ", flags.shown(item));
    let indent = text.chars().count();
    let mut lines = Vec::new();
    if let Some(comment) = item.property("comment").filter(|comment| comment.length() > 0) {
        lines.push(format!("{text};;; {comment}"));
        text = " ".repeat(indent);
    }
    for (name, value) in item.properties() {
        if *name != "comment" && !flags.holds(name) {
            let _ = write!(text, "{name}={} ", shown(name, value));
        }
    }
    lines.extend(wrapped(text.trim_end(), indent));
    lines
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

fn columns(menu: Menu, flags: &Flags, items: &[Item]) -> Vec<String> {
    let names: &[&str] = match menu {
        Menu::Disk => &["slot", "model", "size", "free", "fs", "mount-point"],
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
    let cell = |item: &Item, name: &str| match (menu, item.property(name).unwrap_or(Value::Nothing)) {
        (Menu::File, value @ Value::Number(_)) => quantity(&value),
        (_, value @ Value::Number(_)) if matches!(name, "size" | "free") => grouped(&value),
        (_, value) => value.to_string(),
    };
    // A column that is empty for all is not shown.
    let filled = |name: &&&str| items.iter().any(|item| !cell(item, name).is_empty());
    let names: Vec<&str> = names.iter().filter(filled).copied().collect();
    if names.is_empty() {
        return Vec::new();
    }
    let blank = " ".repeat(width(items) + flags.width() + 1);
    let head = (format!("#{blank}"), names.iter().map(|name| name.to_uppercase()).collect());
    let row = |(number, item): (usize, &Item)| {
        let start = format!("{number:>0$} {1} ", width(items), flags.shown(item));
        (start, names.iter().map(|name| cell(item, name)).collect())
    };
    let rows: Vec<(String, Vec<String>)> =
        std::iter::once(head).chain(items.iter().enumerate().map(row)).collect();
    let widest =
        |column: usize| rows.iter().map(|(_, cells)| cells[column].chars().count()).max().unwrap_or(0);
    let mut lines = vec![format!("Columns: {}", rows[0].1.join(", "))];
    for (start, cells) in &rows {
        let cells = cells.iter().enumerate().map(|(column, cell)| match names[column] {
            "size" | "free" => format!("{cell:>0$}", widest(column)),
            _ => format!("{cell:<0$}", widest(column)),
        });
        lines.push(start.clone() + &cells.collect::<Vec<_>>().join("  "));
    }
    lines
}

fn shown(name: &str, value: &Value) -> String {
    const WORDS: [&str; 6] = ["type", "fs", "file-path", "raid-master", "media-interface", "policy"];
    match value {
        Value::Bool(truth) => if *truth { "yes" } else { "no" }.to_owned(),
        Value::Number(_) if matches!(name, "size" | "free") => grouped(value),
        Value::Number(_) if name == "file-size" => quantity(value),
        Value::Text(text) if !WORDS.contains(&name) => format!("\"{text}\""),
        Value::Text(text) if text.is_empty() => "-".to_owned(),
        Value::Array(elements) => {
            let elements: Vec<String> = elements.iter().map(|(_, element)| element.to_string()).collect();
            elements.join(",")
        }
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
        let exported = ("nvme-tcp-export", Value::Bool(true));
        let properties =
            vec![exported, ("slot", Value::text("pvc-x")), ("nvme-tcp-server-nqn", Value::text(long))];
        let text = for_people(Menu::Disk, &[Item::new(ItemId(1), properties)], true);
        let lines: Vec<&str> = text.split("\r\n").collect();
        assert_eq!(lines[0], "Flags: t - NVME-TCP-EXPORT");
        assert!(lines.iter().all(|line| line.len() <= 80), "{text}");
        assert!(!text.contains(&"x".repeat(80)), "the long value is broken: {text}");
    }

    #[test]
    fn nothing_found_still_prints_the_legend() {
        assert_eq!(for_people(Menu::Disk, &[], true).lines().count(), 1);
        assert_eq!(for_people(Menu::File, &[], true), "");
    }
}
