//! Predictions against what the program was measured to do, and the relations between them that must hold whatever the constants are.

mod measured;
mod relations;

use std::path::Path;

use ressa_experiment::{
    Pattern, RunConfig, StageNode,
    config::{DataSource, Metric, RestoreMethod},
    job::Compute,
    model::ModelConfig,
    stage::stages,
};
use ressa_predict::{Cards, Host, Prediction, Predictor, Shared};

/// A host with sixteen cores.
pub const HOST: Host = Host { cores: 16, tf32: false };

/// The cards of the repository.
pub fn cards() -> Cards {
    Cards::parse(include_str!("../../../../experiments/devices.yaml")).expect("the file is sound")
}

/// A run of a published model with the paper's setting: 2:4 magnitude masks in both towers, SparseLoRA with distillation on captions.
pub fn paper(model: &str, batch: u32) -> RunConfig {
    let checkpoint = Some(Path::new("nowhere").join(model));
    let compute = Some(Compute::Bfloat16);
    let mut run = RunConfig::of(ModelConfig { checkpoint, compute, ..ModelConfig::default() });
    run.data.source = DataSource::Folder;
    run.prune.metric = Metric::Magnitude;
    run.prune.pattern = Pattern::NOfM { keep: 2, of: 4 };
    run.prune.vision.sparsity = 0.5;
    run.prune.language.sparsity = 0.5;
    let restore = &mut run.restore;
    restore.method = RestoreMethod::SparseLora;
    (restore.vision.rank, restore.connector.rank, restore.language.rank) = (4, 2, 8);
    (restore.batch, restore.questions, restore.samples, restore.steps) = (batch, 0, 25_000, 25_000 / batch);
    restore.contrastive = 0.0;
    restore.distill.weight = 0.1;
    run.evaluate.questions = 250_000;
    run.evaluate.images = 5_000;
    run.evaluate.beams = 5;
    run
}

/// What the stages of a run take on a card, with their kinds.
pub fn predictions(run: &RunConfig, card: &str) -> Vec<(StageNode, Prediction)> {
    let nodes = stages(run);
    let predictor = Predictor::new(&nodes, Path::new("."), |_| None).expect("published models are known");
    let cards = cards();
    let card = cards.get(card).expect("a card of the file");
    let mut shared = Shared::new(20_000_000_000);
    let mut predict = |node| predictor.stage(node, card, HOST, &mut shared);
    nodes.iter().map(|node| (node.clone(), predict(node).expect("published models have sizes"))).collect()
}

/// The only stage of a kind.
pub fn of_kind(found: &[(StageNode, Prediction)], kind: &str) -> Prediction {
    found.iter().find(|(node, _)| node.stage.kind() == kind).expect("the run has one").1.clone()
}
