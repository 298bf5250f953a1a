//! `:serialize to=json`, with the device's habits.

use std::fmt::Write;

use super::ast::JsonOptions;
use super::value::Value;

/// How numbers come out; releases differ.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Numbers {
    /// `1099511627776.000000`
    #[default]
    Floats,
    /// `1099511627776`
    Integers,
    /// `"1099511627776"`
    Texts,
}

/// The value as JSON text.
pub(super) fn serialize(value: &Value, numbers: Numbers, options: JsonOptions) -> String {
    let mut json = String::new();
    write_value(&mut json, value, numbers, options);
    json
}

fn write_value(json: &mut String, value: &Value, numbers: Numbers, options: JsonOptions) {
    match value {
        Value::Nothing => json.push_str("null"),
        Value::Bool(truth) => match numbers {
            Numbers::Texts => write_text(json, &truth.to_string()),
            Numbers::Floats | Numbers::Integers => json.push_str(if *truth { "true" } else { "false" }),
        },
        Value::Number(number) => write_number(json, *number, numbers),
        Value::Text(text) => match (options, value.as_number()) {
            (JsonOptions::ConvertText, Some(number)) => write_number(json, number, numbers),
            _ => write_text(json, text),
        },
        Value::Id(_) | Value::Code(_) => write_text(json, &value.to_string()),
        Value::Array(elements) => {
            let keyed = elements.iter().any(|(key, _)| key.is_some());
            json.push(if keyed { '{' } else { '[' });
            for (position, (key, element)) in elements.iter().enumerate() {
                if position > 0 {
                    json.push(',');
                }
                if keyed {
                    write_text(json, &key.clone().unwrap_or_else(|| position.to_string()));
                    json.push(':');
                }
                write_value(json, element, numbers, options);
            }
            json.push(if keyed { '}' } else { ']' });
        }
    }
}

fn write_number(json: &mut String, number: i64, numbers: Numbers) {
    let written = match numbers {
        Numbers::Floats => write!(json, "{number}.000000"),
        Numbers::Integers => write!(json, "{number}"),
        Numbers::Texts => write!(json, "\"{number}\""),
    };
    written.expect("writing to a string succeeds");
}

fn write_text(json: &mut String, text: &str) {
    json.push_str(&serde_json::Value::from(text).to_string());
}
