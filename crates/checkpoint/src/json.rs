//! JSON files of a model folder: regular files only, bounded in size, a byte-order mark passed over.

use std::{fs, io::Read, path::Path};

use ressa_experiment::json::without_mark;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::CheckpointError;

/// Largest configuration that is read; published ones are a few kilobytes.
pub const CONFIG_LIMIT: u64 = 4 << 20;
/// Largest tokenizer that is read; those of a quarter of a million tokens are 35 MB.
pub const TOKENIZER_LIMIT: u64 = 256 << 20;

/// The bytes of a regular file of at most `limit` bytes. A folder may hold anything under the name of a file that is read: a pipe would
/// never end, a device never stop.
///
/// # Errors
/// The file is absent, no regular file, or larger.
pub fn bytes(path: &Path, limit: u64) -> Result<Vec<u8>, CheckpointError> {
    let metadata = fs::metadata(path).map_err(CheckpointError::io("read", path))?;
    if !metadata.is_file() {
        return Err(CheckpointError::file(path, "it is not a regular file"));
    }
    let file = fs::File::open(path).map_err(CheckpointError::io("read", path))?;
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(CheckpointError::io("read", path))?;
    if bytes.len() as u64 > limit {
        let length = metadata.len().max(bytes.len() as u64);
        return Err(CheckpointError::file(path, format!("{length} bytes are too many; at most {limit} are read")));
    }
    Ok(bytes)
}

/// Reads a JSON file of at most `limit` bytes.
///
/// # Errors
/// As [`bytes`]; a file that is not the JSON it should be.
pub fn read<T: DeserializeOwned>(path: &Path, limit: u64) -> Result<T, CheckpointError> {
    parse(path, &bytes(path, limit)?, "it is not as expected")
}

/// Reads a configuration that a folder need not have; `None` where it has none.
///
/// # Errors
/// A file that is there and is not a JSON object.
pub fn optional(path: &Path) -> Result<Option<Map<String, Value>>, CheckpointError> {
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        _ => parse(path, &bytes(path, CONFIG_LIMIT)?, "it is not a JSON object").map(Some),
    }
}

fn parse<T: DeserializeOwned>(path: &Path, text: &[u8], otherwise: &str) -> Result<T, CheckpointError> {
    serde_json::from_slice(without_mark(text)).map_err(|e| CheckpointError::file(path, format!("{otherwise}: {e}")))
}

/// The first bytes of a file.
pub(crate) fn start(path: &Path) -> Result<Vec<u8>, CheckpointError> {
    let file = fs::File::open(path).map_err(CheckpointError::io("read", path))?;
    let mut start = Vec::new();
    file.take(16).read_to_end(&mut start).map_err(CheckpointError::io("read", path))?;
    Ok(start)
}

/// A value as the text of a file: indented by two, a line feed at the end.
pub(crate) fn text(value: &impl serde::Serialize) -> String {
    let mut text = serde_json::to_string_pretty(value).expect("plain data with text keys");
    text.push('\n');
    text
}
