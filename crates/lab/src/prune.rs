//! Job `prune`: a model folder pruned block by block, on any device. Memory holds one block's weights, statistics and masks, whatever the model's
//! size; a killed run resumes near the block that it was in.

mod flows;
mod masks;
mod memory;
mod notes;
mod output;
mod settings;
mod walk;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use ressa_checkpoint::{Exported, Finished, Making, PROGRAM, Rewrite, card, names::counted_in, shown_name, stamp};
use ressa_data::Processor;
use ressa_experiment::{
    Pattern, Tower,
    config::Propagate,
    job::{Compute, Prune},
};
use ressa_models::{Model, Surgery, folder::load_options};
use ressa_prune::{
    PruneError, PruneRequest,
    select::Selection,
    walk::{Layout, Walk},
};
use ressa_runtime::Device;
use serde_json::{Map, Value, json};

pub use crate::calibration::ordered;
use crate::{LabError, Progress, calibration::Samples, loaded::Reader, streamed::Streamed};
use flows::Lasting;
pub use masks::{MaskHash, layer_digest};
use notes::Notes;
use output::Output;
use settings::PruneSettings;
use walk::{Work, steps};

/// Version of what decides about masks beside the settings. Raised when the same settings would choose other weights.
const RULES: u32 = 1;

/// Prunes the folder and answers with what was done.
///
/// # Errors
/// Settings that cannot be met, among them a memory limit; calibration samples that cannot be read; an unfinished run with other settings at
/// the output; whatever is wrong with the folder.
pub fn run(job: &Prune, device: Device, progress: Progress<'_>) -> Result<Value, LabError> {
    let start = Instant::now();
    progress(0.0, "loading");
    let asked = PruneSettings::new(job)?;
    let needs_samples = asked.calibrates() || asked.measures()?.is_some();
    // An unfinished run is finished as it was begun, on whatever device.
    let compute = match job.model.compute.or_else(|| Notes::compute(&job.output)) {
        Some(compute) => compute,
        None => load_options(&job.model.folder, device, None)?.compute,
    };
    // What is wrong with the processor or the samples is known before the weights are touched.
    let processor = needs_samples.then(|| Processor::load(&job.model.folder)).transpose()?;
    let reader = processor.as_ref().map(|processor| Reader { processor, device });
    let samples = reader.map(|reader| Samples::read(job, reader)).transpose()?;
    if samples.as_ref().is_some_and(|samples| samples.texts.is_empty()) {
        let what = if asked.calibrates() { asked.prune.metric.name() } else { asked.prune.allocation.method.name() };
        return Err(LabError::Unsupported(format!("`{what}` needs calibration samples and there are none")));
    }
    let mut streamed = Streamed::open(&job.model.folder, compute, device)?;
    if asked.prune.connector.projection {
        streamed.join_projection()?;
    }
    let model = streamed.network();
    check(model, &asked)?;
    samples.iter().try_for_each(|samples| samples.fit(model.config()))?;
    // A table is held to the model before anything is done; what is measured is known later.
    let counts = if asked.measures()?.is_none() { asked.counts(model, &BTreeMap::new())? } else { None };
    let steps = steps(model, &asked)?;
    let held = (ressa_runtime::memory::resident_bytes(), memory::unpacked(&job.model.folder)?);
    let needed = memory::Needed::estimate(model, &asked, samples.as_ref(), held);
    let room = needed.decide(job.memory_limit)?;
    streamed.converts = room.converts;
    let on_device = device != Device::Cpu && needed.activations <= job.device_activations;
    let kept = (room.keeps && !job.spill).then_some(if on_device { device } else { Device::Cpu });

    let mut rewrite = Rewrite::open(&job.model.folder, &job.output)?;
    let settings = settings(job, &asked, &rewrite, compute, samples.as_ref())?;
    let notes = Notes::resume(rewrite.notes(), settings.clone())?;
    let resumed = notes.done;
    rewrite.begin()?;
    let flows = Lasting::open(rewrite.notes(), notes.flows, device, kept)?;
    let layout = Layout { rows: notes.rows.clone(), visible: notes.visible.clone() };
    let mut work = Work {
        walk: Walk::resume(Output::new(streamed, &rewrite), flows, layout),
        rewrite: &rewrite,
        asked: &asked,
        counts,
        samples: samples.as_ref().zip(reader),
        limit: job.memory_limit,
        checkpoint_after: Duration::from_secs_f64(job.checkpoint_after.clamp(0.0, 86_400.0)),
        notes,
    };
    work.run(&steps, &mut |share, message| progress(0.8 * share, message))?;
    let Work { notes, walk, .. } = work;
    drop(walk);

    let done = finish(job, &asked, rewrite, &notes, &settings, &mut |share, message| {
        progress(0.8 + 0.2 * share, message);
    })?;
    Ok(json!({
        "output": job.output,
        "mask_hash": notes.masks,
        "towers": done.certificate.towers,
        "changed": done.changed,
        "rank_deficit": notes.rank.worst.as_ref().map(|_| &notes.rank),
        "warning": notes.rank.warning(),
        "samples": settings.get("samples"),
        "steps": steps.len(),
        "resumed_at": resumed,
        "device": ressa_runtime::device_name(device),
        "activations_in_memory": kept.is_some() && needs_samples,
        "activations_on_device": kept.is_some_and(|kept| kept != Device::Cpu) && needs_samples,
        "estimated_memory_bytes": needed.least
            + if room.converts { needed.converted } else { 0 }
            + if kept == Some(Device::Cpu) { needed.activations } else { 0 },
        "peak_memory_bytes": notes.peak.max(ressa_runtime::peak_memory_bytes()),
        "bytes_read": notes.read,
        "bytes_written": notes.written,
        "block_seconds": notes.seconds,
        "seconds": start.elapsed().as_secs_f64(),
        "copied": done.carried.copied,
        "left_out": done.carried.left_out,
    }))
}

/// Refuses before anything is done what some block would refuse in the end.
fn check(model: &Model, asked: &PruneSettings) -> Result<(), LabError> {
    for (&tower, request) in &asked.towers {
        let selection = request.selection()?;
        let mut layers = model.linears().into_iter().filter(|(id, _)| id.tower == tower).peekable();
        if layers.peek().is_none() {
            return Err(PruneError::NoLayers { tower }.into());
        }
        for (id, linear) in layers {
            let (rows, columns) = linear.shape();
            let name = format!("{}.weight", id.name);
            if counted_in(&name, &[rows as usize, columns as usize], true) != Some(tower) {
                return Err(LabError::Unsupported(format!("`{name}` is not known as a prunable linear")));
            }
            if let Selection::NOfM { of, .. } = selection
                && columns % of != 0
            {
                return Err(PruneError::Width { layer: id.name.clone(), width: columns, of }.into());
            }
        }
    }
    Ok(())
}

/// Everything that decides which weights go.
fn settings(
    job: &Prune,
    asked: &PruneSettings,
    rewrite: &Rewrite,
    compute: Compute,
    samples: Option<&Samples>,
) -> Result<Map<String, Value>, LabError> {
    let values = json!({
        "rules": RULES,
        "program": PROGRAM,
        "source": stamp(rewrite.source().folder())?,
        "calibration": samples.map(|samples| &samples.digest),
        "samples": samples.map(|samples| samples.texts.len()),
        "seed": job.seed,
        "dtype": compute.name(),
    });
    let Value::Object(mut settings) = values else { return Ok(Map::new()) };
    // Those that are not here are the default.
    settings.extend(asked.prune.chosen().into_iter().map(|(path, value)| (path.to_owned(), value)));
    Ok(settings)
}

/// Whether a setting is one that a model card names by its path.
fn is_detail(path: &str) -> bool {
    let said = ["prune.metric", "prune.pattern", "prune.calibration.propagate"];
    let of_tower = Tower::ALL.iter().any(|tower| path.starts_with(&format!("prune.{tower}.")));
    path.starts_with("prune.") && !said.contains(&path) && !of_tower
}

fn finish(
    job: &Prune,
    asked: &PruneSettings,
    rewrite: Rewrite,
    notes: &Notes,
    settings: &Map<String, Value>,
    progress: Progress<'_>,
) -> Result<Exported, LabError> {
    let patterns: BTreeMap<String, Pattern> =
        notes.tensors.keys().map(|name| (name.clone(), asked.prune.pattern)).collect();
    let how = |request: &PruneRequest| {
        let sparsity = asked.prune.tower(request.tower).sparsity;
        let mut how = format!("{}, {}, sparsity {sparsity}", request.metric.name(), request.pattern);
        if asked.prune.tower(request.tower).projection {
            how += ", its projection with it";
        }
        if let Some(group) = request.group {
            how += &format!(", compared per {}", group.name());
        }
        for (path, value) in settings.iter().filter(|(path, _)| is_detail(path)) {
            how += &format!(", {path} {}", value.to_string().trim_matches('"'));
        }
        if let Some(samples) = settings.get("samples").filter(|samples| !samples.is_null()) {
            let blocks = if request.propagate == Propagate::Pruned { "pruned" } else { "dense" };
            how += &format!(", calibrated on {samples} samples, inputs from {blocks} blocks");
        }
        how
    };
    let folder = |path: &std::path::Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let source = std::path::absolute(&job.model.folder).unwrap_or_else(|_| job.model.folder.clone());
    let making = Making {
        base: shown_name(&source),
        label: "ressa prune".to_owned(),
        run: notes.masks.clone(),
        stages: vec![("masks".to_owned(), notes.masks.clone())],
        steps: asked.towers.iter().map(|(tower, request)| (format!("prune {tower}"), how(request))).collect(),
        restored: None,
        seed: Some(job.seed),
        scores: Vec::new(),
        program: PROGRAM.to_owned(),
    };
    let finished = Finished {
        changed: &notes.tensors,
        patterns: &patterns,
        program: PROGRAM,
        run: Some(json!({ "mask_hash": notes.masks, "settings": settings })),
    };
    let name = folder(&job.output);
    let make = |found: &_| card(&name, Some(&making), found, &source);
    Ok(rewrite.finish(&finished, &make, progress)?)
}
