//! Entries drawn from corpora, where the next readable one stands in for an image that cannot be read.

use std::{
    collections::BTreeSet,
    fs,
    ops::Range,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
};

use ressa_data::{Captioned, Captions, DataError};

/// File of the entries that were passed over, beside a training's checkpoint.
const RECORD: &str = "unreadable.json";

/// The entries of a draw. Which entry stands in for which follows from the files alone, so a resumed training sees the same.
pub(super) struct Draw {
    entries: Vec<Captioned>,
    unreadable: Mutex<BTreeSet<usize>>,
    /// Where entries found unreadable are kept for a training that is resumed: it does not see them again.
    record: Option<PathBuf>,
}

impl Draw {
    /// Looks for every file. `scratch` is where an unfinished training keeps what it resumes from.
    ///
    /// # Errors
    /// [`DataError::Unreadable`] where more than half of the files are not there.
    pub fn new(captions: &Captions, scratch: Option<PathBuf>) -> Result<Self, DataError> {
        let record = scratch.map(|folder| folder.join(RECORD));
        let known = record.as_ref().and_then(|path| serde_json::from_slice(&fs::read(path).ok()?).ok());
        let entries = captions.entries().to_vec();
        let draw = Self { entries, unreadable: Mutex::new(known.unwrap_or_default()), record };
        for (number, entry) in draw.entries.iter().enumerate() {
            if let Err(source) = fs::metadata(&entry.image) {
                draw.pass_over(number, &DataError::Read { path: entry.image.clone(), source })?;
            }
        }
        Ok(draw)
    }

    /// The entries, readable or not.
    pub fn entries(&self) -> &[Captioned] {
        &self.entries
    }

    /// Entries that could not be read so far.
    pub fn skipped(&self) -> usize {
        self.unreadable().len()
    }

    /// What `open` makes of an entry or, where its image cannot be read, of the next one whose image can; and which one that was.
    ///
    /// # Errors
    /// Other errors of `open`; [`DataError::Unreadable`] when more than half of the entries have turned out to be unreadable.
    pub fn read<T>(
        &self,
        number: usize,
        open: impl Fn(&Captioned) -> Result<T, DataError>,
    ) -> Result<(usize, T), DataError> {
        self.read_within(&(0..self.entries.len()), number, open)
    }

    /// The same where only entries of a range, which has the number, stand in.
    ///
    /// # Errors
    /// As for [`Draw::read`]; [`DataError::Unreadable`] where none of the range can be read.
    pub fn read_within<T>(
        &self,
        range: &Range<usize>,
        number: usize,
        open: impl Fn(&Captioned) -> Result<T, DataError>,
    ) -> Result<(usize, T), DataError> {
        let mut last = None;
        for at in (number..range.end).chain(range.start..number) {
            if self.unreadable().contains(&at) {
                continue;
            }
            match open(&self.entries[at]) {
                Err(error) if error.is_unreadable_image() => {
                    self.pass_over(at, &error)?;
                    last = Some(error);
                }
                done => return done.map(|done| (at, done)),
            }
        }
        let drawn = range.len();
        let first = last.map_or_else(|| "there are none".to_owned(), |error| error.to_string());
        Err(DataError::Unreadable { unreadable: drawn, drawn, first })
    }

    fn pass_over(&self, number: usize, error: &DataError) -> Result<(), DataError> {
        let mut unreadable = self.unreadable();
        if unreadable.insert(number)
            && let Some(path) = &self.record
        {
            // Lost with the process, it is found again unless the training has passed it: only the count would be short.
            let _ = fs::write(path, serde_json::to_vec(&*unreadable).unwrap_or_default());
        }
        let (unreadable, drawn) = (unreadable.len(), self.entries.len());
        if 2 * unreadable > drawn {
            return Err(DataError::Unreadable { unreadable, drawn, first: error.to_string() });
        }
        Ok(())
    }

    fn unreadable(&self) -> MutexGuard<'_, BTreeSet<usize>> {
        self.unreadable.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use ressa_experiment::config::{CorporaConfig, Corpus};

    use super::*;

    fn captions() -> Captions {
        let config = CorporaConfig { corpora: vec![Corpus::Coco], ..CorporaConfig::default() };
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/tests/published");
        Captions::first(&config, &root, 4).unwrap()
    }

    /// As if the entries of these numbers were damaged.
    fn read(draw: &Draw, number: usize, damaged: &[usize]) -> Result<usize, DataError> {
        let opened = draw.read(number, |entry| {
            let at = draw.entries().iter().position(|known| known == entry).unwrap();
            let broken = || DataError::Image { path: entry.image.clone(), reason: "it is damaged".to_owned() };
            if damaged.contains(&at) { Err(broken()) } else { Ok(at) }
        });
        opened.map(|(at, opened)| {
            assert_eq!(at, opened);
            at
        })
    }

    #[test]
    fn the_next_readable_entry_stands_in_whatever_was_read_before() {
        let scratch = tempfile::tempdir().unwrap();
        let draw = Draw::new(&captions(), Some(scratch.path().to_owned())).unwrap();
        assert_eq!([0, 1, 2, 3].map(|number| read(&draw, number, &[2, 3]).unwrap()), [0, 1, 0, 0]);
        assert_eq!(draw.skipped(), 2);
        // A resumed training meets only one of the two again.
        let resumed = Draw::new(&captions(), Some(scratch.path().to_owned())).unwrap();
        assert_eq!(read(&resumed, 3, &[2, 3]).unwrap(), 0);
        assert_eq!(resumed.skipped(), 2);
        let other = Draw::new(&captions(), None).unwrap();
        assert_eq!([3, 2, 1].map(|number| read(&other, number, &[2, 3]).unwrap()), [0, 0, 1]);
    }

    #[test]
    fn more_than_half_is_an_error_and_so_is_what_is_no_fault_of_an_image() {
        let draw = Draw::new(&captions(), None).unwrap();
        let error = read(&draw, 0, &[0, 1, 2]).unwrap_err().to_string();
        assert!(error.starts_with("3 of 4 images cannot be read") && error.contains("it is damaged"), "{error}");
        let other = draw.read(3, |_| Err::<(), _>(DataError::NoRoot)).unwrap_err();
        assert!(matches!(other, DataError::NoRoot));
    }
}
