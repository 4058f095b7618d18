//! Changes of a JSON document: one of its values becomes another, goes, or is there twice.

use rand::{RngExt, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Number, Value, json};

/// The document with one value changed; none where it is no JSON.
pub fn change(input: &[u8], other: &[u8], rng: &mut ChaCha8Rng) -> Option<Vec<u8>> {
    let mut document: Value = serde_json::from_slice(input).ok()?;
    let foreign: Value = serde_json::from_slice(other).unwrap_or_default();
    if rng.random_ratio(1, 200) {
        // Deeper than any reader goes by itself.
        let depth = rng.random_range(100..20_000);
        return Some(["[".repeat(depth), "]".repeat(depth)].concat().into_bytes());
    }
    let many = count(&document);
    let at = rng.random_range(0..many);
    visit(&mut document, &mut { at }, &mut |value, rng| alter(value, &foreign, rng), rng);
    let mut text = document.to_string();
    if rng.random_ratio(1, 20) {
        // What a value of JSON cannot be and its text can.
        let from = text.find(|c: char| c.is_ascii_digit())?;
        let odd = ["1e999", "-0", "NaN", "0x1", "1.", "18446744073709551616", "\"\\ud800\""].choose(rng)?;
        text.replace_range(from..=from, odd);
    }
    Some(text.into_bytes())
}

/// Values of a document.
fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(fields) => fields.values().map(count).sum(),
        _ => 0,
    }
}

/// Does something to the value that is the `at`th.
fn visit(
    value: &mut Value,
    at: &mut usize,
    act: &mut dyn FnMut(&mut Value, &mut ChaCha8Rng),
    rng: &mut ChaCha8Rng,
) -> bool {
    if *at == 0 {
        act(value, rng);
        return true;
    }
    *at -= 1;
    match value {
        Value::Array(items) => items.iter_mut().any(|item| visit(item, at, act, rng)),
        Value::Object(fields) => fields.values_mut().any(|item| visit(item, at, act, rng)),
        _ => false,
    }
}

fn alter(value: &mut Value, foreign: &Value, rng: &mut ChaCha8Rng) {
    let number = |value: &Value| value.as_i64().unwrap_or_default();
    let choice = rng.random_range(0..12);
    *value = match (&mut *value, choice) {
        (Value::Object(fields), 0..4) if !fields.is_empty() => {
            let names: Vec<String> = fields.keys().cloned().collect();
            let name = names.choose(rng).expect("some");
            let taken = fields.shift_remove(name).unwrap_or_default();
            match choice {
                0 => {}
                1 => drop(fields.insert(format!("{name}x"), taken)),
                2 => {
                    let last = names.last().expect("some").clone();
                    fields.insert(last, taken);
                }
                _ => drop(fields.insert(name.clone(), json!([taken]))),
            }
            Value::Object(fields.clone())
        }
        (Value::Array(items), 0..4) if !items.is_empty() => {
            let at = rng.random_range(0..items.len());
            match choice {
                0 => drop(items.remove(at)),
                1 => items.push(items[at].clone()),
                2 => items.truncate(at),
                _ => items.reverse(),
            }
            Value::Array(items.clone())
        }
        (Value::Number(_), 0..5) => json!(number(value).wrapping_add([-1, 1, 2, -2, 1 << 20][choice])),
        (Value::Number(_), 5..8) => json!(number(value).wrapping_mul([-1, 2, 1 << 30][choice - 5])),
        (Value::String(text), 0..4) => {
            let at = text.char_indices().map(|(at, _)| at).collect::<Vec<_>>().choose(rng).copied().unwrap_or_default();
            let mut text = text.clone();
            match choice {
                0 => text.truncate(at),
                1 => text
                    .insert_str(at, ["/", "../", "\u{0}", "é", "\u{202e}", " ", "{}", "%s"].choose(rng).expect("some")),
                2 => text = text.repeat(2),
                _ => text = text.to_uppercase(),
            }
            Value::String(text)
        }
        (&mut Value::Bool(flag), 0..6) => Value::Bool(!flag),
        _ => fresh(foreign, rng),
    };
}

/// Some value.
fn fresh(foreign: &Value, rng: &mut ChaCha8Rng) -> Value {
    const NUMBERS: [i64; 12] =
        [0, 1, -1, 2, 3, 1 << 20, (1 << 24) + 1, i32::MAX as i64, 1 << 32, i64::MAX, i64::MIN, 1_000_000];
    match rng.random_range(0..12) {
        0 => Value::Null,
        1 => json!(rng.random::<bool>()),
        2..5 => json!(NUMBERS.choose(rng).expect("some")),
        5 => json!(u64::MAX),
        6 => Number::from_f64([1e-320, 1e308, -0.5, 0.1, 1.5, -0.0][rng.random_range(0..6)])
            .map_or(Value::Null, Value::Number),
        7 => json!(["", "a", "/", "..", "\u{0}", "gelu", "t5", "é".repeat(300).as_str()].choose(rng).expect("some")),
        8 => json!([]),
        9 => Value::Object(Map::new()),
        10 => json!([[1, -1], null]),
        _ => {
            let mut picked = Value::Null;
            let at = rng.random_range(0..count(foreign));
            visit(&mut foreign.clone(), &mut { at }, &mut |value, _| picked = value.clone(), rng);
            picked
        }
    }
}
