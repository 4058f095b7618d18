//! Changes of inputs: of bytes, of the words of a text, and of JSON documents.

use rand::{RngExt, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;

use crate::json;

/// What inputs are made of.
#[derive(Clone, Copy, Debug)]
pub enum Form {
    /// Anything.
    Bytes,
    /// A safetensors file: a length, a JSON header, bytes.
    Safetensors,
    /// A JSON document.
    Json,
    /// Words and signs of these.
    Text(&'static [&'static str]),
}

/// Whole numbers at which something changes.
const NUMBERS: [i64; 14] = [0, 1, -1, 2, 7, 8, 127, 128, 255, 256, 65_535, i32::MAX as i64, i64::MAX, i64::MIN];

impl Form {
    /// The input with one change; `other` is another sound input.
    pub fn change(self, input: &[u8], other: &[u8], rng: &mut ChaCha8Rng) -> Vec<u8> {
        match self {
            Form::Bytes => bytes(input, other, rng),
            Form::Json if rng.random_ratio(1, 12) => bytes(input, other, rng),
            Form::Json => json::change(input, other, rng).unwrap_or_else(|| bytes(input, other, rng)),
            Form::Safetensors => safetensors(input, other, rng),
            Form::Text(_) if rng.random_ratio(1, 12) => bytes(input, other, rng),
            Form::Text(words) => text(input, other, words, rng),
        }
    }
}

/// A place in something of some length, its end included.
fn place(length: usize, rng: &mut ChaCha8Rng) -> usize {
    rng.random_range(0..=length)
}

/// A range, mostly short.
fn range(length: usize, rng: &mut ChaCha8Rng) -> std::ops::Range<usize> {
    let from = place(length, rng);
    let most = if rng.random_ratio(1, 4) { length } else { 16.min(length) };
    from..(from + place(most, rng)).min(length)
}

fn bytes(input: &[u8], other: &[u8], rng: &mut ChaCha8Rng) -> Vec<u8> {
    let mut changed = input.to_vec();
    let length = changed.len();
    match rng.random_range(0..8) {
        0 if length > 0 => changed[rng.random_range(0..length)] ^= 1 << rng.random_range(0..8),
        1 if length > 0 => changed[rng.random_range(0..length)] = rng.random(),
        2 => {
            changed.drain(range(length, rng));
        }
        3 => {
            let copied = input[range(length, rng)].to_vec();
            let at = place(length, rng);
            changed.splice(at..at, copied);
        }
        4 => {
            let at = place(length, rng);
            let inserted: Vec<u8> = (0..rng.random_range(1..9)).map(|_| rng.random()).collect();
            changed.splice(at..at, inserted);
        }
        5 => {
            changed.splice(range(length, rng), other[range(other.len(), rng)].to_vec());
        }
        6 => {
            let number = *NUMBERS.choose(rng).expect("some");
            let size = *[1usize, 2, 4, 8].choose(rng).expect("some");
            let raw = number.to_le_bytes();
            let mut raw = raw[..size].to_vec();
            if rng.random() {
                raw.reverse();
            }
            let at = place(length, rng);
            changed.splice(at..(at + size).min(length), raw);
        }
        _ => changed.truncate(place(length, rng)),
    }
    changed
}

/// Changes the header as JSON, with a true length before it, or anything anywhere.
fn safetensors(input: &[u8], other: &[u8], rng: &mut ChaCha8Rng) -> Vec<u8> {
    let header = input.first_chunk::<8>().map(|prefix| u64::from_le_bytes(*prefix) as usize);
    let body = header.and_then(|length| Some((input.get(8..8usize.checked_add(length)?)?, &input[8 + length..])));
    match body.filter(|_| !rng.random_ratio(1, 4)) {
        None => bytes(input, other, rng),
        Some((header, data)) => {
            let header = json::change(header, header, rng).unwrap_or_else(|| header.to_vec());
            [&(header.len() as u64).to_le_bytes()[..], &header, data].concat()
        }
    }
}

fn text(input: &[u8], other: &[u8], words: &[&str], rng: &mut ChaCha8Rng) -> Vec<u8> {
    let Ok(text) = std::str::from_utf8(input) else { return bytes(input, other, rng) };
    let mut parts: Vec<String> = Vec::new();
    for c in text.chars() {
        match parts.last_mut() {
            Some(last) if c.is_alphanumeric() && last.ends_with(char::is_alphanumeric) => last.push(c),
            _ => parts.push(c.to_string()),
        }
    }
    let length = parts.len();
    let word = |rng: &mut ChaCha8Rng| match rng.random_range(0..8) {
        0 => NUMBERS.choose(rng).expect("some").to_string(),
        1 => format!("{}", rng.random::<f64>() * 10f64.powi(rng.random_range(-20..20))),
        2 => char::from_u32(rng.random_range(0..0x3000)).unwrap_or(' ').to_string(),
        _ => (*words.choose(rng).expect("some")).to_owned(),
    };
    match rng.random_range(0..6) {
        0 if length > 0 => parts[rng.random_range(0..length)] = word(rng),
        1 => {
            let at = place(length, rng);
            parts.insert(at, word(rng));
        }
        2 => {
            parts.drain(range(length, rng));
        }
        3 => {
            let copied = parts[range(length, rng)].to_vec();
            let at = place(length, rng);
            parts.splice(at..at, copied);
        }
        4 if length > 1 => parts.swap(rng.random_range(0..length), rng.random_range(0..length)),
        _ => {
            // Lines of another input.
            let lines: Vec<&str> = std::str::from_utf8(other).unwrap_or_default().split_inclusive('\n').collect();
            if let Some(line) = lines.choose(rng) {
                let at = place(length, rng);
                parts.insert(at, (*line).to_owned());
            }
        }
    }
    parts.concat().into_bytes()
}
