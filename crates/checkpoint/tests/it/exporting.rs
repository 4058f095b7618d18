//! Folders written again: the same bytes where nothing changes, whole or not at all.

use std::{collections::BTreeMap, fs, path::Path};

use ressa_checkpoint::{
    CardScore, Change, Checkpoint, CheckpointError, Claims, Draft, ExportRequest, Exported, FolderCertificate, Making,
    card, export, verify,
};
use ressa_experiment::job::Container;

use crate::making::{Piece, bf16s, f32s, file, files, put, values};

const QKV: &str = "vision_model.encoder.layers.0.self_attn.qkv.weight";

/// Tensors of several types in an order of their own, an empty one and a scalar among them.
fn pieces() -> Vec<Piece> {
    vec![
        bf16s("vision_model.b", &[3], values(3)),
        f32s(QKV, &[4, 8], values(32)),
        Piece { name: "language_model.empty", dtype: "F32", shape: vec![0, 5], bytes: Vec::new() },
        Piece { name: "a.position_ids", dtype: "I64", shape: vec![1, 2], bytes: vec![7; 16] },
        Piece { name: "flag", dtype: "BOOL", shape: vec![], bytes: vec![1] },
        f32s("language_model.a", &[2, 2], values(4)),
    ]
}

/// Files that belong to a model, and some that do not.
fn companions(folder: &Path) {
    put(folder, "config.json", "{\n  \"model_type\": \"instructblip\",   \"odd\": 1.50\n}");
    put(folder, "tokenizer.json", "{}");
    put(folder, "spiece.model", [0x0a, 0x0e, 0x80]);
    put(folder, "qformer_tokenizer/vocab.txt", "a\nb\n");
    put(folder, "README.md", "---\nlicense: mit\nlanguage:\n- en\ntags:\n- x\n---\n# Base\n");
    put(folder, "pytorch_model.bin", "anything");
    put(folder, "disguised.json", b"\x80\x02}q\x00.");
    put(folder, "other.safetensors", file("", 0, &[]));
    put(folder, ".git/config", "hidden");
}

fn run(
    source: &Path,
    output: &Path,
    max_shard_size: Option<u64>,
    change: Change<'_, CheckpointError>,
) -> Result<Exported, CheckpointError> {
    let patterns = BTreeMap::new();
    let request = ExportRequest {
        source,
        output,
        max_shard_size,
        container: Container::Dense,
        patterns: &patterns,
        program: "a test",
        run: None,
    };
    export(&request, change, None, &mut |_, _| ())
}

/// The files that must come out as they went in.
fn belongs(name: &str) -> bool {
    !["pytorch_model.bin", "disguised.json", "other.safetensors", ".git/config", "ressa_certificate.json"]
        .contains(&name)
}

#[test]
fn an_unchanged_folder_comes_out_byte_for_byte() {
    let sources: [&dyn Fn(&Path); 4] = [
        &|folder| put(folder, "model.safetensors", file(r#""__metadata__":{"format":"pt"}"#, 3, &pieces())),
        &|folder| put(folder, "model.safetensors", file("", 0, &pieces())),
        // Metadata with several entries, their order not the alphabet's, at an address that is a multiple of nothing.
        &|folder| {
            put(folder, "model.safetensors", file(r#""__metadata__":{"z":"1","format":"pt","a":"ä"}"#, 5, &pieces()))
        },
        &|folder| {
            let mut second = pieces();
            let first = second.split_off(3);
            put(folder, "model-00001-of-00002.safetensors", file("", 0, &first));
            put(folder, "model-00002-of-00002.safetensors", file(r#""__metadata__":{"format":"pt"}"#, 0, &second));
            let place = |pieces: &[Piece], at: usize| {
                pieces
                    .iter()
                    .map(|p| format!("\"{}\":  \"model-0000{at}-of-00002.safetensors\"", p.name))
                    .collect::<Vec<_>>()
            };
            let map = [place(&first, 1), place(&second, 2)].concat().join(",\n");
            put(
                folder,
                "model.safetensors.index.json",
                format!("{{\"metadata\": {{\"total_size\": 1e3}}, \"weight_map\": {{{map}}}}}"),
            );
        },
    ];
    for make in sources {
        let root = tempfile::tempdir().unwrap();
        let (source, output) = (root.path().join("source"), root.path().join("output"));
        companions(&source);
        make(&source);
        let done = run(&source, &output, None, &mut |_, _| Ok(None)).unwrap();
        assert_eq!(done.changed, 0);
        let kept: Vec<_> = files(&source).into_iter().filter(|(name, _)| belongs(name)).collect();
        let found: Vec<_> = files(&output).into_iter().filter(|(name, _)| belongs(name)).collect();
        assert_eq!(found.iter().map(|f| &f.0).collect::<Vec<_>>(), kept.iter().map(|f| &f.0).collect::<Vec<_>>());
        assert_eq!(found, kept);
        let left: Vec<_> = done.carried.left_out.iter().map(|l| l.path.clone()).collect();
        assert_eq!(left, [".git", "disguised.json", "other.safetensors", "pytorch_model.bin"]);
        assert!(!output.join("pytorch_model.bin").exists());
    }
}

#[test]
fn a_changed_tensor_changes_its_own_bytes_only() {
    let root = tempfile::tempdir().unwrap();
    let (source, output) = (root.path().join("source"), root.path().join("output"));
    companions(&source);
    put(&source, "model.safetensors", file("", 1, &pieces()));
    let done = run(&source, &output, None, &mut |file, entry| {
        let zeroed = |bytes: &[u8]| bytes.chunks(16).flat_map(|b| [&b[..8], &[0; 8]].concat()).collect();
        Ok((entry.name == QKV).then(|| zeroed(file.bytes(entry))))
    })
    .unwrap();
    assert_eq!((done.changed, done.certificate.tensors[QKV].zeros), (1, Some(16)));
    let (before, after) = (Checkpoint::open(&source).unwrap(), Checkpoint::open(&output).unwrap());
    for (old, new) in before.tensors().zip(after.tensors()) {
        assert_eq!(old.1, new.1);
        assert_eq!(old.0.bytes(old.1) == new.0.bytes(new.1), old.1.name != QKV);
    }
    let own = FolderCertificate::read(&output).unwrap().unwrap();
    assert!(verify(&after, Some(&own), &Claims::default()).holds());
    let score = |task: &str| CardScore {
        task: task.to_owned(),
        metric: "accuracy".to_owned(),
        value: 61.5,
        standard_error: 0.75,
        items: 400,
    };
    let making = Making {
        base: "org/base".to_owned(),
        label: "restoration: ressa wanda, seed 0".to_owned(),
        run: "0123456789ab".to_owned(),
        stages: vec![("prune vision".to_owned(), "ab12".to_owned())],
        steps: [("prune vision", "wanda, 2:4"), ("restore", "sparse-lora, 100 steps"), ("prune vision", "wanda, 1:4")]
            .map(|(what, how)| (what.to_owned(), how.to_owned()))
            .into(),
        restored: Some("sparse-lora, 100 steps".to_owned()),
        seed: Some(0),
        scores: vec![score("gqa")],
        program: "a test".to_owned(),
    };
    insta::assert_snapshot!(card("half", Some(&making), &own, &source), @r#"
    ---
    library_name: transformers
    pipeline_tag: image-text-to-text
    base_model: "org/base"
    license: mit
    language:
    - en
    tags:
    - pruned
    - sparse
    - ressa
    ---

    # half

    Made from `org/base` by the run `restoration: ressa wanda, seed 0`.

    - prune vision: wanda, 2:4
    - restore: sparse-lora, 100 steps
    - prune vision: wanda, 1:4
    - seed: 0

    ## Scores

    | task | score | value | standard error | items |
    | --- | --- | ---: | ---: | ---: |
    | gqa | accuracy | 61.50 | 0.75 | 400 |

    ## Stages

    Run `0123456789ab`.

    - prune vision: `ab12`

    ## Sparsity

    Counted on the files of this folder after they were written.

    | tower | zero weights | of | sparsity | pattern |
    | --- | ---: | ---: | ---: | --- |
    | vision | 16 | 32 | 50.00 % | 2:4 |

    `ressa_certificate.json` holds the counts and digests of all 6 tensors; `ressa verify` on this folder recounts them.

    Written by a test.
    "#);
}

#[test]
fn files_are_cut_to_size_and_joined_again() {
    let root = tempfile::tempdir().unwrap();
    let (source, cut, joined) = (root.path().join("source"), root.path().join("cut"), root.path().join("joined"));
    put(&source, "model.safetensors", file(r#""__metadata__":{"format":"pt"}"#, 0, &pieces()));
    let done = run(&source, &cut, Some(100), &mut |_, _| Ok(None)).unwrap();
    let names: Vec<_> = done.weights.iter().map(|p| p.file_name().unwrap().to_string_lossy().into_owned()).collect();
    let expected = [1, 2, 3].map(|n| format!("model-0000{n}-of-00003.safetensors"));
    assert_eq!(names, expected);
    assert!(!cut.join("model.safetensors").exists());
    run(&cut, &joined, Some(1 << 20), &mut |_, _| Ok(None)).unwrap();
    assert!(joined.join("model.safetensors").exists() && !joined.join("model.safetensors.index.json").exists());
    let checkpoints = [&source, &cut, &joined].map(|folder| Checkpoint::open(folder).unwrap());
    assert_eq!(checkpoints[1].index().unwrap().metadata["total_size"], 6 + 128 + 16 + 1 + 16);
    for checkpoint in &checkpoints {
        for name in checkpoints[0].names() {
            let (file, entry) = checkpoint.get(name).unwrap();
            let (known, expected) = checkpoints[0].get(name).unwrap();
            assert_eq!((file.bytes(entry), &entry.shape), (known.bytes(expected), &expected.shape), "{name}");
            assert_eq!(file.metadata()["format"], "pt");
        }
    }
}

#[test]
fn a_folder_is_there_whole_or_not_at_all() {
    let root = tempfile::tempdir().unwrap();
    let (source, output) = (root.path().join("source"), root.path().join("output"));
    companions(&source);
    put(&source, "model.safetensors", file("", 0, &pieces()));
    // Left behind by a process that was killed.
    put(root.path(), ".output.draft/model.safetensors", "half");
    let failed = run(&source, &output, None, &mut |file, _| Err(CheckpointError::file(file.path(), "stop")));
    assert!(failed.is_err());
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1, "only the source is left");

    let other = Draft::begin(&output).unwrap();
    let busy = run(&source, &output, None, &mut |_, _| Ok(None)).unwrap_err().to_string();
    assert!(busy.ends_with("another process is writing it"), "{busy}");
    drop(other);

    fs::create_dir(&output).unwrap();
    run(&source, &output, None, &mut |_, _| Ok(None)).unwrap();
    let taken = run(&source, &output, None, &mut |_, _| Ok(None)).unwrap_err().to_string();
    assert!(taken.ends_with("there is something already; choose another folder"), "{taken}");
    // Nothing was touched, and the source itself cannot be the output.
    assert!(output.join("config.json").exists());
    assert!(run(&source, &source, None, &mut |_, _| Ok(None)).is_err());
}
