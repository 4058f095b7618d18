//! `ressa explain`: why a stage is cached, or which published stage comes closest and where it differs.

use ressa_runlog::Index;
use ressa_store::Store;
use ressa_sweep::{Graph, describe, nearest};
use serde_json::{Value, json};

use crate::{
    arguments::{ExplainOptions, Global},
    exit::{Exit, Outcome},
    study::{Match, Study, find, short},
    text::{duration, say, say_json},
    workspace::Workspace,
};

/// Differing fields shown per stage.
const SHOWN: usize = 4;

/// Explains a run or a stage.
pub fn run(global: &Global, options: &ExplainOptions) -> Outcome {
    let workspace = Workspace::find(global)?;
    let store = workspace.reading();
    let index = ressa_runlog::read(&store)?.index;
    let mut selection = options.selection.clone();
    let mut which = options.which.clone();
    if !selection.filters.filter.is_empty() {
        // The filter says which, so the first word is a file too.
        selection.what.splice(0..0, which.take());
    }
    let study = Study::load(&workspace, &selection)?;
    let graph = study.graph(which.is_some());
    let (title, stages) = match which.map(|word| find(&graph, &word)).transpose()? {
        None => (study.selection.join(" "), study.selected(&graph)),
        Some(Match::Run(run)) => {
            (format!("{}  {}", short(&graph.runs[run].id), graph.runs[run].label), graph.runs[run].stages.clone())
        }
        Some(Match::Stage(stage)) => (graph.label(stage).to_owned(), vec![stage]),
    };
    let explained: Vec<Value> = stages.iter().map(|&stage| explain(&graph, stage, (&store, &index))).collect();
    if global.json {
        say_json(&json!({ "about": title, "stages": explained }));
        return Ok(Exit::Done);
    }
    say(title);
    for stage in &explained {
        let text = |field: &str| stage[field].as_str().unwrap_or_default().to_owned();
        say(format_args!("  {}  {:<32} {}", &text("key")[..12], text("stage"), text("state")));
        if let Some(differences) = stage["differences"].as_array() {
            for difference in differences.iter().take(SHOWN) {
                let part = |field: &str| difference[field].as_str().unwrap_or_default();
                say(format_args!("      {}: {} -> {}", part("field"), part("stored"), part("wanted")));
            }
            if differences.len() > SHOWN {
                say(format_args!("      and {} more", differences.len() - SHOWN));
            }
        }
    }
    Ok(Exit::Done)
}

fn explain(graph: &Graph, position: usize, (store, index): (&Store, &Index)) -> Value {
    let stage = &graph.stages[position];
    let node = &stage.node;
    let (mut state, mut differences) = (String::new(), None);
    match store.entry(&node.key.hex()) {
        Ok(Some(entry)) => {
            let place = if entry.is_writable() { "cached" } else { "cached (shipped)" };
            state = format!("{place}, took {}", duration(entry.manifest.seconds));
        }
        Err(error) => state = format!("will be made again: {error}"),
        Ok(None) => {
            if let Some(record) = index.failure(&node.key) {
                state = format!("failed: {}", record.failure.message);
            }
            match nearest(store, node) {
                Some(nearest) => {
                    if state.is_empty() {
                        state = format!("not cached; nearest is {}, which differs in", nearest.key.short());
                    }
                    differences = Some(nearest.differences);
                }
                None if state.is_empty() => {
                    state = format!("not cached; the store has no `{}` stage yet", node.stage.kind());
                }
                None => {}
            }
        }
    }
    json!({
        "key": node.key, "stage": describe(&node.stage), "state": state, "runs": stage.runs, "differences": differences,
    })
}
