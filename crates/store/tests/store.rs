//! What the store promises: nothing half-made behind a key, damage is named and nothing is lost.

use std::fs;

use ressa_store::{Environment, Manifest, Store, StoreError};

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
    let draft = store.draft(key, 1).unwrap();
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
    let draft = store.draft(KEY, 1).unwrap();
    draft.write("masks.bin", b"0110").unwrap();
    assert!(!store.contains(KEY));
    drop(draft);
    assert_eq!(fs::read_dir(folder.path().join("drafts")).unwrap().count(), 0);

    let draft = store.draft(KEY, 2).unwrap();
    draft.write("masks.bin", b"0110").unwrap();
    let entry = draft.publish(manifest(KEY)).unwrap();
    assert!(store.contains(KEY));
    assert_eq!(entry.manifest.files["masks.bin"].bytes, 4);
}

#[test]
fn a_second_publication_leaves_the_first_untouched() {
    let (_folder, store) = open();
    publish(&store, KEY);
    let draft = store.draft(KEY, 1).unwrap();
    draft.write("masks/vision.bin", b"1111").unwrap();
    let entry = draft.publish(manifest(KEY)).unwrap();
    assert_eq!(fs::read(entry.file("masks/vision.bin").unwrap()).unwrap(), b"0110");
}

#[test]
fn damage_is_named_and_nothing_is_lost() {
    let (_folder, store) = open();
    for (what, damage) in [("content differs", &b"0111"[..]), ("2 bytes where 4 were published", &b"01"[..])] {
        publish(&store, KEY);
        let entry = store.require(KEY).unwrap();
        entry.check().unwrap();
        fs::write(entry.file("masks/vision.bin").unwrap(), damage).unwrap();
        let error = entry.check().unwrap_err();
        assert!(error.is_damage() && error.to_string().contains(what), "{error}");
        assert!(!store.usable(KEY).unwrap());
        store.set_aside(KEY).unwrap();
    }
    publish(&store, KEY);
    fs::remove_file(store.require(KEY).unwrap().file("masks/vision.bin").unwrap()).unwrap();
    assert!(store.require(KEY).unwrap().check().unwrap_err().to_string().contains("missing"));
    assert!(!store.usable(KEY).unwrap());
    store.set_aside(KEY).unwrap();

    publish(&store, KEY);
    let manifest = store.folder(KEY).join("manifest.json");
    let text = fs::read(&manifest).unwrap();
    fs::write(&manifest, &text[..text.len() / 2]).unwrap();
    assert!(matches!(store.entry(KEY), Err(StoreError::Damaged { .. })));
    assert!(!store.usable(KEY).unwrap());
    store.set_aside(KEY).unwrap();

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
fn only_drafts_that_nobody_fills_are_removed() {
    let (folder, store) = open();
    let draft = store.draft(KEY, 3).unwrap();
    let drafts = folder.path().join("drafts");
    // Of a dead attempt, and as earlier versions named them.
    for name in [format!("{}.1", "f".repeat(64)), format!("{}.99999.0", "f".repeat(64))] {
        fs::create_dir(drafts.join(name)).unwrap();
    }
    fs::create_dir(drafts.join(".nfs0001")).unwrap();
    fs::write(drafts.join(".DS_Store"), b"a stranger").unwrap();
    let resume = store.scratch(&"e".repeat(64)).unwrap();
    let is_alive = |key: &str, attempt: Option<u32>| (key, attempt) == (KEY, Some(3));
    assert_eq!(store.remove_abandoned_drafts(&is_alive).unwrap(), 2);
    assert!(draft.folder().exists() && resume.exists());
    assert!(drafts.join(".nfs0001").exists() && drafts.join(".DS_Store").exists(), "strangers stay");
}

#[test]
fn an_attempt_is_published_once_and_a_late_one_is_kept_beside_it() {
    let (folder, store) = open();
    let (first, late) = (store.draft(KEY, 1).unwrap(), store.draft(KEY, 2).unwrap());
    assert!(store.publish(KEY, 1).unwrap_err().to_string().contains("not finished"));
    for (draft, content) in [(first, b"0110"), (late, b"1111")] {
        draft.write("masks.bin", content).unwrap();
        draft.finish(manifest(KEY)).unwrap();
        assert!(!store.contains(KEY));
    }
    assert!(store.publish(KEY, 1).unwrap().is_some());
    assert!(store.publish(KEY, 2).unwrap().is_none(), "what is published stands");
    assert_eq!(fs::read(store.require(KEY).unwrap().file("masks.bin").unwrap()).unwrap(), b"0110");
    let kept = store.keep_superseded(KEY, 2).unwrap();
    assert_eq!(fs::read(kept.join("masks.bin")).unwrap(), b"1111");
    assert_eq!(fs::read_dir(folder.path().join("drafts")).unwrap().count(), 0);
    let other = "c".repeat(64);
    let draft = store.draft(&other, 1).unwrap();
    draft.finish(manifest(KEY)).unwrap();
    assert!(store.publish(&other, 1).unwrap_err().is_damage(), "it is of another stage");
}

#[test]
fn a_root_that_cannot_be_written_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("results");
    fs::write(&file, b"in the way").unwrap();
    let error = Store::open(file.join("store"), Vec::new()).unwrap_err();
    assert!(error.is_storage() && error.to_string().contains("results"), "{error}");
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

/// Half a file on a full disk would take the room that somebody is about to make.
#[test]
fn a_file_that_cannot_be_replaced_leaves_no_draft() {
    let folder = tempfile::tempdir().unwrap();
    // A folder that is not empty takes no file in its place.
    let target = folder.path().join("page.html");
    fs::create_dir_all(target.join("inside")).unwrap();
    assert!(ressa_store::replace(&target, b"text").unwrap_err().is_storage());
    let names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|item| item.unwrap().file_name()).collect();
    assert_eq!(names, ["page.html"]);
}
