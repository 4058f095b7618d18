//! Single jobs on a device: what they write and answer is what they write and answer on the CPU.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use ressa_checkpoint::{Written, write};
use ressa_experiment::{
    Pattern,
    config::{AlpsConfig, Metric, PruneConfig},
    job::{
        CalibrationRequest, CalibrationSource, Forward, Generate, Job, LayerOptions, ModelAt, PromptRequest, Prune,
        PruneLayer, SearchOptions, SparseLora, Stats,
    },
};
use ressa_testkit::stand_in::{StandIn, reports};
use serde_json::Value;

use crate::{
    Stored, all_close, files,
    published::folder,
    repository, tensors,
    worker::{program, work},
};

const FAMILIES: [&str; 2] = ["instructblip-flant5", "instructblip-vicuna"];

fn images() -> [PathBuf; 2] {
    ["1", "2"].map(|name| repository().join(format!("crates/data/tests/published/vg/images/VG_100K/{name}.jpg")))
}

/// Does a job, which writes to the path it is made for, on the CPU and on a device; answers and written bytes must be the same. Gives the
/// launches on the device.
fn same(root: &Path, stand_in: &StandIn, job: &dyn Fn(&Path) -> Job) -> u64 {
    let report = root.join("report");
    let _ = fs::remove_file(&report);
    let done = |device: &str| {
        let output = root.join("output");
        let mut command = program("job", device);
        if device != "cpu" {
            stand_in.lend(&mut command, &report);
        }
        let answer = work(command, &job(&output)).unwrap_or_else(|failure| panic!("{device}: {failure:?}"));
        let mut written = match () {
            () if output.is_dir() => files(&output),
            () if output.exists() => [(output.clone(), fs::read(&output).unwrap())].into(),
            () => [].into(),
        };
        // Says when and how fast.
        written.retain(|name, _| !name.ends_with("ressa_certificate.json") && !name.ends_with("README.md"));
        let _ = fs::remove_file(&output).or_else(|_| fs::remove_dir_all(&output));
        (answer, written)
    };
    let ((answer, written), (answer_there, written_there)) = (done("cpu"), done("cuda:0"));
    for field in ["loss", "mask_hash", "towers", "kept"] {
        assert_eq!(answer.get(field), answer_there.get(field), "{field}");
    }
    if answer.is_array() {
        assert_eq!(answer, answer_there);
    }
    assert!(written.keys().eq(written_there.keys()), "{:?} {:?}", written.keys(), written_there.keys());
    // A device's sums may be rounded otherwise; what hangs on them is compared by values.
    let differs = |(name, bytes): &(&PathBuf, &Vec<u8>)| {
        let other = &written_there[*name];
        *bytes != other && !all_close(&tensors_of(root, bytes), &tensors_of(root, other))
    };
    let differ: Vec<_> = written.iter().filter(differs).map(|(name, _)| name).collect();
    assert!(differ.is_empty() && (answer != Value::Null), "other values in {differ:?}");
    let report = reports(&report).pop().unwrap();
    assert_eq!(report.violations, 0, "{report:?}");
    report.launches
}

/// The tensors of a safetensors file's bytes.
fn tensors_of(root: &Path, bytes: &[u8]) -> BTreeMap<String, Stored> {
    let path = root.join("compared.safetensors");
    fs::write(&path, bytes).unwrap();
    tensors(&path)
}

#[test]
fn models_answer_and_are_looked_into() {
    let (root, stand_in) = (tempfile::tempdir().unwrap(), StandIn::new());
    for family in FAMILIES {
        let path = root.path().join(family);
        folder(family, &path);
        let model = || ModelAt { folder: path.clone(), compute: None };
        for beams in [1, 3] {
            let launches = same(root.path(), &stand_in, &|_| {
                let ask = |image| PromptRequest { image, prompt: "what is this".to_owned() };
                let search = SearchOptions {
                    num_beams: Some(beams),
                    max_new_tokens: Some(5),
                    repetition_penalty: Some(1.2),
                    ..Default::default()
                };
                Job::Generate(Generate { model: model(), requests: images().map(ask).into(), search })
            });
            assert!(launches > 0);
        }
        let launches = same(root.path(), &stand_in, &|output| {
            let answered =
                |image| CalibrationRequest { image, prompt: "what is this".to_owned(), answer: "a circle".to_owned() };
            Job::Stats(Stats {
                model: model(),
                requests: images().map(answered).into(),
                end_token: false,
                output: output.to_owned(),
            })
        });
        assert!(launches > 0);
    }
}

#[test]
fn folders_are_pruned() {
    let (root, stand_in) = (tempfile::tempdir().unwrap(), StandIn::new());
    for (family, metric, pattern) in [
        (FAMILIES[0], Metric::SparseGpt, Pattern::Unstructured),
        (FAMILIES[1], Metric::Dsnot, Pattern::Unstructured),
        (FAMILIES[0], Metric::Alps, Pattern::NOfM { keep: 1, of: 2 }),
        ("blip2-opt", Metric::Wanda, Pattern::Unstructured),
    ] {
        let path = root.path().join(family);
        if !path.exists() {
            folder(family, &path);
        }
        same(root.path(), &stand_in, &|output| {
            let mut prune = PruneConfig { metric, pattern, ..Default::default() };
            (prune.vision.sparsity, prune.language.sparsity) = (0.5, 0.5);
            // Two pictures say little of some inputs: with less damping, or more iterations, rounding would grow into other masks and values.
            prune.alps = AlpsConfig { damping_share: 1.0, iterations: 3, steps: 2, ..prune.alps };
            let sample =
                |image| CalibrationRequest { image, prompt: "what is this".to_owned(), answer: "a circle".to_owned() };
            Job::Prune(Box::new(Prune {
                model: ModelAt { folder: path.clone(), compute: None },
                prune,
                calibration: CalibrationSource::Listed(images().map(sample).into()),
                samples: None,
                seed: 0,
                memory_limit: None,
                spill: false,
                device_activations: 1 << 30,
                checkpoint_after: 0.0,
                output: output.to_owned(),
            }))
        });
    }
}

/// Values that are all different, a tensor of a shape.
fn tensor(shape: &[usize], phase: f32) -> Written {
    let values: Vec<f32> = (0..shape.iter().product()).map(|i: usize| (i as f32 + phase).sin()).collect();
    Written::floats(shape.to_vec(), &values)
}

#[test]
fn layers_given_as_tensors_are_pruned_and_adapted() {
    let (root, stand_in) = (tempfile::tempdir().unwrap(), StandIn::new());
    let input = root.path().join("layer.safetensors");
    let keep: Vec<f32> = (0..128).map(|i| f32::from(u8::from(i % 3 > 0))).collect();
    let (weight, inputs, keep) = (tensor(&[8, 16], 0.1), tensor(&[3, 4, 16], 0.2), Written::floats(vec![8, 16], &keep));
    let (a, b, upstream) = (tensor(&[2, 16], 0.3), tensor(&[8, 2], 0.4), tensor(&[3, 4, 8], 0.5));
    let tensors = [
        ("weight", &weight),
        ("inputs", &inputs),
        ("keep_mask", &keep),
        ("a", &a),
        ("b", &b),
        ("x", &inputs),
        ("upstream", &upstream),
    ];
    write(&input, tensors, ("format", "pt")).unwrap();
    for metric in Metric::METHODS {
        for (sparsity, pattern) in [(Some(0.5), None), (None, Some(Pattern::NOfM { keep: 2, of: 4 }))] {
            let launches = same(root.path(), &stand_in, &|output| {
                let options = LayerOptions { sparsity, pattern, ..LayerOptions::published(metric) };
                Job::PruneLayer(PruneLayer { input: input.clone(), options, output: output.to_owned() })
            });
            assert!(launches > 0, "{}", metric.name());
        }
    }
    let launches = same(root.path(), &stand_in, &|output| {
        Job::SparseLora(SparseLora { input: input.clone(), scaling: 2.0, output: output.to_owned() })
    });
    assert!(launches > 0);
}

#[test]
fn a_pass_over_given_tensors_writes_the_same_parts() {
    let (root, stand_in) = (tempfile::tempdir().unwrap(), StandIn::new());
    for family in FAMILIES {
        let path = root.path().join(family);
        folder(family, &path);
        let inputs = root.path().join("inputs.safetensors");
        write_inputs(family, &inputs);
        let launches = same(root.path(), &stand_in, &|output| {
            let model = ModelAt { folder: path.clone(), compute: None };
            Job::Forward(Forward { model, inputs: inputs.clone(), output: output.to_owned() })
        });
        assert!(launches > 0);
    }
}

/// The inputs of a golden pass: token ids and masks padded on the right, and pixels.
fn write_inputs(family: &str, path: &Path) {
    let golden =
        fs::read(repository().join("crates/models/tests/goldens").join(family).join("golden.safetensors")).unwrap();
    let (length, rest) = golden.split_at(8);
    let (header, data) = rest.split_at(u64::from_le_bytes(length.try_into().unwrap()) as usize);
    let header: serde_json::Map<String, Value> = serde_json::from_slice(header).unwrap();
    let (mut kept, mut bytes) = (serde_json::Map::new(), Vec::new());
    for (name, entry) in &header {
        let wanted =
            ["pixel_values", "input_ids", "attention_mask", "labels", "qformer_input_ids", "qformer_attention_mask"];
        let short = name.strip_prefix("right.").unwrap_or(name);
        if !wanted.contains(&short) {
            continue;
        }
        let at = |end: usize| entry["data_offsets"][end].as_u64().unwrap() as usize;
        let (mut entry, start) = (entry.clone(), bytes.len());
        bytes.extend_from_slice(&data[at(0)..at(1)]);
        entry["data_offsets"] = serde_json::json!([start, bytes.len()]);
        kept.insert(short.to_owned(), entry);
    }
    assert_eq!(kept.len(), 6);
    let header = Value::Object(kept).to_string();
    fs::write(path, [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &bytes].concat()).unwrap();
}
