//! `ressa pretrain`: train the shipped dense models again.
//!
//! They are made in a store of their own, so that what is already published does not count, checked against their gates, and then copied
//! to `experiments/store`, where every store finds them. An interrupted training goes on when the command is repeated.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use ressa_experiment::{Experiment, Stage, model::Preset};
use ressa_store::Store;
use ressa_sweep::{Graph, execute};
use serde_json::json;

use crate::{
    arguments::{Global, PresetName, PretrainOptions},
    commands::sweep,
    exit::{Exit, Failure, Outcome},
    progress::Display,
    signals,
    text::{say, say_json},
    workspace::Workspace,
};

/// For each preset, an experiment that starts from it; its dense stage is the one that is shipped.
const SOURCES: [(Preset, &str); 2] =
    [(Preset::ShapesFlanT5, "allocation"), (Preset::ShapesVicuna, "allocation-vicuna")];

/// Trains and ships.
pub fn run(global: &Global, options: &PretrainOptions) -> Outcome {
    let workspace = Workspace::find(global)?;
    let (mut cells, mut gates) = (Vec::new(), Vec::new());
    for (preset, name) in SOURCES {
        let wanted = match options.preset {
            None => true,
            Some(PresetName::ShapesFlanT5) => preset == Preset::ShapesFlanT5,
            Some(PresetName::ShapesVicuna) => preset == Preset::ShapesVicuna,
        };
        if wanted {
            let file = workspace.experiments.join("shapes").join(format!("{name}.yaml"));
            let mut experiment = Experiment::load(&file, &workspace.experiments, &[])?;
            // One run, reduced to its dense stage.
            experiment.cells.truncate(1);
            for cell in &mut experiment.cells {
                cell.stages.retain(|node| matches!(*node.stage, Stage::Dense { .. }));
            }
            cells.append(&mut experiment.cells);
            gates.append(&mut experiment.gates);
        }
    }
    if options.no_gate {
        gates.clear();
    }
    let graph = Graph::new("pretrain", &cells, &gates);
    let folder = workspace.results.join("pretrain");
    let store = Store::open(folder.join("store"), Vec::new())?;
    let mut limits = workspace.sweep_options(&options.machine);
    limits.results = folder.clone();

    let stop = signals::stop();
    let mut display = Display::new(global);
    let summary = execute(&graph, &store, &limits, &stop, None, &mut |event| display.show(&event))?;
    display.finish();
    let exit = Exit::of(&summary);
    if !global.json {
        sweep::print(&summary, &graph, global.quiet);
    }
    let answer = |shipped: &[PathBuf]| {
        if global.json {
            say_json(&json!({ "exit": exit as u8, "summary": summary, "shipped": shipped }));
        }
    };
    if exit != Exit::Done {
        answer(&[]);
        return Ok(exit);
    }
    let mut shipped = Vec::new();
    for stage in graph.stages.iter().filter(|stage| matches!(*stage.node.stage, Stage::Dense { .. })) {
        let key = stage.node.key.hex();
        let target = workspace.shipped().join(&key[..2]).join(&*key);
        ship(&store.folder(&key), &target)
            .map_err(|e| Failure::new(Exit::CannotWrite, format!("cannot write `{}`: {e}", target.display())))?;
        if !global.json {
            say(format_args!("shipped: {}", workspace.show(&target)));
        }
        shipped.push(target);
    }
    // The next call trains from scratch.
    fs::remove_dir_all(&folder)
        .map_err(|e| Failure::new(Exit::CannotWrite, format!("cannot remove `{}`: {e}", folder.display())))?;
    answer(&shipped);
    Ok(Exit::Done)
}

/// Copies an entry beside its place and then moves it there; an older one makes room last.
fn ship(from: &Path, target: &Path) -> io::Result<()> {
    let draft = target.with_extension("draft");
    if draft.exists() {
        fs::remove_dir_all(&draft)?;
    }
    copy(from, &draft)?;
    if target.exists() {
        fs::remove_dir_all(target)?;
    }
    fs::rename(draft, target)
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    let mut items: Vec<PathBuf> =
        fs::read_dir(from)?.map(|item| item.map(|item| item.path())).collect::<Result<_, _>>()?;
    items.sort();
    for item in items {
        let target = to.join(item.file_name().unwrap_or_default());
        if item.is_dir() {
            copy(&item, &target)?;
        } else {
            fs::copy(&item, &target)?;
        }
    }
    Ok(())
}
