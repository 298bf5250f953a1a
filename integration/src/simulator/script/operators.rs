//! What operators do with values.

use super::ast::Operator;
use super::failure::Failure;
use super::value::Value;

/// Applies a binary operator. `and` and `or` come here with both sides evaluated, as the language does it.
pub(super) fn apply(operator: Operator, left: &Value, right: &Value) -> Result<Value, Failure> {
    Ok(match operator {
        Operator::Or => Value::Bool(truth(left)? || truth(right)?),
        Operator::And => Value::Bool(truth(left)? && truth(right)?),
        Operator::Equal => Value::Bool(left.equals(right)),
        Operator::NotEqual => Value::Bool(!left.equals(right)),
        Operator::Less => Value::Bool(compare(left, right).is_lt()),
        Operator::Greater => Value::Bool(compare(left, right).is_gt()),
        Operator::LessOrEqual => Value::Bool(compare(left, right).is_le()),
        Operator::GreaterOrEqual => Value::Bool(compare(left, right).is_ge()),
        Operator::Matches => Value::Bool(matches(left, right)?),
        Operator::In => Value::Bool(contains(right, left)),
        Operator::Concatenate => Value::Text(format!("{left}{right}")),
        Operator::Add => arithmetic(left, right, i64::checked_add)?,
        Operator::Subtract => arithmetic(left, right, i64::checked_sub)?,
        Operator::Multiply => arithmetic(left, right, i64::checked_mul)?,
        Operator::Divide => arithmetic(left, right, i64::checked_div)?,
        Operator::Remainder => arithmetic(left, right, i64::checked_rem)?,
        Operator::Element => element(left, right),
    })
}

/// The truth of a condition; only truth values have one.
pub(super) fn truth(value: &Value) -> Result<bool, Failure> {
    value.as_bool().ok_or_else(|| Failure::new("conditional not boolean"))
}

fn compare(left: &Value, right: &Value) -> std::cmp::Ordering {
    match (left.as_number(), right.as_number()) {
        (Some(left), Some(right)) => left.cmp(&right),
        _ => left.to_string().cmp(&right.to_string()),
    }
}

/// What an expression makes of an array is not documented. Whoever reckons with it must not take a list for empty.
fn matches(left: &Value, right: &Value) -> Result<bool, Failure> {
    if let Value::Array(_) = left {
        return Ok(false);
    }
    let pattern =
        regex::Regex::new(&right.to_string()).map_err(|_| Failure::new("invalid regular expression"))?;
    Ok(pattern.is_match(&left.to_string()))
}

fn contains(array: &Value, wanted: &Value) -> bool {
    match array {
        Value::Array(elements) => elements.iter().any(|(_, value)| value.equals(wanted)),
        single => single.equals(wanted),
    }
}

fn arithmetic(left: &Value, right: &Value, operation: fn(i64, i64) -> Option<i64>) -> Result<Value, Failure> {
    let (Some(a), Some(b)) = (left.as_number(), right.as_number()) else {
        let (left, right) = (left.type_name(), right.type_name());
        return Err(Failure::new(format!("cannot calculate with {left} and {right}")));
    };
    operation(a, b).map(Value::Number).ok_or_else(|| Failure::new("division by zero or overflow"))
}

fn element(array: &Value, key: &Value) -> Value {
    let Value::Array(elements) = array else { return Value::Nothing };
    let by_position = key.as_number().and_then(|number| usize::try_from(number).ok());
    let found = match key {
        Value::Number(_) => by_position.and_then(|position| elements.get(position)),
        other => {
            let name = other.to_string();
            elements.iter().find(|(key, _)| key.as_deref() == Some(name.as_str()))
        }
    };
    found.map_or(Value::Nothing, |(_, value)| value.clone())
}
