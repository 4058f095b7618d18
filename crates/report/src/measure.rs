//! From published stages to the values of a cell.
//!
//! A value remembers the keys of the stages it was computed from, whether or not they are published yet. Two cells whose value has the
//! same sources hold the same measurement, not two: a magnitude mask does not know the seed, and retrieval does not see language sparsity.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
};

use rayon::prelude::*;
use ressa_experiment::{
    Cell, KeyMap, Stage, StageKey, StageNode, Task, Tower,
    places::without_places,
    record::{Certificate, Score, Shortfall, TaskScore},
    value::Value,
};
use ressa_runlog::FailureRecord;
use ressa_store::{Environment, Store, StoreError};

use crate::results::{Found, Results, Scored, Spent};

/// A number with its standard error over test items (0 where it is counted, not estimated).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Number {
    /// The number; points for scores, fractions for sparsities, counts otherwise.
    pub value: f64,
    /// Standard error over the items of the test set.
    pub standard_error: f64,
    /// Items behind it, over all test sets.
    pub items: u64,
}

/// A value of one cell.
#[derive(Clone, Debug, PartialEq)]
pub struct Measurement {
    /// The number; `None` while a source is missing.
    pub number: Option<Number>,
    /// Short keys of the stages behind it, joined by `+`.
    pub source: Arc<str>,
}

/// What ran where; every set has one member when the whole experiment ran in one setting.
#[derive(Clone, Debug, Default)]
pub struct Provenance {
    /// Program version and source revision.
    pub programs: BTreeSet<String>,
    /// Versions of libtorch.
    pub libtorch: BTreeSet<String>,
    /// Devices, with threads.
    pub devices: BTreeSet<String>,
    /// Items behind the score of each task.
    pub items: BTreeMap<String, BTreeSet<u64>>,
    /// Metrics behind the score of each task, which say its unit.
    pub metrics: BTreeMap<Task, BTreeSet<String>>,
    /// Tasks whose metric is undefined on what was evaluated, with the reason.
    pub undefined: BTreeSet<(Task, &'static str)>,
    /// Tasks with fewer items than asked for: task, items, asked for.
    pub fewer: BTreeSet<(Task, u64, u64)>,
    /// Calibrations with fewer images than asked for.
    pub calibrations: BTreeSet<Shortfall>,
    /// Certificates read, and what those that do not hold say.
    pub certificates: usize,
    /// Violations, with the stage.
    pub violations: Vec<String>,
    /// Failed stages behind what is missing, with their reasons.
    pub failures: BTreeSet<String>,
}

/// What a certificate counts, by tower and, where it was asked for, zeros and weights by block.
#[derive(Clone, Debug, Default)]
struct Counts {
    towers: BTreeMap<Tower, TowerCounts>,
    blocks: BTreeMap<Block, (u64, u64)>,
}

/// What a certificate counts in one tower.
#[derive(Clone, Copy, Debug, Default)]
struct TowerCounts {
    zeros: u64,
    weights: u64,
    revived: u64,
    group_violations: u64,
}

/// What the certificates of a run say together, and what the run asks for: a configuration with steps is resolved once for all values.
#[derive(Clone, Debug)]
struct Certified {
    source: Arc<str>,
    /// Counts of each tower; none while a certificate is missing.
    sums: Option<BTreeMap<Tower, TowerCounts>>,
    asked: [Asked; Tower::ALL.len()],
}

impl Certified {
    /// A value that is certified.
    fn measure(&self, value: &Value) -> Measurement {
        let source = Arc::clone(&self.source);
        let Some(all) = &self.sums else { return Measurement { number: None, source } };
        let asked = &self.asked;
        let total = |tower: Tower| all.get(&tower).copied().unwrap_or_default();
        let share = |(zeros, total): (f64, f64)| if total > 0.0 { zeros / total } else { 0.0 };
        let sparsity = |tower: &Option<Tower>| match tower {
            Some(tower) => share((total(*tower).zeros as f64, total(*tower).weights as f64)),
            None => {
                let reduced = asked.iter().filter(|asked| asked.removes).map(|asked| total(asked.tower));
                share(reduced.fold((0.0, 0.0), |s, t| (s.0 + t.zeros as f64, s.1 + t.weights as f64)))
            }
        };
        let target = |tower: &Option<Tower>| match tower {
            Some(tower) => asked.iter().find(|asked| asked.tower == *tower).map_or(0.0, |asked| asked.sparsity),
            None => share(asked.iter().filter(|asked| asked.sparsity > 0.0).fold((0.0, 0.0), |s, asked| {
                let weights = total(asked.tower).weights as f64;
                (s.0 + asked.sparsity * weights, s.1 + weights)
            })),
        };
        let number = match value {
            Value::Sparsity(tower) => sparsity(tower),
            Value::Density(tower) => 1.0 - sparsity(tower),
            Value::TargetSparsity(tower) => target(tower),
            Value::Revived => all.values().map(|tower| tower.revived).sum::<u64>() as f64,
            Value::GroupViolations => all.values().map(|tower| tower.group_violations).sum::<u64>() as f64,
            Value::Average
            | Value::PaperAverage
            | Value::VqaMean
            | Value::Task(_)
            | Value::Part(..)
            | Value::Seconds
            | Value::Parameters => unreachable!("not certified"),
        };
        Measurement { number: Some(Number { value: number, standard_error: 0.0, items: 0 }), source }
    }
}

/// What a run asks for in a tower.
#[derive(Clone, Copy, Debug)]
struct Asked {
    tower: Tower,
    sparsity: f64,
    /// Whether a step removes something, weights or whole groups.
    removes: bool,
}

/// A column of the records: a value, and the scores that it is the mean of.
#[derive(Clone, Debug)]
pub(crate) struct Column {
    value: Value,
    /// Task, and part of its score. None for what is certified or counted.
    members: Vec<(Task, Option<String>)>,
}

impl Column {
    /// The column of a value.
    pub fn of(value: Value) -> Self {
        let member = |value: Value| match value {
            Value::Task(task) => Some((task, None)),
            Value::Part(task, part) => Some((task, Some(part))),
            _ => None,
        };
        Self { members: value.members().into_iter().filter_map(member).collect(), value }
    }

    /// Whether it comes from evaluations.
    fn is_scored(&self) -> bool {
        !self.members.is_empty()
    }
}

/// Module path of the projection beside a Q-Former.
pub(crate) const PROJECTION: &str = "language_projection";

/// A block of a tower, as its layers' module paths tell.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Block {
    /// The tower.
    pub tower: Tower,
    /// What the blocks are numbered in, such as `language_model.encoder.block`.
    pub stack: String,
    /// Number within the stack.
    pub number: u64,
}

impl Block {
    /// The block of a tensor: its path up to the first number; the projection beside the connector is a stack of its own.
    fn of(tower: Tower, name: &str) -> Self {
        let parts: Vec<&str> = name.split('.').collect();
        let number = parts.iter().enumerate().find_map(|(at, part)| Some((at, part.parse::<u64>().ok()?)));
        let projection = usize::from(parts == [PROJECTION]);
        let (at, number) = number.unwrap_or((projection, 0));
        Self { tower, stack: parts[..at].join("."), number }
    }
}

/// What a certificate says.
#[derive(Clone, Debug)]
struct Certifies {
    counts: Counts,
    violations: Vec<String>,
    calibration: Option<Shortfall>,
}

/// A result of a stage, and whether the provenance knows it.
struct Known<T> {
    found: Found<T>,
    noted: bool,
}

/// The sources of measurements that several stages are behind, each once: equal ones have one address.
#[derive(Default)]
struct Sources(HashSet<Arc<str>>);

impl Sources {
    /// The source that is made of some stages.
    fn of<'k>(&mut self, keys: impl Iterator<Item = &'k StageKey>) -> Arc<str> {
        let text = source_of(keys);
        if let Some(known) = self.0.get(text.as_str()) {
            return Arc::clone(known);
        }
        let source: Arc<str> = text.into();
        self.0.insert(Arc::clone(&source));
        source
    }
}

/// An evaluation of a cell.
struct Evaluated<'a> {
    task: Task,
    /// Items that it asks for.
    items: u32,
    key: &'a StageKey,
    /// Its scores, once they are there.
    found: Option<&'a Scored>,
}

/// The results of some cells, each stage's read once.
pub struct Reader {
    scores: KeyMap<Scored>,
    certificates: KeyMap<Known<Certifies>>,
    /// What stages took, where that is asked for.
    spent: KeyMap<Known<Spent>>,
    /// What the log says of failed stages.
    failures: KeyMap<FailureRecord>,
    /// What the certificates of the last run say together: its values are asked for one after the other.
    last: Option<(Arc<str>, Certified)>,
    sources: Sources,
    /// The environment that was noted last: most stages of a log share it.
    environment: Option<Arc<Environment>>,
    /// What was found on the way.
    pub provenance: Provenance,
}

impl Reader {
    /// Reads the results of cells from a store; with `by_block`, it knows what [`Reader::blocks`] says, which takes much more memory than the
    /// rest; with `costs`, what stages took.
    ///
    /// # Errors
    /// A store that cannot be read.
    pub fn new(store: &Store, cells: &[Cell], by_block: bool, costs: bool) -> Result<Self, StoreError> {
        // The log belongs to the sweep; one that cannot be read says nothing.
        let index = ressa_runlog::read(store).unwrap_or_default().index;
        let results = Results::new(store, &index);
        let (mut evaluations, mut certifying) = (Vec::new(), Vec::new());
        let mut seen = KeyMap::default();
        for node in cells.iter().flat_map(|cell| &cell.stages) {
            let keys = match *node.stage {
                Stage::Evaluate { .. } => &mut evaluations,
                Stage::Merge { .. }
                | Stage::Prune { .. }
                | Stage::Refine { .. }
                | Stage::Structure { .. }
                | Stage::Reconstruct { .. } => &mut certifying,
                Stage::Dense { .. }
                | Stage::Rescale { .. }
                | Stage::Sensitivity { .. }
                | Stage::Statistics { .. }
                | Stage::Adapt { .. } => continue,
            };
            if seen.insert(node.key, ()).is_none() {
                keys.push(node.key);
            }
        }
        drop(seen);
        let scores = known(evaluations, |key| results.score(key))?;
        let certificates = known(certifying, |key| {
            let certifies = |Found { result, environment }| Found { result: certifies(result, by_block), environment };
            Ok(results.certificate(key)?.map(certifies))
        })?;
        let mut making = Vec::new();
        let mut seen = KeyMap::default();
        for node in cells.iter().filter(|_| costs).flat_map(making_of) {
            if seen.insert(node.key, ()).is_none() {
                making.push(node.key);
            }
        }
        let spent = known(making, |key| results.spent(key))?;
        let failures = index.failures().into_iter().map(|record| (record.key, record.clone())).collect();
        let mut reader = Self {
            scores: KeyMap::with_capacity_and_hasher(scores.len(), Default::default()),
            certificates,
            spent,
            failures,
            last: None,
            sources: Sources::default(),
            environment: None,
            provenance: Provenance::default(),
        };
        for (key, Known { found, .. }) in scores {
            reader.note(&found.environment);
            reader.provenance.note_score(&found.result.score);
            reader.scores.insert(key, found.result);
        }
        Ok(reader)
    }

    /// Whether every result of a cell is there.
    pub fn is_complete(&mut self, cell: &Cell) -> bool {
        for node in &cell.stages {
            let there = match *node.stage {
                Stage::Evaluate { .. } => self.scores.contains_key(&node.key),
                Stage::Merge { .. }
                | Stage::Prune { .. }
                | Stage::Refine { .. }
                | Stage::Structure { .. }
                | Stage::Reconstruct { .. } => self.counts(&node.key).is_some(),
                Stage::Dense { .. }
                | Stage::Rescale { .. }
                | Stage::Sensitivity { .. }
                | Stage::Statistics { .. }
                | Stage::Adapt { .. } => true,
            };
            if !there {
                self.note_failures(cell);
                return false;
            }
        }
        true
    }

    /// The parts that tasks turned out to have.
    pub fn parts(&self) -> BTreeMap<Task, BTreeSet<String>> {
        let mut parts: BTreeMap<Task, BTreeSet<String>> = BTreeMap::new();
        for Scored { score, external, .. } in self.scores.values() {
            let known = parts.entry(score.task).or_default();
            for part in score.parts.keys().chain(external.keys()) {
                // Most evaluations have the parts of the first one.
                if !known.contains(part) {
                    known.insert(part.clone());
                }
            }
        }
        parts
    }

    /// Puts the values of a cell into `out`, with the positions of their columns. A column that the cell cannot have, as a task that is not
    /// evaluated, is left out.
    pub(crate) fn measure(&mut self, cell: &Cell, columns: &[Column], out: &mut Vec<(usize, Measurement)>) {
        out.clear();
        let evaluated: Vec<Evaluated<'_>> = evaluations(cell)
            .map(|(task, items, node)| Evaluated { task, items, key: &node.key, found: self.scores.get(&node.key) })
            .collect();
        for (position, Column { members, .. }) in columns.iter().enumerate().filter(|(_, column)| column.is_scored()) {
            let scored = scored(members, &evaluated, &mut self.sources, &mut self.provenance);
            out.extend(scored.map(|measurement| (position, measurement)));
        }
        for (position, Column { value, .. }) in columns.iter().enumerate().filter(|(_, column)| !column.is_scored()) {
            let measurement =
                if value.is_cost() { self.cost(cell, value) } else { self.certified(cell).measure(value) };
            out.push((position, measurement));
        }
    }

    /// The source of what the certificates of a cell say.
    pub(crate) fn certificate_source(&mut self, cell: &Cell) -> Arc<str> {
        Arc::clone(&self.certified(cell).source)
    }

    /// Certified sparsity of every pruned block of a cell; `None` while a certificate is missing.
    pub fn blocks(&mut self, cell: &Cell) -> Option<BTreeMap<Block, f64>> {
        let mut blocks = BTreeMap::new();
        for node in certifiers(cell) {
            let counts = self.counts(&node.key)?;
            let pruned = |&(_, &(zeros, total)): &(&Block, &(u64, u64))| zeros > 0 && total > 0;
            let share = |(block, &(zeros, total)): (&Block, &(u64, u64))| (block.clone(), zeros as f64 / total as f64);
            let towers: BTreeSet<Tower> = counts.blocks.iter().filter(pruned).map(|(block, _)| block.tower).collect();
            blocks.extend(counts.blocks.iter().filter(|(block, _)| towers.contains(&block.tower)).map(share));
        }
        Some(blocks)
    }

    /// What a cell's stages took; nothing while one is missing.
    fn cost(&mut self, cell: &Cell, value: &Value) -> Measurement {
        let source = self.sources.of(certifiers(cell).map(|node| &node.key));
        let spent = |node: &StageNode| self.spent.get(&node.key).map(|known| &known.found.result);
        let value = match value {
            Value::Seconds => making_of(cell).map(|node| Some(spent(node)?.seconds)).sum::<Option<f64>>(),
            _ => match making_of(cell).filter(|node| matches!(*node.stage, Stage::Adapt { .. })).last() {
                Some(training) => spent(training).and_then(|spent| spent.parameters),
                None => Some(0.0),
            },
        };
        for node in making_of(cell) {
            if let Some(Known { found, noted }) = self.spent.get_mut(&node.key)
                && !std::mem::replace(noted, true)
            {
                let environment = Arc::clone(&found.environment);
                self.note(&environment);
            }
        }
        Measurement { number: value.map(|value| Number { value, standard_error: 0.0, items: 0 }), source }
    }

    /// What the certificates of a cell say.
    fn certified(&mut self, cell: &Cell) -> &Certified {
        let known = self.last.take().filter(|(run, _)| *run == cell.run_id);
        let last = known.unwrap_or_else(|| (Arc::clone(&cell.run_id), self.certificates(cell)));
        &self.last.insert(last).1
    }

    /// What a cell's certificates say of each tower, the last one first to say it.
    fn certificates(&mut self, cell: &Cell) -> Certified {
        let mut sums = Some(BTreeMap::new());
        for node in certifiers(cell) {
            let Some(counts) = self.counts(&node.key) else {
                sums = None;
                break;
            };
            sums.get_or_insert_default().extend(&counts.towers);
        }
        let source = self.sources.of(certifiers(cell).map(|node| &node.key));
        let run = &cell.run;
        let asked = |tower| Asked { tower, sparsity: run.sparsity(tower), removes: run.removes(tower) };
        Certified { source, sums, asked: Tower::ALL.map(asked) }
    }

    fn counts(&mut self, key: &StageKey) -> Option<&Counts> {
        if !std::mem::replace(&mut self.certificates.get_mut(key)?.noted, true) {
            let environment = Arc::clone(&self.certificates[key].found.environment);
            self.note(&environment);
            let certifies = &self.certificates[key].found.result;
            self.provenance.certificates += 1;
            let violations = certifies.violations.iter().map(|v| format!("{}: {v}", key.short()));
            self.provenance.violations.extend(violations);
            self.provenance.calibrations.extend(certifies.calibration);
        }
        Some(&self.certificates[key].found.result.counts)
    }

    /// Takes in what a stage ran on.
    fn note(&mut self, environment: &Arc<Environment>) {
        if !self.environment.as_ref().is_some_and(|last| Arc::ptr_eq(last, environment)) {
            self.provenance.note(environment);
            self.environment = Some(Arc::clone(environment));
        }
    }

    /// What is known about failed stages of a cell.
    fn note_failures(&mut self, cell: &Cell) {
        for record in cell.stages.iter().filter_map(|node| self.failures.get(&node.key)) {
            let failure = &record.failure;
            let first_line = failure.message.lines().next().unwrap_or_default();
            let told = format!("{}: {}: {first_line}", record.what, failure.kind.name());
            // A report may be shown to others.
            self.provenance.failures.insert(without_places(&told));
        }
    }
}

impl Reader {
    /// The scores that were read, and what was found on the way.
    pub(crate) fn into_parts(self) -> (KeyMap<Scored>, Provenance) {
        (self.scores, self.provenance)
    }
}

impl Provenance {
    fn note_score(&mut self, found: &TaskScore) {
        let task = found.task;
        let Some(score) = &found.score else {
            self.undefined.extend(found.undefined().map(|why| (task, why)));
            return;
        };
        // Most evaluations say what the one before them said: nothing is copied for them.
        match self.items.get_mut(task.name()) {
            Some(items) => _ = items.insert(score.items),
            None => _ = self.items.insert(task.name().to_owned(), BTreeSet::from([score.items])),
        }
        let metrics = self.metrics.entry(task).or_default();
        if !metrics.contains(&score.metric) {
            metrics.insert(score.metric.clone());
        }
    }

    fn note(&mut self, environment: &Environment) {
        let program = format!("ressa {} ({})", environment.ressa, environment.revision);
        self.programs.insert(program);
        self.libtorch.insert(environment.libtorch.clone());
        let threads = if environment.threads == 1 { "thread" } else { "threads" };
        self.devices.insert(format!("{}, {} {threads}", environment.device, environment.threads));
    }
}

/// The results of stages that have one, read side by side.
fn known<T: Send>(
    keys: Vec<StageKey>,
    read: impl Fn(&StageKey) -> Result<Option<Found<T>>, StoreError> + Sync + Send,
) -> Result<KeyMap<Known<T>>, StoreError> {
    let found: Vec<_> = keys.par_iter().map(read).collect();
    let mut known = KeyMap::with_capacity_and_hasher(keys.len(), Default::default());
    for (key, found) in keys.into_iter().zip(found) {
        if let Some(found) = found? {
            known.insert(key, Known { found, noted: false });
        }
    }
    Ok(known)
}

/// The stages that say of a cell's weights what they are: the last merge, and what was done to single towers after it, a later one of a tower overriding.
fn certifiers(cell: &Cell) -> impl Iterator<Item = &StageNode> {
    let merge = cell.stages.iter().rposition(|node| matches!(*node.stage, Stage::Merge { .. }));
    let last = cell.stages[merge.unwrap_or(0)..].iter().map(AsRef::as_ref);
    last.filter(|node: &&StageNode| node.stage.is_certified())
}

/// The stages that make a cell's model from the dense one.
fn making_of(cell: &Cell) -> impl Iterator<Item = &StageNode> {
    let is_making = |node: &&StageNode| {
        !matches!(*node.stage, Stage::Dense { .. } | Stage::Rescale { .. } | Stage::Evaluate { .. })
    };
    cell.stages.iter().map(AsRef::as_ref).filter(is_making)
}

/// The stages that a value of a cell is computed from, as in [`Measurement::source`], whether or not they have run. `None` when the cell cannot
/// have the value.
pub(crate) fn source(cell: &Cell, value: &Value) -> Option<String> {
    if value.is_certified() {
        return Some(source_of(certifiers(cell).map(|node| &node.key)));
    }
    let key = |task: &Task| evaluations(cell).find(|(other, ..)| other == task).map(|(.., node)| node.key.short());
    Some(value.tasks().iter().map(key).collect::<Option<Vec<_>>>()?.join("+"))
}

/// Short keys of stages, joined by `+`.
fn source_of<'k>(keys: impl Iterator<Item = &'k StageKey>) -> String {
    let mut text = String::new();
    for key in keys {
        if !text.is_empty() {
            text.push('+');
        }
        text.push_str(&key.short());
    }
    text
}

/// Task, items and stage of each evaluation of a cell.
fn evaluations(cell: &Cell) -> impl Iterator<Item = (Task, u32, &StageNode)> {
    cell.stages.iter().map(AsRef::as_ref).filter_map(|node: &StageNode| match *node.stage {
        Stage::Evaluate { task, items, .. } => Some((task, items, node)),
        _ => None,
    })
}

/// The mean of some scores of a cell, each a task and perhaps a part; `None` where the cell cannot have one of them.
fn scored(
    members: &[(Task, Option<String>)],
    evaluated: &[Evaluated<'_>],
    sources: &mut Sources,
    provenance: &mut Provenance,
) -> Option<Measurement> {
    let mut numbers = Vec::with_capacity(members.len());
    let mut behind: Vec<&Evaluated<'_>> = Vec::with_capacity(members.len());
    let mut fewer = None;
    for (task, part) in members {
        let one = evaluated.iter().find(|one| one.task == *task)?;
        if !behind.iter().any(|other| other.key == one.key) {
            behind.push(one);
        }
        let Some(scored) = one.found else { continue };
        let found = match part {
            Some(part) => scored.part(part),
            None => scored.score.score.as_ref(),
        };
        let found = found?;
        numbers.push(number(found));
        if part.is_none() && found.items < u64::from(one.items) {
            fewer = Some((*task, found.items, u64::from(one.items)));
        }
    }
    provenance.fewer.extend(fewer);
    let source = match behind.as_slice() {
        [Evaluated { found: Some(scored), .. }] => Arc::clone(&scored.source),
        several => sources.of(several.iter().map(|one| one.key)),
    };
    Some(Measurement { number: (numbers.len() == members.len()).then(|| mean(&numbers)), source })
}

fn number(score: &Score) -> Number {
    Number { value: score.value, standard_error: score.standard_error, items: score.items }
}

/// The mean of columns over different items, so their errors are independent.
fn mean(numbers: &[Number]) -> Number {
    let n = numbers.len() as f64;
    let variance: f64 = numbers.iter().map(|x| x.standard_error * x.standard_error).sum();
    Number {
        value: numbers.iter().map(|x| x.value).sum::<f64>() / n,
        standard_error: variance.sqrt() / n,
        items: numbers.iter().map(|x| x.items).sum(),
    }
}

fn certifies(certificate: Certificate, by_block: bool) -> Certifies {
    let mut counts = Counts::default();
    for (name, tensor) in &certificate.tensors {
        let tower = counts.towers.entry(tensor.tower).or_default();
        tower.zeros += tensor.zeros;
        tower.weights += tensor.total;
        tower.revived += tensor.revived;
        tower.group_violations += tensor.group_violations;
        if by_block {
            let block = counts.blocks.entry(Block::of(tensor.tower, name)).or_default();
            *block = (block.0 + tensor.zeros, block.1 + tensor.total);
        }
    }
    Certifies { counts, violations: certificate.violations, calibration: certificate.calibration }
}
