//! Which stages recorded sweeps want: one file per distinct sweep in the store's `sweeps/`, as git keeps references, so that nothing a sweep
//! made is garbage before somebody says so.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use ressa_experiment::StageKey;
use ressa_store::{Store, StoreError, named, replace};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::Graph;

/// Folder of the records within the store's root.
const FOLDER: &str = "sweeps";

/// A sweep that was asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SweepRecord {
    /// Follows from everything below but the times: 12 hexadecimal digits.
    pub id: String,
    /// Experiment files, as people know them.
    pub files: Vec<String>,
    /// Overrides of the command line, and options that chose some of the runs.
    pub overrides: Vec<String>,
    /// When it was first started, in milliseconds since 1970.
    pub first: u64,
    /// When it was last started.
    pub last: u64,
    /// Whether somebody said that its results are no longer wanted.
    #[serde(default)]
    pub forgotten: bool,
    /// Every stage it wants.
    pub keys: Vec<StageKey>,
}

/// A recorded sweep without the stages that it wants.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct SweepTitle {
    /// As in [`SweepRecord`].
    pub id: String,
    /// Experiment files, as people know them.
    pub files: Vec<String>,
    /// Overrides of the command line, and options that chose some of the runs.
    pub overrides: Vec<String>,
    /// When it was last started, in milliseconds since 1970.
    pub last: u64,
    /// Whether somebody said that its results are no longer wanted.
    #[serde(default)]
    pub forgotten: bool,
}

impl SweepRecord {
    /// The sweep in words: `experiments/a.yaml seed=1`.
    pub fn title(&self) -> String {
        self.files.iter().chain(&self.overrides).map(String::as_str).collect::<Vec<_>>().join(" ")
    }

    fn path(&self, store: &Store) -> PathBuf {
        store.root().join(FOLDER).join(format!("{}.json", self.id))
    }

    fn write(&self, store: &Store) -> Result<(), StoreError> {
        let path = self.path(store);
        let text = serde_json::to_vec(self).expect("a record is plain data");
        let folder = store.root().join(FOLDER);
        fs::create_dir_all(&folder).map_err(|source| StoreError::Write { path: folder, source })?;
        replace(&path, &text)
    }
}

/// Records that a sweep over a graph starts.
///
/// # Errors
/// A record that cannot be written: without it, `ressa gc` might take what the sweep makes.
pub fn record_sweep(
    store: &Store,
    files: &[String],
    overrides: &[String],
    graph: &Graph,
) -> Result<SweepRecord, StoreError> {
    record_keys(store, files, overrides, graph.stages.iter().map(|stage| stage.node.key))
}

/// Records that experiments ask for some stages.
pub(crate) fn record_keys(
    store: &Store,
    files: &[String],
    overrides: &[String],
    keys: impl Iterator<Item = StageKey>,
) -> Result<SweepRecord, StoreError> {
    let keys: BTreeSet<StageKey> = keys.collect();
    let keys: Vec<StageKey> = keys.into_iter().collect();
    let identity = serde_json::to_vec(&(files, overrides, &keys)).expect("texts are plain data");
    let id = blake3::hash(&identity).to_hex()[..12].to_owned();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_millis() as u64);
    let (files, overrides) = (files.to_vec(), overrides.to_vec());
    let mut record = SweepRecord { id, files, overrides, first: now, last: now, forgotten: false, keys };
    if let Ok(known) = read::<SweepRecord>(&record.path(store)) {
        record.first = known.first;
    }
    record.write(store)?;
    Ok(record)
}

/// Every recorded sweep, the latest first.
///
/// # Errors
/// A record that cannot be read or understood: what it wants is not known, so nothing may be taken for garbage.
pub fn recorded_sweeps(store: &Store) -> Result<Vec<SweepRecord>, StoreError> {
    let mut records: Vec<SweepRecord> = all(store)?;
    records.sort_by(|a, b| (b.last, &a.id).cmp(&(a.last, &b.id)));
    Ok(records)
}

/// The same without the stages that they want.
///
/// # Errors
/// As for [`recorded_sweeps`].
pub fn recorded_titles(store: &Store) -> Result<Vec<SweepTitle>, StoreError> {
    let mut titles: Vec<SweepTitle> = all(store)?;
    titles.sort_by(|a, b| (b.last, &a.id).cmp(&(a.last, &b.id)));
    Ok(titles)
}

fn all<T: DeserializeOwned>(store: &Store) -> Result<Vec<T>, StoreError> {
    let is_id = |name: &str| name.len() == 12 && name.bytes().all(|b| b.is_ascii_hexdigit());
    let is_record = |name: &str| name.strip_suffix(".json").is_some_and(is_id);
    let files = named(&store.root().join(FOLDER))?;
    files.into_iter().filter(|(name, _)| is_record(name)).map(|(_, path)| read(&path)).collect()
}

/// Marks a recorded sweep as no longer wanted. Starting it again makes it wanted again.
///
/// # Errors
/// A record that cannot be written.
pub fn forget_sweep(store: &Store, record: &SweepRecord) -> Result<(), StoreError> {
    SweepRecord { forgotten: true, ..record.clone() }.write(store)
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T, StoreError> {
    let text = fs::read(path).map_err(|source| StoreError::Read { path: path.to_owned(), source })?;
    serde_json::from_slice(&text)
        .map_err(|e| StoreError::Damaged { path: path.to_owned(), what: format!(
                "it is not the record of a sweep ({e}), so what that sweep wants is not known; starting the sweep again writes a new one, \
                 removing this file gives it up"
            ) })
}
