//! Segments: the files of the log, one per coordinator, each written by one process from its begin to its end.
//!
//! A coordinator never appends to a file that another one began, so no lock is needed and a torn line can only be the last one of its
//! segment. Numbers rise; a coordinator that sees a number above its own has been superseded and must stop.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use ressa_store::{StoreError, named};

use crate::{
    Entry, LogEvent, Note,
    line::{Bad, decode, encode},
};

/// Segments by number, and how far each was read.
pub(crate) type Segments = BTreeMap<u32, Place>;

/// How far a segment was read.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Place {
    /// The segment's random name, which tells it from a copy and from another one with its number.
    pub id: String,
    /// Bytes read: whole lines.
    pub bytes: u64,
    /// Lines read; the number of the next.
    pub lines: u64,
}

/// Files of a folder that are named as segments are, by number.
pub(crate) fn files(folder: &Path) -> Result<BTreeMap<u32, PathBuf>, StoreError> {
    let number = |name: &str| name.strip_suffix(".jsonl")?.parse::<u32>().ok();
    Ok(named(folder)?.into_iter().filter_map(|(name, path)| Some((number(&name)?, path))).collect())
}

/// Writes a segment.
#[derive(Debug)]
pub struct Writer {
    folder: PathBuf,
    path: PathBuf,
    number: u32,
    file: File,
    /// How far it reaches.
    place: Place,
}

impl Writer {
    /// Begins a segment after all that are in `folder`, which is made where it is missing.
    ///
    /// # Errors
    /// A folder that cannot be read or written.
    pub(crate) fn begin(folder: &Path, program: &str) -> Result<(Self, Entry), StoreError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| StoreError::Write { path, source }
        };
        fs::create_dir_all(folder).map_err(failed(folder))?;
        loop {
            let number = files(folder)?.keys().next_back().copied().unwrap_or(0) + 1;
            let path = folder.join(format!("{number:06}.jsonl"));
            let file = match OpenOptions::new().append(true).create_new(true).open(&path) {
                Ok(file) => file,
                // Another coordinator was faster: the one after it has the higher number, and goes on.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(e) => return Err(failed(&path)(e)),
            };
            let id = nonce();
            let began = LogEvent::Began {
                segment: number,
                id: id.clone(),
                host: host(),
                pid: std::process::id(),
                program: program.to_owned(),
            };
            let place = Place { id, bytes: 0, lines: 0 };
            let mut writer = Self { folder: folder.to_owned(), path, number, file, place };
            let entry = writer.append(began)?;
            return Ok((writer, entry));
        }
    }

    /// Number of the segment.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Appends an event with the time of now.
    ///
    /// # Errors
    /// A line that cannot be written; a part of it that was written is taken back, or stands as a torn line that readers pass over.
    pub(crate) fn append(&mut self, event: LogEvent) -> Result<Entry, StoreError> {
        let at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_millis() as u64);
        let entry = Entry { at, event };
        let line = encode(&entry, self.place.lines);
        if let Err(source) = self.file.write_all(&line) {
            let _ = self.file.set_len(self.place.bytes);
            return Err(StoreError::Write { path: self.path.clone(), source });
        }
        self.place.lines += 1;
        self.place.bytes += line.len() as u64;
        Ok(entry)
    }

    /// Waits until all that was appended is on the disk.
    ///
    /// # Errors
    /// A disk that fails.
    pub fn sync(&self) -> Result<(), StoreError> {
        self.file.sync_data().map_err(|source| StoreError::Write { path: self.path.clone(), source })
    }

    /// Whether no other coordinator has begun since. Looks for the next number only.
    pub fn is_current(&self) -> bool {
        !self.folder.join(format!("{:06}.jsonl", self.number + 1)).exists()
    }

    /// How far this segment reaches.
    pub(crate) fn place(&self) -> &Place {
        &self.place
    }
}

/// Bytes of a segment that are in memory while it is read, beside the longest line.
const PIECE: usize = 1 << 20;

/// Hands the entries of a segment after `place` to `take`, and moves `place` behind them. A file that is no segment has none.
pub(crate) fn read(
    path: &Path,
    place: &mut Place,
    notes: &mut Vec<Note>,
    take: &mut dyn FnMut(Entry),
) -> Result<(), StoreError> {
    let failed = |source| StoreError::Read { path: path.to_owned(), source };
    let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut note = |what: String| notes.push(Note { file: file.clone(), what });
    let mut source = File::open(path).map_err(failed)?;
    let length = source.metadata().map_err(failed)?.len();
    if length < place.bytes {
        let read = place.bytes;
        note(format!("it has {length} bytes where {read} were read before; what is missing is in the index"));
        return Ok(());
    }
    source.seek(SeekFrom::Start(place.bytes)).map_err(failed)?;
    let mut source = BufReader::with_capacity(PIECE, source);
    let mut line = Vec::new();
    loop {
        line.clear();
        source.read_until(b'\n', &mut line).map_err(failed)?;
        // A line without its end is being written, or will never be: it is looked at again.
        let Some(text) = line.strip_suffix(b"\n") else { return Ok(()) };
        let at = place.bytes;
        place.bytes += line.len() as u64;
        if text.is_empty() {
            continue;
        }
        match decode(text) {
            Ok((_, number)) if number < place.lines => note(format!("the line at byte {at} is there twice")),
            Ok((entry, number)) => {
                if number > place.lines {
                    let missing = number - place.lines;
                    note(format!("{missing} lines before byte {at} are missing"));
                }
                place.lines = number + 1;
                if let LogEvent::Began { id, .. } = &entry.event {
                    place.id.clone_from(id);
                }
                take(entry);
            }
            Err(Bad::Torn) => note(format!("the line at byte {at} is not whole")),
            Err(Bad::Unknown) => {
                place.lines += 1;
                note(format!("the line at byte {at} is of another version of the program"));
            }
        }
    }
}

/// Number and random name that the first line of a segment gives it; none where that line is not whole.
pub(crate) fn header(path: &Path) -> Result<Option<(u32, String)>, StoreError> {
    let failed = |source| StoreError::Read { path: path.to_owned(), source };
    let mut head = Vec::new();
    File::open(path).map_err(failed)?.take(4096).read_to_end(&mut head).map_err(failed)?;
    let line = head.split(|&byte| byte == b'\n').next().unwrap_or_default();
    Ok(match decode(line) {
        Ok((Entry { event: LogEvent::Began { segment, id, .. }, .. }, _)) => Some((segment, id)),
        _ => None,
    })
}

/// The name of this machine.
pub fn host() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "localhost".to_owned() } else { name.to_owned() }
}

/// Sixteen digits that nobody else has.
pub fn nonce() -> String {
    let mut bytes = [0; 8];
    let random = File::open("/dev/urandom").and_then(|mut source| source.read_exact(&mut bytes));
    if random.is_err() {
        let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_nanos() as u64);
        bytes = (time ^ u64::from(std::process::id()).rotate_left(40)).to_le_bytes();
    }
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
