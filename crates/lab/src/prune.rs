//! Job `prune`: a model folder pruned block by block. Memory holds one block's weights, statistics and masks, whatever the model's size; a
//! killed work goes on at the block that it was in.

mod flows;
mod masks;
mod memory;
mod method;
mod notes;
mod samples;
mod walk;

use std::{
    collections::{BTreeMap, HashMap},
    time::Instant,
};

use ressa_checkpoint::{Exported, Finished, Making, Rewrite, card, names::is_prunable};
use ressa_data::Processor;
use ressa_experiment::{
    Pattern, Tower,
    config::{Group, Propagate},
    job::{Compute, Prune},
};
use ressa_models::{Blip2, VisionLanguage, load_streamed};
use ressa_prune::select::Selection;
use ressa_runtime::Device;
use serde_json::{Map, Value, json};

use crate::{LabError, Progress, loaded::Reader};
pub use masks::{MaskHash, layer_digest};
use notes::Notes;
use samples::Samples;
pub use samples::ordered;
use walk::{Walk, steps};

/// Version of what decides about masks beside the settings. Raised when the same settings would choose other weights.
const RULES: u32 = 1;

/// Prunes the folder and answers with what was done.
///
/// # Errors
/// Settings that cannot be met, among them a memory limit; calibration samples that cannot be read; an unfinished work with other settings at
/// the output; whatever is wrong with the folder.
pub fn run(job: &Prune, progress: Progress<'_>) -> Result<Value, LabError> {
    let start = Instant::now();
    progress(0.0, "loading");
    let selections = selections(job)?;
    let calibrates = job.method.needs_calibration();
    if calibrates && job.calibration.is_empty() {
        let message = format!("method `{}` needs calibration samples and there are none", job.method.name());
        return Err(LabError::Unsupported(message));
    }
    let compute = job.model.compute.unwrap_or(Compute::Float32);
    // What is wrong with the processor or the samples is known before the weights are touched.
    let processor = calibrates.then(|| Processor::load(&job.model.folder)).transpose()?;
    let reader = processor.as_ref().map(|processor| Reader { processor, device: Device::Cpu });
    let samples = reader.map(|reader| Samples::read(job, reader)).transpose()?;
    let (model, pages) = load_streamed(&job.model.folder, compute)?;
    check(&model, &selections)?;
    let pruned = |tower: Tower| selections.contains_key(&tower);
    let steps = steps(&model, &pruned, calibrates);
    let towers: Vec<Tower> = Tower::ALL
        .into_iter()
        .filter(|&wanted| steps.iter().any(|step| matches!(step, walk::Step::Block(tower, _) if *tower == wanted)))
        .collect();
    let held = ressa_runtime::memory::resident_bytes();
    let needed = memory::Needed::estimate(&model, &towers, &pruned, job.method, samples.as_ref(), held);
    let keep = needed.decide(job.memory_limit)? && !job.spill;

    let mut rewrite = Rewrite::open(&job.model.folder, &job.output)?;
    let settings = settings(job, &rewrite, compute, samples.as_ref())?;
    let notes = Notes::resume(rewrite.notes(), settings.clone())?;
    let resumed = notes.done;
    rewrite.begin()?;
    let mut walk = Walk {
        model,
        processor,
        pages,
        rewrite: &rewrite,
        solver: method::solver(job),
        selections,
        propagate: job.propagate,
        samples,
        keep,
        limit: job.memory_limit,
        notes,
    };
    walk.run(&steps, &mut |share, message| progress(0.8 * share, message))?;
    let Walk { notes, model, pages, selections, .. } = walk;
    drop((model, pages));

    let done = finish(job, rewrite, &notes, &settings, &selections, &mut |share, message| {
        progress(0.8 + 0.2 * share, message);
    })?;
    Ok(json!({
        "output": job.output,
        "mask_hash": notes.masks,
        "towers": done.certificate.towers,
        "changed": done.changed,
        "samples": settings.get("samples"),
        "steps": steps.len(),
        "resumed_at": resumed,
        "activations_in_memory": keep && calibrates,
        "estimated_memory_bytes": needed.least + if keep { needed.activations } else { 0 },
        "peak_memory_bytes": notes.peak.max(ressa_runtime::peak_memory_bytes()),
        "bytes_read": notes.read,
        "bytes_written": notes.written,
        "block_seconds": notes.seconds,
        "seconds": start.elapsed().as_secs_f64(),
        "copied": done.carried.copied,
        "left_out": done.carried.left_out,
    }))
}

/// What goes from each tower that is pruned.
fn selections(job: &Prune) -> Result<HashMap<Tower, Selection>, LabError> {
    let mut selections = HashMap::new();
    for tower in Tower::ALL {
        if let Some(selection) = method::selection(job, tower)? {
            selections.insert(tower, selection);
        }
    }
    if selections.is_empty() {
        return Err(LabError::Unsupported("no tower is to be pruned: give one a sparsity above 0".to_owned()));
    }
    Ok(selections)
}

/// Refuses before anything is done what some block would refuse in the end.
fn check(model: &Blip2, selections: &HashMap<Tower, Selection>) -> Result<(), LabError> {
    for (&tower, &selection) in selections {
        let mut layers = model.linears().into_iter().filter(|(id, _)| id.tower == tower).peekable();
        if layers.peek().is_none() {
            return Err(ressa_prune::PruneError::NoLayers { tower }.into());
        }
        for (id, linear) in layers {
            let (rows, columns) = linear.shape();
            let name = format!("{}.weight", id.name);
            if !is_prunable(&name, &[rows as usize, columns as usize]) {
                return Err(LabError::Unsupported(format!("`{name}` is not known as a prunable linear")));
            }
            match selection {
                Selection::NOfM { of, .. } if columns % of != 0 => {
                    return Err(ressa_prune::PruneError::Width { layer: id.name.clone(), width: columns, of }.into());
                }
                Selection::Unstructured { group: Group::Tower, .. } => {
                    let message =
                        "matrices of a whole tower are not compared block by block: choose group `row` or `matrix`";
                    return Err(LabError::Unsupported(message.to_owned()));
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// Everything that decides which weights go.
fn settings(
    job: &Prune,
    rewrite: &Rewrite,
    compute: Compute,
    samples: Option<&Samples>,
) -> Result<Map<String, Value>, LabError> {
    let group = match job.pattern {
        Pattern::Unstructured => json!(job.group.unwrap_or(job.method.published_group())),
        Pattern::NOfM { .. } => Value::Null,
    };
    let values = json!({
        "rules": RULES,
        "program": program(),
        "source": rewrite.source().fingerprint()?,
        "method": job.method,
        "pattern": job.pattern,
        "vision": job.vision,
        "qformer": job.qformer,
        "language": job.language,
        "group": group,
        "propagate": samples.map(|_| job.propagate),
        "calibration": samples.map(|samples| &samples.digest),
        "samples": samples.map(|samples| samples.texts.len()),
        "seed": job.seed,
        "dtype": compute.name(),
    });
    match values {
        Value::Object(settings) => Ok(settings),
        _ => Ok(Map::new()),
    }
}

/// The program as it signs certificates.
fn program() -> String {
    format!("ressa {}", env!("CARGO_PKG_VERSION"))
}

fn finish(
    job: &Prune,
    rewrite: Rewrite,
    notes: &Notes,
    settings: &Map<String, Value>,
    selections: &HashMap<Tower, Selection>,
    progress: Progress<'_>,
) -> Result<Exported, LabError> {
    let patterns: BTreeMap<String, Pattern> = match job.pattern {
        Pattern::Unstructured => BTreeMap::new(),
        pattern => notes.tensors.keys().map(|name| (name.clone(), pattern)).collect(),
    };
    let how = |tower: Tower| {
        let mut how = format!("{}, {}, sparsity {}", job.method.name(), job.pattern, method::share(job, tower));
        if let Some(group) = settings.get("group").and_then(Value::as_str) {
            how += &format!(", compared per {group}");
        }
        if let Some(samples) = settings.get("samples").filter(|samples| !samples.is_null()) {
            let blocks = if job.propagate == Propagate::Pruned { "pruned" } else { "dense" };
            how += &format!(", calibrated on {samples} samples, inputs from {blocks} blocks");
        }
        how
    };
    let folder = |path: &std::path::Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let source = std::path::absolute(&job.model.folder).unwrap_or_else(|_| job.model.folder.clone());
    let making = Making {
        base: folder(&source),
        label: "ressa prune".to_owned(),
        run: notes.masks.clone(),
        stages: vec![("masks".to_owned(), notes.masks.clone())],
        pruned: Tower::ALL.into_iter().filter(|t| selections.contains_key(t)).map(|t| (t, how(t))).collect(),
        restored: None,
        seed: Some(job.seed),
        scores: Vec::new(),
        program: program(),
    };
    let program = program();
    let finished = Finished {
        changed: &notes.tensors,
        patterns: &patterns,
        program: &program,
        run: Some(json!({ "mask_hash": notes.masks, "settings": settings })),
    };
    let name = folder(&job.output);
    let make = |found: &_| card(&name, Some(&making), found, &source);
    Ok(rewrite.finish(&finished, &make, progress)?)
}
