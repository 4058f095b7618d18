//! `ressa data`: a contact sheet of the embedded world.

use ressa_experiment::config::{DataConfig, DataSource};
use serde_json::json;

use crate::{
    arguments::{DataOptions, Global},
    exit::{Exit, Failure, Outcome},
    text::{say, say_json},
    workspace::Workspace,
};

/// Draws the sheet and says where it is.
pub fn run(global: &Global, options: &DataOptions) -> Outcome {
    let workspace = Workspace::find(global)?;
    let output = options.output.clone().unwrap_or_else(|| workspace.results.join("contact-sheet.png"));
    let cannot =
        |e: std::io::Error| Failure::new(Exit::CannotWrite, format!("cannot write `{}`: {e}", output.display()));
    if let Some(folder) = output.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(cannot)?;
    }
    let config = DataConfig { source: DataSource::Shapes, seed: options.seed, ..DataConfig::default() };
    let png = ressa_data::contact_sheet(&config, options.images as usize)
        .map_err(|e| Failure::new(Exit::Other, e.to_string()))?;
    std::fs::write(&output, png).map_err(cannot)?;
    if global.json {
        say_json(&json!({ "output": output }));
    } else {
        say(workspace.show(&output));
    }
    Ok(Exit::Done)
}
