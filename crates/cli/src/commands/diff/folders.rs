//! Two results folders: runs that only one has, results that differ, verdicts that changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use ressa_experiment::{Stage, record::TaskScore};
use ressa_report::{Verdicts, verdicts::Changed};
use ressa_store::{Entry, Store, named};
use ressa_sweep::{Graph, GraphStage, describe, glance};
use serde::Serialize;

use super::{list, reports};
use crate::{
    exit::Failure,
    study::{Study, short},
    text::{apart, count, say},
    workspace::Workspace,
};

/// What differs.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Difference {
    pub differs: bool,
    a: String,
    b: String,
    /// Runs whose every stage is in both.
    runs_in_both: usize,
    /// Runs that are complete in one alone.
    only_a: Vec<Run>,
    only_b: Vec<Run>,
    /// Evaluations of both whose scores differ.
    scores: Vec<Scores>,
    /// Stages of both whose outputs differ, by kind.
    outputs: BTreeMap<String, usize>,
    /// Stored stages of both that these experiments do not ask for: their outputs are compared, too.
    others_in_both: usize,
    /// Stored stages that these experiments do not ask for and only one has.
    others_only_a: usize,
    others_only_b: usize,
    /// Verdicts that changed, by report.
    verdicts: BTreeMap<String, Vec<Changed>>,
    /// Reports that one alone has.
    reports_only_a: Vec<String>,
    reports_only_b: Vec<String>,
}

#[derive(Serialize)]
struct Run {
    run: String,
    label: String,
}

/// Scores of one evaluation.
#[derive(Serialize)]
struct Scores {
    key: String,
    what: String,
    label: String,
    a: Option<f64>,
    b: Option<f64>,
}

impl Difference {
    /// Compares two folders, as far as experiments ask for what is in them.
    pub fn of(workspace: &Workspace, study: &Study, a: &Path, b: &Path) -> Result<Self, Failure> {
        let graph = study.graph(true);
        let open = |folder: &Path| Store::reading(folder.join("store"), vec![workspace.shipped()]);
        let stores = [open(a), open(b)];
        let present = [0, 1].map(|side: usize| glance(&graph, &stores[side]).present);
        let complete = |side: usize, run: usize| graph.runs[run].stages.iter().all(|&stage| present[side][stage]);
        let runs = |test: &dyn Fn(usize) -> bool| -> Vec<Run> {
            let found = (0..graph.runs.len()).filter(|&run| test(run)).map(|run| &graph.runs[run]);
            found.map(|run| Run { run: run.id.to_string(), label: run.label.clone() }).collect()
        };
        let only_a = runs(&|run| complete(0, run) && !complete(1, run));
        let only_b = runs(&|run| complete(1, run) && !complete(0, run));
        let runs_in_both = (0..graph.runs.len()).filter(|&run| complete(0, run) && complete(1, run)).count();
        let (mut scores, mut outputs) = (Vec::new(), BTreeMap::new());
        for (position, stage) in graph.stages.iter().enumerate() {
            if present[0][position] && present[1][position] {
                let different = compare(&graph, position, stage, &stores)?;
                scores.extend(different.scores);
                *outputs.entry(stage.node.stage.kind().to_owned()).or_insert(0) += usize::from(different.output);
            }
        }
        let others = |store: &Store| -> Result<BTreeSet<String>, Failure> {
            let stored = store.own_entries()?.into_iter().map(|(key, _)| key);
            let is_asked = |key: &String| key.parse().is_ok_and(|key| graph.position(&key).is_some());
            Ok(stored.filter(|key| !is_asked(key)).collect())
        };
        let (left, right) = (others(&stores[0])?, others(&stores[1])?);
        for key in left.intersection(&right) {
            if let (Some(a), Some(b)) = (stores[0].entry(key)?, stores[1].entry(key)?) {
                let kind = a.manifest.kind.to_string();
                *outputs.entry(kind).or_insert(0) += usize::from(!a.manifest.is_same_output(&b.manifest));
            }
        }
        outputs.retain(|_, count| *count > 0);
        let (reports_a, reports_b) = (verdicts(a)?, verdicts(b)?);
        let mut changed = BTreeMap::new();
        for (name, left) in &reports_a {
            let changes = reports_b.get(name).map(|right| left.changes(right)).unwrap_or_default();
            if !changes.is_empty() {
                changed.insert(name.clone(), changes);
            }
        }
        let only = |these: &BTreeMap<String, Verdicts>, those: &BTreeMap<String, Verdicts>| {
            these.keys().filter(|name| !those.contains_key(*name)).cloned().collect::<Vec<_>>()
        };
        let mut found = Self {
            differs: false,
            a: a.display().to_string(),
            b: b.display().to_string(),
            runs_in_both,
            only_a,
            only_b,
            scores,
            outputs,
            others_in_both: left.intersection(&right).count(),
            others_only_a: left.difference(&right).count(),
            others_only_b: right.difference(&left).count(),
            verdicts: changed,
            reports_only_a: only(&reports_a, &reports_b),
            reports_only_b: only(&reports_b, &reports_a),
        };
        let lists =
            [found.only_a.len(), found.only_b.len(), found.scores.len(), found.outputs.len(), found.verdicts.len()];
        let others = [found.others_only_a, found.others_only_b, found.reports_only_a.len(), found.reports_only_b.len()];
        found.differs = lists.iter().chain(&others).any(|&count| count > 0);
        Ok(found)
    }

    /// Prints it.
    pub fn print(&self) {
        say(format_args!("a  {}\nb  {}", self.a, self.b));
        let run = |run: &Run| format!("{}  {}", short(&run.run), run.label);
        list("runs only in a", &self.only_a.iter().map(run).collect::<Vec<_>>());
        list("runs only in b", &self.only_b.iter().map(run).collect::<Vec<_>>());
        let scores = self.scores.iter().map(|one| {
            let (a, b) = match (one.a, one.b) {
                (Some(a), Some(b)) => apart(a, b),
                (a, b) => {
                    let text = |value: Option<f64>| value.map_or("undefined".to_owned(), |value| format!("{value:.1}"));
                    (text(a), text(b))
                }
            };
            format!("{}  {}: {a} -> {b}  ({})", &one.key[..12], one.what, one.label)
        });
        list("scores that differ", &scores.collect::<Vec<_>>());
        let outputs = self.outputs.iter().map(|(kind, stages)| format!("{kind}: {}", count(*stages, "stage")));
        list("stages of both with other bytes", &outputs.collect::<Vec<_>>());
        let verdicts = self.verdicts.iter().flat_map(|(name, changed)| {
            changed.iter().flat_map(reports::lines).map(move |line| format!("{name}  {line}"))
        });
        list("verdicts that changed", &verdicts.collect::<Vec<_>>());
        list("reports only in a", &self.reports_only_a);
        list("reports only in b", &self.reports_only_b);
        for (name, stages) in [("a", self.others_only_a), ("b", self.others_only_b)] {
            if stages > 0 {
                let stages = count(stages, "stage");
                say(format_args!(
                    "\nonly in {name}: {stages} that these experiments do not ask for (name others to compare them)"
                ));
            }
        }
        let others = match self.others_in_both {
            0 => String::new(),
            others => format!(", and {} of other experiments", count(others, "stage")),
        };
        let end = if self.differs { "" } else { ": nothing differs" };
        say(format_args!("\n{} complete in both{others}{end}", count(self.runs_in_both, "run")));
    }
}

/// What differs about a stage that both have.
struct Different {
    output: bool,
    scores: Option<Scores>,
}

fn compare(graph: &Graph, position: usize, stage: &GraphStage, [a, b]: &[Store; 2]) -> Result<Different, Failure> {
    let key = stage.node.key;
    let same = Different { output: false, scores: None };
    let (Some(left), Some(right)) = (a.entry(&key.hex())?, b.entry(&key.hex())?) else { return Ok(same) };
    if left.manifest.is_same_output(&right.manifest) {
        return Ok(same);
    }
    let mut scores = None;
    if matches!(*stage.node.stage, Stage::Evaluate { .. }) {
        let value = |entry: &Entry| Ok::<_, Failure>(entry.result::<TaskScore>()?.score.map(|score| score.value));
        let (a, b) = (value(&left)?, value(&right)?);
        let (key, what, label) = (key.to_string(), describe(&stage.node.stage), graph.label(position).to_owned());
        scores = (a != b).then_some(Scores { key, what, label, a, b });
    }
    Ok(Different { output: true, scores })
}

/// The verdicts of every report of a results folder, by its name.
fn verdicts(results: &Path) -> Result<BTreeMap<String, Verdicts>, Failure> {
    let mut found = BTreeMap::new();
    for (name, folder) in named(results)? {
        if folder.is_dir() && Verdicts::are_at(&folder) {
            found.insert(name, Verdicts::read(&folder)?);
        }
    }
    Ok(found)
}
