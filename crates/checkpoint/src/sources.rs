//! Which files of a checkpoint folder decide what comes out of the model.

use std::{fs, io, os::unix::fs::MetadataExt, path::Path};

use crate::{
    Checkpoint, CheckpointError, INDEX,
    known::{QFORMER, READ, TOKENIZER},
};

/// Names of the files of a model folder that are read, in a fixed order. Others (a card, weights in another format) decide nothing.
///
/// # Errors
/// Weights that cannot be opened, see [`Checkpoint::open`]; a folder without `config.json`.
pub fn files_read(folder: &Path) -> Result<Vec<String>, CheckpointError> {
    let config = folder.join(READ[0]);
    if !config.is_file() {
        let absent = io::Error::from(io::ErrorKind::NotFound);
        return Err(CheckpointError::io("read", &config)(absent));
    }
    let checkpoint = Checkpoint::open(folder)?;
    let tokenizer = READ[TOKENIZER..].iter().map(|name| format!("{QFORMER}/{name}"));
    let mut names: Vec<String> = READ.iter().map(|name| (*name).to_owned()).chain(tokenizer).collect();
    names.retain(|name| folder.join(name).is_file());
    names.extend(checkpoint.index().map(|_| INDEX.to_owned()));
    let weights = checkpoint.files().iter().filter_map(|file| file.path().file_name());
    names.extend(weights.map(|name| name.to_string_lossy().into_owned()));
    Ok(names)
}

/// What tells a model folder from another at the same place, or from itself before an edit, without reading its weights: names, sizes,
/// inodes and both times of the files that are read. For work that is resumed; what is kept is known by content.
///
/// # Errors
/// As for [`files_read`].
pub fn stamp(folder: &Path) -> Result<String, CheckpointError> {
    let mut hasher = blake3::Hasher::new();
    for name in files_read(folder)? {
        let path = folder.join(&name);
        let data = fs::metadata(&path).map_err(CheckpointError::io("read", &path))?;
        // The time of change shows an edit that puts the time of modification back.
        let times = [data.mtime(), data.mtime_nsec(), data.ctime(), data.ctime_nsec()];
        hasher.update(format!("{name}\0{} {} {times:?}\n", data.ino(), data.size()).as_bytes());
    }
    Ok(hasher.finalize().to_hex().to_string())
}
