//! What `ressa export` says about a run: the stages that make its weights, and its model card.

use std::{collections::BTreeMap, path::Path};

use ressa_checkpoint::{CardScore, Making, shown_name};
use ressa_experiment::{
    ReadingKind, Readings, Stage, StageKey, Tower,
    config::{TowerAdapter, TrainedBiases},
    record::{Certificate, Shortfall, TaskScore},
    stage::{AdaptTraining, Inputs},
    structure::GroupScore,
};
use ressa_store::Store;
use ressa_sweep::{Graph, GraphStage, describe};

use crate::{
    exit::{Exit, Failure},
    study::{Match, short},
};

/// The stages that make the weights of a run or stage, and the card. Every stage must be in the store; relative paths start at `root`.
pub fn plan(graph: &Graph, found: &Match, store: &Store, root: &Path) -> Result<(Inputs, Readings, Making), Failure> {
    let (label, run, mut positions) = match found {
        Match::Run(run) => {
            let run = &graph.runs[*run];
            (run.label.clone(), run.id.to_string(), run.stages.clone())
        }
        Match::Stage(stage) => {
            let mut needed = vec![*stage];
            let mut next = 0;
            while next < needed.len() {
                let more: Vec<usize> =
                    graph.stages[needed[next]].inputs.iter().filter(|stage| !needed.contains(stage)).copied().collect();
                needed.extend(more);
                next += 1;
            }
            (graph.label(*stage).to_owned(), graph.stages[*stage].node.key.to_string(), needed)
        }
    };
    positions.sort_unstable();
    let stages: Vec<&GraphStage> = positions.iter().map(|&position| &graph.stages[position]).collect();
    let makes_weights = |stage: &GraphStage| {
        !matches!(*stage.node.stage, Stage::Evaluate { .. } | Stage::Sensitivity { .. } | Stage::Statistics { .. })
    };
    for stage in stages.iter().filter(|stage| makes_weights(stage)) {
        if !store.contains(&stage.node.key.hex()) {
            let (what, key) = (describe(&stage.node.stage), stage.node.key.short());
            let message = format!("`{what}` ({key}) of `{label}` is not in the store; `ressa sweep` makes it");
            return Err(Failure::new(Exit::NothingSelected, message));
        }
    }
    let mut weights = Weights::default();
    let mut readings = Readings::default();
    let mut making = Making {
        base: String::new(),
        label,
        run: short(&run),
        stages: Vec::new(),
        steps: Vec::new(),
        restored: None,
        seed: None,
        scores: Vec::new(),
        program: String::new(),
    };
    for stage in stages {
        readings = readings.with(stage.node.readings.of(ReadingKind::Model));
        tell(stage, store, root, &mut weights, &mut making)?;
    }
    let inputs = Inputs { masks: weights.masks.into_values().collect(), ..weights.inputs };
    if inputs.dense.is_none() {
        return Err(Failure::new(Exit::NothingSelected, format!("`{}` has no dense model", making.label)));
    }
    Ok((inputs, readings, making))
}

/// What makes the weights after the stages so far.
#[derive(Default)]
struct Weights {
    inputs: Inputs,
    /// Towers pruned since the last merge, each by its last stage.
    masks: BTreeMap<Tower, StageKey>,
    /// The training that waits for its merge, in words.
    training: String,
}

/// Adds what one stage has to say.
fn tell(
    stage: &GraphStage,
    store: &Store,
    root: &Path,
    weights: &mut Weights,
    making: &mut Making,
) -> Result<(), Failure> {
    let key = stage.node.key;
    let mut seen = None;
    match &*stage.node.stage {
        Stage::Dense { preset, checkpoint, .. } => {
            let preset = preset.map(|preset| preset.name().to_owned());
            let folder = checkpoint.as_ref().map(|folder| shown_name(&root.join(folder)));
            making.base = folder.or(preset).unwrap_or_default();
            weights.inputs.dense = Some(key);
        }
        Stage::Rescale { .. } => weights.inputs.dense = Some(key),
        // Their numbers are in what was pruned by them.
        Stage::Sensitivity { .. } | Stage::Statistics { .. } => return Ok(()),
        Stage::Prune { tower, projection, metric, pattern, sparsity, group, calibration, seed, budget, .. } => {
            let mut how = format!("{}, {pattern}", metric.name());
            if *projection {
                how += ", its projection with it";
            }
            if let Some(sparsity) = sparsity {
                how += &format!(", sparsity {sparsity}");
            }
            if let Some(group) = group {
                how += &format!(", compared per {}", written(group));
            }
            if let Some(budget) = budget {
                how += &format!(", divided by {}", budget.rule.method.name());
            }
            if let Some(c) = calibration {
                let short = match store.entry(&stage.node.key.hex())? {
                    Some(entry) => entry.result::<Certificate>()?.calibration,
                    None => None,
                };
                let images = short.map_or_else(|| format!("{} images", c.images), |short| short.to_string());
                how += &format!(
                    ", calibrated on {images} with {} questions and {} captions each, inputs from {} blocks",
                    c.questions,
                    c.captions,
                    written(&c.propagate)
                );
            }
            making.steps.push((format!("prune {tower}"), how));
            weights.masks.insert(*tower, key);
            seen = *seed;
        }
        Stage::Refine { tower, method, .. } => {
            making.steps.push((format!("refine {tower}"), method.name().to_owned()));
            weights.masks.insert(*tower, key);
        }
        Stage::Structure { tower, score, block_score, seed: drawn, .. } => {
            let scores = [score.map(GroupScore::name), block_score.map(|score| score.name())];
            let by = scores.into_iter().flatten().collect::<Vec<_>>().join(" and ");
            let left = match store.entry(&key.hex())? {
                Some(entry) => left(&entry.result::<serde_json::Value>()?["left"]),
                None => String::new(),
            };
            making.steps.push((format!("structure {tower}"), format!("made smaller by {by}{left}")));
            weights.masks.insert(*tower, key);
            seen = *drawn;
        }
        Stage::Reconstruct { tower, training, calibration, seed, .. } => {
            let [images, questions, captions] =
                [calibration.images, calibration.questions, calibration.captions].map(u64::from);
            let samples = images.saturating_mul(questions + captions);
            let how = format!("{} by {}, from {samples} samples", training.train.name(), training.window);
            making.steps.push((format!("reconstruct {tower}"), how));
            weights.masks.insert(*tower, key);
            seen = Some(*seed);
        }
        Stage::Adapt { training, seed, .. } => {
            let short: Option<Shortfall> = match store.entry(&key.hex())? {
                Some(entry) => serde_json::from_value(entry.result::<serde_json::Value>()?["images"].take()).ok(),
                None => None,
            };
            let short = short.map(|short| format!(", from {short}")).unwrap_or_default();
            weights.training = trained(training) + &short;
            seen = Some(*seed);
        }
        Stage::Merge { method, .. } => {
            let how = format!("{}, {}", method.name(), std::mem::take(&mut weights.training));
            making.steps.push(("restore".to_owned(), how.clone()));
            making.restored = Some(match making.restored.take() {
                Some(before) => format!("{before}; then {how}"),
                None => how,
            });
            weights.inputs.merge = Some(key);
            weights.masks.clear();
        }
        Stage::Evaluate { .. } => {
            if let Some(entry) = store.entry(&key.hex())? {
                let TaskScore { task, score, .. } = entry.result()?;
                making.scores.extend(score.map(|score| CardScore {
                    task: task.name().to_owned(),
                    metric: score.metric,
                    value: score.value,
                    standard_error: score.standard_error,
                    items: score.items,
                }));
            }
            return Ok(());
        }
    }
    if let Some(entry) = store.entry(&stage.node.key.hex())? {
        let made_by = &entry.manifest.environment;
        making.program = format!("ressa {} (revision {})", made_by.ressa, made_by.revision);
    }
    making.seed = making.seed.or(seen);
    making.stages.push((describe(&stage.node.stage), stage.node.key.to_string()));
    Ok(())
}

/// What is left, as a certificate has it: numbers of groups by what they are called.
fn left(numbers: &serde_json::Value) -> String {
    let part =
        |(what, number): (&String, &serde_json::Value)| format!(", {what} {}", number.as_str().unwrap_or_default());
    numbers.as_object().into_iter().flatten().map(part).collect()
}

/// What trained of each tower, in words.
fn trained(training: &AdaptTraining) -> String {
    let mut words = format!("{} steps of {} images", training.steps, training.batch);
    for tower in Tower::ALL {
        let Some(adapter) = training.tower(tower).filter(|adapter| adapter.tune && adapter.trains()) else { continue };
        let on = match adapter.targets.as_slice() {
            [] => String::new(),
            targets => format!(" on {}", targets.join(" ")),
        };
        let matrices = match adapter {
            TowerAdapter { full: true, .. } => Some(format!("full{on}")),
            TowerAdapter { rank: 0, .. } => None,
            TowerAdapter { rank, .. } => Some(format!("rank {rank}{on}")),
        };
        let biases = match adapter.bias {
            TrainedBiases::All => Some("biases"),
            TrainedBiases::LoraOnly if adapter.trains_matrices() => Some("biases of these layers"),
            TrainedBiases::LoraOnly | TrainedBiases::None => None,
        };
        let others = [biases, adapter.norms.then_some("norms"), adapter.queries.then_some("queries")];
        let parts: Vec<String> = matrices.into_iter().chain(others.into_iter().flatten().map(str::to_owned)).collect();
        words += &format!("; {tower}: {}", parts.join(", "));
    }
    let AdaptTraining { evolve, perturb, penalty, loading, steps, align, .. } = training;
    if loading.is_on() {
        words += &format!("; batches divided anew by held-out losses {} times", loading.updates(*steps, *align));
    }
    if evolve.is_on() {
        words += &format!("; masks exchanged {} times", evolve.exchanges(*steps, *align));
    }
    if perturb.is_on() {
        words += &format!("; noise of {} on the weights", perturb.sigma);
    }
    if penalty.is_on() {
        words += &format!("; group penalty of {}", penalty.weight);
    }
    words
}

/// A choice as experiment files write it.
fn written(choice: &impl serde::Serialize) -> String {
    serde_json::to_value(choice).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use ressa_experiment::{
        RunConfig,
        config::{Metric, RestoreMethod},
        loading::LoadingMethod,
        model::{ModelConfig, Preset},
        stage::stages,
    };

    use super::*;

    #[test]
    fn a_card_says_what_trained() {
        let words = |change: &dyn Fn(&mut RunConfig)| {
            let mut run = RunConfig::of(ModelConfig { preset: Some(Preset::ShapesFlanT5), ..ModelConfig::default() });
            run.prune.metric = Metric::None;
            run.restore.method = RestoreMethod::Lora;
            change(&mut run);
            let found = stages(&run).into_iter().find_map(|node| match &*node.stage {
                Stage::Adapt { training, .. } => Some(trained(training)),
                _ => None,
            });
            found.expect("a training")
        };
        assert_eq!(words(&|_| {}), "60 steps of 16 images; vision: rank 8; connector: rank 4; language: rank 8");
        let connector = words(&|run| {
            (run.restore.vision.tune, run.restore.language.rank) = (false, 0);
            let connector = &mut run.restore.connector;
            (connector.full, connector.norms, connector.queries) = (true, true, true);
            connector.bias = TrainedBiases::All;
        });
        assert_eq!(connector, "60 steps of 16 images; connector: full, biases, norms, queries");
        let some = words(&|run| {
            (run.restore.connector.tune, run.restore.language.tune) = (false, false);
            run.restore.vision.targets = vec!["qkv".to_owned(), "fc1".to_owned()];
            run.restore.vision.bias = TrainedBiases::LoraOnly;
        });
        assert_eq!(some, "60 steps of 16 images; vision: rank 8 on qkv fc1, biases of these layers");
        let more = words(&|run| {
            (run.restore.vision.tune, run.restore.connector.tune) = (false, false);
            (run.restore.evolve.every, run.restore.perturb.sigma, run.restore.penalty.weight) = (10, 0.03, 0.5);
        });
        assert_eq!(
            more,
            "60 steps of 16 images; language: rank 8; masks exchanged 4 times; noise of 0.03 on the weights; group penalty of 0.5"
        );
        let divided = words(&|run| {
            (run.restore.vision.tune, run.restore.connector.tune) = (false, false);
            run.restore.loading.method = LoadingMethod::Dynamic;
        });
        assert_eq!(divided, "60 steps of 16 images; language: rank 8; batches divided anew by held-out losses 5 times");
    }
}
