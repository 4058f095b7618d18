//! JSON files of a model folder, read with a bound on their size.

use std::{fs, path::Path};

use ressa_experiment::json::without_mark;
use serde::de::DeserializeOwned;

use crate::CheckpointError;

/// Reads a JSON file of at most `limit` bytes; published configurations are a few kilobytes, lists of pieces a few hundred.
pub(crate) fn read<T: DeserializeOwned>(path: &Path, limit: u64) -> Result<T, CheckpointError> {
    let length = fs::metadata(path).map_err(CheckpointError::io("read", path))?.len();
    if length > limit {
        return Err(CheckpointError::file(path, format!("{length} bytes are too many; at most {limit} are read")));
    }
    let text = fs::read(path).map_err(CheckpointError::io("read", path))?;
    serde_json::from_slice(without_mark(&text))
        .map_err(|e| CheckpointError::file(path, format!("it is not as expected: {e}")))
}

/// A value as the text of a file: indented by two, a line feed at the end.
pub(crate) fn text(value: &impl serde::Serialize) -> String {
    let mut text = serde_json::to_string_pretty(value).expect("plain data with text keys");
    text.push('\n');
    text
}
