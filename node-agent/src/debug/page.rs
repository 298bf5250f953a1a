//! The sections as one page, without a script: what a browser or `w3m -dump` shows is all there is.

use std::borrow::Cow;

use serde_json::Value;

use super::Section;

const STYLE: &str = "body{font:14px sans-serif;margin:2em}table{border-collapse:collapse}\
                     th,td{border:1px solid #ccc;padding:.3em .6em;text-align:left;vertical-align:top}\
                     h2{margin-top:1.5em}td{white-space:pre-line}";

impl Section {
    fn title(self) -> &'static str {
        match self {
            Self::Volumes => "Volumes",
            Self::Nvme => "NVMe controllers",
            Self::Mounts => "Mounts",
            Self::Operations => "Calls that run now",
            Self::Events => "Events, the last first",
            Self::Breakers => "Volumes that are not staged for the time being",
        }
    }

    /// What matters most first.
    fn columns(self) -> &'static [&'static str] {
        match self {
            Self::Volumes => &[
                "volume",
                "connection",
                "condition",
                "device",
                "stagingPath",
                "publishPaths",
                "holders",
                "nqn",
            ],
            Self::Nvme => &[
                "controller",
                "state",
                "nqn",
                "address",
                "ctrl_loss_tmo",
                "reconnect_delay",
                "fast_io_fail_tmo",
                "kato",
            ],
            Self::Mounts => &["volume", "at", "device", "filesystem", "source", "options", "superOptions"],
            Self::Operations => &["call", "volume", "seconds"],
            Self::Breakers => &["volume", "failures", "since", "until", "cause"],
            Self::Events => &["sequence", "secondsAgo", "volume", "reason", "message"],
        }
    }
}

/// The whole page.
pub(super) fn html(sections: &[(Section, Result<Vec<Value>, String>)]) -> String {
    let section = |(section, rows): &(Section, Result<Vec<Value>, String>)| {
        let (title, path) = (section.title(), section.path());
        let content = match rows {
            Ok(rows) if rows.is_empty() => "<p>none</p>".into(),
            Ok(rows) => table(section.columns(), rows),
            Err(error) => format!("<p>This cannot be read: {}</p>", escape(error)),
        };
        format!("<h2>{title}</h2>\n<p><a href=\"{path}\">{path}</a></p>\n{content}\n")
    };
    let content = sections.iter().map(section).collect::<Vec<_>>().concat();
    format!(
        "<!doctype html>\n<meta charset=utf-8>\n<title>rds-csi node agent</title>\n<style>{STYLE}</style>\n\
         <h1>rds-csi node agent</h1>\n{content}"
    )
}

fn table(columns: &[&str], rows: &[Value]) -> String {
    let row = |tag: &str, cells: Vec<Cow<'_, str>>| {
        let cells = cells.iter().map(|cell| format!("<{tag}>{}</{tag}>", escape(cell)));
        format!("<tr>{}</tr>\n", cells.collect::<Vec<_>>().concat())
    };
    let head = row("th", columns.iter().map(|column| Cow::Borrowed(*column)).collect());
    let body = rows.iter().map(|values| row("td", columns.iter().map(|name| cell(&values[*name])).collect()));
    format!("<table>\n{head}{}</table>", body.collect::<Vec<_>>().concat())
}

/// A list has a line for each of its items.
fn cell(value: &Value) -> Cow<'_, str> {
    match value {
        Value::Null => "".into(),
        Value::String(text) => text.into(),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join("\n").into(),
        Value::Object(fields) => {
            let fields = fields.iter().map(|(name, value)| format!("{name} {}", cell(value)));
            fields.collect::<Vec<_>>().join(", ").into()
        }
        Value::Bool(_) | Value::Number(_) => value.to_string().into(),
    }
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            c => escaped.push(c),
        }
    }
    escaped
}
