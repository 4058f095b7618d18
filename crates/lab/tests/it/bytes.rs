//! Folders of every family of conversations written again: the same files where nothing changes, other bytes in pruned weights alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use ressa_checkpoint::{CERTIFICATE, Checkpoint, CheckpointError, ExportRequest, export, names::is_prunable};
use ressa_experiment::{
    config::{Metric, PruneConfig, TowerPrune},
    job::{CalibrationRequest, CalibrationSource, Compute, Job, ModelAt, Prune, RandomCheckpoint},
};
use ressa_lab::run;
use tch::Device;

/// In the names of transformers 4 and 5, with tied heads and without, in every type.
const FOLDERS: [&str; 14] = [
    "llava-default",
    "llava-tied",
    "llava-siglip",
    "llava-layers",
    "llava-next",
    "llava-next-layers",
    "llava-next-full",
    "qwen2-vl",
    "qwen2-vl-parts",
    "qwen2_5-vl",
    "smolvlm",
    "idefics3",
    "internvl",
    "internvl-one",
];

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/tests/goldens").join(name)
}

/// Files of a folder but for what it says about itself.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let paths = fs::read_dir(folder).unwrap().map(|item| item.unwrap().path());
    let named = paths.map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(path).unwrap()));
    named.filter(|(name, _)| name != CERTIFICATE && name != "README.md" && !name.starts_with("golden.")).collect()
}

#[test]
fn a_folder_in_which_nothing_changes_is_the_same_files() {
    let root = tempfile::tempdir().unwrap();
    for name in FOLDERS {
        let (source, output) = (golden(name), root.path().join(name));
        let patterns = BTreeMap::new();
        let (source, output) = (source.as_path(), output.as_path());
        let request = ExportRequest {
            source,
            output,
            max_shard_size: None,
            container: Default::default(),
            patterns: &patterns,
            program: "a test",
            run: None,
        };
        let done = export::<CheckpointError>(&request, &mut |_, _| Ok(None), None, &mut |_, _| ()).unwrap();
        assert_eq!(done.changed, 0, "{name}");
        let (before, after) = (files(source), files(output));
        assert!(before.keys().eq(after.keys()), "{name}: {:?} and {:?}", before.keys(), after.keys());
        for (file, bytes) in &before {
            assert!(*bytes == after[file], "{name}/{file}");
        }
    }
}

#[test]
fn a_pruned_folder_differs_in_pruned_weights_alone() {
    let root = tempfile::tempdir().unwrap();
    for name in FOLDERS {
        let mut folder = golden(name);
        if !folder.join("tokenizer.json").exists() {
            // Goldens of LLaVA have no texts: a folder of their shape that has.
            let like = folder.join("config.json").display().to_string();
            folder = root.path().join(format!("random-{name}"));
            let work = RandomCheckpoint { like, output: folder.clone(), seed: 2, dtype: Compute::Bfloat16 };
            run(&Job::RandomCheckpoint(work), Device::Cpu, &mut |_, _| ()).unwrap();
        }
        let output = root.path().join(name);
        let half = TowerPrune { sparsity: 0.5, ..TowerPrune::default() };
        let (vision, connector, language) = (half.clone(), half.clone(), half);
        let sample = CalibrationRequest {
            image: golden("images/wide.png"),
            prompt: "what is red ?".to_owned(),
            answer: "a circle".to_owned(),
        };
        let job = Prune {
            model: ModelAt { folder: folder.clone(), compute: None },
            prune: PruneConfig { metric: Metric::Wanda, vision, connector, language, ..PruneConfig::default() },
            calibration: CalibrationSource::Listed(vec![sample]),
            samples: None,
            seed: 0,
            memory_limit: None,
            spill: false,
            device_activations: 0,
            checkpoint_after: 60.0,
            output: output.clone(),
        };
        run(&Job::Prune(Box::new(job)), Device::Cpu, &mut |_, _| ()).unwrap_or_else(|e| panic!("{name}: {e}"));
        let (before, after) = (files(&folder), files(&output));
        assert!(before.keys().eq(after.keys()), "{name}: {:?} and {:?}", before.keys(), after.keys());
        let other: Vec<&String> = before.keys().filter(|file| before[*file] != after[*file]).collect();
        assert_eq!(other, ["model.safetensors"], "{name}");
        let (before, after) = (Checkpoint::open(&folder).unwrap(), Checkpoint::open(&output).unwrap());
        let mut changed = BTreeSet::new();
        for ((old, entry), (new, same)) in before.tensors().zip(after.tensors()) {
            assert_eq!(entry, same, "{name}");
            let width = entry.dtype.bitsize() / 8;
            let pairs = old.bytes(entry).chunks(width).zip(new.bytes(same).chunks(width));
            let other: Vec<(&[u8], &[u8])> = pairs.filter(|(old, new)| old != new).collect();
            assert!(other.iter().all(|(_, new)| new.iter().all(|byte| *byte == 0)), "{name} {}", entry.name);
            if !other.is_empty() {
                assert!(is_prunable(&entry.name, &entry.shape), "{name} {}", entry.name);
                changed.insert(&entry.name);
            }
        }
        let prunable = before.tensors().filter(|(_, entry)| is_prunable(&entry.name, &entry.shape)).count();
        assert_eq!(changed.len(), prunable, "{name}");
    }
}
