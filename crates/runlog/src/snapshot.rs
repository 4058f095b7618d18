//! The index as a file: what the log says of every stage up to some place in it. Losing it costs reading the log.

use std::{collections::HashMap, fs, path::Path, sync::Arc};

use ressa_experiment::StageKey;
use ressa_store::{Environment, StoreError, replace};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{Attempt, FailureRecord, Index, LogPart, Note, Proof, Published, Record, State, segment::Segments};

/// First bytes of the file; another layout gets another word, so an old index is made anew.
const MAGIC: &[u8; 8] = b"ressai01";

/// The parts that rows share stand once.
#[derive(Serialize, Deserialize)]
struct Snapshot {
    segments: Segments,
    texts: Vec<Arc<str>>,
    environments: Vec<Environment>,
    lists: Vec<Vec<String>>,
    rows: Vec<Row>,
}

#[derive(Serialize, Deserialize)]
struct Row {
    key: StageKey,
    attempts: u32,
    open: Vec<(u32, String, bool, Option<Part>)>,
    log: Option<Part>,
    published: Option<Output>,
    /// JSON: failures are few.
    failure: Option<String>,
}

/// File, first byte, end.
#[derive(Serialize, Deserialize)]
struct Part(u32, u64, Option<u64>);

#[derive(Serialize, Deserialize)]
struct Output {
    kind: u32,
    detail: u32,
    model: u32,
    environment: u32,
    files: u32,
    seconds: f64,
    cpu_seconds: f64,
    result: String,
    proof: Proof,
}

/// Numbers equal values.
struct Numbers<T>(HashMap<*const (), u32>, Vec<T>);

impl<T> Numbers<T> {
    fn new() -> Self {
        Self(HashMap::new(), Vec::new())
    }

    /// The number of the value behind a shared pointer: what is shared was made one by the index.
    fn of<U: ?Sized>(&mut self, value: &Arc<U>, copy: impl FnOnce(&Arc<U>) -> T) -> u32 {
        let address = Arc::as_ptr(value).cast::<()>();
        let next = self.1.len() as u32;
        *self.0.entry(address).or_insert_with(|| {
            self.1.push(copy(value));
            next
        })
    }
}

/// Writes the index.
pub(crate) fn write(path: &Path, index: &Index) -> Result<(), StoreError> {
    let mut texts = Numbers::new();
    let mut environments = Numbers::new();
    let mut lists = Numbers::new();
    let part =
        |texts: &mut Numbers<Arc<str>>, part: &LogPart| Part(texts.of(&part.file, Arc::clone), part.from, part.to);
    let rows = index.iter().map(|(key, record)| Row {
        key: *key,
        attempts: record.attempts,
        open: record
            .open
            .iter()
            .map(|(number, attempt)| {
                let log = attempt.log.as_ref().map(|log| part(&mut texts, log));
                (*number, attempt.worker.clone(), attempt.remote, log)
            })
            .collect(),
        log: record.log.as_ref().map(|log| part(&mut texts, log)),
        published: match &record.state {
            State::Published(output) => Some(Output {
                kind: texts.of(&output.kind, Arc::clone),
                detail: texts.of(&output.detail, Arc::clone),
                model: texts.of(&output.model, Arc::clone),
                environment: environments.of(&output.environment, |environment| (**environment).clone()),
                files: lists.of(&output.files, |files| files.to_vec()),
                seconds: output.seconds,
                cpu_seconds: output.cpu_seconds,
                result: output.result.get().to_owned(),
                proof: output.proof,
            }),
            State::Open | State::Failed(_) => None,
        },
        failure: match &record.state {
            State::Failed(failure) => Some(serde_json::to_string(failure).expect("a failure is plain data")),
            State::Open | State::Published(_) => None,
        },
    });
    let rows = rows.collect();
    let snapshot = Snapshot {
        segments: index.segments.clone(),
        texts: texts.1,
        environments: environments.1,
        lists: lists.1,
        rows,
    };
    let payload = rmp_serde::to_vec(&snapshot).expect("the index is plain data");
    let mut bytes = Vec::with_capacity(payload.len() + 40);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(blake3::hash(&payload).as_bytes());
    bytes.extend_from_slice(&payload);
    replace(path, &bytes)
}

/// The index in a file. One that is absent or of another version is none; one that is not whole is none, and named.
pub(crate) fn read(path: &Path, notes: &mut Vec<Note>) -> Result<Option<Index>, StoreError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(StoreError::Read { path: path.to_owned(), source }),
    };
    let whole = bytes.strip_prefix(MAGIC).and_then(|rest| rest.split_first_chunk::<32>());
    let found = whole
        .filter(|(digest, payload)| blake3::hash(payload).as_bytes() == *digest)
        .and_then(|(_, payload)| rmp_serde::from_slice::<Snapshot>(payload).ok())
        .and_then(unpack);
    if found.is_none() && !bytes.is_empty() {
        let what = "it is not whole, or of another version of the program; it is made anew from the log".to_owned();
        notes.push(Note { file: path.file_name().unwrap_or_default().to_string_lossy().into_owned(), what });
    }
    Ok(found)
}

fn unpack(snapshot: Snapshot) -> Option<Index> {
    let Snapshot { segments, texts, environments, lists, rows } = snapshot;
    let environments: Vec<Arc<Environment>> = environments.into_iter().map(Arc::new).collect();
    let lists: Vec<Arc<[String]>> = lists.into_iter().map(Into::into).collect();
    let text = |number: u32| texts.get(number as usize).cloned();
    let part = |part: Part| Some(LogPart { file: text(part.0)?, from: part.1, to: part.2 });
    let mut index = Index::default();
    index.reserve(rows.len());
    for row in rows {
        let state = match (row.published, row.failure) {
            (Some(output), _) => State::Published(Published {
                kind: text(output.kind)?,
                detail: text(output.detail)?,
                model: text(output.model)?,
                seconds: output.seconds,
                cpu_seconds: output.cpu_seconds,
                environment: Arc::clone(environments.get(output.environment as usize)?),
                result: RawValue::from_string(output.result).ok()?.into(),
                files: Arc::clone(lists.get(output.files as usize)?),
                proof: output.proof,
            }),
            (None, Some(failure)) => State::Failed(Box::new(serde_json::from_str::<FailureRecord>(&failure).ok()?)),
            (None, None) => State::Open,
        };
        let mut open = std::collections::BTreeMap::new();
        for (number, worker, remote, log) in row.open {
            let log = match log {
                Some(log) => Some(part(log)?),
                None => None,
            };
            open.insert(number, Attempt { worker, remote, log });
        }
        let log = row.log.and_then(part);
        index.insert(row.key, Record { state, attempts: row.attempts, open, log });
    }
    index.segments = segments;
    Some(index)
}
