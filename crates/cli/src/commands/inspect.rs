//! `ressa inspect`: what a model folder holds, without computing anything.

use std::{ffi::OsStr, path::Path};

use ressa_checkpoint::{
    Inspection, inspect,
    inspect::{Architecture, Sums},
};
use ressa_experiment::rounded_percent;
use serde_json::json;

use crate::{
    arguments::{Global, folder::InspectOptions},
    exit::{Exit, Failure, Outcome},
    text::{columns, count, say, say_json, size, thousands},
};

/// Leftovers that are named.
const SHOWN: usize = 6;

/// Prints what is in a folder or file.
pub fn run(global: &Global, options: &InspectOptions) -> Outcome {
    if !options.folder.exists() {
        let message = format!("there is no `{}`", options.folder.display());
        return Err(Failure::new(Exit::MissingInput, message));
    }
    if options.folder.is_dir() && !is_model(&options.folder) {
        let message = format!(
            "`{}` is not a model folder: it holds neither config.json nor safetensors files",
            options.folder.display()
        );
        return Err(Failure::new(Exit::Unusable, message));
    }
    let found = inspect(&options.folder, !options.headers)?;
    if global.json {
        let mut value = json!(found);
        for (part, sums) in value["parts"].as_array_mut().into_iter().flatten().zip(&found.parts) {
            part["sparsity"] = json!(sums.sums.sparsity());
            for (block, sums) in part["blocks"].as_array_mut().into_iter().flatten().zip(&sums.blocks) {
                block["sparsity"] = json!(sums.sums.sparsity());
            }
        }
        value["total"]["sparsity"] = json!(found.total.sparsity());
        say_json(&value);
    } else {
        print(&found, options.layers || global.verbose);
    }
    Ok(if found.problems.is_empty() { Exit::Done } else { Exit::Unusable })
}

/// Whether a folder has anything of a model, as far as file names say.
fn is_model(folder: &Path) -> bool {
    let is_weights = |name: &OsStr| name.to_string_lossy().contains(".safetensors");
    let mut items = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    folder.join("config.json").exists() || items.any(|item| is_weights(&item.file_name()))
}

fn print(found: &Inspection, layers: bool) {
    if let Some(architecture) = &found.architecture {
        say(describe(architecture));
        for (part, sizes) in &architecture.sizes {
            let sizes: Vec<String> = sizes.iter().map(|(name, value)| format!("{name} {value}")).collect();
            say(format_args!("  {part}: {}", sizes.join(", ")));
        }
    }
    if !found.parts.is_empty() {
        say(format_args!("\n{}", table(found, layers)));
        let files = count(found.weights.len(), "file");
        let packed =
            found.container.map(|(layout, many)| format!(" when all is dense; {many} linears packed ({layout})"));
        say(format_args!("{files} of weights, {}{}", size(found.total.bytes), packed.unwrap_or_default()));
    }
    if !found.leftovers.is_empty() {
        say("\nleftovers");
        for leftover in found.leftovers.iter().take(SHOWN) {
            say(format_args!("  {}  ({}, {})", leftover.name, size(leftover.bytes), leftover.reason));
        }
        if found.leftovers.len() > SHOWN {
            say(format_args!("  and {} more", found.leftovers.len() - SHOWN));
        }
    }
    let absent: Vec<_> = found.files.iter().filter(|file| !file.present).collect();
    if !absent.is_empty() {
        say("\nnot there");
        for file in absent {
            say(format_args!("  {}  ({})", file.name, file.holds));
        }
    }
    if !found.problems.is_empty() {
        say("\nproblems");
        for problem in &found.problems {
            say(format_args!("  {problem}"));
        }
    }
}

fn describe(architecture: &Architecture) -> String {
    let mut line = architecture.model_type.as_ref().map_or_else(|| "unnamed".to_owned(), |kind| format!("`{kind}`"));
    // Some configurations do not name their language model.
    if let Some(language) = &architecture.language {
        line += &format!(" with `{language}`");
    }
    if !architecture.classes.is_empty() {
        line += &format!(" ({})", architecture.classes.join(", "));
    }
    if let Some(dtype) = &architecture.dtype {
        line += &format!(", written as {dtype}");
    }
    line
}

fn table(found: &Inspection, layers: bool) -> String {
    let heads = ["part", "blocks", "tensors", "parameters", "prunable", "type", "size", "zeros", "pattern"];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    for part in &found.parts {
        let blocks = if part.blocks.is_empty() { String::new() } else { part.blocks.len().to_string() };
        rows.push(row(part.part.name().to_owned(), blocks, &part.sums));
        if layers {
            for block in &part.blocks {
                let name = block.stack.split_once('.').map_or(block.stack.as_str(), |(_, stack)| stack);
                rows.push(row(format!("  {name}.{}", block.index), String::new(), &block.sums));
            }
        }
    }
    let blocks: usize = found.parts.iter().map(|part| part.blocks.len()).sum();
    rows.push(row("total".to_owned(), blocks.to_string(), &found.total));
    if !found.counted {
        for row in &mut rows {
            row.truncate(heads.len() - 2);
        }
    }
    columns(&rows)
}

fn row(name: String, blocks: String, sums: &Sums) -> Vec<String> {
    let dtypes: Vec<&str> = sums.dtypes.keys().map(String::as_str).collect();
    vec![
        name,
        blocks,
        sums.tensors.to_string(),
        thousands(sums.parameters),
        if sums.prunable == 0 { String::new() } else { thousands(sums.prunable) },
        dtypes.join("+"),
        size(sums.bytes),
        sums.sparsity().map(rounded_percent).unwrap_or_default(),
        sums.pattern.map(|pattern| pattern.to_string()).unwrap_or_default(),
    ]
}
