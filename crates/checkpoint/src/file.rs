//! One safetensors file, mapped read-only, its header checked.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use memmap2::{Mmap, UncheckedAdvice};
use safetensors::Dtype;

use crate::{
    CheckpointError,
    container::Image,
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

/// A mapped file. Handles share the map; it lives as long as any of them. Where linears are packed, it is the dense file that they stand for, in
/// memory.
#[derive(Clone, Debug)]
pub struct File {
    path: PathBuf,
    map: Arc<Mmap>,
    header: usize,
    entries: Vec<Entry>,
    metadata: BTreeMap<String, String>,
    /// The header for a copy of the file that others open, where that is not this file's own.
    published: Option<Arc<Vec<u8>>>,
    /// Makes the dense file of a packed one.
    image: Option<Arc<Image>>,
}

impl File {
    /// Maps a file and checks its header: bounded length, known types, tensors back to back, nothing missing at the end; and, of packed linears,
    /// that every value has its place. Their values are looked at when they are asked for.
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
        let found = header::read(&map).map_err(|reason| CheckpointError::file(path, reason))?;
        let (mut map, mut image) = (Arc::new(map), None);
        let Header { data, entries, metadata } = match Image::of(path, &map, &found)? {
            None => found,
            Some((dense, unpacked, header)) => {
                (map, image) = (unpacked, Some(Arc::new(dense)));
                header
            }
        };
        let published = metadata.as_ref().and_then(header::published);
        let published = published.and_then(|texts| header::with_metadata(&map[..data], &texts)).map(Arc::new);
        let metadata = metadata.unwrap_or_default();
        Ok(Self { path: path.to_owned(), map, header: data, entries, metadata, published, image })
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

    /// Where this process can map the bytes that [`File::map`] has: its path, or that of an unpacked file in memory, of which a tensor is there once
    /// [`File::bytes`] was asked for it.
    pub fn place(&self) -> PathBuf {
        self.image.as_ref().map_or_else(|| self.path.clone(), |image| image.place())
    }

    /// The file as it is on the disk: of packed linears, the packed ones.
    pub(crate) fn stored(&self) -> &[u8] {
        self.image.as_ref().map_or(&self.map[..], |image| image.stored())
    }

    /// Whether linears in it are packed.
    pub fn is_packed(&self) -> bool {
        self.image.is_some()
    }

    /// What its packed linears are unpacked by; none where nothing is packed.
    pub(crate) fn image(&self) -> Option<&Image> {
        self.image.as_deref()
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

    /// The bytes of one of its tensors, little-endian, for those who look at them once: of a packed one, a copy that is dropped with the answer.
    pub fn read(&self, entry: &Entry) -> Cow<'_, [u8]> {
        let image = self.image.as_ref().filter(|_| !entry.range.is_empty());
        image.and_then(|image| image.read(entry)).unwrap_or_else(|| Cow::Borrowed(&self.map[entry.range.clone()]))
    }

    /// The bytes of one of its tensors, little-endian, in their place in the map. A packed one stays unpacked, and takes memory, as long as any handle
    /// lives; see [`File::read`].
    pub fn bytes(&self, entry: &Entry) -> &[u8] {
        if let Some(image) = &self.image {
            image.write(entry);
        }
        &self.map[entry.range.clone()]
    }

    /// Bytes of one of its tensors need not stay in memory; looked at again, they are read again.
    pub fn release(&self, entry: &Entry) {
        if !entry.range.is_empty() {
            // SAFETY: the map is read-only, so its pages hold what the file, on the disk or in memory, holds and nothing else.
            let advised = unsafe {
                self.map.unchecked_advise_range(UncheckedAdvice::DontNeed, entry.range.start, entry.range.len())
            };
            // A system that does not take the advice keeps the pages as long as it likes.
            drop(advised);
        }
    }

    /// The map itself, for those who make tensors over it without a copy. Bytes of an unpacked tensor are there once [`File::bytes`] was asked for
    /// it.
    pub fn map(&self) -> &Arc<Mmap> {
        &self.map
    }
}
