//! A file that one process appends messages to and another reads: number, code, and message in a line each.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};

use super::seal::{Token, open_line, seal_line};

/// Maximum length of a line in bytes; what claims to be longer is refused.
const LONGEST: usize = 16 << 20;
/// Bytes that are read at a time.
const PIECE: u64 = 4 << 20;

/// Who writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// A pilot.
    Up,
    /// The coordinator.
    Down,
}

impl Direction {
    /// Folder of such files within the meeting folder.
    pub fn folder(self) -> &'static str {
        match self {
            Direction::Up => "up",
            Direction::Down => "down",
        }
    }
}

fn channel(direction: Direction, name: &str) -> String {
    format!("{}/{name}", direction.folder())
}

/// Appends messages.
#[derive(Debug)]
pub(crate) struct SpoolWriter {
    path: PathBuf,
    channel: String,
    token: Token,
    /// Number of the next line.
    next: u64,
    /// Whether the last line may be written in part.
    is_torn: bool,
}

impl SpoolWriter {
    /// A writer that appends to the file. A torn last line, of a writer that was killed, is closed and will be refused.
    pub fn open(meet: &Path, direction: Direction, name: &str, token: &Token) -> io::Result<Self> {
        let path = meet.join(direction.folder()).join(name);
        let mut file = OpenOptions::new().create(true).read(true).append(true).mode(0o600).open(&path)?;
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        if text.last().is_some_and(|&byte| byte != b'\n') {
            file.write_all(b"\n")?;
        }
        let number = |line: &[u8]| std::str::from_utf8(line).ok()?.split(' ').next()?.parse::<u64>().ok();
        let next = text.split(|&byte| byte == b'\n').filter_map(number).max().map_or(0, |last| last + 1);
        Ok(Self { path, channel: channel(direction, name), token: token.clone(), next, is_torn: false })
    }

    /// Appends a message. The file is closed after it, so that a network file system hands it on.
    pub fn send(&mut self, message: &impl Serialize) -> io::Result<()> {
        let mut line = seal_line(&self.token, &self.channel, self.next, &serde_json::to_vec(message)?);
        if self.is_torn {
            line.insert(0, b'\n');
        }
        // Part of a line that could not be written must not swallow the next one.
        self.is_torn = true;
        OpenOptions::new().append(true).open(&self.path)?.write_all(&line)?;
        self.is_torn = false;
        self.next += 1;
        Ok(())
    }
}

/// What a line was.
#[derive(Debug, PartialEq)]
pub(crate) enum Taken<T> {
    /// A message of who knows the token.
    Message(T),
    /// Something else, and what is wrong with it.
    Refused(String),
}

/// Reads messages.
#[derive(Debug)]
pub(crate) struct SpoolReader {
    path: PathBuf,
    channel: String,
    token: Token,
    /// Where the next line begins.
    at: u64,
    /// Number of the next line.
    next: u64,
    /// Length of the file at the last look without a whole line: nothing to do before it grows.
    length: u64,
}

impl SpoolReader {
    /// A reader from the first line on.
    pub fn new(meet: &Path, direction: Direction, name: &str, token: &Token) -> Self {
        let path = meet.join(direction.folder()).join(name);
        Self { path, channel: channel(direction, name), token: token.clone(), at: 0, next: 0, length: 0 }
    }

    /// Hands every whole line that came since to `take`. A file that is not there yet has none.
    pub fn read<T: DeserializeOwned>(&mut self, take: &mut dyn FnMut(Taken<T>)) -> io::Result<()> {
        // A link could lead anywhere.
        let options = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(&self.path);
        let mut file = match options {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(e),
        };
        let data = file.metadata()?;
        if !data.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        if data.len() == self.length.max(self.at) {
            return Ok(());
        }
        if data.len() < self.at {
            take(Taken::Refused("the file became shorter: it was written anew".to_owned()));
            (self.at, self.length) = (data.len(), data.len());
            return Ok(());
        }
        self.length = data.len();
        while self.piece(&mut file, take)? {}
        Ok(())
    }

    /// Reads a piece of the file. Whether there may be more whole lines.
    fn piece<T: DeserializeOwned>(&mut self, file: &mut File, take: &mut dyn FnMut(Taken<T>)) -> io::Result<bool> {
        let mut text = Vec::new();
        file.seek(SeekFrom::Start(self.at))?;
        file.take(PIECE.max(LONGEST as u64 + 1)).read_to_end(&mut text)?;
        let mut rest = text.as_slice();
        let mut any = false;
        while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
            let line = &rest[..end];
            rest = &rest[end + 1..];
            self.at += end as u64 + 1;
            any = true;
            if !line.is_empty() {
                self.line(line, take);
            }
        }
        if rest.len() > LONGEST {
            take(Taken::Refused(format!("a line of more than {LONGEST} bytes")));
            self.at += rest.len() as u64;
            return Ok(true);
        }
        Ok(any)
    }

    fn line<T: DeserializeOwned>(&mut self, line: &[u8], take: &mut dyn FnMut(Taken<T>)) {
        let Some((number, body)) = open_line(&self.token, &self.channel, line) else {
            return take(Taken::Refused(
                "a line that was not made with the token of this sweep, or was cut or altered".to_owned(),
            ));
        };
        if number < self.next {
            return take(Taken::Refused(format!("message {number} came before: it is a replay")));
        }
        if number > self.next {
            let missing = number - self.next;
            take(Taken::Refused(format!("{missing} messages before number {number} are missing")));
        }
        self.next = number + 1;
        take(match serde_json::from_slice(body) {
            Ok(message) => Taken::Message(message),
            Err(e) => Taken::Refused(format!("a message of another version of the program ({e})")),
        });
    }
}

/// Whether a pilot may have this name: it becomes a file name.
pub(crate) fn is_name(name: &str) -> bool {
    (1..=100).contains(&name.len())
        && !name.starts_with('.')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

/// Names of the pilots that have written something in a meeting folder.
pub(crate) fn names(meet: &Path) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    for item in fs::read_dir(meet.join(Direction::Up.folder()))? {
        if let Ok(name) = item?.file_name().into_string()
            && is_name(&name)
        {
            found.push(name);
        }
    }
    found.sort();
    Ok(found)
}
