//! A line of a segment: a JSON object that begins with its number and ends with a checksum of all before it.
//!
//! The checksum covers number and text, so a line that is cut, altered, doubled or moved is recognised by itself.

use serde::{Deserialize, Serialize};

use crate::{Entry, LogEvent};

/// What stands before the checksum.
const SUM: &[u8] = b",\"sum\":\"";
/// Hexadecimal digits of a checksum.
const DIGITS: usize = 16;

#[derive(Serialize)]
struct Written<'e> {
    n: u64,
    at: u64,
    event: &'e LogEvent,
}

#[derive(Deserialize)]
struct Read {
    n: u64,
    at: u64,
    event: LogEvent,
    #[expect(dead_code, reason = "it was compared before")]
    sum: String,
}

/// The line of an entry, with its end.
pub(crate) fn encode(entry: &Entry, number: u64) -> Vec<u8> {
    let mut line =
        serde_json::to_vec(&Written { n: number, at: entry.at, event: &entry.event }).expect("an entry is plain data");
    line.pop(); // The closing brace comes after the checksum.
    let sum = checksum(&line);
    line.extend_from_slice(SUM);
    line.extend_from_slice(&sum);
    line.extend_from_slice(b"\"}\n");
    line
}

/// Why a line is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bad {
    /// It is not what was written.
    Torn,
    /// It is whole, but of a later version of the program.
    Unknown,
}

/// The entry of a line without its end, and its number.
pub(crate) fn decode(line: &[u8]) -> Result<(Entry, u64), Bad> {
    whole(line).ok_or(Bad::Torn)?;
    let Read { n, at, event, sum: _ } = serde_json::from_slice(line).map_err(|_| Bad::Unknown)?;
    Ok((Entry { at, event }, n))
}

/// What the checksum of a line covers, if it is right.
fn whole(line: &[u8]) -> Option<&[u8]> {
    let line = line.strip_suffix(b"\"}")?;
    let (rest, sum) = line.split_at_checked(line.len().checked_sub(DIGITS)?)?;
    let body = rest.strip_suffix(SUM)?;
    (checksum(body) == sum).then_some(body)
}

fn checksum(bytes: &[u8]) -> [u8; DIGITS] {
    let digits = blake3::hash(bytes).to_hex();
    digits.as_bytes().first_chunk().copied().expect("a digest has more digits")
}
