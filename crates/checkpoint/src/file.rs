//! One safetensors file, mapped read-only, its header checked.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors};

use crate::CheckpointError;

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
}

/// A mapped file. Handles share the map; it lives as long as any of them.
#[derive(Clone, Debug)]
pub struct File {
    path: PathBuf,
    map: Arc<Mmap>,
    header: usize,
    entries: Vec<Entry>,
    metadata: BTreeMap<String, String>,
}

impl File {
    /// Maps a file and checks its header: bounded length, known types, tensors back to back, nothing missing at the end.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        let file = fs::File::open(path).map_err(CheckpointError::io("read", path))?;
        let length = file.metadata().map_err(CheckpointError::io("read", path))?.len();
        if length == 0 {
            return Err(CheckpointError::file(path, "it is empty; copy it again"));
        }
        // SAFETY: the map is private and read-only. Someone truncating the file meanwhile would end the process; checkpoint files are
        // replaced by renaming, never rewritten in place.
        let map = unsafe { Mmap::map(&file) }.map_err(CheckpointError::io("map", path))?;
        let (header, metadata) =
            SafeTensors::read_metadata(&map).map_err(|e| CheckpointError::file(path, reason(&map, &e)))?;
        let start = size_of::<u64>() + header;
        let mut entries: Vec<Entry> = metadata
            .tensors()
            .into_iter()
            .map(|(name, info)| Entry {
                name,
                dtype: info.dtype,
                shape: info.shape.clone(),
                range: start + info.data_offsets.0..start + info.data_offsets.1,
            })
            .collect();
        // Empty tensors share their place with the next one; names make the order fixed.
        entries.sort_by(|a, b| (a.range.start, a.range.end, &a.name).cmp(&(b.range.start, b.range.end, &b.name)));
        let metadata = metadata.metadata().clone().unwrap_or_default().into_iter().collect();
        Ok(Self { path: path.to_owned(), map: Arc::new(map), header: start, entries, metadata })
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

    /// The bytes of one of its tensors, little-endian.
    pub fn bytes(&self, entry: &Entry) -> &[u8] {
        &self.map[entry.range.clone()]
    }

    /// The map itself, for those who make tensors over it without a copy.
    pub fn map(&self) -> &Arc<Mmap> {
        &self.map
    }
}

/// What is wrong with a file that is no safetensors file, in words.
fn reason(bytes: &[u8], error: &safetensors::SafeTensorError) -> String {
    if bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(b"\x80") {
        return "it is a pickled checkpoint, which is refused; convert it to safetensors".to_owned();
    }
    if bytes.starts_with(b"version https://git-lfs") {
        return "it is a Git LFS pointer, not the file itself; fetch it with `git lfs pull` or `ressa fetch`"
            .to_owned();
    }
    format!("{error}; it is damaged or was not copied whole")
}
