//! Pruning a folder block by block: the same masks as with the whole model in memory, whatever interrupts it.

use std::{
    collections::BTreeMap,
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use ressa_checkpoint::{Checkpoint, CheckpointError, Claims, ExportRequest, FolderCertificate, export, verify};
use ressa_data::{Image, Processor};
use ressa_experiment::{
    Pattern, Tower,
    allocation::{AllocationConfig, AllocationGroup, AllocationMethod, AllocationScope},
    config::{
        BlockThreshold, Damping, Group, Metric, Propagate, PruneConfig, Rounding, Threshold, TokenConfig,
        TokenSelection, TowerPrune,
    },
    job::{CalibrationRequest, CalibrationSource, Compute, Container, ModelAt, Prune, RandomCheckpoint},
};
use ressa_lab::{
    prune::{MaskHash, ordered, run},
    random::random_checkpoint,
};
use ressa_models::{
    Blip2Config, LoadOptions, Prompts, Sample, Surgery, TextBatch, VisionLanguage, load_model, presets,
};
use ressa_prune::{
    PruneRequest, TowerInputs,
    allocation::{MeasureRequest, WINDOW, divide, measure, places},
    prune_tower_with,
};
use serde_json::Value;
use tch::{Device, Kind, Tensor};

const VOCABULARY: i64 = 300;
const TWO_OF_FOUR: Pattern = Pattern::NOfM { keep: 2, of: 4 };

/// A random folder of a tiny configuration.
fn folder(root: &Path, config: &Blip2Config, dtype: Compute) -> PathBuf {
    let (like, output) = (root.join("config.json"), root.join("dense"));
    fs::write(&like, serde_json::to_string(config).unwrap()).unwrap();
    let job = RandomCheckpoint { like: like.display().to_string(), output: output.clone(), seed: 1, dtype };
    random_checkpoint(&job, &mut |_, _| ()).unwrap();
    output
}

/// A bitmap file of 24 by 24 pixels that follow from `number`.
fn image(root: &Path, number: u32) -> PathBuf {
    let mut bytes = b"BM".to_vec();
    for value in [54 + 24 * 24 * 3, 0, 54, 40, 24, 24, 1 | 24 << 16, 0, 0, 0, 0, 0, 0u32] {
        bytes.extend(value.to_le_bytes());
    }
    bytes.extend((0..24 * 24 * 3u32).map(|i| (i.wrapping_mul(2_654_435_761).wrapping_mul(number + 1) >> 24) as u8));
    let path = root.join(format!("{number}.bmp"));
    fs::write(&path, bytes).unwrap();
    path
}

fn requests(root: &Path) -> Vec<CalibrationRequest> {
    let ask = |image: &PathBuf, prompt: &str, answer: &str| CalibrationRequest {
        image: image.clone(),
        prompt: prompt.to_owned(),
        answer: answer.to_owned(),
    };
    let images: Vec<PathBuf> = (0..3).map(|number| image(root, number)).collect();
    vec![
        ask(&images[0], "what is this", "a dog"),
        ask(&images[0], "what colour is the thing on the left", "red"),
        ask(&images[1], "", "a photo of two birds"),
        ask(&images[2], "how many", "seven"),
    ]
}

/// Half of every tower.
fn settings(metric: Metric, pattern: Pattern) -> PruneConfig {
    let half = TowerPrune { sparsity: 0.5, ..TowerPrune::default() };
    let (vision, connector, language) = (half.clone(), half.clone(), half);
    PruneConfig { metric, pattern, vision, connector, language, ..PruneConfig::default() }
}

/// The same job with other settings.
fn with(job: &Prune, change: impl FnOnce(&mut PruneConfig)) -> Prune {
    let mut job = job.clone();
    change(&mut job.prune);
    job
}

fn job(root: &Path, output: &str) -> Prune {
    Prune {
        model: ModelAt { folder: root.join("dense"), compute: None },
        prune: settings(Metric::Wanda, TWO_OF_FOUR),
        calibration: CalibrationSource::Listed(requests(root)),
        samples: None,
        seed: 0,
        memory_limit: None,
        spill: false,
        device_activations: 0,
        checkpoint_after: 0.0,
        output: root.join(output),
    }
}

fn prune(job: &Prune) -> Result<Value, ressa_lab::LabError> {
    let _no_grad = tch::no_grad_guard();
    run(job, Device::Cpu, &mut |_, _| ())
}

fn listed(job: &Prune) -> &[CalibrationRequest] {
    match &job.calibration {
        CalibrationSource::Listed(requests) => requests,
        CalibrationSource::Corpora { .. } => panic!("these tests list their samples"),
    }
}

/// Hash of the masks that pruning tower after tower with the whole model in memory gives.
fn in_memory(job: &Prune) -> String {
    let _no_grad = tch::no_grad_guard();
    let mut model = load_model(&job.model.folder, &LoadOptions::on(Device::Cpu)).unwrap();
    if job.prune.connector.projection {
        assert!(model.join_projection());
    }
    let processor = Processor::load(&job.model.folder).unwrap();
    let batch = |ids: Vec<u32>, pad: u32| TextBatch::pad(&[ids], pad, Device::Cpu);
    let sample = |request: &CalibrationRequest| {
        let pixels = processor.pixels([&Image::open(&request.image).unwrap()]).unwrap();
        let (height, width) = processor.image_size();
        Sample {
            pixels: Tensor::from_slice(&pixels).view([1, 3, i64::from(height), i64::from(width)]),
            prompt: Prompts {
                image: Tensor::zeros([1], (Kind::Int64, Device::Cpu)),
                qformer: batch(processor.encode_qformer(&request.prompt).unwrap(), processor.qformer_pad()),
                language: batch(processor.encode_prompt(&request.prompt).unwrap(), processor.pad()),
            },
            answer: processor.encode_answer(&request.answer).unwrap(),
        }
    };
    let samples: Vec<Sample> =
        ordered(listed(job), job.samples, job.seed).unwrap().into_iter().map(|(r, _)| sample(r)).collect();
    let mut hash = MaskHash::default();
    let asked = &job.prune;
    let sparsities = Tower::ALL.map(|tower| (tower, asked.tower(tower).sparsity)).into_iter().filter(|(_, s)| *s > 0.0);
    let mut sensitivities = BTreeMap::new();
    if let Some(measurement) = asked.allocation.measurement(asked, Tower::Language) {
        let seen = &samples[..asked.allocation.samples.map_or(samples.len(), |n| samples.len().min(n as usize))];
        for (tower, _) in sparsities.clone() {
            let request = MeasureRequest { tower, measurement, window: WINDOW, seed: job.seed };
            sensitivities.extend(measure(&model, &request, seen, &mut |_| ()).unwrap());
        }
    }
    let counts = (!asked.allocation.is_default()).then(|| {
        let places = places(&model, sparsities.clone().map(|(tower, _)| tower));
        divide(&places, &asked.allocation, &sparsities.clone().collect(), &sensitivities).unwrap()
    });
    for (tower, sparsity) in sparsities {
        let request = PruneRequest {
            tower,
            metric: asked.metric,
            pattern: asked.pattern,
            sparsity: (asked.pattern == Pattern::Unstructured).then_some(sparsity),
            group: asked.tower(tower).group,
            propagate: asked.calibration.propagate,
            seed: job.seed,
            method: asked.method(),
            tokens: asked.calibration.tokens,
        };
        let inputs = TowerInputs { samples: &samples, counts: counts.as_ref(), ..TowerInputs::default() };
        let masks = prune_tower_with(&mut model, &request, inputs, &mut |_| ()).unwrap().masks;
        for (id, _) in model.linears().into_iter().filter(|(id, _)| id.tower == tower) {
            hash.add(&id.name, &masks.get(&id.name).unwrap().keep()).unwrap();
        }
        if asked.calibration.propagate == Propagate::Dense {
            ressa_models::MaskSet::new().apply(&mut model as &mut dyn VisionLanguage).unwrap();
        }
    }
    hash.hex()
}

/// Values at kept places are those of the dense folder, all others are zero; the certificate holds.
fn check_written(job: &Prune, hash: &str) {
    let checkpoint = Checkpoint::open(&job.output).unwrap();
    let own = FolderCertificate::read(&job.output).unwrap().unwrap();
    assert_eq!(own.run.as_ref().unwrap()["mask_hash"], hash);
    let found = verify(&checkpoint, Some(&own), &Claims::default());
    assert!(found.holds(), "{:?}", found.violations);
    let counted = found.tensors.iter().any(|tensor| tensor.name == "language_projection.weight");
    assert_eq!((own.projection, counted), (job.prune.connector.projection, job.prune.connector.projection));
    let open = |folder: &Path| load_model(folder, &LoadOptions::on(Device::Cpu)).unwrap().tensors();
    if job.prune.metric.changes_weights() {
        return;
    }
    let (dense, sparse) = (open(&job.model.folder), open(&job.output));
    let mut zeros = 0;
    for (name, sparse) in &sparse {
        let differs = sparse.ne_tensor(&dense[name]);
        assert!(!bool::try_from(differs.logical_and(&sparse.ne(0)).any()).unwrap(), "{name}: a kept weight has moved");
        zeros += differs.sum(Kind::Int64).int64_value(&[]);
    }
    assert!(zeros > 0);
    assert!(!job.output.with_extension("partial").exists());
}

fn configs() -> [Blip2Config; 3] {
    [presets::tiny_flant5(VOCABULARY), presets::tiny_vicuna(VOCABULARY), presets::tiny_blip2_opt(VOCABULARY, true)]
}

#[test]
fn masks_are_those_of_the_model_in_memory() {
    // Weights that a method changes are written in the type of the folder, and seen so by what comes after; in memory they are not rounded.
    for (config, dtype) in configs().into_iter().zip([Compute::Float32, Compute::Bfloat16, Compute::Float16]) {
        let root = tempfile::tempdir().unwrap();
        folder(root.path(), &config, dtype);
        let job = job(root.path(), "sparse");
        let unstructured = |metric, change: fn(&mut PruneConfig)| {
            let mut prune = settings(metric, Pattern::Unstructured);
            change(&mut prune);
            prune
        };
        for (prune_config, spill) in [
            (settings(Metric::Wanda, TWO_OF_FOUR), false),
            (with(&job, |prune| (prune.metric, prune.alps.iterations) = (Metric::Alps, 9)).prune, false),
            (with(&job, |prune| prune.calibration.propagate = Propagate::Dense).prune, true),
            (unstructured(Metric::Wanda, |prune| prune.vision.group = Some(Group::Matrix)), true),
            (unstructured(Metric::Magnitude, |prune| prune.rounding = Rounding::Nearest), false),
            (
                unstructured(Metric::SparseGpt, |prune| {
                    (prune.sparsegpt.block, prune.sparsegpt.damping) = (16, Damping::OnFailure);
                    prune.sparsegpt.threshold = BlockThreshold::Inclusive;
                }),
                true,
            ),
            (
                unstructured(Metric::Wanda, |prune| {
                    prune.threshold = Threshold::Strict;
                    prune.calibration.tokens =
                        TokenConfig { select: TokenSelection::Atv, text: 2.0, ..prune.calibration.tokens };
                }),
                true,
            ),
            (
                unstructured(Metric::Wanda, |prune| {
                    prune.allocation = AllocationConfig {
                        method: AllocationMethod::Owl,
                        samples: Some(3),
                        m: 1.5,
                        ..AllocationConfig::default()
                    };
                }),
                true,
            ),
            (
                unstructured(Metric::Magnitude, |prune| {
                    let (group, towers) = (AllocationGroup::Layer, AllocationScope::Joint);
                    prune.connector.sparsity = 0.0;
                    prune.allocation = AllocationConfig {
                        method: AllocationMethod::Owl,
                        group,
                        towers,
                        m: 1.5,
                        ..AllocationConfig::default()
                    };
                }),
                false,
            ),
            (
                unstructured(Metric::Wanda, |prune| {
                    prune.connector.projection = true;
                    prune.allocation.method = AllocationMethod::Owl;
                }),
                true,
            ),
            (with(&job, |prune| (prune.metric, prune.connector.projection) = (Metric::SparseGpt, true)).prune, false),
            (
                unstructured(Metric::Ria, |prune| {
                    prune.allocation.method = AllocationMethod::Table;
                    prune.allocation.table =
                        [("vision.0".to_owned(), 0.25), ("language.1".to_owned(), 0.625)].into_iter().collect();
                }),
                false,
            ),
        ] {
            if prune_config.metric.changes_weights() && dtype != Compute::Float32 {
                continue;
            }
            let job = Prune { prune: prune_config, spill, ..job.clone() };
            let summary = prune(&job).unwrap();
            let hash = summary["mask_hash"].as_str().unwrap().to_owned();
            assert_eq!(hash, in_memory(&job), "{:?}", job.prune.chosen());
            check_written(&job, &hash);
            fs::remove_dir_all(&job.output).unwrap();
        }
    }
}

/// Weights of a folder, file by file.
fn weights(folder: &Path) -> Vec<u8> {
    let checkpoint = Checkpoint::open(folder).unwrap();
    checkpoint.files().iter().flat_map(|file| fs::read(file.path()).unwrap()).collect()
}

#[test]
fn what_was_killed_at_any_step_ends_as_if_nothing_had_happened() {
    let owl = |prune: &mut PruneConfig| {
        (prune.pattern, prune.allocation.method, prune.allocation.m) =
            (Pattern::Unstructured, AllocationMethod::Owl, 1.5);
    };
    let atv = |prune: &mut PruneConfig| prune.calibration.tokens.select = TokenSelection::Atv;
    let plain = |_: &mut PruneConfig| ();
    for (config, metric, change) in [
        (presets::tiny_flant5(VOCABULARY), Metric::SparseGpt, owl as fn(&mut PruneConfig)),
        (presets::tiny_flant5(VOCABULARY), Metric::Wanda, atv),
        (presets::tiny_vicuna(VOCABULARY), Metric::Dsnot, plain),
        (presets::tiny_flant5(VOCABULARY), Metric::Magnitude, plain),
    ] {
        let root = tempfile::tempdir().unwrap();
        folder(root.path(), &config, Compute::Bfloat16);
        let undisturbed = with(&job(root.path(), "undisturbed"), |prune| {
            (prune.metric, prune.connector.sparsity) = (metric, 0.0);
            change(prune);
        });
        let summary = prune(&undisturbed).unwrap();
        let steps = summary["steps"].as_u64().unwrap() as usize;
        assert!(steps > 4);

        // A kill before every step; every other one leaves half-written files behind as a kill within the step would.
        let killed = Prune { output: root.path().join("killed"), ..undisturbed.clone() };
        let home = root.path().join("killed.partial");
        for kill in 0..steps {
            let mut calls = 0;
            let killed_at = |share: f64, _: &str| {
                calls += usize::from(share < 0.8);
                assert!(calls < 3, "killed");
            };
            let mut killed_at = killed_at;
            let _no_grad = tch::no_grad_guard();
            let outcome = catch_unwind(AssertUnwindSafe(|| run(&killed, Device::Cpu, &mut killed_at)));
            if outcome.is_ok() {
                break;
            }
            if kill % 2 == 1 {
                fs::write(home.join(format!("hidden-{}", kill + 2)), "half").unwrap();
                fs::write(home.join("progress.json.new"), "{").unwrap();
            }
        }
        let resumed = match killed.output.exists() {
            true => FolderCertificate::read(&killed.output).unwrap().unwrap().run.unwrap()["mask_hash"].clone(),
            false => prune(&killed).unwrap()["mask_hash"].clone(),
        };
        assert_eq!(resumed, summary["mask_hash"], "{}", metric.name());
        assert!(weights(&killed.output) == weights(&undisturbed.output), "{}: other weights", metric.name());
        assert!(!home.exists());
    }
}

#[test]
fn other_settings_do_not_go_on_with_an_unfinished_work() {
    let root = tempfile::tempdir().unwrap();
    folder(root.path(), &presets::tiny_vicuna(VOCABULARY), Compute::Float16);
    let begun = job(root.path(), "sparse");
    let mut calls = 0;
    let stop = |_: f64, _: &str| {
        calls += 1;
        assert!(calls < 5, "killed");
    };
    let mut stop = stop;
    assert!(catch_unwind(AssertUnwindSafe(|| run(&begun, Device::Cpu, &mut stop))).is_err());
    let other = with(&begun, |prune| (prune.metric, prune.language.sparsity) = (Metric::Ria, 0.0));
    let error = prune(&other).unwrap_err().to_string();
    for part in [
        "`prune.metric` was `\"wanda\"`, is `\"ria\"`",
        "`prune.language.sparsity` was `0.5`, is the default",
        "sparse.partial",
    ] {
        assert!(error.contains(part), "{error}");
    }
    // Where activations are, how much memory there is and in what order samples are listed are no settings.
    let mut same = Prune { memory_limit: Some(64 << 30), spill: true, ..begun.clone() };
    same.calibration = CalibrationSource::Listed(listed(&begun).iter().rev().cloned().collect());
    let summary = prune(&same).unwrap();
    assert!(summary["resumed_at"].as_u64() > Some(0));
    assert_eq!(summary["mask_hash"].as_str().unwrap(), in_memory(&begun));
}

/// Weights of a packed folder are in memory once a model is loaded from it, and a limit counts them.
#[test]
fn a_packed_folder_needs_room_for_its_dense_weights() {
    let root = tempfile::tempdir().unwrap();
    folder(root.path(), &presets::tiny_flant5(VOCABULARY), Compute::Float32);
    let magnitude = |output: &str| with(&job(root.path(), output), |prune| prune.metric = Metric::Magnitude);
    let refused = |job: &Prune| prune(&Prune { memory_limit: Some(1 << 20), ..job.clone() }).unwrap_err().to_string();
    assert!(!refused(&magnitude("sparse")).contains("unpacked"));
    prune(&magnitude("sparse")).unwrap();
    let (sparse, packed) = (root.path().join("sparse"), root.path().join("packed"));
    let request = ExportRequest {
        source: &sparse,
        output: &packed,
        max_shard_size: None,
        container: Container::TwoFour,
        patterns: &Default::default(),
        program: "a test",
        run: None,
    };
    export::<CheckpointError>(&request, &mut |_, _| Ok(None), None, &mut |_, _| ()).unwrap();
    let dense: u64 = Checkpoint::open(&sparse).unwrap().tensors().map(|(_, entry)| entry.bytes() as u64).sum();
    let said = refused(&Prune { model: ModelAt { folder: packed, compute: None }, ..magnitude("again") });
    assert!(said.contains(&format!("with {} MiB of unpacked weights", dense.div_ceil(1 << 20))), "{said}");
}

#[test]
fn what_cannot_be_done_is_refused_before_anything_is_written() {
    let root = tempfile::tempdir().unwrap();
    folder(root.path(), &presets::tiny_flant5(VOCABULARY), Compute::Float32);
    let job = job(root.path(), "sparse");
    let refused = |job: Prune, parts: &[&str]| {
        let error = prune(&job).unwrap_err().to_string();
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        assert!(!root.path().join("sparse").exists() && !root.path().join("sparse.partial").exists(), "{error}");
    };
    refused(Prune { memory_limit: Some(1 << 20), ..job.clone() }, &["`1` MiB cannot be kept", "raise the limit"]);
    let change = |change: fn(&mut PruneConfig)| with(&job, change);
    refused(change(|p| p.language.sparsity = 0.6), &["`2:4` removes 0.5", "is 0.6"]);
    refused(change(|p| p.vision.sparsity = 1.5), &["sparsity `1.5` of tower `vision`"]);
    refused(
        change(|p| (p.vision.sparsity, p.connector.sparsity, p.language.sparsity) = (0.0, 0.0, 0.0)),
        &["`2:4` prunes nothing"],
    );
    refused(Prune { calibration: CalibrationSource::Listed(Vec::new()), ..job.clone() }, &["`wanda`", "none"]);
    refused(Prune { samples: Some(5), ..job.clone() }, &["5 calibration samples", "there are 4"]);
    refused(change(|p| (p.pattern, p.vision.sparsity) = (Pattern::NOfM { keep: 4, of: 32 }, 0.875)), &["0.875"]);
    refused(change(|p| (p.pattern, p.vision.group) = (Pattern::Unstructured, Some(Group::Tower))), &["`row`"]);
    refused(change(|p| p.pattern = Pattern::NOfM { keep: 8, of: 16 }), &["which groups of 16 do not divide"]);
    refused(change(|p| p.allocation.method = AllocationMethod::Owl), &["`2:4` says every layer's budget"]);
    refused(
        change(|p| (p.pattern, p.allocation.method) = (Pattern::Unstructured, AllocationMethod::Ecoflap)),
        &["ecoflap", "run an experiment"],
    );
    let table = change(|p| {
        (p.pattern, p.allocation.method) = (Pattern::Unstructured, AllocationMethod::Table);
        p.allocation.table = [("language.99".to_owned(), 0.5)].into_iter().collect();
    });
    refused(table, &["`language.99`, which no prunable layer is called"]);

    // A model without an order of its own for samples would give other masks here.
    let half = Prune { samples: Some(2), seed: 3, ..job.clone() };
    let mut turned = Prune { output: root.path().join("turned"), ..half.clone() };
    turned.calibration = CalibrationSource::Listed([&listed(&half)[3..], &listed(&half)[..3]].concat());
    assert_eq!(prune(&half).unwrap()["mask_hash"], prune(&turned).unwrap()["mask_hash"]);
}
