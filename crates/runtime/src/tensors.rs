//! Saving tensors so that an interruption cannot leave half of them.

use std::{
    fs, io,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use tch::Tensor;

use crate::{RuntimeError, tch_error};

/// Replaces `path` by a safetensors file of `tensors`. Whatever interrupts it, `path` holds all of the old tensors or all of the new ones.
pub fn replace_tensors(path: &Path, tensors: &[(String, Tensor)]) -> Result<(), RuntimeError> {
    let unsaved = |reason: String| RuntimeError::Unsaved { path: path.to_owned(), reason };
    // Two attempts at one training may write at the same moment, on machines that share a disk.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let partial = path.with_extension(format!("{}-{now:x}.partial", std::process::id()));
    Tensor::write_safetensors(tensors, &partial).map_err(|e| unsaved(tch_error(&e)))?;
    rename_durably(&partial, path).map_err(|e| unsaved(e.to_string()))
}

fn rename_durably(from: &Path, to: &Path) -> io::Result<()> {
    fs::File::open(from)?.sync_all()?;
    fs::rename(from, to)?;
    match to.parent() {
        Some(folder) => fs::File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}
