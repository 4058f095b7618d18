//! A packed file as the dense file that it stands for, in memory: whoever reads it, sees that.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    fs,
    ops::Range,
    os::{
        fd::{AsRawFd, FromRawFd},
        unix::fs::FileExt,
    },
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use memmap2::Mmap;

use crate::{
    CheckpointError, Entry,
    container::{Layout, Packed},
    header::{self, Header, alignment},
};

/// The dense file. It takes memory for the tensors that were written into it, and keeps it.
#[derive(Debug)]
pub(crate) struct Image {
    /// A file without a place on any disk.
    file: fs::File,
    /// The file on the disk.
    stored: Arc<Mmap>,
    /// Names of the tensors in it.
    names: BTreeSet<String>,
    /// By where a tensor begins in the dense file.
    tensors: BTreeMap<usize, Slot>,
}

/// A tensor that is written when somebody needs it in its place.
#[derive(Debug)]
struct Slot {
    source: Source,
    written: OnceLock<()>,
}

#[derive(Debug)]
enum Source {
    /// Bytes of the stored file.
    Same(Range<usize>),
    Packed(Packed),
}

impl Image {
    /// The dense file behind a stored one, its map and its header; `None` where nothing in it is packed.
    pub(crate) fn of(
        path: &Path,
        stored: &Arc<Mmap>,
        found: &Header,
    ) -> Result<Option<(Self, Arc<Mmap>, Header)>, CheckpointError> {
        let packed = Packed::all(&found.entries, stored).map_err(|reason| CheckpointError::file(path, reason))?;
        if packed.is_empty() {
            return Ok(None);
        }
        let names = found.entries.iter().map(|entry| entry.name.clone()).collect();
        let same = found.entries.iter().filter(|entry| !Packed::holds(&packed, &entry.name));
        let mut tensors: Vec<(Entry, Source)> =
            same.map(|entry| (entry.clone(), Source::Same(entry.range.clone()))).collect();
        tensors.extend(packed.into_values().map(|packed| {
            let (name, dtype, shape) = (packed.name.clone(), packed.dtype, packed.sizes.to_vec());
            let range = 0..packed.sizes[0] * packed.sizes[1] * dtype.bitsize() / 8;
            (Entry { name, dtype, shape, range }, Source::Packed(packed))
        }));
        // As the format's own library orders them: every tensor lies at a multiple of its elements' size.
        let order = |entry: &Entry| (std::cmp::Reverse(alignment(entry.dtype)), entry.name.clone());
        tensors.sort_by_cached_key(|(entry, _)| order(entry));
        let metadata = found.metadata.clone();
        let head = header::write(tensors.iter().map(|(entry, _)| entry), metadata.as_ref().unwrap_or(&BTreeMap::new()));
        let (mut at, mut entries, mut slots) = (head.len(), Vec::new(), BTreeMap::new());
        for (mut entry, source) in tensors {
            entry.range = at..at + entry.bytes();
            at = entry.range.end;
            if !entry.range.is_empty() {
                slots.insert(entry.range.start, Slot { source, written: OnceLock::new() });
            }
            entries.push(entry);
        }
        let file = nowhere().map_err(CheckpointError::io("unpack", path))?;
        let sized = file.set_len(at as u64).and_then(|()| file.write_all_at(&head, 0));
        sized.map_err(CheckpointError::io("unpack", path))?;
        // SAFETY: nobody else knows the file; its length stays, and bytes that are lent out are written once, before.
        let map = unsafe { Mmap::map(&file) }.map_err(CheckpointError::io("map", path))?;
        let header = Header { data: head.len(), entries, metadata };
        let image = Self { file, stored: stored.clone(), names, tensors: slots };
        Ok(Some((image, Arc::new(map), header)))
    }

    /// Writes a tensor of the dense file, unless it is written.
    ///
    /// # Panics
    /// Where no memory is left, as any allocation.
    pub(crate) fn write(&self, entry: &Entry) {
        let Some(slot) = self.tensors.get(&entry.range.start) else { return };
        slot.written.get_or_init(|| {
            let write = |bytes: &[u8]| self.file.write_all_at(bytes, entry.range.start as u64);
            let written = match &slot.source {
                Source::Same(range) => write(&self.stored[range.clone()]),
                Source::Packed(packed) => write(&packed.unpack(&self.stored)),
            };
            written.expect("memory for an unpacked tensor");
        });
    }

    /// The bytes of a tensor of the dense file without writing them into it; `None` where they are there already.
    pub(crate) fn read(&self, entry: &Entry) -> Option<Cow<'_, [u8]>> {
        let slot = self.tensors.get(&entry.range.start)?;
        match &slot.source {
            Source::Same(range) => Some(Cow::Borrowed(&self.stored[range.clone()])),
            Source::Packed(packed) if slot.written.get().is_none() => Some(Cow::Owned(packed.unpack(&self.stored))),
            Source::Packed(_) => None,
        }
    }

    /// Where this process finds the dense file.
    pub(crate) fn place(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.file.as_raw_fd()).into()
    }

    /// The file as it is stored.
    pub(crate) fn stored(&self) -> &[u8] {
        &self.stored
    }

    /// Whether the stored file has a tensor of a name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    /// Layouts of its packed tensors.
    pub(crate) fn layouts(&self) -> impl Iterator<Item = Layout> {
        self.tensors.values().filter_map(|slot| match &slot.source {
            Source::Same(_) => None,
            Source::Packed(packed) => Some(packed.layout),
        })
    }
}

/// A file that lives in memory, and only as long as this process has it.
fn nowhere() -> std::io::Result<fs::File> {
    // SAFETY: the name is a C string, and the descriptor, where there is one, is nobody else's.
    unsafe {
        match libc::memfd_create(c"weights".as_ptr(), libc::MFD_CLOEXEC) {
            descriptor if descriptor < 0 => Err(std::io::Error::last_os_error()),
            descriptor => Ok(fs::File::from_raw_fd(descriptor)),
        }
    }
}
