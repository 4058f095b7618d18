//! What the store promises: nothing half-made behind a key, damage is named and nothing is lost.

use std::fs;

use ressa_store::{Environment, Manifest, Store, StoreError, read_journal};

const KEY: &str = "ab12cd34ab12cd34ab12cd34ab12cd34ab12cd34ab12cd34ab12cd34ab12cd34";

fn manifest(key: &str) -> Manifest {
    Manifest {
        key: key.to_owned(),
        kind: "prune".to_owned(),
        version: 1,
        configuration: serde_json::json!({ "tower": "vision" }),
        inputs: serde_json::json!({}),
        readings: serde_json::Value::Null,
        result: serde_json::json!({ "zeros": 7 }),
        files: Default::default(),
        seconds: 0.5,
        cpu_seconds: 0.4,
        environment: Environment::default(),
    }
}

fn publish(store: &Store, key: &str) {
    let claim = store.claim(key).unwrap();
    let draft = claim.draft().unwrap();
    draft.write("masks/vision.bin", b"0110").unwrap();
    draft.publish(manifest(key)).unwrap();
}

fn open() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), Vec::new()).unwrap();
    (folder, store)
}

#[test]
fn a_draft_is_invisible_until_published_and_removed_when_dropped() {
    let (folder, store) = open();
    let claim = store.claim(KEY).unwrap();
    let draft = claim.draft().unwrap();
    draft.write("masks.bin", b"0110").unwrap();
    assert!(!store.contains(KEY));
    drop(draft);
    assert_eq!(fs::read_dir(folder.path().join("drafts")).unwrap().count(), 0);

    let draft = claim.draft().unwrap();
    draft.write("masks.bin", b"0110").unwrap();
    let entry = draft.publish(manifest(KEY)).unwrap();
    assert!(store.contains(KEY));
    assert_eq!(entry.manifest.files["masks.bin"].bytes, 4);
    assert_eq!(read_journal(&store).len(), 1);
}

#[test]
fn a_second_publication_leaves_the_first_untouched() {
    let (_folder, store) = open();
    publish(&store, KEY);
    let claim = store.claim(KEY).unwrap();
    let draft = claim.draft().unwrap();
    draft.write("masks/vision.bin", b"1111").unwrap();
    let entry = draft.publish(manifest(KEY)).unwrap();
    assert_eq!(fs::read(entry.file("masks/vision.bin").unwrap()).unwrap(), b"0110");
    assert_eq!(read_journal(&store).len(), 1);
}

#[test]
fn damage_is_named_and_put_aside() {
    let (_folder, store) = open();
    for (what, damage) in [("content differs", &b"0111"[..]), ("2 bytes where 4 were published", &b"01"[..])] {
        publish(&store, KEY);
        let entry = store.require(KEY).unwrap();
        entry.check().unwrap();
        fs::write(entry.file("masks/vision.bin").unwrap(), damage).unwrap();
        let error = entry.check().unwrap_err();
        assert!(error.is_damage() && error.to_string().contains(what), "{error}");
        assert!(!store.usable(KEY).unwrap());
    }
    publish(&store, KEY);
    fs::remove_file(store.require(KEY).unwrap().file("masks/vision.bin").unwrap()).unwrap();
    assert!(store.require(KEY).unwrap().check().unwrap_err().to_string().contains("missing"));
    assert!(!store.usable(KEY).unwrap());

    publish(&store, KEY);
    let manifest = store.folder(KEY).join("manifest.json");
    let text = fs::read(&manifest).unwrap();
    fs::write(&manifest, &text[..text.len() / 2]).unwrap();
    assert!(matches!(store.entry(KEY), Err(StoreError::Damaged { .. })));
    assert!(!store.usable(KEY).unwrap());

    // Four damaged outputs, none deleted; the key is free to be made again.
    assert_eq!(fs::read_dir(store.root().join("damaged")).unwrap().count(), 4);
    publish(&store, KEY);
    assert!(store.usable(KEY).unwrap());
}

#[test]
fn a_damaged_shipped_entry_is_made_anew_in_the_writable_root() {
    let shipped = tempfile::tempdir().unwrap();
    publish(&Store::open(shipped.path(), Vec::new()).unwrap(), KEY);
    let own = tempfile::tempdir().unwrap();
    let store = Store::open(own.path(), vec![shipped.path().to_owned()]).unwrap();
    assert!(store.usable(KEY).unwrap());
    assert!(!store.require(KEY).unwrap().is_writable());

    fs::write(store.require(KEY).unwrap().file("masks/vision.bin").unwrap(), b"????").unwrap();
    assert!(!store.usable(KEY).unwrap());
    publish(&store, KEY);
    assert!(store.usable(KEY).unwrap());
    assert!(store.require(KEY).unwrap().is_writable());
}

#[test]
fn only_drafts_without_a_claim_are_removed() {
    let (folder, store) = open();
    let claim = store.claim(KEY).unwrap();
    let draft = claim.draft().unwrap();
    let drafts = folder.path().join("drafts");
    fs::create_dir(drafts.join(format!("{}.99999.0", "f".repeat(64)))).unwrap();
    fs::create_dir(drafts.join(".nfs0001")).unwrap();
    fs::write(drafts.join(".DS_Store"), b"a stranger").unwrap();
    let resume = store.scratch(&"e".repeat(64)).unwrap();
    assert_eq!(store.remove_abandoned_drafts().unwrap(), 1);
    assert!(draft.folder().exists() && resume.exists());
    assert!(drafts.join(".nfs0001").exists() && drafts.join(".DS_Store").exists(), "strangers stay");
}

#[test]
fn a_root_that_cannot_be_written_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("results");
    fs::write(&file, b"in the way").unwrap();
    let error = Store::open(file.join("store"), Vec::new()).unwrap_err();
    assert!(error.is_storage() && error.to_string().contains("results"), "{error}");
}

#[test]
fn a_torn_journal_line_is_skipped() {
    let (folder, store) = open();
    publish(&store, KEY);
    let path = folder.path().join("journal.jsonl");
    let mut text = fs::read_to_string(&path).unwrap();
    text.push_str("{\"key\":\"tor");
    fs::write(&path, text).unwrap();
    assert_eq!(read_journal(&store).len(), 1);
    publish(&store, "cd34");
    assert_eq!(read_journal(&store).iter().map(|line| line.key.as_str()).collect::<Vec<_>>(), [KEY, "cd34"]);
}

/// A disk that does not answer says nothing about what was published: nothing is taken for absent, damaged or unwanted.
#[test]
fn what_cannot_be_looked_at_is_an_error_and_never_an_absence() {
    let (folder, store) = open();
    publish(&store, KEY);
    let manifest = store.folder(KEY).join("manifest.json");
    fs::remove_file(&manifest).unwrap();
    std::os::unix::fs::symlink(&manifest, &manifest).unwrap();
    let error = store.entry(KEY).unwrap_err();
    assert!(!error.is_damage(), "{error}");
    assert!(store.usable(KEY).is_err());
    assert!(store.folder(KEY).exists(), "it stays where it is");

    let away = folder.path().join("away");
    std::os::unix::fs::symlink("nowhere", &away).unwrap();
    assert!(ressa_store::named(&away).is_err(), "a link that leads nowhere is not an empty folder");
    assert_eq!(ressa_store::named(&folder.path().join("absent")).unwrap(), Vec::new());
}
