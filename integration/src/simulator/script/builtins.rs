//! The language's own functions, `:len` to `:serialize`.

use super::ast::{Function, JsonOptions};
use super::failure::Failure;
use super::json::{self, Numbers};
use super::value::Value;

/// Calls a function; values that were not given are nothing.
pub(super) fn call(
    function: Function,
    arguments: &[Value],
    to_json: Option<JsonOptions>,
    numbers: Numbers,
) -> Result<Value, Failure> {
    let argument = |position: usize| arguments.get(position).unwrap_or(&Value::Nothing);
    let first = argument(0);
    Ok(match function {
        Function::Nothing => Value::Nothing,
        Function::Len => Value::Number(i64::try_from(first.length()).unwrap_or(i64::MAX)),
        Function::ToStr => Value::Text(first.to_string()),
        Function::ToNum => first.as_number().map_or(Value::Nothing, Value::Number),
        Function::ToArray => to_array(first),
        Function::TypeOf => Value::text(first.type_name()),
        Function::Pick => pick(first, argument(1), argument(2))?,
        Function::Find => find(first, argument(1), argument(2)),
        Function::Serialize => {
            Value::Text(json::serialize(first, numbers, to_json.unwrap_or(JsonOptions::ConvertText)))
        }
    })
}

/// `:toarray`: what stands between the commas of a text.
fn to_array(value: &Value) -> Value {
    match value {
        Value::Nothing | Value::Array(_) => value.clone(),
        other => Value::list(other.to_string().split(',').filter(|part| !part.is_empty()).map(Value::text)),
    }
}

/// `:pick from start end`: one element if there is no end, else those from start up to before the end.
fn pick(from: &Value, start: &Value, end: &Value) -> Result<Value, Failure> {
    let position = |value: &Value| value.as_number().and_then(|number| usize::try_from(number).ok());
    let Some(start) = position(start) else {
        return Err(Failure::invalid("begin"));
    };
    let end = match end {
        Value::Nothing => None,
        given => Some(position(given).ok_or_else(|| Failure::invalid("end"))?),
    };
    Ok(match from {
        Value::Array(elements) => {
            let upto = end.unwrap_or(start + 1).min(elements.len());
            match (end, elements.get(start..upto)) {
                (None, Some([(_, single)])) => single.clone(),
                (Some(_), Some(several)) => Value::Array(several.to_vec()),
                _ => Value::Nothing,
            }
        }
        other => {
            let text = other.to_string();
            let upto = end.unwrap_or(start + 1).min(text.len());
            text.get(start..upto).map_or(Value::Nothing, Value::text)
        }
    })
}

/// `:find in what after`: the position of the first hit behind `after`.
fn find(inside: &Value, what: &Value, after: &Value) -> Value {
    let from = after.as_number().and_then(|number| usize::try_from(number + 1).ok()).unwrap_or(0);
    let found = match inside {
        Value::Array(elements) => {
            let mut candidates = elements.iter().enumerate().skip(from);
            candidates.find(|(_, (_, value))| value.equals(what)).map(|(position, _)| position)
        }
        other => {
            let text = other.to_string();
            text.get(from..).and_then(|rest| rest.find(&what.to_string())).map(|position| position + from)
        }
    };
    found.and_then(|position| i64::try_from(position).ok()).map_or(Value::Nothing, Value::Number)
}
