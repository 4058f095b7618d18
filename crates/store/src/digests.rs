//! Digests of files, remembered by what the file system says of a file, so that the second look reads nothing.
//!
//! A digest is remembered under device, inode, size and both times (of modification and of change) of the file that was read. An edit
//! changes one of them whatever it does to the others: the time of change cannot be set by a program. Files touched within the last
//! seconds are not remembered, because an edit within the same tick of the file system's clock would not show.
//!
//! One text file, a line per digest, appended to by any number of processes; a torn or foreign line is passed over. Losing it costs
//! reading the files again. Where it cannot be written (a results folder of someone else), digests are remembered for this process only.

use std::{
    collections::HashMap,
    fs::{self, File, Metadata, OpenOptions},
    io::{self, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// File name within the store's root.
const FILE: &str = "digests.txt";
/// How old the times of a file must be before its digest is remembered: coarser than the clock of any file system in use.
const SETTLED: Duration = Duration::from_secs(2);

/// What the file system says of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Identity {
    device: u64,
    inode: u64,
    bytes: u64,
    /// Nanoseconds since 1970.
    modified: i128,
    changed: i128,
}

impl Identity {
    fn of(data: &Metadata) -> Self {
        let nanoseconds = |seconds: i64, rest: i64| i128::from(seconds) * 1_000_000_000 + i128::from(rest);
        Self {
            device: data.dev(),
            inode: data.ino(),
            bytes: data.size(),
            modified: nanoseconds(data.mtime(), data.mtime_nsec()),
            changed: nanoseconds(data.ctime(), data.ctime_nsec()),
        }
    }

    fn is_settled(&self) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let limit = now.saturating_sub(SETTLED).as_nanos() as i128;
        self.modified < limit && self.changed < limit
    }
}

#[derive(Debug, Default)]
struct Known {
    digests: HashMap<Identity, blake3::Hash>,
    /// Lines not yet in the file.
    fresh: String,
}

impl Known {
    fn read(path: &Path) -> Self {
        let lines = fs::read(path).unwrap_or_default();
        let digests = String::from_utf8_lossy(&lines).lines().filter_map(parse).collect();
        Self { digests, fresh: String::new() }
    }
}

/// Remembered digests; cheap to clone, and clones share what they know.
#[derive(Clone, Debug)]
pub struct Digests {
    path: PathBuf,
    /// `None` until a digest is asked for.
    known: Arc<Mutex<Option<Known>>>,
}

impl Digests {
    /// What is remembered below a store's root. Nothing is created, and nothing read before it is needed.
    pub fn open(root: &Path) -> Self {
        Self { path: root.join(FILE), known: Arc::default() }
    }

    fn known<T>(&self, with: impl FnOnce(&mut Known) -> T) -> T {
        // What a panicking thread left is still a map of digests.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        with(known.get_or_insert_with(|| Known::read(&self.path)))
    }

    /// Size and blake3 digest of a file's content: remembered, or read now.
    ///
    /// # Errors
    /// A file that cannot be read or is none, or that changed while it was read.
    pub fn of_file(&self, path: &Path) -> io::Result<(u64, blake3::Hash)> {
        let data = fs::metadata(path)?;
        if !data.is_file() {
            // A pipe would never end, a device never stop.
            return Err(io::Error::other("it is not a regular file"));
        }
        let before = Identity::of(&data);
        if let Some(digest) = self.known(|known| known.digests.get(&before).copied()) {
            return Ok((before.bytes, digest));
        }
        let mut file = File::open(path)?;
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(&mut file)?;
        let digest = hasher.finalize();
        let after = Identity::of(&file.metadata()?);
        if hasher.count() != after.bytes {
            return Err(io::Error::other("it changed while it was read"));
        }
        if before == after && after.is_settled() {
            let Identity { device, inode, bytes, modified, changed } = after;
            let line = format!("{device} {inode} {bytes} {modified} {changed} {digest}\n");
            self.known(|known| {
                known.digests.insert(after, digest);
                known.fresh += &line;
            });
        }
        Ok((after.bytes, digest))
    }

    /// Whether the second look at a file would read nothing.
    pub fn knows(&self, path: &Path) -> bool {
        fs::metadata(path).is_ok_and(|data| self.known(|known| known.digests.contains_key(&Identity::of(&data))))
    }

    /// Writes what is new. Not being able to is no error: the next process reads the files again.
    pub fn keep(&self) {
        let fresh = self.known(|known| std::mem::take(&mut known.fresh));
        if fresh.is_empty() {
            return;
        }
        let write = || -> io::Result<()> {
            // One write, so that lines of two processes do not mix; a line begins anew whatever stands before it.
            OpenOptions::new().create(true).append(true).open(&self.path)?.write_all(format!("\n{fresh}").as_bytes())
        };
        let _ = write();
    }
}

fn parse(line: &str) -> Option<(Identity, blake3::Hash)> {
    let mut fields = line.split(' ');
    let identity = Identity {
        device: fields.next()?.parse().ok()?,
        inode: fields.next()?.parse().ok()?,
        bytes: fields.next()?.parse().ok()?,
        modified: fields.next()?.parse().ok()?,
        changed: fields.next()?.parse().ok()?,
    };
    let digest = blake3::Hash::from_hex(fields.next()?).ok()?;
    fields.next().is_none().then_some((identity, digest))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Digests with every file of `paths` known under its present identity.
    fn remembering(root: &Path, paths: &[&Path]) -> Digests {
        let digests = Digests::open(root);
        for path in paths {
            let (_, digest) = digests.of_file(path).unwrap();
            let identity = Identity::of(&fs::metadata(path).unwrap());
            digests.known(|known| known.digests.insert(identity, digest));
        }
        digests
    }

    #[test]
    fn an_edit_shows_and_a_touch_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        fs::write(&path, "one").unwrap();
        let digests = remembering(folder.path(), &[&path]);
        let (bytes, one) = digests.of_file(&path).unwrap();
        assert_eq!((bytes, one), (3, blake3::hash(b"one")));
        assert!(digests.knows(&path));
        // Same size, and the time of modification put back: the time of change still shows it.
        let time = fs::metadata(&path).unwrap().modified().unwrap();
        std::thread::sleep(Duration::from_millis(20));
        fs::write(&path, "two").unwrap();
        File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
        assert_eq!(digests.of_file(&path).unwrap().1, blake3::hash(b"two"));
        fs::write(&path, "one").unwrap();
        assert_eq!(digests.of_file(&path).unwrap().1, one, "same content, same digest");
    }

    #[test]
    fn what_was_just_written_is_not_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        fs::write(&path, "one").unwrap();
        let digests = Digests::open(folder.path());
        digests.of_file(&path).unwrap();
        assert!(!digests.knows(&path), "an edit in the same tick would not show");
    }

    #[test]
    fn lines_are_read_back_and_foreign_ones_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let digest = blake3::hash(b"x");
        let identity = Identity { device: 1, inode: 2, bytes: 3, modified: -4, changed: 5 };
        assert_eq!(parse(&format!("1 2 3 -4 5 {digest}")), Some((identity, digest)));
        for broken in ["", "1 2 3 4 5", "1 2 3 4 5 zz", &format!("1 2 3 -4 5 {digest} more"), "\u{fffd}"] {
            assert_eq!(parse(broken), None, "{broken}");
        }
        fs::write(folder.path().join(FILE), format!("1 2 3 4\n1 2 3 -4 5 {digest}\n1 2 3 -4 5 ab")).unwrap();
        let digests = Digests::open(folder.path());
        digests.known(|known| assert_eq!(known.digests, HashMap::from([(identity, digest)])));
    }
}
