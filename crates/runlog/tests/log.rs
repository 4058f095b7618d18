//! A log that is cut, doubled, moved or lost: nothing of what is known of stages is lost with it, and what is wrong is named.

use std::{collections::BTreeMap, fs, path::PathBuf};

use proptest::prelude::*;
use ressa_experiment::{
    StageKey,
    protocol::{Failure, FailureKind},
};
use ressa_runlog::{
    Circumstances, FailureRecord, Index, Log, LogEvent, LogPart, Proof, Published, Record, State, history_of, read,
    states,
};
use ressa_store::{Environment, Store};

fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), Vec::new()).unwrap();
    (folder, store)
}

fn key(number: u8) -> StageKey {
    StageKey::new([number; 32])
}

fn published(seconds: f64) -> Published {
    Published {
        kind: "evaluate".into(),
        detail: "gqa".into(),
        model: "shapes-flant5".into(),
        seconds,
        cpu_seconds: seconds * 0.9,
        environment: Environment { device: "cpu".to_owned(), libtorch: "2.11.0".to_owned(), ..Environment::default() }
            .into(),
        result: serde_json::value::to_raw_value(&serde_json::json!({ "score": 0.1 + seconds })).unwrap().into(),
        files: vec!["predictions.jsonl".to_owned()].into(),
        proof: Proof(7),
    }
}

fn failure(key: StageKey) -> FailureRecord {
    FailureRecord {
        key,
        what: "prune vision".to_owned(),
        label: "a run".to_owned(),
        failure: Failure { kind: FailureKind::Oom, message: "too \"large\"\nfor it".to_owned(), log: None },
        at: 12,
        circumstances: Circumstances::default(),
    }
}

/// What a stage goes through, by number.
fn event(stage: u8, attempt: u32, what: u8) -> LogEvent {
    let (key, worker) = (key(stage), "worker-0".to_owned());
    let log = Some(LogPart { file: "logs/a.log".into(), from: 3, to: None });
    match what % 6 {
        0 => LogEvent::Started {
            key,
            what: "a stage".to_owned(),
            label: "ü \u{2028} run".to_owned(),
            attempt,
            worker,
            remote: attempt.is_multiple_of(2),
            log,
        },
        1 => LogEvent::Published { key, attempt, worker, record: published(f64::from(attempt) / 3.0), log },
        2 => LogEvent::Failed { key, attempt, worker, record: failure(key) },
        3 => LogEvent::Returned { key, attempt, why: "it vanished".to_owned() },
        4 => LogEvent::Retried { key },
        _ => LogEvent::Gone { key, why: "removed".to_owned() },
    }
}

fn records(index: &Index) -> BTreeMap<StageKey, Record> {
    index.iter().map(|(key, record)| (*key, record.clone())).collect()
}

/// The states alone are those of the index.
fn check_states(store: &Store) {
    let (index, states) = (read(store).unwrap().index, states(store).unwrap());
    for (key, record) in index.iter() {
        assert_eq!(states.is_published(key), matches!(record.state, State::Published(_)), "{key}");
    }
    assert_eq!(states.failures(), index.failures());
}

/// Writes events, a segment per list.
fn write(store: &Store, segments: &[Vec<(u8, u32, u8)>]) -> Vec<PathBuf> {
    for events in segments {
        let mut log = Log::begin(store, "a test").unwrap();
        for &(stage, attempt, what) in events {
            log.write(event(stage, attempt, what)).unwrap();
        }
        log.settle().unwrap();
    }
    let number = |number: usize| ressa_runlog::folder(store).join(format!("{number:06}.jsonl"));
    (1..=segments.len()).map(number).collect()
}

fn events() -> impl Strategy<Value = Vec<(u8, u32, u8)>> {
    prop::collection::vec((0_u8..5, 1_u32..4, 0_u8..6), 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]

    #[test]
    fn a_reader_finds_what_was_written_at_every_cut_of_the_last_line(segments in prop::collection::vec(events(), 1..4)) {
        let (_folder, store) = store();
        let files = write(&store, &segments);
        let last = files.last().unwrap();
        let text = fs::read(last).unwrap();
        let whole = records(&read(&store).unwrap().index);
        let begin = text[..text.len() - 1].iter().rposition(|&byte| byte == b'\n').unwrap() + 1;

        fs::write(last, &text[..begin]).unwrap();
        let without = records(&read(&store).unwrap().index);
        for cut in begin..text.len() {
            fs::write(last, &text[..cut]).unwrap();
            let reading = read(&store).unwrap();
            prop_assert_eq!(&records(&reading.index), &without, "cut at {}", cut);
            check_states(&store);
            // Who coordinates next begins a file of its own, so the torn line stays the last of its own.
            let mut log = Log::begin(&store, "a test").unwrap();
            log.write(event(200, 1, 1)).unwrap();
            prop_assert!(read(&store).unwrap().index.published(&key(200)).is_some());
            fs::remove_file(ressa_runlog::folder(&store).join(format!("{:06}.jsonl", segments.len() + 1))).unwrap();
        }
        fs::write(last, &text).unwrap();
        prop_assert_eq!(records(&read(&store).unwrap().index), whole);
    }

    #[test]
    fn doubled_lines_copies_and_other_names_change_nothing_and_are_named(segments in prop::collection::vec(events(), 2..4)) {
        let (_folder, store) = store();
        let files = write(&store, &segments);
        let whole = records(&read(&store).unwrap().index);
        let folder = ressa_runlog::folder(&store);

        fs::copy(&files[0], folder.join("000900.jsonl")).unwrap();
        let text = fs::read_to_string(&files[1]).unwrap();
        let doubled: String = text.lines().flat_map(|line| [line, "\n", line, "\n"]).collect();
        fs::write(&files[1], doubled).unwrap();
        // The order is that of writing, whatever the files are called.
        fs::rename(&files[0], folder.join("000800.jsonl")).unwrap();
        fs::write(folder.join("notes.txt"), "a stranger").unwrap();
        let reading = read(&store).unwrap();
        prop_assert_eq!(records(&reading.index), whole);
        let notes: Vec<&str> = reading.notes.iter().map(|note| note.what.as_str()).collect();
        prop_assert!(notes.iter().any(|note| note.contains("there twice")), "{:?}", notes);
        prop_assert!(notes.iter().any(|note| note.contains("is a copy")), "{:?}", notes);
        prop_assert!(notes.iter().any(|note| note.contains("it was written as 000001.jsonl")), "{:?}", notes);
    }

    #[test]
    fn an_altered_byte_costs_its_line_only(segments in prop::collection::vec(events(), 1..2), at in any::<prop::sample::Index>()) {
        let (_folder, store) = store();
        let files = write(&store, &segments);
        let mut text = fs::read(&files[0]).unwrap();
        let lines = text.iter().filter(|&&byte| byte == b'\n').count();
        let at = at.index(text.len());
        text[at] ^= 0x11;
        fs::write(&files[0], &text).unwrap();
        let (entries, notes) = ressa_runlog::history(&store).unwrap();
        prop_assert!(entries.len() + 2 >= lines, "{} of {} lines", entries.len(), lines);
        prop_assert!(entries.len() < lines && !notes.is_empty(), "{:?}", notes);
    }
}

#[test]
fn the_index_is_what_the_log_says_and_can_be_lost() {
    let (_folder, store) = store();
    let mut log = Log::begin(&store, "a test").unwrap();
    // So many that the index is written, and some behind it.
    for round in 0..700_u32 {
        for stage in 0..3 {
            log.write(event(stage, round + 1, 0)).unwrap();
            log.write(event(stage, round + 1, 1 + (round % 3) as u8)).unwrap();
        }
    }
    log.settle().unwrap();
    log.write(event(9, 1, 2)).unwrap();
    drop(log);
    let index = ressa_runlog::folder(&store).join("index");
    let bytes = fs::read(&index).unwrap();
    let whole = read(&store).unwrap();
    assert_eq!(whole.notes, []);
    check_states(&store);
    assert_eq!(history_of(&store, &[key(9)].into()).unwrap().len(), 1);

    fs::remove_file(&index).unwrap();
    assert_eq!(records(&read(&store).unwrap().index), records(&whole.index));
    for cut in [0, 7, 8, 39, bytes.len() / 2, bytes.len() - 1] {
        fs::write(&index, &bytes[..cut]).unwrap();
        let reading = read(&store).unwrap();
        assert_eq!(records(&reading.index), records(&whole.index), "cut at {cut}");
        check_states(&store);
        assert!(cut == 0 || reading.notes.iter().any(|note| note.file == "index"), "{cut}: {:?}", reading.notes);
    }
    // A segment that was lost lives on in the index.
    fs::write(&index, &bytes).unwrap();
    fs::remove_file(ressa_runlog::folder(&store).join("000001.jsonl")).unwrap();
    assert!(
        read(&store).unwrap().index.published(&key(0)).is_some() || read(&store).unwrap().index.get(&key(0)).is_some()
    );
}

#[test]
fn a_newer_coordinator_is_seen() {
    let (_folder, store) = store();
    let older = Log::begin(&store, "a test").unwrap();
    assert!(older.is_current());
    let newer = Log::begin(&store, "a test").unwrap();
    assert!(!older.is_current() && newer.is_current());
    assert_eq!((older.number(), newer.number()), (1, 2));
}

#[test]
fn who_only_reads_needs_no_folder() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::reading(folder.path().join("absent"), Vec::new());
    let reading = read(&store).unwrap();
    assert!(reading.index.is_empty() && reading.notes.is_empty());
    assert!(!folder.path().join("absent").exists());
}
