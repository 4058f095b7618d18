//! Which files of a checkpoint folder decide what comes out of the model.

use std::{io, path::Path};

use crate::{Checkpoint, CheckpointError, INDEX};

/// What is read beside the weights where it is there: architecture, generation settings, image preprocessing, tokenizer.
const BESIDE: [&str; 8] = [
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
];
/// Folder of the Q-Former's own tokenizer.
const QFORMER: &str = "qformer_tokenizer";

/// Names of the files of a model folder that are read, in a fixed order. Others (a card, weights in another format) decide nothing.
///
/// # Errors
/// Weights that cannot be opened, see [`Checkpoint::open`]; a folder without `config.json`.
pub fn files_read(folder: &Path) -> Result<Vec<String>, CheckpointError> {
    let config = folder.join(BESIDE[0]);
    if !config.is_file() {
        let absent = io::Error::from(io::ErrorKind::NotFound);
        return Err(CheckpointError::io("read", &config)(absent));
    }
    let checkpoint = Checkpoint::open(folder)?;
    let tokenizer = BESIDE.iter().skip(4).map(|name| format!("{QFORMER}/{name}"));
    let mut names: Vec<String> = BESIDE.iter().map(|name| (*name).to_owned()).chain(tokenizer).collect();
    names.retain(|name| folder.join(name).is_file());
    names.extend(checkpoint.index().map(|_| INDEX.to_owned()));
    let weights = checkpoint.files().iter().filter_map(|file| file.path().file_name());
    names.extend(weights.map(|name| name.to_string_lossy().into_owned()));
    Ok(names)
}
