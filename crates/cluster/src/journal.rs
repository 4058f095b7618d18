//! What was submitted: written down before the engine is asked, so that a coordinator that is killed at any moment leaves no job behind that
//! the next one does not know.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

/// Name of the file in the folder of pilots.
pub(crate) const FILE: &str = "submissions.jsonl";

/// A line of the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub(crate) enum Entry {
    /// The engine is about to be asked for jobs.
    Intent {
        /// Unique name of the array.
        token: String,
        /// Its class.
        class: String,
        /// Jobs.
        jobs: u32,
        /// Jobs that run at once.
        at_once: Option<u32>,
    },
    /// The engine took it, as it answered or as its queue shows.
    Accepted {
        /// Name.
        token: String,
        /// Number of the array.
        job: u64,
    },
    /// The engine did not take it.
    Refused {
        /// Name.
        token: String,
        /// Its message.
        message: String,
    },
    /// There was no answer, and the queue does not have it either.
    Lost {
        /// Name.
        token: String,
    },
    /// None of its jobs is left.
    Over {
        /// Name.
        token: String,
    },
    /// A node is no longer used.
    Excluded {
        /// Node.
        node: String,
        /// Why.
        reason: String,
    },
}

#[derive(Deserialize, Serialize)]
struct Line<E> {
    /// Seconds since 1970, for people.
    at: u64,
    #[serde(flatten)]
    entry: E,
}

/// The journal of a results folder; a coordinator alone writes it.
#[derive(Debug)]
pub(crate) struct Journal {
    file: File,
    path: PathBuf,
}

impl Journal {
    /// Opens the journal of a folder, which is made if need be, and reads it. A line that was torn by a kill is passed over: what it was to
    /// announce did not happen yet.
    pub fn open(folder: &Path) -> io::Result<(Self, Vec<Entry>)> {
        fs::create_dir_all(folder)?;
        let path = folder.join(FILE);
        let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
        let text = fs::read(&path)?;
        if text.last().is_some_and(|&byte| byte != b'\n') {
            file.write_all(b"\n")?;
        }
        let entries =
            text.split(|&byte| byte == b'\n').filter_map(|line| serde_json::from_slice::<Line<Entry>>(line).ok());
        let entries = entries.map(|line| line.entry).collect();
        Ok((Self { file, path }, entries))
    }

    /// Appends an entry and waits until it is on the disk.
    pub fn write(&mut self, entry: &Entry) -> io::Result<()> {
        let at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let mut line = serde_json::to_vec(&Line { at, entry })?;
        line.push(b'\n');
        self.file.write_all(&line)?;
        self.file.sync_data()
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries() -> Vec<Entry> {
        let token = || "ressa-train-1".to_owned();
        vec![
            Entry::Intent { token: token(), class: "train".to_owned(), jobs: 8, at_once: Some(4) },
            Entry::Accepted { token: token(), job: 77 },
            Entry::Excluded { node: "n3".to_owned(), reason: "ä\nb".to_owned() },
        ]
    }

    #[test]
    fn what_is_written_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let (mut journal, before) = Journal::open(folder.path()).unwrap();
        assert_eq!(before, []);
        entries().iter().for_each(|entry| journal.write(entry).unwrap());
        assert_eq!(Journal::open(folder.path()).unwrap().1, entries());
    }

    #[test]
    fn a_journal_cut_at_any_byte_loses_its_last_line_at_most() {
        let folder = tempfile::tempdir().unwrap();
        let (mut journal, _) = Journal::open(folder.path()).unwrap();
        entries().iter().for_each(|entry| journal.write(entry).unwrap());
        let whole = fs::read(journal.path()).unwrap();
        for length in 0..whole.len() {
            fs::write(journal.path(), &whole[..length]).unwrap();
            let complete = whole[..length].iter().filter(|&&byte| byte == b'\n').count();
            let (mut again, read) = Journal::open(folder.path()).unwrap();
            // All of a line but its end is a line, too.
            assert!(read.len() == complete || read.len() == complete + 1, "{length}");
            assert_eq!(read, entries()[..read.len()]);
            again.write(&entries()[0]).unwrap();
            assert_eq!(Journal::open(folder.path()).unwrap().1.len(), read.len() + 1, "{length}");
        }
    }
}
