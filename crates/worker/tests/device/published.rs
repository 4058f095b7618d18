//! Model folders given by path and benchmarks on disk: the paper's protocol in miniature, with a retrieval model that takes the run's image
//! encoder.

use std::{
    fs,
    path::{Path, PathBuf},
};

use ressa_experiment::{
    RunConfig, StageNode,
    canonical::canonical,
    config::{
        AskingConfig, CorporaConfig, Corpus, DataConfig, DataSource, Metric, RestoreMethod, RetrievalConfig, SampleForm,
    },
    job::{Compute, Job, RandomCheckpoint},
    model::ModelConfig,
    stage::stages,
};
use ressa_testkit::stand_in::StandIn;
use serde_json::Value;

use crate::{
    Machine, assert_used_well, differences, repository,
    worker::{program, work},
};

/// The configuration of one of the models crate's goldens.
fn golden(family: &str) -> PathBuf {
    repository().join("crates/models/tests/goldens").join(family).join("config.json")
}

/// Writes a folder of the shape of one of the models crate's goldens.
pub fn folder(family: &str, output: &Path) {
    write(&golden(family), output);
}

/// Writes a retrieval model whose image encoder has the shape of a family's.
fn matcher(family: &str, output: &Path) {
    let read = |family: &str| -> Value { serde_json::from_slice(&fs::read(golden(family)).unwrap()).unwrap() };
    let (mut config, other) = (read("blip2-itm"), read(family));
    for field in ["hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "patch_size"] {
        config["vision_config"][field] = other["vision_config"][field].clone();
    }
    // It sees images in a size of its own.
    config["vision_config"]["image_size"] = (4 * other["vision_config"]["patch_size"].as_u64().unwrap()).into();
    config["qformer_config"]["encoder_hidden_size"] = config["vision_config"]["hidden_size"].clone();
    let path = output.with_extension("json");
    fs::write(&path, config.to_string()).unwrap();
    write(&path, output);
}

fn write(like: &Path, output: &Path) {
    let like = like.display().to_string();
    let job = RandomCheckpoint { like, output: output.to_owned(), seed: 3, dtype: Compute::Float32 };
    work(program("job", "cpu"), &Job::RandomCheckpoint(job)).unwrap();
}

fn run(root: &Path, family: &str, compute: Option<Compute>) -> Vec<StageNode> {
    let (model, matching) = (root.join(family), root.join(format!("{family}-matcher")));
    if !model.exists() {
        folder(family, &model);
        matcher(family, &matching);
    }
    let corpora =
        CorporaConfig { corpora: vec![Corpus::Coco, Corpus::Vg], form: SampleForm::Prefix, ..CorporaConfig::default() };
    let mut run = RunConfig::of(ModelConfig { checkpoint: Some(model), compute, ..ModelConfig::default() });
    run.data = DataConfig {
        source: DataSource::Folder,
        root: Some(repository().join("crates/data/tests/published")),
        calibration: corpora.clone(),
        restoration: CorporaConfig { form: SampleForm::Instruct, ..corpora },
        ..DataConfig::default()
    }
    .into();
    run.prune.metric = Metric::Wanda;
    (run.prune.vision.sparsity, run.prune.language.sparsity) = (0.5, 0.5);
    let calibration = &mut run.prune.calibration;
    (calibration.images, calibration.questions, calibration.captions) = (3, 0, 1);
    run.restore.method = RestoreMethod::SparseLora;
    (run.restore.steps, run.restore.batch, run.restore.samples, run.restore.questions) = (2, 2, 4, 0);
    run.restore.contrastive = 0.0;
    run.restore.distill.weight = 0.1;
    run.evaluate.beams = 2;
    let search = |least| AskingConfig { max_new_tokens: Some(4), min_new_tokens: least, ..AskingConfig::default() };
    (run.evaluate.answer, run.evaluate.caption) = (search(None), search(Some(2)));
    run.evaluate.retrieval = RetrievalConfig { checkpoint: Some(matching), rerank: 2, ..RetrievalConfig::default() };
    stages(&canonical(&run))
}

#[test]
fn published_folders_are_treated_as_on_the_cpu() {
    let root = tempfile::tempdir().unwrap();
    let mut nodes: Vec<StageNode> = Vec::new();
    for (family, compute) in [
        ("instructblip-flant5", None),
        ("instructblip-flant5", Some(Compute::Bfloat16)),
        ("instructblip-vicuna", None),
        ("blip2-opt", None),
    ] {
        for node in run(root.path(), family, compute) {
            if !nodes.iter().any(|known| known.key == node.key) {
                nodes.push(node);
            }
        }
    }
    let (cpu, device, report) = (root.path().join("cpu"), root.path().join("device"), root.path().join("report"));
    Machine::Cpu.execute(&cpu, &nodes);
    Machine::Lent(&StandIn::new(), 0, &report).execute(&device, &nodes);
    assert_used_well(&report, 1);
    let differ = differences(&cpu, &device, &nodes);
    assert!(differ.is_empty(), "{} of {} stages differ:\n{}", differ.len(), nodes.len(), differ.join("\n"));
}
