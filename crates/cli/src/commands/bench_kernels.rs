//! `ressa bench-kernels`: what zeros are worth on this machine, for the shapes of a model's linears.

use std::{collections::BTreeMap, path::Path};

use ressa_checkpoint::{Outline, PUBLISHED, published_config, read_config};
use ressa_experiment::job::{BenchKernels, Job, KernelShape};
use serde_json::Value;

use crate::{
    arguments::{Global, kernels::BenchKernelsOptions},
    commands::model_folder,
    exit::{Exit, Failure, Outcome},
    job,
    text::{columns, say, say_json},
};

/// Measures and prints.
pub fn run(global: &Global, options: &BenchKernelsOptions) -> Outcome {
    let mut batches = options.batches.clone();
    batches.sort_unstable();
    batches.dedup();
    let shapes = shapes(&options.model)?;
    let job = BenchKernels { shapes, batches, sparsity: options.sparsity, dtype: options.dtype };
    let found = job::run(global, &options.machine, &Job::BenchKernels(job))?;
    if global.json {
        say_json(&found);
    } else {
        print(&found);
    }
    Ok(Exit::Done)
}

/// Distinct shapes of the prunable linears of a folder or of a published model, most weights first.
fn shapes(model: &Path) -> Result<Vec<KernelShape>, Failure> {
    let published = model.to_str().and_then(|name| published_config(&name.to_lowercase()));
    let config = match published.filter(|_| !model.exists()) {
        Some(config) => config,
        None if !model.exists() && model.components().count() == 1 => {
            let (shown, names) = (model.display(), PUBLISHED.join(", "));
            let message =
                format!("there is no folder `{shown}`, and no published shape of that name; there are {names}");
            return Err(Failure::new(Exit::MissingInput, message));
        }
        None => read_config(&model_folder(model)?)?,
    };
    let outline = Outline::of(&config).map_err(|problems| Failure::new(Exit::Unusable, problems.join("; ")))?;
    let mut distinct: BTreeMap<(usize, usize), (usize, String)> = BTreeMap::new();
    for (name, shape) in &outline.linears {
        let &[outputs, inputs] = shape.as_slice() else { continue };
        distinct.entry((outputs, inputs)).or_insert_with(|| (0, name.trim_end_matches(".weight").to_owned())).0 += 1;
    }
    let mut shapes: Vec<KernelShape> = distinct
        .into_iter()
        .map(|((outputs, inputs), (layers, example))| KernelShape { outputs, inputs, layers, example })
        .collect();
    shapes.sort_by_key(|shape| std::cmp::Reverse(shape.outputs * shape.inputs * shape.layers));
    Ok(shapes)
}

fn print(found: &Value) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let pattern = found["pattern"].as_f64().map_or_else(|| text(&found["pattern"]), |share| format!("{share} zeros"));
    say(format_args!("{}, {}, {pattern}", text(&found["device"]), text(&found["dtype"])));
    if !found["cuda"].as_bool().unwrap_or_default() {
        say(
            "no CUDA device: libtorch's 2:4 kernels need one of compute capability 8.0; measured here: compressed rows (CSR)",
        );
    }
    let mut rows =
        vec![["shape", "layers", "kernel", "batch", "dense", "sparse", "speed-up"].map(str::to_owned).to_vec()];
    let (mut wins, mut unusable) = (Vec::new(), BTreeMap::new());
    for entry in found["shapes"].as_array().into_iter().flatten() {
        let shape = &entry["shape"];
        let named = format!("{} x {}", shape["outputs"], shape["inputs"]);
        for kernel in entry["kernels"].as_array().into_iter().flatten() {
            let name = text(&kernel["kernel"]);
            if let Some(reason) = kernel["unusable"].as_str() {
                unusable.entry((name, reason.to_owned())).or_insert_with(Vec::new).push(named.clone());
                continue;
            }
            for row in kernel["rows"].as_array().into_iter().flatten() {
                if let Some(reason) = row["unusable"].as_str() {
                    let at = format!("{named} at batch {}", row["batch"]);
                    unusable.entry((name.clone(), reason.to_owned())).or_insert_with(Vec::new).push(at);
                    continue;
                }
                let micro = |field: &str| format!("{:.1} us", row[field].as_f64().unwrap_or_default() * 1e6);
                rows.push(vec![
                    named.clone(),
                    shape["layers"].to_string(),
                    name.clone(),
                    row["batch"].to_string(),
                    micro("dense_seconds"),
                    micro("sparse_seconds"),
                    format!("{:.2}", row["speedup"].as_f64().unwrap_or_default()),
                ]);
            }
            if let Some(batch) = kernel["break_even"].as_u64() {
                wins.push(format!("{named} with {name} from batch {batch} on"));
            }
        }
    }
    if rows.len() > 1 {
        say(format_args!("\n{}", columns(&rows)));
    }
    for ((name, reason), shapes) in unusable {
        say(format_args!("{name} does not run ({}): {reason}", shapes.join(", ")));
    }
    if rows.len() > 1 && wins.is_empty() {
        say("no sparse product is faster than the dense one from any of these batches on");
    }
    wins.iter().for_each(|win| say(format_args!("faster: {win}")));
}
