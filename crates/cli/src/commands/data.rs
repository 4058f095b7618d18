//! `ressa data`: a contact sheet of the embedded world.

use std::path::Path;

use ressa_experiment::config::{DataConfig, DataSource};
use serde_json::json;

use crate::{
    arguments::{DataOptions, Global},
    exit::{Exit, Failure, Outcome},
    text::{say, say_json},
    workspace::Workspace,
};

/// Images of a corpus where nobody says how many.
const CORPUS: u32 = 6000;
/// Images of a sheet where nobody says how many.
const SHEET: u32 = 12;

/// Draws the sheet, or writes the corpus, and says where it is.
pub fn run(global: &Global, options: &DataOptions) -> Outcome {
    if let Some(folder) = &options.write {
        return write(global, options, folder);
    }
    let workspace = Workspace::find(global)?;
    let output = options.output.clone().unwrap_or_else(|| workspace.results.join("contact-sheet.png"));
    let cannot =
        |e: std::io::Error| Failure::new(Exit::CannotWrite, format!("cannot write `{}`: {e}", output.display()));
    if let Some(folder) = output.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(cannot)?;
    }
    let config = DataConfig { source: DataSource::Shapes, seed: options.seed, ..DataConfig::default() };
    let png = ressa_data::contact_sheet(&config, options.images.unwrap_or(SHEET) as usize)
        .map_err(|e| Failure::new(Exit::Other, e.to_string()))?;
    ressa_store::replace(&output, &png)?;
    if global.json {
        say_json(&json!({ "output": output }));
    } else {
        say(workspace.show(&output));
    }
    Ok(Exit::Done)
}

/// Writes the embedded world's training side as a corpus.
fn write(global: &Global, options: &DataOptions, folder: &Path) -> Outcome {
    let config = DataConfig { source: DataSource::Shapes, seed: options.seed, ..DataConfig::default() };
    let images = options.images.unwrap_or(CORPUS);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    ressa_data::write_corpus(&config, folder, images as usize, threads).map_err(|error| {
        let exit = if error.is_storage() { Exit::CannotWrite } else { Exit::Other };
        Failure::new(exit, error.to_string())
    })?;
    if global.json {
        say_json(&json!({ "output": folder, "images": images }));
    } else {
        say(folder.display().to_string());
    }
    Ok(Exit::Done)
}
