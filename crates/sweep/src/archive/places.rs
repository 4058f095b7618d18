//! Places of one machine in what is written for another.

use std::{fs, path::Path};

use ressa_experiment::places::{is_place, without_places};
use serde_json::Value;

/// Maximum size of a JSON file that is looked through.
const LARGEST: u64 = 32 << 20;

/// Reduces every path of this machine to its last part, in all texts of a value.
pub(super) fn reduce(value: &mut Value) {
    match value {
        Value::String(text) => *text = without_places(text),
        Value::Array(items) => items.iter_mut().for_each(reduce),
        Value::Object(fields) => fields.values_mut().for_each(reduce),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Whether a file names a place of this machine where programs read one: a text of a JSON file that is nothing but a path.
pub(super) fn names_place(path: &Path) -> bool {
    let is_json = path.extension().is_some_and(|ending| ending == "json");
    if !is_json || fs::metadata(path).is_ok_and(|data| data.len() > LARGEST) {
        return false;
    }
    let value = fs::read(path).ok().and_then(|text| serde_json::from_slice(&text).ok());
    value.is_some_and(|value: Value| has_place(&value))
}

fn has_place(value: &Value) -> bool {
    match value {
        Value::String(text) => is_place(text),
        Value::Array(items) => items.iter().any(has_place),
        Value::Object(fields) => fields.values().any(has_place),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}
