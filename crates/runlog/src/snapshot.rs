//! The index as a file: what the log says of every stage up to some place in it. Losing it costs reading the log.
//!
//! After the magic word and the digest of all that follows: the [`Head`], then as many rows as it says. Rows are written and read one after
//! the other, so that beside the index itself nothing but the bytes of the file is in memory.

use std::{collections::HashMap, fs, path::Path, sync::Arc};

use ressa_experiment::StageKey;
use ressa_store::{Environment, StoreError, replace};
use rmp_serde::Deserializer;
use serde::{Deserialize, Serialize, de::IgnoredAny};
use serde_json::value::RawValue;

use crate::{
    Attempt, FailureRecord, Index, LogPart, Note, Proof, Published, Record, State, States, segment::Segments,
    shared::Shared,
};

/// First bytes of the file; another layout gets another word, so an old index is made anew.
const MAGIC: &[u8; 8] = b"ressai02";
/// Bytes of the digest after it.
const DIGEST: usize = 32;
/// Minimum bytes of a row: a count that cannot be right must not ask for memory.
const ROW_AT_LEAST: usize = 36;
/// Bytes of a row, roughly: what is reserved before they are written.
const ROW: usize = 256;

/// What rows share stands once, and they say its number.
#[derive(Default, Serialize, Deserialize)]
struct Head {
    segments: Segments,
    texts: Vec<Arc<str>>,
    environments: Vec<Arc<Environment>>,
    lists: Vec<Arc<[String]>>,
    rows: usize,
}

#[derive(Serialize, Deserialize)]
struct Row<'r> {
    key: StageKey,
    attempts: u32,
    #[serde(borrow)]
    open: Vec<(u32, &'r str, bool, Option<Part>)>,
    log: Option<Part>,
    #[serde(borrow)]
    published: Option<Output<'r>>,
    /// JSON: failures are few.
    failure: Option<String>,
}

/// File, first byte, end.
#[derive(Serialize, Deserialize)]
struct Part(u32, u64, Option<u64>);

#[derive(Serialize, Deserialize)]
struct Output<'r> {
    kind: u32,
    detail: u32,
    model: u32,
    environment: u32,
    files: u32,
    seconds: f64,
    cpu_seconds: f64,
    result: &'r str,
    proof: Proof,
}

/// Numbers the values that [`Shared`] holds once, by their addresses.
struct Numbers<T: ?Sized> {
    numbers: HashMap<*const (), u32>,
    values: Vec<Arc<T>>,
}

impl<T: ?Sized> Numbers<T> {
    fn new() -> Self {
        Self { numbers: HashMap::new(), values: Vec::new() }
    }

    fn of(&mut self, value: &Arc<T>) -> u32 {
        *self.numbers.entry(Arc::as_ptr(value).cast()).or_insert_with(|| {
            self.values.push(Arc::clone(value));
            self.values.len() as u32 - 1
        })
    }
}

/// Writes the index.
pub(crate) fn write(path: &Path, index: &Index) -> Result<(), StoreError> {
    let (mut texts, mut environments, mut lists) = (Numbers::new(), Numbers::new(), Numbers::new());
    let mut rows = Vec::with_capacity(ROW * index.len());
    for (key, record) in index.iter() {
        let mut part = |part: &LogPart| Part(texts.of(&part.file), part.from, part.to);
        let open = record.open.iter().map(|(number, attempt)| {
            (*number, attempt.worker.as_str(), attempt.remote, attempt.log.as_ref().map(&mut part))
        });
        let open = open.collect();
        let log = record.log.as_ref().map(&mut part);
        let (published, failure) = match &record.state {
            State::Open => (None, None),
            State::Failed(failure) => (None, Some(serde_json::to_string(failure).expect("a failure is plain data"))),
            State::Published(output) => {
                let output = Output {
                    kind: texts.of(&output.kind),
                    detail: texts.of(&output.detail),
                    model: texts.of(&output.model),
                    environment: environments.of(&output.environment),
                    files: lists.of(&output.files),
                    seconds: output.seconds,
                    cpu_seconds: output.cpu_seconds,
                    result: output.result.get(),
                    proof: output.proof,
                };
                (Some(output), None)
            }
        };
        let row = Row { key: *key, attempts: record.attempts, open, log, published, failure };
        rmp_serde::encode::write(&mut rows, &row).expect("a row is plain data");
    }
    let head = Head {
        segments: index.segments.clone(),
        texts: texts.values,
        environments: environments.values,
        lists: lists.values,
        rows: index.len(),
    };
    let head = rmp_serde::to_vec(&head).expect("the head is plain data");
    let mut digest = blake3::Hasher::new();
    digest.update(&head).update(&rows);
    let mut bytes = Vec::with_capacity(MAGIC.len() + DIGEST + head.len() + rows.len());
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(digest.finalize().as_bytes());
    bytes.extend_from_slice(&head);
    bytes.append(&mut rows);
    replace(path, &bytes)
}

/// The bytes of a file; none where there is no such file.
fn bytes(path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(StoreError::Read { path: path.to_owned(), source }),
    }
}

/// Head and rows of a file that is whole.
fn payload(bytes: &[u8]) -> Option<&[u8]> {
    let (digest, payload) = bytes.strip_prefix(MAGIC)?.split_first_chunk::<DIGEST>()?;
    (blake3::hash(payload).as_bytes() == digest).then_some(payload)
}

/// The index in a file. One that is absent or of another version is none; one that is not whole is none, and named.
pub(crate) fn read(path: &Path, notes: &mut Vec<Note>) -> Result<Option<Index>, StoreError> {
    let Some(bytes) = bytes(path)? else { return Ok(None) };
    let found = payload(&bytes).and_then(unpack);
    if found.is_none() && !bytes.is_empty() {
        let what = "it is not whole, or of another version of the program; it is made anew from the log".to_owned();
        notes.push(Note { file: path.file_name().unwrap_or_default().to_string_lossy().into_owned(), what });
    }
    Ok(found)
}

/// A row of which only the state is wanted.
#[derive(Deserialize)]
struct Brief<'r>(StageKey, IgnoredAny, IgnoredAny, IgnoredAny, Option<IgnoredAny>, #[serde(borrow)] Option<&'r str>);

/// Takes the states that the index in a file says, and returns how far it reaches; none where [`read`] would find none.
pub(crate) fn read_states(path: &Path, states: &mut States) -> Result<Option<Segments>, StoreError> {
    let bytes = bytes(path)?;
    let mut found = States::default();
    let Some(segments) = bytes.as_deref().and_then(payload).and_then(|payload| unpack_states(payload, &mut found))
    else {
        return Ok(None);
    };
    *states = found;
    Ok(Some(segments))
}

fn unpack_states(payload: &[u8], states: &mut States) -> Option<Segments> {
    let mut source = Deserializer::from_read_ref(payload);
    let Head { segments, rows, .. } = Head::deserialize(&mut source).ok()?;
    states.reserve(rows.min(payload.len() / ROW_AT_LEAST));
    for _ in 0..rows {
        match Brief::deserialize(&mut source).ok()? {
            Brief(key, .., Some(_), _) => states.publish(key),
            Brief(.., None, Some(failure)) => states.fail(serde_json::from_str(failure).ok()?),
            Brief(.., None, None) => {}
        }
    }
    Some(segments)
}

/// The index of a file's head and rows.
fn unpack(payload: &[u8]) -> Option<Index> {
    let mut source = Deserializer::from_read_ref(payload);
    let Head { segments, texts, environments, lists, rows } = Head::deserialize(&mut source).ok()?;
    let mut shared = Shared::default();
    let texts: Vec<Arc<str>> = texts.into_iter().map(|text| shared.text(text)).collect();
    let environments: Vec<_> = environments.into_iter().map(|one| shared.environment(one)).collect();
    let lists: Vec<_> = lists.into_iter().map(|list| shared.list(list)).collect();
    let text = |number: u32| texts.get(number as usize).cloned();
    let part = |part: Option<Part>| match part {
        Some(Part(file, from, to)) => Some(Some(LogPart { file: text(file)?, from, to })),
        None => Some(None),
    };
    let mut index = Index::with_capacity(rows.min(payload.len() / ROW_AT_LEAST), shared);
    for _ in 0..rows {
        let row = Row::deserialize(&mut source).ok()?;
        let state = match (row.published, row.failure) {
            (Some(output), _) => State::Published(Published {
                kind: text(output.kind)?,
                detail: text(output.detail)?,
                model: text(output.model)?,
                seconds: output.seconds,
                cpu_seconds: output.cpu_seconds,
                environment: Arc::clone(environments.get(output.environment as usize)?),
                result: serde_json::from_str::<&RawValue>(output.result).ok()?.to_owned().into(),
                files: Arc::clone(lists.get(output.files as usize)?),
                proof: output.proof,
            }),
            (None, Some(failure)) => State::Failed(Box::new(serde_json::from_str::<FailureRecord>(&failure).ok()?)),
            (None, None) => State::Open,
        };
        let mut open = std::collections::BTreeMap::new();
        for (number, worker, remote, log) in row.open {
            open.insert(number, Attempt { worker: worker.to_owned(), remote, log: part(log)? });
        }
        index.insert(row.key, Record { state, attempts: row.attempts, open, log: part(row.log)? });
    }
    index.segments = segments;
    Some(index)
}
