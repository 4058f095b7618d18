//! One safetensors file, mapped read-only, its header checked.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use memmap2::{Mmap, UncheckedAdvice};
use safetensors::Dtype;

use crate::{
    CheckpointError,
    header::{self, Header},
    names::canonical,
};

/// A tensor of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Name.
    pub name: String,
    /// Type of its elements.
    pub dtype: Dtype,
    /// Sizes.
    pub shape: Vec<usize>,
    /// Place of its bytes in the file, counted from the file's beginning.
    pub range: std::ops::Range<usize>,
}

impl Entry {
    /// Elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Bytes.
    pub fn bytes(&self) -> usize {
        self.range.len()
    }
}

/// A mapped file. Handles share the map; it lives as long as any of them.
#[derive(Clone, Debug)]
pub struct File {
    path: PathBuf,
    map: Arc<Mmap>,
    header: usize,
    entries: Vec<Entry>,
    metadata: BTreeMap<String, String>,
    /// The header for a copy of the file that others open, where that is not this file's own.
    published: Option<Arc<Vec<u8>>>,
}

impl File {
    /// Maps a file and checks its header: bounded length, known types, tensors back to back, nothing missing at the end.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        // A pipe would not open before somebody writes into it.
        let is_other = fs::metadata(path).is_ok_and(|metadata| !metadata.is_file());
        if is_other {
            return Err(CheckpointError::file(path, "it is not a regular file"));
        }
        let file = fs::File::open(path).map_err(CheckpointError::io("read", path))?;
        let length = file.metadata().map_err(CheckpointError::io("read", path))?.len();
        if length == 0 {
            return Err(CheckpointError::file(path, "it is empty; copy it again"));
        }
        // SAFETY: the map is private and read-only. Someone truncating the file meanwhile would end the process; checkpoint files are
        // replaced by renaming, never rewritten in place.
        let map = unsafe { Mmap::map(&file) }.map_err(CheckpointError::io("map", path))?;
        let Header { data, entries, metadata } =
            header::read(&map).map_err(|reason| CheckpointError::file(path, reason))?;
        let published = metadata.as_ref().and_then(header::published);
        let published = published.and_then(|texts| header::with_metadata(&map[..data], &texts)).map(Arc::new);
        let metadata = metadata.unwrap_or_default();
        Ok(Self { path: path.to_owned(), map: Arc::new(map), header: data, entries, metadata, published })
    }

    /// Gives tensors the names that [`canonical`] has for them.
    pub(crate) fn of_composed_model(mut self) -> Self {
        for entry in &mut self.entries {
            if let Some(name) = canonical(&entry.name) {
                entry.name = name;
            }
        }
        self
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Tensors in the order of their bytes.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The header's free-form texts.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// The length and the header, as written: everything before the first tensor.
    pub fn header(&self) -> &[u8] {
        &self.map[..self.header]
    }

    /// The length and the header of a copy that others open: as written, unless `transformers` would refuse it or it names a place on this
    /// machine.
    pub fn published_header(&self) -> &[u8] {
        self.published.as_ref().map_or_else(|| self.header(), |header| header.as_slice())
    }

    /// The bytes of one of its tensors, little-endian.
    pub fn bytes(&self, entry: &Entry) -> &[u8] {
        &self.map[entry.range.clone()]
    }

    /// Bytes of one of its tensors need not stay in memory; looked at again, they are read again.
    pub fn release(&self, entry: &Entry) {
        if !entry.range.is_empty() {
            // SAFETY: the map is private and read-only, so its pages hold what the file holds and nothing else.
            let advised = unsafe {
                self.map.unchecked_advise_range(UncheckedAdvice::DontNeed, entry.range.start, entry.range.len())
            };
            // A system that does not take the advice keeps the pages as long as it likes.
            drop(advised);
        }
    }

    /// The map itself, for those who make tensors over it without a copy.
    pub fn map(&self) -> &Arc<Mmap> {
        &self.map
    }
}
