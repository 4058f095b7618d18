//! A content-keyed cache of intermediate results that stages and runs share, below a byte limit.
//!
//! [`CacheKey::new`] names a kind and takes in everything the value depends on; [`Cache::get`] gives the bytes or `None`, [`Cache::put`]
//! keeps them. Neither fails: a cache that cannot be read or written only costs time. `Cache` is cheap to clone and safe between threads
//! and processes: an entry is written beside the others and renamed, and carries its digest, so a torn or damaged one reads as missing
//! and is removed. Above the limit the entries that were used longest ago go first; every process checks after it has written a
//! sixteenth of the limit, so the folder may exceed the limit by that much per process.
//!
//! One file per entry, `<root>/<kind>/<first two digits>/<key>`: a magic word, the blake3 digest of the value, the value. The time of
//! modification is the time of the last use.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use serde::Serialize;
use walkdir::WalkDir;

use crate::StoreError;

/// First bytes of an entry; another layout gets another word, so old entries count as damaged.
const MAGIC: &[u8; 8] = b"ressac01";
/// Bytes before the value.
const HEADER: usize = MAGIC.len() + blake3::OUT_LEN;
/// Folder of entries being written.
const UNFINISHED: &str = ".unfinished";
/// An unfinished entry older than this was left by a process that died.
const ABANDONED: Duration = Duration::from_secs(3600);

/// What a value depends on, as a digest.
///
/// ```
/// # use ressa_store::CacheKey;
/// let key = CacheKey::new("teacher").with(b"digest of the weights").with(&7_u64.to_le_bytes());
/// assert_ne!(key, CacheKey::new("teacher").with(b"digest of the weights"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CacheKey {
    kind: &'static str,
    digest: blake3::Hash,
}

impl CacheKey {
    /// The key of a kind of values (a folder name, such as `pixels`) that depends on nothing yet.
    pub fn new(kind: &'static str) -> Self {
        Self { kind, digest: blake3::hash(kind.as_bytes()) }
    }

    /// Adds a part that the value depends on. The order of parts and where one ends count.
    #[must_use]
    pub fn with(&self, part: impl AsRef<[u8]>) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.digest.as_bytes()).update(part.as_ref());
        Self { kind: self.kind, digest: hasher.finalize() }
    }
}

/// Entries and bytes of a cache or of one kind of its values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CacheUsage {
    /// Entries.
    pub entries: u64,
    /// Bytes of their files.
    pub bytes: u64,
}

/// A cache in a folder; see the module.
#[derive(Clone, Debug)]
pub struct Cache {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    root: PathBuf,
    limit: u64,
    /// Numbers unfinished entries.
    serial: AtomicU64,
    /// Bytes written since the folder was last measured; `None` before the first time.
    written: Mutex<Option<u64>>,
}

/// One file of the cache.
struct Found {
    path: PathBuf,
    kind: String,
    bytes: u64,
    used: SystemTime,
}

impl Cache {
    /// A cache of at most `limit` bytes in `root`, which is made when the first entry is.
    pub fn new(root: impl Into<PathBuf>, limit: u64) -> Self {
        let shared = Shared { root: root.into(), limit, serial: AtomicU64::new(0), written: Mutex::new(None) };
        Self { shared: Arc::new(shared) }
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.shared.root
    }

    /// The limit in bytes.
    pub fn limit(&self) -> u64 {
        self.shared.limit
    }

    fn path(&self, key: &CacheKey) -> PathBuf {
        let name = key.digest.to_hex();
        self.shared.root.join(key.kind).join(&name[..2]).join(name.as_str())
    }

    /// The value of a key, exactly as it was put; `None` where there is none that is whole.
    pub fn get(&self, key: &CacheKey) -> Option<Vec<u8>> {
        let path = self.path(key);
        let mut file = File::open(&path).ok()?;
        let value = match whole(&mut file) {
            Ok(Some(value)) => value,
            Ok(None) => {
                let _ = fs::remove_file(&path);
                return None;
            }
            Err(_) => return None,
        };
        let _ = file.set_modified(SystemTime::now());
        Some(value)
    }

    /// Whether there is an entry under a key, without proving it.
    pub fn contains(&self, key: &CacheKey) -> bool {
        self.path(key).is_file()
    }

    /// Keeps a value. Returns whether it is in the cache now: not where it is larger than the limit or cannot be written.
    pub fn put(&self, key: &CacheKey, value: &[u8]) -> bool {
        let bytes = (HEADER + value.len()) as u64;
        if bytes > self.shared.limit {
            return false;
        }
        let written = self.write(key, value).is_ok();
        if written {
            self.count(bytes);
        }
        written
    }

    fn write(&self, key: &CacheKey, value: &[u8]) -> io::Result<()> {
        let path = self.path(key);
        let unfinished = self.shared.root.join(UNFINISHED);
        for folder in path.parent().into_iter().chain([unfinished.as_path()]) {
            fs::create_dir_all(folder)?;
        }
        let number = self.shared.serial.fetch_add(1, Ordering::Relaxed);
        // Two caches of one process may be open on one folder: the address tells them apart.
        let owner = Arc::as_ptr(&self.shared) as usize;
        let draft = unfinished.join(format!("{}.{owner:x}.{number}", std::process::id()));
        let fill = || {
            let mut file = File::create_new(&draft)?;
            file.write_all(MAGIC)?;
            file.write_all(blake3::hash(value).as_bytes())?;
            file.write_all(value)?;
            // Not flushed to the disk: what a power cut tears has another digest.
            drop(file);
            fs::rename(&draft, &path)
        };
        fill().inspect_err(|_| {
            let _ = fs::remove_file(&draft);
        })
    }

    /// Counts what was written and makes room where it is time to look.
    fn count(&self, bytes: u64) {
        let Ok(mut written) = self.shared.written.lock() else { return };
        let due = match *written {
            None => true,
            Some(before) => before + bytes > self.shared.limit / 16,
        };
        *written = Some(if due { 0 } else { written.unwrap_or(0) + bytes });
        drop(written);
        if due {
            self.make_room();
        }
    }

    /// Removes what was used longest ago until the entries fit the limit with a sixteenth to spare.
    fn make_room(&self) {
        let Ok(lock) = File::create(self.shared.root.join(".lock")) else { return };
        if lock.try_lock().is_err() {
            return; // another process is at it
        }
        self.remove_abandoned();
        let mut found = self.entries();
        let mut bytes: u64 = found.iter().map(|entry| entry.bytes).sum();
        if bytes <= self.shared.limit {
            return;
        }
        found.sort_by(|a, b| (a.used, &a.path).cmp(&(b.used, &b.path)));
        for entry in found {
            if bytes <= self.shared.limit - self.shared.limit / 16 {
                break;
            }
            if fs::remove_file(&entry.path).is_ok() {
                bytes -= entry.bytes;
            }
        }
    }

    fn remove_abandoned(&self) {
        for item in fs::read_dir(self.shared.root.join(UNFINISHED)).into_iter().flatten().flatten() {
            let old = item
                .metadata()
                .and_then(|data| data.modified())
                .is_ok_and(|time| SystemTime::now().duration_since(time).is_ok_and(|age| age > ABANDONED));
            if old {
                let _ = fs::remove_file(item.path());
            }
        }
    }

    /// Finished entries. What cannot be read is left out.
    fn entries(&self) -> Vec<Found> {
        let files = WalkDir::new(&self.shared.root).min_depth(3).max_depth(3).into_iter().flatten();
        let found = files.filter(|item| item.file_type().is_file()).filter_map(|item| {
            let data = item.metadata().ok()?;
            let kind = item.path().parent()?.parent()?.file_name()?.to_string_lossy().into_owned();
            Some(Found { path: item.path().to_owned(), kind, bytes: data.len(), used: data.modified().ok()? })
        });
        found.collect()
    }

    /// What each kind of values takes.
    pub fn usage(&self) -> BTreeMap<String, CacheUsage> {
        let mut usage: BTreeMap<String, CacheUsage> = BTreeMap::new();
        for entry in self.entries() {
            let of_kind = usage.entry(entry.kind).or_default();
            of_kind.entries += 1;
            of_kind.bytes += entry.bytes;
        }
        usage
    }

    /// Removes every entry. Safe while other processes use the cache: they find it empty.
    ///
    /// # Errors
    /// An entry that cannot be removed.
    pub fn clear(&self) -> Result<(), StoreError> {
        self.remove_abandoned();
        for entry in self.entries() {
            match fs::remove_file(&entry.path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(StoreError::write(&entry.path, e)),
                _ => {}
            }
        }
        Ok(())
    }
}

/// The value of an entry; `None` where it is not what was put.
fn whole(file: &mut File) -> io::Result<Option<Vec<u8>>> {
    let length = file.metadata()?.len();
    let mut head = [0; HEADER];
    match file.read_exact(&mut head) {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let mut value = Vec::with_capacity(length.saturating_sub(HEADER as u64) as usize);
    file.read_to_end(&mut value)?;
    let (magic, digest) = head.split_at(MAGIC.len());
    Ok((magic == MAGIC && digest == blake3::hash(&value).as_bytes()).then_some(value))
}
