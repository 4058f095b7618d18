//! Stage `adapt`: trains adapters on a pruned model, whose masks may change on the way. Resumable from its last checkpoint.

use std::time::Duration;

use ressa_experiment::{Stage, StageNode, loading::LoadingRecord};
use ressa_models::{MaskSet, WeightSet};
use ressa_restore::{
    Budgets, Checkpoints, Evolution, Interval, Layout, StepLoss, Teacher, TrainingOptions, ZeroGroups, train_with,
};
use ressa_store::{Draft, Entry};
use serde_json::{Value, json};

use crate::{
    Executor, PipelineError,
    executor::Progress,
    features::ImagesOf,
    prune::{MASKS, WEIGHTS},
    samples::Beside,
};

/// File of the trained adapters.
pub(crate) const ADAPTER: &str = "adapter.safetensors";
/// File of the loss curve.
const LOSSES: &str = "losses.csv";
/// Least time between two checkpoints.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(5);

/// Trains and publishes the adapters.
pub(crate) fn run(
    executor: &mut Executor,
    node: &StageNode,
    draft: &Draft<'_>,
    progress: Progress<'_>,
) -> Result<Value, PipelineError> {
    let Stage::Adapt { masked, training, data, seed, .. } = &*node.stage else {
        return Err(PipelineError::Internal("not an adapt stage".to_owned()));
    };
    let dense = executor.dense(node)?;
    let (mut student, before) = executor.changed(node)?;
    before.masks.apply(student.as_mut())?;
    let kept = executor.teacher_store(node);
    let other = executor.teacher(node, training)?;
    let teacher = training.distill.as_ref().map(|_| other.unwrap_or_else(|| Teacher::new(dense.model.as_ref())));
    let teacher = match (&kept, teacher) {
        (Some(kept), Some(teacher)) => Some(teacher.remembering(kept)),
        (_, teacher) => teacher,
    };
    let samples = executor.samples(data, &dense)?;
    let scratch = executor.store.scratch(&node.key.hex())?;
    // Features are those of the student's image encoder: a training leaves it as it is, or they are not asked for.
    let encodes_once = training.vision.is_none() && training.distill.is_none();
    let mut encode = |images: &ImagesOf<'_>| match encodes_once {
        true => executor.encoded_before(node, data, student.as_ref(), images, progress),
        false => Ok(None),
    };
    let mut batches = samples.batches(training, training.contrastive > 0.0, *seed, &scratch, &mut encode)?;
    let checkpoints = Checkpoints { folder: scratch, every: Interval::Time(CHECKPOINT_INTERVAL) };
    let budgets = Budgets { patterns: Some(&before.patterns), cuts: Some(&before.cuts) };
    let options = TrainingOptions { masked: *masked, seed: *seed, checkpoints: Some(&checkpoints), budgets };
    let last = executor.loss();
    let mut show = |loss: &StepLoss| {
        last.set(Some(loss.total));
        let share = f64::from(loss.step + 1) / f64::from(training.steps);
        progress(share, &format!("step {}/{} loss {:.3}", loss.step + 1, training.steps, loss.total));
    };
    let mut source = Beside { batches: &mut batches, dense: dense.model.as_ref() };
    let trained = tch::with_grad(|| train_with(student.as_mut(), teacher, training, options, &mut source, &mut show))?;
    trained.adapters.save(&draft.folder().join(ADAPTER))?;
    if let Some(evolution) = &trained.evolution {
        evolution.masks.save(&draft.folder().join(MASKS))?;
        evolution.weights.save(&draft.folder().join(WEIGHTS), &evolution.masks)?;
    }
    draft.write(LOSSES, curve(&trained.losses, trained.loading.as_ref()).as_bytes())?;
    let mut result = json!({
        "steps": training.steps,
        "first-loss": trained.losses.first().map(|l| l.total),
        "last-loss": trained.losses.last().map(|l| l.total),
        "parameters": trained.adapters.iter().flat_map(|(_, update)| update.parameters()).map(|(_, p)| p.numel()).sum::<usize>(),
    });
    // How memory was saved, where it had to be.
    let Layout { micro_batch, recompute } = trained.layout;
    if micro_batch < training.batch {
        result["micro-batch"] = json!(micro_batch);
    }
    if recompute {
        result["recompute"] = json!("blocks");
    }
    // Training images, where there were fewer than asked for: each was seen more often.
    if let Some(short) = batches.short {
        result["images"] = json!(short);
    }
    // Images of the draw that could not be read; the next ones stood in for them.
    if batches.skipped() > 0 {
        result["skipped-images"] = json!(batches.skipped());
    }
    if let Some(Evolution { exchanges, exchanged, grown, .. }) = &trained.evolution {
        result["evolution"] = json!({ "exchanges": exchanges, "exchanged": exchanged, "grown": grown });
    }
    // Weights of domains over time.
    if let Some(loading) = &trained.loading {
        result["loading"] = json!(loading);
    }
    // Groups that a penalty made zero.
    for (tower, kinds) in &trained.groups {
        for (kind, ZeroGroups { zero, of }) in kinds {
            result["groups"][tower.name()][kind] = json!({ "zero": zero, "of": of });
        }
    }
    Ok(result)
}

/// The losses of each step, with the weights that its batch was drawn by where these change.
fn curve(losses: &[StepLoss], loading: Option<&LoadingRecord>) -> String {
    let mut text = String::from("step,total,questions,captions,contrastive,distillation,gradient_norm");
    for domain in loading.iter().flat_map(|loading| &loading.domains) {
        text += &format!(",weight_{}", domain.replace('-', "_"));
    }
    text.push('\n');
    for l in losses {
        let StepLoss { step, total, questions, captions, contrastive, distillation, gradient_norm } = l;
        text += &format!(
            "{step},{total:.6},{questions:.6},{captions:.6},{contrastive:.6},{distillation:.6},{gradient_norm:.6}"
        );
        for weight in loading.into_iter().flat_map(|loading| loading.at(*step)) {
            text += &format!(",{weight:.6}");
        }
        text.push('\n');
    }
    text
}

/// The masks that a training has changed, and the stored weights that belong to them; nothing where it left them as they were.
pub(crate) fn evolved(entry: &Entry) -> Result<Option<(MaskSet, WeightSet)>, PipelineError> {
    if !entry.manifest.files.contains_key(MASKS) {
        return Ok(None);
    }
    let masks = MaskSet::load(&entry.file(MASKS)?)?;
    let weights = WeightSet::load(&entry.file(WEIGHTS)?, &masks)?;
    Ok(Some((masks, weights)))
}
