//! Parts of a store as one file: what goes in comes out, and nothing of an archive is taken on trust.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use ressa_experiment::StageKey;
use ressa_store::{FileDigest, Store};
use ressa_sweep::{
    archive::{self, Imported},
    recorded_sweeps,
};
use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};
use tempfile::TempDir;

use crate::bench::{Bench, cells, graph};

const LIST: &str = "ressa-results.json";

/// A store with a finished sweep, and the keys of its stages.
fn swept() -> (Bench, Vec<StageKey>) {
    let bench = Bench::new();
    let graph = graph(&cells());
    bench.sweep(&graph);
    let keys = graph.stages.iter().map(|stage| stage.node.key).collect();
    (bench, keys)
}

/// An archive of a whole store in a folder of its own.
fn packed(name: &str) -> (TempDir, PathBuf, Vec<StageKey>) {
    let (bench, keys) = swept();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    let words = ["-E 'seed = 0'".to_owned()];
    archive::export(&bench.store, &keys, &["experiments/a.yaml".to_owned()], &words, &path).unwrap();
    (folder, path, keys)
}

/// An empty store.
fn empty() -> (TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().join("store"), Vec::new()).unwrap();
    (folder, store)
}

fn import(path: &Path) -> (Result<Imported, String>, TempDir, Store) {
    let (folder, store) = empty();
    let imported = archive::import(&store, path).map_err(|error| error.to_string());
    (imported, folder, store)
}

#[test]
fn what_is_exported_is_imported_once() {
    for name in ["all.tar", "all.tar.gz"] {
        let (_folder, path, keys) = packed(name);
        let (imported, _other, store) = import(&path);
        let imported = imported.unwrap();
        assert_eq!((imported.new.len(), imported.known.len(), imported.different.len()), (17, 0, 0), "{name}");
        for key in &keys {
            store.entry(&key.hex()).unwrap().unwrap().check().unwrap();
        }
        let again = archive::import(&store, &path).unwrap();
        assert_eq!((again.new.len(), again.known.len()), (0, 17));
        // Nobody takes them for garbage.
        let sweeps = recorded_sweeps(&store).unwrap();
        assert_eq!(sweeps.len(), 1);
        assert_eq!((sweeps[0].title().as_str(), sweeps[0].keys.len()), ("experiments/a.yaml -E 'seed = 0'", 17));
        assert!(fs::read_dir(store.root().join("drafts")).unwrap().next().is_none(), "no draft is left");
    }
}

#[test]
fn an_archive_names_no_place_and_has_the_same_bytes_wherever_it_is_written() {
    let (bench, keys) = swept();
    let write = |name: &str| {
        let path = bench.folder.path().join(name);
        archive::export(
            &bench.store,
            &keys,
            &["/elsewhere/here/a.yaml".to_owned()],
            &["data.root=/elsewhere/data".to_owned()],
            &path,
        )
        .unwrap();
        fs::read(path).unwrap()
    };
    let bytes = write("one.tar");
    assert_eq!(bytes, write("two.tar"));
    let place = bench.folder.path().to_string_lossy().into_owned();
    let text = String::from_utf8_lossy(&bytes);
    assert!(!text.contains(&place) && !text.contains("/elsewhere/"), "a place of this machine");
    let mut archive = tar::Archive::new(bytes.as_slice());
    for entry in archive.entries().unwrap() {
        let header = entry.unwrap().header().clone();
        assert_eq!((header.uid().unwrap(), header.gid().unwrap(), header.mtime().unwrap()), (0, 0, 0));
        assert_eq!((header.username_bytes(), header.groupname_bytes()), (Some(&b""[..]), Some(&b""[..])));
    }
    let refused = archive::export(&bench.store, &keys, &[], &[], &bench.folder.path().join("one.tar")).unwrap_err();
    assert!(refused.to_string().contains("it is there already"), "{refused}");
}

#[test]
fn what_is_there_is_never_changed() {
    let (_folder, path, keys) = packed("all.tar");
    let (_other, store) = empty();
    archive::import(&store, &path).unwrap();
    // Somebody else's form of a stage, sound in itself.
    let own = store.folder(&keys[3].hex());
    let manifest = own.join("manifest.json");
    let mut value: Value = serde_json::from_slice(&fs::read(&manifest).unwrap()).unwrap();
    fs::write(own.join("data.bin"), "mine").unwrap();
    value["files"]["data.bin"] = json!({ "bytes": 4, "blake3": blake3::hash(b"mine").to_hex().to_string() });
    fs::write(&manifest, value.to_string()).unwrap();
    fs::remove_dir_all(store.folder(&keys[5].hex())).unwrap();
    let again = archive::import(&store, &path).unwrap();
    assert_eq!((again.new, again.known.len(), again.different), (vec![keys[5]], 15, vec![keys[3]]));
    assert_eq!(fs::read(own.join("data.bin")).unwrap(), b"mine");
}

#[test]
fn a_damaged_stage_is_not_exported() {
    let (bench, keys) = swept();
    fs::write(bench.store.folder(&keys[2].hex()).join("data.bin"), "x".repeat(1280)).unwrap();
    let path = bench.folder.path().join("all.tar");
    let refused = archive::export(&bench.store, &keys, &[], &[], &path).unwrap_err();
    assert!(refused.to_string().contains("is damaged"), "{refused}");
    assert!(!path.exists() && !bench.folder.path().join("all.tar.part").exists());
}

/// Entries of an archive as they can be changed: path, type, content.
#[derive(Clone)]
struct Parts {
    list: Value,
    entries: Vec<(String, EntryType, Vec<u8>)>,
}

impl Parts {
    fn read(path: &Path) -> Self {
        let mut archive = tar::Archive::new(fs::File::open(path).unwrap());
        let mut entries = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let name = entry.path().unwrap().to_string_lossy().into_owned();
            let mut bytes = Vec::new();
            std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
            entries.push((name, EntryType::Regular, bytes));
        }
        let (_, _, list) = entries.remove(0);
        Self { list: serde_json::from_slice(&list).unwrap(), entries }
    }

    /// Adds a file with its line in the list.
    fn add(&mut self, path: &str, content: &[u8]) {
        self.entries.push((path.to_owned(), EntryType::Regular, content.to_vec()));
        let digest = FileDigest { bytes: content.len() as u64, blake3: blake3::hash(content).to_hex().to_string() };
        self.list["entries"][path] = json!(digest);
    }

    fn write(&self, path: &Path) {
        let mut builder = Builder::new(fs::File::create(path).unwrap());
        let list = serde_json::to_vec(&self.list).unwrap();
        let all = std::iter::once((LIST, EntryType::Regular, &list));
        for (name, kind, content) in all.chain(self.entries.iter().map(|(n, k, c)| (n.as_str(), *k, c))) {
            let mut header = Header::new_ustar();
            // Names that the library itself would not write.
            let field = &mut header.as_ustar_mut().unwrap().name;
            field[..name.len().min(100)].copy_from_slice(&name.as_bytes()[..name.len().min(100)]);
            header.set_entry_type(kind);
            if kind == EntryType::Symlink {
                header.set_link_name("/etc/passwd").unwrap();
            }
            header.set_size(content.len() as u64);
            header.set_cksum();
            builder.append(&header, content.as_slice()).unwrap();
        }
        builder.finish().unwrap();
    }
}

#[test]
fn hostile_archives_are_named_and_refused() {
    let (folder, path, _) = packed("all.tar");
    let sound = Parts::read(&path);
    let first = sound.entries[0].0.clone();
    let key = first.split('/').nth(1).unwrap().to_owned();
    let inside = |name: &str| format!("{}/{key}/{name}", &key[..2]);
    let changed = |change: &dyn Fn(&mut Parts)| {
        let mut parts = sound.clone();
        change(&mut parts);
        let path = folder.path().join("hostile.tar");
        parts.write(&path);
        let (imported, _other, store) = import(&path);
        assert!(store.own_entries().unwrap().is_empty(), "something was published");
        assert!(fs::read_dir(store.root().join("drafts")).unwrap().next().is_none(), "a draft is left");
        imported.expect_err("refused")
    };
    type Change<'c> = Box<dyn Fn(&mut Parts) + 'c>;
    let cases: Vec<(&str, Change<'_>)> = vec![
        ("`../../evil` is a path that leads out of the folder", Box::new(|p| p.add("../../evil", b"x"))),
        ("`/tmp/evil` is an absolute path", Box::new(|p| p.add("/tmp/evil", b"x"))),
        ("leads out of the folder", Box::new(|p| p.add(&inside("../x"), b"x"))),
        ("`sweeps/x.json` is not a file of a stage", Box::new(|p| p.add("sweeps/x.json", b"{}"))),
        ("is a link; only plain files", Box::new(|p| p.entries[0].1 = EntryType::Symlink)),
        ("is a link; only plain files", Box::new(|p| p.entries[0].1 = EntryType::Link)),
        ("is a device", Box::new(|p| p.entries[0].1 = EntryType::Fifo)),
        ("is a folder", Box::new(|p| p.entries[0].1 = EntryType::Directory)),
        ("is an extension of the format", Box::new(|p| p.entries[0].1 = EntryType::GNULongName)),
        ("is in it twice", Box::new(|p| p.entries.insert(1, p.entries[0].clone()))),
        ("is listed and not in it", Box::new(|p| drop(p.entries.remove(2)))),
        ("is in it and not listed", Box::new(|p| p.entries.push((inside("new"), EntryType::Regular, vec![1])))),
        ("its digest differs", Box::new(|p| p.entries[0].2[5] ^= 1)),
        ("bytes, listed are", Box::new(|p| p.entries[0].2.push(b'x'))),
        ("more than can be in it", Box::new(|p| p.list["entries"][&first]["bytes"] = json!(1_u64 << 50))),
        (
            "more than can be in it",
            Box::new(|p| {
                for file in p.list["entries"].as_object_mut().unwrap().values_mut() {
                    file["bytes"] = json!(u64::MAX);
                }
            }),
        ),
        ("it has format 7", Box::new(|p| p.list["format"] = json!(7))),
        ("its list cannot be understood", Box::new(|p| p.list = json!([]))),
        ("without a digest", Box::new(|p| p.list["entries"][&first]["blake3"] = json!("x"))),
        (
            "without the manifest of its stage",
            Box::new(|p| {
                let manifest = inside("manifest.json");
                p.list["entries"].as_object_mut().unwrap().remove(&manifest);
                p.entries.retain(|(name, ..)| *name != manifest);
            }),
        ),
        ("does not speak of the files", Box::new(|p| p.add(&inside("more.bin"), b"more"))),
        (
            "cannot be understood",
            Box::new(|p| {
                let manifest = inside("manifest.json");
                p.entries.retain(|(name, ..)| *name != manifest);
                p.add(&manifest, b"{}");
            }),
        ),
        (
            "is of another stage",
            Box::new(|p| {
                let manifests: Vec<usize> =
                    (0..p.entries.len()).filter(|&at| p.entries[at].0.ends_with("manifest.json")).collect();
                let (own, other) = (p.entries[manifests[0]].0.clone(), p.entries[manifests[1]].2.clone());
                p.entries.retain(|(name, ..)| *name != own);
                p.add(&own, &other);
            }),
        ),
    ];
    for (said, change) in cases {
        let refused = changed(&*change);
        assert!(refused.contains(said) && refused.contains("nothing of it was taken"), "expected `{said}`: {refused}");
    }
    // Neither an archive nor a beginning of one.
    let bytes = fs::read(&path).unwrap();
    for (name, content) in [("x.tar", &b"not a tar"[..]), ("y.tar", &[][..]), ("z.tar", &bytes[..2000])] {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        let (imported, _other, store) = import(&path);
        assert!(imported.is_err() && store.own_entries().unwrap().is_empty(), "{name}");
    }
    // What it is says its content, not its name.
    let plain = folder.path().join("w.tar.gz");
    fs::write(&plain, &bytes).unwrap();
    assert!(import(&plain).0.is_ok());
}

/// Whatever is changed of an archive, what is published is sound and what is refused leaves nothing.
#[test]
fn a_changed_byte_is_noticed_or_changes_nothing() {
    let (folder, path, keys) = packed("all.tar");
    let (_other, store) = empty();
    archive::import(&store, &path).unwrap();
    let digest = |store: &Store, key: &StageKey| -> BTreeMap<String, FileDigest> {
        store.entry(&key.hex()).unwrap().unwrap().manifest.files
    };
    let bytes = fs::read(&path).unwrap();
    let changed = folder.path().join("changed.tar");
    for at in (0..bytes.len()).step_by(bytes.len() / 60) {
        let mut copy = bytes.clone();
        copy[at] ^= 0x41;
        fs::write(&changed, &copy).unwrap();
        let (imported, _other, other) = import(&changed);
        match imported {
            Err(_) => assert!(other.own_entries().unwrap().is_empty(), "byte {at}"),
            Ok(_) => keys.iter().for_each(|key| {
                other.entry(&key.hex()).unwrap().unwrap().check().unwrap();
                assert_eq!(digest(&other, key), digest(&store, key), "byte {at}");
            }),
        }
    }
}

#[test]
fn scores_alone_are_taken_where_what_they_were_made_of_is_the_same() {
    let (bench, keys) = swept();
    let of_sweep = graph(&cells());
    let last = (0..keys.len()).rev().find(|&stage| of_sweep.stages[stage].inputs.len() == 1).unwrap();
    let above = of_sweep.stages[last].inputs[0];
    let path = bench.folder.path().join("last.tar");
    archive::export(&bench.store, &[keys[last]], &[], &[], &path).unwrap();
    let all = bench.folder.path().join("all.tar");
    archive::export(&bench.store, &keys, &[], &[], &all).unwrap();
    let there = |change: &dyn Fn(&Store)| {
        let (folder, store) = empty();
        archive::import(&store, &all).unwrap();
        fs::remove_dir_all(store.folder(&keys[last].hex())).unwrap();
        change(&store);
        let imported = archive::import(&store, &path).unwrap();
        drop(folder);
        (imported.new, imported.of_different)
    };
    assert_eq!(there(&|_| ()), (vec![keys[last]], vec![]));
    assert_eq!(
        there(&|store| fs::remove_dir_all(store.folder(&keys[above].hex())).unwrap()),
        (vec![keys[last]], vec![])
    );
    let other = |store: &Store| {
        let manifest = store.folder(&keys[above].hex()).join("manifest.json");
        let mut value: Value = serde_json::from_slice(&fs::read(&manifest).unwrap()).unwrap();
        value["result"] = json!({ "other": true });
        fs::write(&manifest, value.to_string()).unwrap();
    };
    assert_eq!(there(&other), (vec![], vec![keys[last]]));
}
