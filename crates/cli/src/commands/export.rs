//! `ressa export`: a finished run, or a folder, as a model folder that other programs open.

use std::path::{Path, PathBuf};

use ressa_checkpoint::{CheckpointError, ExportRequest, PROGRAM, card, export, has_card};
use ressa_experiment::{
    job::{Export, Job},
    rounded_percent,
};
use serde_json::{Value, json};

use crate::{
    arguments::{Global, folder::ExportOptions},
    commands::{export_run, model_folder},
    exit::{Exit, Failure, Outcome},
    job,
    study::{Study, find},
    text::{count, say, say_json, size},
    workspace::Workspace,
};

/// Writes what is asked for.
pub fn run(global: &Global, options: &ExportOptions) -> Outcome {
    let summary = match &options.model {
        Some(model) => folder(&model_folder(model)?, options)?,
        None => of_run(global, options)?,
    };
    if global.json {
        say_json(&summary);
    } else {
        print(&summary, &options.output);
    }
    Ok(Exit::Done)
}

/// A run of the experiments; a worker makes its weights.
fn of_run(global: &Global, options: &ExportOptions) -> Result<Value, Failure> {
    let Some(word) = &options.which else {
        return Err(Failure::new(Exit::Usage, "a run is to be named, or a folder with --model"));
    };
    let workspace = Workspace::find(global)?;
    let store = workspace.reading();
    let graph = Study::load(&workspace, &options.selection)?.graph(true);
    let (inputs, readings, making) = export_run::plan(&graph, &find(&graph, word)?, &store, &workspace.root)?;
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let job = Export {
        store: store.root().to_owned(),
        shipped: store.shipped().to_vec(),
        root: workspace.root.clone(),
        inputs,
        readings,
        output: absolute(&options.output),
        max_shard_size: options.max_shard_size,
        full_size: options.full_size,
        container: options.format,
        card: json!(making),
    };
    job::run(global, &options.machine, &Job::Export(Box::new(job)))
}

/// The same folder again, for other file sizes or without what does not belong there.
fn folder(source: &Path, options: &ExportOptions) -> Result<Value, Failure> {
    let request = ExportRequest {
        source,
        output: &options.output,
        max_shard_size: options.max_shard_size,
        container: options.format,
        patterns: &Default::default(),
        program: PROGRAM,
        run: None,
    };
    let name = options.output.file_name().unwrap_or_default().to_string_lossy();
    // A folder's own card stays as true as it was.
    let make = |certificate: &_| card(&name, None, certificate, source);
    let makes_card = !has_card(source);
    let done = export::<CheckpointError>(&request, &mut |_, _| Ok(None), makes_card.then_some(&make), &mut |_, _| ())?;
    Ok(done.summary())
}

fn print(summary: &Value, output: &Path) {
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    let weights = summary["weights"].as_array().map_or(0, Vec::len);
    let changed = count(number(&summary["changed"]) as usize, "tensor");
    say(format_args!("{} of weights, {}; {changed} changed", count(weights, "file"), size(number(&summary["bytes"]))));
    if let Some(dense) = summary["container"]["dense_bytes"].as_u64() {
        let container = &summary["container"];
        let (packed, linears) = (number(&container["packed"]), number(&container["linears"]));
        let format = container["format"].as_str().unwrap_or_default();
        say(format_args!("{packed} of {linears} linears packed ({format}); {} when all is dense", size(dense)));
        if let Some(negative) = container["negative_zeros"].as_u64() {
            say(format_args!("{negative} negative zeros written as 0: a group of four stores two elements"));
        }
    }
    for (tower, sums) in summary["towers"].as_object().into_iter().flatten() {
        let share = rounded_percent(sums["sparsity"].as_f64().unwrap_or_default());
        say(format_args!("  {tower:<9} {share} zero"));
    }
    say_left_out(summary);
    say(format_args!("wrote {}", PathBuf::from(output).display()));
}

/// Names what of the source folder is not in the new one.
pub(super) fn say_left_out(summary: &Value) {
    for file in summary["left_out"].as_array().into_iter().flatten() {
        let text = |field: &str| file[field].as_str().unwrap_or_default().to_owned();
        say(format_args!("left out {}  ({})", text("path"), text("reason")));
    }
}
