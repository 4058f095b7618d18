//! What leaves the machine: whatever lies in a folder that somebody else made, only files of the model are written for others, and nothing in
//! them tells about the machine.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    os::unix::{ffi::OsStrExt, fs::symlink},
    path::Path,
    process::Command,
};

use ressa_checkpoint::{
    Checkpoint, CheckpointError, ExportRequest, Exported, Finished, Making, Rewrite, card, export, has_card, known,
};
use ressa_experiment::job::Container;
use serde_json::json;

use crate::making::{Piece, f32s, file, files, put, values};

const QKV: &str = "vision_model.encoder.layers.0.self_attn.qkv.weight";
const SECRET: &str = "TOP-SECRET-KEY";

/// One tensor below `model.` among others, and a header that `transformers` refuses and that names a place.
fn weights(metadata: &str) -> Vec<u8> {
    let pieces: [Piece; 2] = [f32s(QKV, &[4, 8], values(32)), f32s("model.query_tokens", &[1, 2], values(2))];
    file(&format!(r#""__metadata__":{metadata}"#), 3, &pieces)
}

/// A model folder with everything in it that a stranger could put there. Answers with the names that must not go along.
fn hostile(root: &Path) -> Vec<&'static str> {
    let folder = root.join("source");
    put(root, "secrets/id_rsa", SECRET);
    put(root, "secrets/vocab.txt", SECRET);
    let place = root.display().to_string();
    let config = json!({
        "model_type": "instructblip", "_name_or_path": format!("{place}/source"), "sparsity_config": {"sparsity_structure": "2:4"},
        "text_config": {"_name_or_path": "Salesforce/blip2", "odd": "C:\\Users\\lovelace\\model"},
    });
    put(&folder, "config.json", config.to_string());
    put(&folder, "model.safetensors", weights(&format!(r#"{{"trained_in":"{place}/runs"}}"#)));
    put(&folder, "tokenizer.json", "{}");
    put(&folder, "chat_template.jinja", "{{ messages }}");
    symlink("chat_template.jinja", folder.join("merges.txt")).unwrap();
    // Links to somebody's files: absolute, relative, to a folder, to nothing, to a device that never ends.
    symlink(root.join("secrets/id_rsa"), folder.join("README.md")).unwrap();
    symlink(root.join("secrets/id_rsa"), folder.join("notes.txt")).unwrap();
    symlink("../secrets/id_rsa", folder.join("LICENSE")).unwrap();
    symlink("../source/../secrets/id_rsa", folder.join("tokenizer.model")).unwrap();
    symlink(root.join("secrets"), folder.join("qformer_tokenizer")).unwrap();
    symlink(root.join("secrets"), folder.join("preprocessor_config.json")).unwrap();
    symlink("nowhere", folder.join("vocab.json")).unwrap();
    symlink("/dev/zero", folder.join("special_tokens_map.json")).unwrap();
    assert!(Command::new("mkfifo").arg(folder.join("vocab.txt")).status().unwrap().success());
    // More than any file of its name has, though nothing on the disk.
    fs::File::create(folder.join("spiece.model")).unwrap().set_len(1 << 40).unwrap();
    put(&folder, "added_tokens.json", b"\x80\x02}q\x00.");
    put(&folder, ".env", SECRET);
    put(&folder, "runs/events.out", SECRET);
    put(&folder, "id_rsa", SECRET);
    fs::write(folder.join(OsStr::from_bytes(b"odd\xff\n\x1b[2J")), SECRET).unwrap();
    vec![
        ".env",
        "LICENSE",
        "added_tokens.json",
        "id_rsa",
        "notes.txt",
        "odd\u{fffd}\u{fffd}\u{fffd}[2J",
        "preprocessor_config.json",
        "qformer_tokenizer",
        "runs",
        "special_tokens_map.json",
        "spiece.model",
        "tokenizer.model",
        "vocab.json",
        "vocab.txt",
    ]
}

/// How the folder is said to have been made.
fn making(place: &Path) -> Making {
    Making {
        base: format!("{}/source", place.display()),
        label: format!("mine: model.checkpoint={}/source", place.display()),
        run: "0123".to_owned(),
        stages: vec![(format!("dense {}/source", place.display()), "ab".to_owned())],
        steps: Vec::new(),
        restored: None,
        seed: None,
        scores: Vec::new(),
        program: "a test".to_owned(),
    }
}

/// Everything that writes a folder from another one.
type Writer = fn(&Path, &Path, Option<Vec<u8>>) -> Result<Exported, CheckpointError>;
const WRITERS: [(&str, Writer); 3] = [
    ("export", |source, output, new| exported(source, output, None, new)),
    ("export in pieces", |source, output, new| exported(source, output, Some(100), new)),
    ("rewrite", rewritten),
];

fn exported(
    source: &Path,
    output: &Path,
    max_shard_size: Option<u64>,
    new: Option<Vec<u8>>,
) -> Result<Exported, CheckpointError> {
    let making = making(source.parent().unwrap());
    let patterns = BTreeMap::new();
    let run = Some(json!(making));
    let request = ExportRequest {
        source,
        output,
        max_shard_size,
        container: Container::Dense,
        patterns: &patterns,
        program: "a test",
        run,
    };
    let make = |found: &_| card("out", Some(&making), found, source);
    let makes_card = !has_card(source);
    let mut change = |_: &_, entry: &ressa_checkpoint::Entry| Ok(new.clone().filter(|_| entry.name == QKV));
    export(&request, &mut change, makes_card.then_some(&make), &mut |_, _| ())
}

fn rewritten(source: &Path, output: &Path, new: Option<Vec<u8>>) -> Result<Exported, CheckpointError> {
    let making = making(source.parent().unwrap());
    let mut rewrite = Rewrite::open(source, output)?;
    rewrite.begin()?;
    let changed = new.map(|bytes| Ok((QKV.to_owned(), rewrite.put(QKV, &bytes)?)));
    let changed: BTreeMap<String, String> = changed.into_iter().collect::<Result<_, CheckpointError>>()?;
    let run = Some(json!(making));
    let finished = Finished { changed: &changed, patterns: &BTreeMap::new(), program: "a test", run };
    rewrite.finish(&finished, &|found| card("out", Some(&making), found, source), &mut |_, _| ())
}

#[test]
fn no_writer_takes_along_what_is_not_the_models() {
    for (name, write) in WRITERS {
        for new in [None, Some(vec![0; 128])] {
            let root = tempfile::tempdir().unwrap();
            let strangers = hostile(root.path());
            let output = root.path().join("output");
            let changes = new.is_some();
            let done = write(&root.path().join("source"), &output, new).unwrap();
            let left: Vec<&str> = done.carried.left_out.iter().map(|left| left.path.as_str()).collect();
            // The card is the writer's own.
            assert_eq!(left.into_iter().filter(|name| *name != "README.md").collect::<Vec<_>>(), strangers, "{name}");
            serde_json::to_string(&done.carried).unwrap();
            let place = root.path().display().to_string();
            for (file, bytes) in files(&output) {
                let is_ours = file.ends_with(".safetensors") || file.starts_with("model.safetensors");
                let is_ours = is_ours || ["README.md", "ressa_certificate.json"].contains(&file.as_str());
                assert!(is_ours || known::is_settings(&file), "{name}: {file}");
                assert!(!output.join(&file).is_symlink(), "{name}: {file}");
                let text = String::from_utf8_lossy(&bytes).into_owned();
                for told in [SECRET, place.as_str(), "lovelace"] {
                    assert!(!text.contains(told), "{name}: {file} has `{told}`");
                }
            }
            let config = fs::read_to_string(output.join("config.json")).unwrap();
            assert!(config.contains("Salesforce/blip2"), "{config}");
            assert_eq!(config.contains("sparsity_config"), !changes, "{name}: {config}");
            // Both names of a tensor are the same tensor, and the header is one that others open.
            let written = Checkpoint::open(&output).unwrap();
            assert_eq!(written.names().collect::<Vec<_>>(), ["query_tokens", QKV]);
            assert!(written.files().iter().all(|file| file.metadata().get("format").is_some_and(|f| f == "pt")));
            let (before, after) = (Checkpoint::open(&root.path().join("source")).unwrap(), written);
            for name in [QKV, "query_tokens"] {
                let bytes = |from: &Checkpoint| from.get(name).map(|(file, entry)| file.bytes(entry).to_vec()).unwrap();
                assert_eq!(bytes(&after) == bytes(&before), !changes || name != QKV);
            }
        }
    }
}

#[test]
fn a_snapshot_of_the_hubs_cache_is_copied_through_its_links() {
    let root = tempfile::tempdir().unwrap();
    let repository = root.path().join("hub/models--org--base");
    let snapshot = repository.join("snapshots/0123");
    fs::create_dir_all(snapshot.join("qformer_tokenizer")).unwrap();
    for (number, (name, bytes)) in [
        ("config.json", b"{}".to_vec()),
        ("tokenizer.json", b"{}".to_vec()),
        ("README.md", b"---\nlicense: mit\n---\n# Base\n".to_vec()),
        ("qformer_tokenizer/vocab.txt", b"a".to_vec()),
        ("model.safetensors", weights("{}")),
    ]
    .into_iter()
    .enumerate()
    {
        put(&repository, &format!("blobs/{number}"), bytes);
        let up = if name.contains('/') { "../../../blobs" } else { "../../blobs" };
        symlink(format!("{up}/{number}"), snapshot.join(name)).unwrap();
    }
    put(root.path(), "hub/models--org--other/blobs/9", SECRET);
    symlink("../../../models--org--other/blobs/9", snapshot.join("vocab.json")).unwrap();
    let output = root.path().join("output");
    let done = rewritten(&snapshot, &output, None).unwrap();
    let names: Vec<String> = files(&output).into_iter().map(|(name, _)| name).collect();
    assert_eq!(
        names,
        [
            "README.md",
            "config.json",
            "model.safetensors",
            "qformer_tokenizer/vocab.txt",
            "ressa_certificate.json",
            "tokenizer.json"
        ]
    );
    assert_eq!(done.carried.left_out.len(), 1, "{:?}", done.carried);
    let card = fs::read_to_string(output.join("README.md")).unwrap();
    assert!(card.contains("base_model: \"org/base\"\nlicense: mit"), "{card}");
    assert!(fs::symlink_metadata(output.join("model.safetensors")).unwrap().is_file());
}

#[test]
fn a_configuration_that_is_somebody_elses_file_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let source = root.path().join("source");
    put(&source, "model.safetensors", weights("{}"));
    put(root.path(), "elsewhere.json", "{}");
    symlink("../elsewhere.json", source.join("config.json")).unwrap();
    let error = exported(&source, &root.path().join("output"), None, None).unwrap_err().to_string();
    assert!(error.contains("source/config.json` cannot be used: it is a link out of the folder"), "{error}");
    assert!(!root.path().join("output").exists());
}
