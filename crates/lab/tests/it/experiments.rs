//! A single pruning and an experiment with the same settings choose the same weights.

use std::{fs, path::Path};

use ressa_data::tokenizer::VOCABULARY_SIZE;
use ressa_experiment::{
    RunConfig, Stage, StageNode,
    allocation::{AllocationConfig, AllocationMethod, AllocationScope},
    config::{CorporaConfig, Corpus, DataConfig, DataSource, Metric, Propagate, PruneConfig, SampleForm},
    job::{CalibrationSource, Compute, ModelAt, Prune, RandomCheckpoint},
    model::ModelConfig,
    stage::stages,
};
use ressa_lab::{
    prune::{MaskHash, run},
    random::random_checkpoint,
};
use ressa_models::{LoadOptions, MaskSet, Surgery, load_model, presets};
use ressa_pipeline::Executor;
use ressa_runtime::{DeviceChoice, RuntimeOptions};
use ressa_store::{Environment, Store};
use tch::Device;

/// The hash of the masks that the stages of an experiment publish.
fn of_experiment(config: &RunConfig, dense: &Path) -> String {
    let folder = tempfile::tempdir().unwrap();
    let device = ressa_runtime::init(&RuntimeOptions { device: DeviceChoice::Cpu, threads: 1 }).unwrap();
    let open = || Store::open(folder.path(), Vec::new()).unwrap();
    let mut executor = Executor::new(open(), device, Environment::default());
    let nodes: Vec<StageNode> = stages(config)
        .into_iter()
        .filter(|node| !matches!(*node.stage, Stage::Evaluate { .. } | Stage::Merge { .. }))
        .collect();
    let model = load_model(dense, &LoadOptions::on(Device::Cpu)).unwrap();
    let mut hash = MaskHash::default();
    for node in &nodes {
        executor.execute(node, 1, &mut |_, _| {}).unwrap_or_else(|e| panic!("{}: {e}", node.stage.kind()));
        executor.store().publish(&node.key.hex(), 1).unwrap();
        let Stage::Prune { tower, .. } = &*node.stage else { continue };
        let masks = open().require(&node.key.hex()).unwrap().file("masks.safetensors").unwrap();
        let masks = MaskSet::load(&masks).unwrap();
        for (id, _) in model.linears().into_iter().filter(|(id, _)| id.tower == *tower) {
            hash.add(&id.name, &masks.get(&id.name).unwrap().keep()).unwrap();
        }
    }
    hash.hex()
}

#[test]
fn corpora_are_drawn_and_budgets_divided_as_by_an_experiment() {
    let root = tempfile::tempdir().unwrap();
    let (like, dense) = (root.path().join("config.json"), root.path().join("dense"));
    let config = presets::tiny_flant5(VOCABULARY_SIZE as i64);
    fs::write(&like, serde_json::to_string(&config).unwrap()).unwrap();
    let like = like.display().to_string();
    random_checkpoint(
        &RandomCheckpoint { like, output: dense.clone(), seed: 3, dtype: Compute::Float32 },
        &mut |_, _| (),
    )
    .unwrap();
    let corpora =
        CorporaConfig { corpora: vec![Corpus::Vg, Corpus::Coco], form: SampleForm::Prefix, ..CorporaConfig::default() };
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/tests/published");
    for (metric, propagate, towers) in [
        (Metric::Wanda, Propagate::Pruned, AllocationScope::Joint),
        (Metric::SparseGpt, Propagate::Dense, AllocationScope::Each),
    ] {
        let mut prune = PruneConfig { metric, ..PruneConfig::default() };
        (prune.vision.sparsity, prune.language.sparsity) = (0.5, 0.6);
        (prune.calibration.images, prune.calibration.questions, prune.calibration.propagate) = (4, 0, propagate);
        let method = AllocationMethod::Owl;
        prune.allocation = AllocationConfig { method, towers, m: 1.5, samples: Some(3), ..AllocationConfig::default() };
        let mut asked = RunConfig::of(ModelConfig { checkpoint: Some(dense.clone()), ..ModelConfig::default() });
        asked.data = DataConfig {
            source: DataSource::Folder,
            root: Some(data.clone()),
            calibration: corpora.clone(),
            ..DataConfig::default()
        }
        .into();
        (asked.prune, asked.seed) = (prune.clone().into(), 7);
        let expected = of_experiment(&ressa_experiment::canonical::canonical(&asked), &dense);
        let job = Prune {
            model: ModelAt { folder: dense.clone(), compute: None },
            prune,
            calibration: CalibrationSource::Corpora { corpora: corpora.clone(), root: data.clone() },
            samples: Some(4),
            seed: 7,
            memory_limit: None,
            spill: true,
            device_activations: 0,
            checkpoint_after: 0.0,
            output: root.path().join(metric.name()),
        };
        let _no_grad = tch::no_grad_guard();
        let found = run(&job, Device::Cpu, &mut |_, _| ()).unwrap();
        assert_eq!(found["mask_hash"], expected, "{}", metric.name());
        let many = Prune { samples: Some(500), output: root.path().join("many"), ..job };
        let refused = run(&many, Device::Cpu, &mut |_, _| ()).unwrap_err().to_string();
        assert!(refused.contains("500 calibration samples are asked for, there are"), "{refused}");
    }
}
