//! `ressa sweep --force`: stages that are made again although they are in the store.
//!
//! Nothing is deleted, and at no time does the store hold a stage together with one that was made of another form of it: the forced stages and
//! all that was made of them go to the trash first. What was made of them comes back as soon as its inputs turn out to have the bytes that they
//! had; the rest is made again. `--dependents` makes all of it again.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    path::Path,
};

use ressa_experiment::{Filter, Stage, StageKey};
use ressa_store::{Manifest, Store};
use ressa_sweep::{
    CoordinatorLock, Garbage, Graph, Inventory, Options, Recruiter, Stop, Summary, dependents, describe, execute,
    move_to_trash, restore_stage,
};
use serde::Serialize;

use crate::{
    arguments::SweepOptions,
    exit::{Exit, Failure},
    progress::Display,
    study::Study,
    text::count,
    workspace::Workspace,
};

/// What is made again.
#[derive(Debug)]
pub struct Forced {
    /// Stages of the writable root that were named.
    targets: Vec<usize>,
    /// Stages of the writable root that were made of them, in the order of the graph.
    dependents: Vec<usize>,
    /// All of these and what is made of them and not in the store.
    reached: HashSet<usize>,
    /// Stages of the writable root that were made of them and are outside the selection (other experiments', or parts that a filter leaves out), each behind its inputs,
    /// with these.
    outside: Vec<(StageKey, Vec<StageKey>)>,
    /// Whether those are made again in any case.
    all: bool,
    /// Named stages that are shipped, which cannot be made again here.
    shipped: usize,
}

/// What became of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Outcome {
    /// Stages that were named and in the store.
    pub forced: usize,
    /// Those of them that came out with the bytes that they had.
    pub same: usize,
    /// Stages made of them that stay, as nothing that they read has changed.
    pub kept: usize,
    /// Stages made of them that are made again.
    pub remade: usize,
    /// Stages outside the selection made of them that are in the trash, as what they were made of has changed: their own sweeps make them again.
    pub away: usize,
    /// Named stages, and stages made of them, that the sweep did not make: they failed or were interrupted, and what they were is in the trash.
    #[serde(skip_serializing_if = "is_zero")]
    pub open: usize,
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}

impl Forced {
    /// The stages that `--force` names, and those that were made elsewhere. They, and what was made of them, count as absent from now on.
    pub fn of(
        options: &SweepOptions,
        elsewhere: &[usize],
        study: &Study,
        graph: &Graph,
        inventory: &mut Inventory,
        store: &Store,
    ) -> Result<Option<Self>, Failure> {
        if options.force.is_empty() && elsewhere.is_empty() {
            return Ok(None);
        }
        let mut named: BTreeSet<usize> = elsewhere.iter().copied().collect();
        for word in &options.force {
            named.extend(find(word, study, graph)?);
        }
        let own = |stage: usize| store.folder(&graph.stages[stage].node.key.hex()).is_dir();
        let is_shipped = |stage: &&usize| !own(**stage) && store.contains(&graph.stages[**stage].node.key.hex());
        let shipped = named.iter().filter(is_shipped).count();
        if shipped == named.len() {
            let message = format!(
                "{} shipped with the repository, which no sweep makes again; `ressa pretrain` trains the dense models",
                if shipped == 1 { "this stage is" } else { "these stages are" }
            );
            return Err(Failure::new(Exit::NothingSelected, message));
        }
        let targets: Vec<usize> = named.iter().copied().filter(|&stage| own(stage)).collect();
        let below = graph.with_dependents(targets.iter().copied());
        let reached = below.iter().copied().collect();
        let keys = targets.iter().map(|&stage| graph.stages[stage].node.key).collect();
        let mut outside = dependents(store, &keys)?;
        outside.retain(|(key, _)| graph.position(key).is_none());
        let dependents = below.into_iter().filter(|&stage| !named.contains(&stage) && own(stage)).collect();
        let forced = Self { targets, dependents, reached, outside, all: options.dependents, shipped };
        for &stage in forced.targets.iter().chain(&forced.dependents) {
            inventory.present[stage] = false;
        }
        Ok(Some(forced))
    }

    /// What is said before it begins.
    pub fn notice(&self) -> String {
        let shipped = match self.shipped {
            0 => String::new(),
            some => format!(", {} shipped with the repository left as they are", count(some, "stage")),
        };
        let rest = if self.all { "made again too" } else { "made again where the outputs change" };
        let (targets, dependents) = (count(self.targets.len(), "stage"), count(self.dependents.len(), "stage"));
        let others = match self.outside.len() {
            0 => String::new(),
            some => format!(
                "; {} outside this selection: left in the trash where what they were made of changes",
                count(some, "stage")
            ),
        };
        format!("{targets} made again{shipped}; of {dependents} made of them: {rest}{others}")
    }

    /// What became of it once the sweep behind has ended: what that did not make is not counted as made.
    pub fn settled(&self, outcome: Outcome, graph: &Graph, store: &Store) -> Outcome {
        let absent = |stages: &[usize]| stages.iter().filter(|&&stage| is_absent(stage, graph, store)).count();
        let (targets, dependents) = (absent(&self.targets), absent(&self.dependents));
        Outcome {
            forced: outcome.forced - targets,
            remade: outcome.remade.saturating_sub(dependents),
            open: targets + dependents,
            ..outcome
        }
    }

    /// What is said of them where the sweep ends before it made anything; nothing where all of them are in the store.
    pub fn lost(&self, graph: &Graph, store: &Store) -> Option<String> {
        let all = self.targets.iter().chain(&self.dependents);
        let open = all.filter(|&&stage| is_absent(stage, graph, store)).count();
        (open > 0).then(|| format!("forced: {}", not_made(open)))
    }

    /// Moves them to the trash and, unless all that was made of them is to be made again, makes them and brings back what need not be. What is
    /// left is for the sweep that follows.
    pub fn remake(&self, sweep: &mut Remake<'_>) -> Result<Outcome, Failure> {
        let graph = sweep.graph;
        let mut all: Vec<usize> = self.targets.iter().chain(&self.dependents).copied().collect();
        all.sort_unstable();
        let key = |stage: usize| graph.stages[stage].node.key;
        let mut before: HashMap<usize, Manifest> = HashMap::new();
        let mut garbage = Vec::new();
        for &stage in &all {
            let (name, folder) = (key(stage).to_string(), sweep.store.folder(&key(stage).hex()));
            // One whose manifest cannot be read is made again like any damaged one.
            if let Ok(Some(entry)) = sweep.store.entry(&name) {
                before.insert(stage, entry.manifest);
            }
            let what = describe(&graph.stages[stage].node.stage);
            garbage.push(Garbage { name, what, made_by: None, bytes: 0, folder });
        }
        for (key, _) in &self.outside {
            let (name, folder) = (key.to_string(), sweep.store.folder(&key.hex()));
            garbage.push(Garbage { name, what: "outside the selection".to_owned(), made_by: None, bytes: 0, folder });
        }
        // What was made last goes first: whoever is killed in between leaves nothing that was made of what is missing.
        garbage.reverse();
        let trash = {
            let _lock = CoordinatorLock::acquire(&sweep.workspace.results, sweep.limits.lease)?;
            move_to_trash(sweep.store, &garbage)?
        };
        let mut outcome = Outcome { forced: self.targets.len(), ..Outcome::default() };
        let mut pending: Vec<usize> = self.dependents.clone();
        let mut to_make = self.targets.clone();
        let mut same: HashSet<usize> = HashSet::new();
        while !self.all && !to_make.is_empty() && sweep.makes(&to_make)? {
            // In the order of the graph: what a stage reads is judged before it.
            to_make.sort_unstable();
            for &stage in &to_make {
                let now = sweep.store.entry(&key(stage).hex())?.map(|entry| entry.manifest);
                let is_same = now.zip(before.get(&stage)).is_some_and(|(now, before)| now.is_same_output(before));
                // A merge and masks say what steps made of the weights only together with what they were made from: the same bytes behind other
                // bytes are other weights.
                let changed = |input: &&usize| {
                    graph.stages[**input].node.stage.changes_weights()
                        && self.reached.contains(input)
                        && !same.contains(input)
                };
                if is_same && !graph.stages[stage].inputs.iter().any(|input| changed(&input)) {
                    same.insert(stage);
                }
            }
            let _lock = CoordinatorLock::acquire(&sweep.workspace.results, sweep.limits.lease)?;
            let mut left = Vec::new();
            for stage in pending {
                let unchanged = |input: &usize| !self.reached.contains(input) || same.contains(input);
                if graph.stages[stage].inputs.iter().all(unchanged) && !sweep.store.contains(&key(stage).hex()) {
                    restore_stage(sweep.store, &trash, &key(stage))?;
                    same.insert(stage);
                    outcome.kept += 1;
                } else {
                    left.push(stage);
                }
            }
            let waits = |stage: &usize| graph.stages[*stage].inputs.iter().any(|input| left.contains(input));
            (pending, to_make) = left.iter().copied().partition(waits);
        }
        outcome.away = self.outside.len() - self.bring_back(sweep, &trash, &same)?;
        outcome.same = self.targets.iter().filter(|stage| same.contains(stage)).count();
        outcome.remade = self.dependents.len() - outcome.kept;
        Ok(outcome)
    }
}

impl Forced {
    /// Brings back what is outside the selection and made of stages that are as they were. Says how many that are.
    fn bring_back(&self, sweep: &Remake<'_>, trash: &Path, same: &HashSet<usize>) -> Result<usize, Failure> {
        let key = |stage: &usize| sweep.graph.stages[*stage].node.key;
        let mut moved: HashSet<StageKey> = self.reached.iter().map(key).collect();
        moved.extend(self.outside.iter().map(|(key, _)| *key));
        let mut same: HashSet<StageKey> = same.iter().map(key).collect();
        let _lock = CoordinatorLock::acquire(&sweep.workspace.results, sweep.limits.lease)?;
        let mut back = 0;
        for (key, inputs) in &self.outside {
            if inputs.iter().all(|input| !moved.contains(input) || same.contains(input)) {
                restore_stage(sweep.store, trash, key)?;
                same.insert(*key);
                back += 1;
            }
        }
        Ok(back)
    }
}

impl Outcome {
    /// The outcome in words.
    pub fn text(&self) -> String {
        let Outcome { forced, same, kept, remade, away, open } = self;
        let others = match away {
            0 => String::new(),
            some => format!("; {} outside this selection in the trash", count(*some, "stage")),
        };
        let lost = if *open > 0 { format!("; {}", not_made(*open)) } else { String::new() };
        format!(
            "forced: {} made again, {same} with the same bytes; of what was made of them {kept} kept, {remade} made again{others}{lost}",
            count(*forced, "stage")
        )
    }
}

fn is_absent(stage: usize, graph: &Graph, store: &Store) -> bool {
    !store.contains(&graph.stages[stage].node.key.hex())
}

fn not_made(open: usize) -> String {
    let what = count(open, "stage");
    format!("{what} not made, their earlier outputs are in the trash; `ressa gc --restore` brings them back")
}

/// What making stages needs.
pub struct Remake<'a> {
    /// Where things are.
    pub workspace: &'a Workspace,
    /// The experiments.
    pub study: &'a Study,
    /// Their stages.
    pub graph: &'a Graph,
    /// The store.
    pub store: &'a Store,
    /// Machine settings.
    pub limits: &'a Options,
    /// Who has workers started on a cluster; they stay for the sweep that follows.
    pub recruiter: Option<&'a mut dyn Recruiter>,
    /// Who may interrupt it.
    pub stop: &'a Stop,
    /// Where it is shown.
    pub display: &'a mut Display,
    /// Whether dense models are checked.
    pub gated: bool,
}

impl Remake<'_> {
    /// Makes some stages with what they need. Whether all of that is there now.
    fn makes(&mut self, stages: &[usize]) -> Result<bool, Failure> {
        let keys: HashSet<StageKey> = stages.iter().map(|&stage| self.graph.stages[stage].node.key).collect();
        let part = self.study.graph_of(&keys, self.gated);
        let display = &mut *self.display;
        let limits = Options { is_followed: true, ..self.limits.clone() };
        // Lent to each sweep anew, for as long as that lasts.
        let recruiter = self.recruiter.as_mut().map(|recruiter| &mut **recruiter as &mut dyn Recruiter);
        let Summary { failed, gate_failed, storage, interrupted, .. } =
            execute(&part, self.store, &limits, self.stop, recruiter, &mut |event| display.show(&event))?;
        Ok(failed.is_empty() && !gate_failed && storage.is_none() && interrupted.is_none())
    }
}

/// The stages that a word of `--force` names.
fn find(word: &str, study: &Study, graph: &Graph) -> Result<Vec<usize>, Failure> {
    let positions = |test: &dyn Fn(usize) -> bool| (0..graph.stages.len()).filter(|&stage| test(stage)).collect();
    let kinds = Stage::VERSIONS.map(|(kind, _)| kind);
    let is_key = word.len() >= 4 && word.bytes().all(|b| b.is_ascii_hexdigit());
    let found: Vec<usize> = if kinds.contains(&word) {
        positions(&|stage| graph.stages[stage].node.stage.kind() == word)
    } else if is_key {
        positions(&|stage| graph.stages[stage].node.key.hex().starts_with(word))
    } else if word.contains(['=', '~', '<', '>', '(']) {
        let filter = Filter::parse(&[word.to_owned()])?;
        let selected = filter.map(|filter| study.stages_of(&filter)).transpose()?.unwrap_or_default();
        positions(&|stage| selected.contains(&graph.stages[stage].node.key))
    } else {
        let kinds = kinds.join(", ");
        let message = format!(
            "`{word}` is neither the beginning of a stage's key nor a kind of stage ({kinds}) nor an expression such as `task = gqa`"
        );
        return Err(Failure::new(Exit::Usage, message));
    };
    if found.is_empty() {
        let message =
            format!("--force `{word}` is no stage of these experiments; `ressa explain RUN` lists those of a run");
        return Err(Failure::new(Exit::NothingSelected, message));
    }
    Ok(found)
}
