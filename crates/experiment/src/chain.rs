//! From a run to its stages: `dense (-> rescale)`, the stages of its steps, and `evaluate` per task.
//!
//! A step reads a state, which is the stages that made it, and leads to the next: pruning is `(sensitivity, statistics per tower) -> prune per tower`,
//! restoration `adapt -> merge`. What a merge made stands for everything before it.
//!
//! A grid asks for the same parts again and again, so the [`Planner`] remembers them: sections of the configuration and states are interned, steps
//! are looked up by their numbers, and only a new combination is hashed.

mod reconstruct;
mod shared;
mod structure;

pub(crate) use shared::{mark_contents, share_statistics};

use std::{
    collections::{BTreeMap, HashMap, hash_map::Entry},
    sync::Arc,
};

use crate::{
    Asks, Pattern, RunConfig, Stage, StageKey, StageNode, Task, Tower,
    allocation::{AllocationMethod, AllocationScope, BudgetConfig},
    config::{
        CalibrationConfig, DataConfig, EvaluateConfig, Metric, Propagate, PruneConfig, RestoreConfig, StatisticsNeeds,
        TowerPrune,
    },
    interner::Interner,
    model::{DenseConfig, ModelConfig},
    reading::Readings,
    reconstruct::ReconstructConfig,
    refine::RefineConfig,
    shared::Shared,
    stage::{AdaptTraining, Identifier, Inputs, identify},
    steps::{Step, StepConfig},
    structure::StructureConfig,
};

/// The chain of one run, upstream first. `run` must be canonical, see [`crate::canonical::canonical`].
pub fn stages(run: &RunConfig) -> Vec<StageNode> {
    Planner::default().make(run).stages.iter().map(|node| (**node).clone()).collect()
}

/// A canonical configuration with its identity and its stages.
#[derive(Debug)]
pub(crate) struct Run {
    pub id: Arc<str>,
    pub config: Arc<RunConfig>,
    pub stages: Vec<Arc<StageNode>>,
}

/// Remembers what earlier runs shared.
#[derive(Default)]
pub(crate) struct Planner {
    bases: Interner<(Shared<ModelConfig>, Shared<DenseConfig>, Shared<DataConfig>)>,
    prunes: Interner<Shared<PruneConfig>>,
    structures: Interner<Shared<StructureConfig>>,
    restores: Interner<Shared<RestoreConfig>>,
    reconstructs: Interner<Shared<ReconstructConfig>>,
    evaluations: Interner<Shared<EvaluateConfig>>,
    lists: Interner<Shared<Vec<StepConfig>>>,
    /// The steps of runs with the same sections and list.
    sequences: HashMap<(u32, u32, u32), Arc<[Section]>>,
    dense: HashMap<u32, Dense>,
    /// States that steps have led to; the first is the dense model.
    states: States,
    done: HashMap<(u32, u32, Section, u64), Arc<Done>>,
    /// Prune sections that decide about one tower, see [`alone`].
    alone: Interner<PruneConfig>,
    own: HashMap<(u32, Tower), u32>,
    prunings: HashMap<(u32, u32, u32, Tower, u64), Arc<Pruning>>,
    towers: HashMap<StageKey, Arc<StageNode>>,
    scored: HashMap<(u32, u32), Arc<Vec<Scored>>>,
    /// Evaluations that do not read the language mask.
    blind: HashMap<Blind, Arc<[Arc<StageNode>]>>,
    /// Runs by their parts, with the number that [`Planner::run`] was given.
    runs: HashMap<Parts, usize>,
    buffer: Vec<u8>,
}

/// The parts of a run, by the numbers of its sections.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Parts {
    base: u32,
    prune: u32,
    restore: u32,
    list: u32,
    evaluate: u32,
    seed: u64,
}

/// A step by the number of its settings.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Section {
    Prune(u32),
    Refine(RefineConfig),
    Structure(u32),
    Reconstruct(u32),
    Restore(u32),
}

/// Numbers of base and evaluate sections, the merge and the masks that are read.
type Blind = (u32, u32, Option<StageKey>, Vec<StageKey>);

/// What a planner knows about a run.
pub(crate) enum Found {
    /// It was asked for before, under this number.
    Known(usize),
    /// It is new.
    New(Run),
}

/// The stages behind the model that is pruned: trained or taken, and perhaps rescaled.
#[derive(Clone)]
struct Dense {
    nodes: Vec<Arc<StageNode>>,
    key: StageKey,
}

/// What steps made of the dense model: what the stages of the next step start from.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
struct State {
    /// The last restoration.
    merge: Option<StageKey>,
    /// Towers that were changed since then, in tower order.
    masks: Vec<Masked>,
    /// Restorations so far.
    restorations: u64,
}

/// A tower that was changed.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Masked {
    tower: Tower,
    /// The last stage that changed it.
    stage: StageKey,
    /// The number of what pruned it last, see [`alone`]; nothing where it was not pruned.
    own: Option<u32>,
}

impl State {
    /// The masks of some towers.
    fn masks(&self, of: impl Fn(Tower) -> bool) -> Vec<StageKey> {
        let mut keys = Vec::with_capacity(self.masks.len());
        keys.extend(self.masks.iter().filter(|masked| of(masked.tower)).map(|masked| masked.stage));
        keys
    }

    /// Notes the last stage of a tower, which stays pruned where it was.
    fn change(&mut self, tower: Tower, stage: StageKey) {
        match self.masks.binary_search_by_key(&tower, |masked| masked.tower) {
            Ok(at) => self.masks[at].stage = stage,
            Err(at) => self.masks.insert(at, Masked { tower, stage, own: None }),
        }
    }

    /// As [`State::change`], for a pruning.
    fn prune(&mut self, tower: Tower, stage: StageKey, own: u32) {
        self.change(tower, stage);
        if let Some(masked) = self.masks.iter_mut().find(|masked| masked.tower == tower) {
            masked.own = Some(own);
        }
    }
}

/// States by number.
struct States {
    all: Vec<State>,
    numbers: HashMap<State, u32>,
}

impl Default for States {
    fn default() -> Self {
        Self { all: vec![State::default()], numbers: HashMap::from([(State::default(), 0)]) }
    }
}

impl States {
    fn number(&mut self, state: State) -> u32 {
        *self.numbers.entry(state).or_insert_with_key(|state| {
            self.all.push(state.clone());
            self.all.len() as u32 - 1
        })
    }
}

/// A step that was done: its stages, and the number of the state that they lead to.
struct Done {
    nodes: Vec<Arc<StageNode>>,
    state: u32,
}

/// The run whose steps are done, the number of its base and its dense model.
#[derive(Clone, Copy)]
struct Doing<'a> {
    run: &'a RunConfig,
    base: u32,
    dense: StageKey,
}

/// How one tower is pruned, whatever the step does to earlier ones.
struct Pruning {
    /// Stages that measure the state for it.
    nodes: Vec<Arc<StageNode>>,
    /// What is read of the state.
    inputs: Inputs,
    configured: Configured,
    /// Whether masks of earlier towers are read.
    sees_masks: bool,
    /// The stage where no earlier tower was pruned in the same step.
    first: Arc<StageNode>,
}

/// A stage without its inputs, and its JSON.
struct Configured {
    stage: Arc<Stage>,
    configuration: Vec<u8>,
}

impl Configured {
    fn new(stage: Stage) -> Self {
        let mut configuration = Vec::new();
        stage.write(&mut configuration);
        Configured { stage: Arc::new(stage), configuration }
    }

    /// The stage with what it reads.
    fn node(&self, read: &Read, buffer: &mut Vec<u8>) -> Arc<StageNode> {
        let configuration = |buffer: &mut Vec<u8>| buffer.extend_from_slice(&self.configuration);
        let key = identify(buffer, &self.stage, configuration, |buffer| buffer.extend_from_slice(&read.json));
        let (stage, inputs) = (Arc::clone(&self.stage), Arc::clone(&read.inputs));
        Arc::new(StageNode { key, stage, inputs, readings: Readings::default() })
    }
}

/// An evaluation of a task.
struct Scored {
    task: Task,
    stage: Arc<Stage>,
    identifier: Identifier,
}

impl Scored {
    fn new(task: Task, stage: Stage) -> Self {
        let Configured { stage, configuration } = Configured::new(stage);
        Self { task, identifier: Identifier::new(&stage, &configuration), stage }
    }

    /// The evaluation of what is read.
    fn node(&self, read: &Read) -> Arc<StageNode> {
        let (key, inputs) = (self.identifier.key(&read.json), Arc::clone(&read.inputs));
        Arc::new(StageNode { key, stage: Arc::clone(&self.stage), inputs, readings: Readings::default() })
    }
}

/// What stages read, and its JSON.
struct Read {
    inputs: Arc<Inputs>,
    json: Vec<u8>,
}

impl Read {
    fn new(inputs: Inputs) -> Self {
        let mut json = Vec::with_capacity(256);
        inputs.write(&mut json);
        Read { inputs: Arc::new(inputs), json }
    }
}

impl Planner {
    /// The run of a canonical configuration; a new one is remembered under `number`.
    pub fn run(&mut self, run: &RunConfig, number: usize) -> Found {
        let parts = self.parts(run);
        match self.runs.entry(parts) {
            Entry::Occupied(known) => Found::Known(*known.get()),
            Entry::Vacant(new) => {
                new.insert(number);
                Found::New(self.of_parts(parts))
            }
        }
    }

    /// The run of a canonical configuration, whether it was asked for before or not.
    pub fn make(&mut self, run: &RunConfig) -> Run {
        let parts = self.parts(run);
        self.of_parts(parts)
    }

    fn of_parts(&mut self, parts: Parts) -> Run {
        let config = self.config(parts);
        Run { id: self.identity(parts), stages: self.stages(&config, parts), config: Arc::new(config) }
    }

    fn parts(&mut self, run: &RunConfig) -> Parts {
        Parts {
            base: self.bases.intern((run.model.clone(), run.dense.clone(), run.data.clone())),
            prune: self.prunes.intern(run.prune.clone()),
            restore: self.restores.intern(run.restore.clone()),
            list: self.lists.intern(run.steps.clone()),
            evaluate: self.evaluations.intern(run.evaluate.clone()),
            seed: run.seed,
        }
    }

    /// The configuration of some parts, which shares its sections with every other run that has them.
    fn config(&self, parts: Parts) -> RunConfig {
        let (model, dense, data) = self.bases.value(parts.base);
        RunConfig {
            model,
            dense,
            data,
            prune: self.prunes.value(parts.prune),
            refine: RefineConfig::default(),
            structure: Shared::default(),
            reconstruct: Shared::default(),
            restore: self.restores.value(parts.restore),
            evaluate: self.evaluations.value(parts.evaluate),
            steps: self.lists.value(parts.list),
            seed: parts.seed,
        }
    }

    /// Number of distinct runs so far.
    pub fn distinct(&self) -> usize {
        self.runs.len()
    }

    /// A run's identity: the digest of the digests of its sections, its steps where it lists them, and its seed.
    fn identity(&self, parts: Parts) -> Arc<str> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"ressa run 1");
        hasher.update(self.bases.digest(parts.base));
        hasher.update(self.prunes.digest(parts.prune));
        hasher.update(self.restores.digest(parts.restore));
        hasher.update(self.evaluations.digest(parts.evaluate));
        hasher.update(&parts.seed.to_le_bytes());
        if !self.lists.value(parts.list).is_empty() {
            hasher.update(self.lists.digest(parts.list));
        }
        hasher.finalize().to_hex().as_str().into()
    }

    /// The steps of a run, by their numbers.
    fn sequence(&mut self, run: &RunConfig, parts: Parts) -> Arc<[Section]> {
        let key = (parts.prune, parts.restore, parts.list);
        if let Some(known) = self.sequences.get(&key) {
            return Arc::clone(known);
        }
        let steps = run.sequence().into_iter().filter(Step::does_something);
        let numbered = steps.map(|step| match step {
            Step::Prune(prune) => Section::Prune(self.prunes.intern(prune)),
            Step::Refine(refine) => Section::Refine(refine),
            Step::Structure(structure) => Section::Structure(self.structures.intern(structure)),
            Step::Reconstruct(reconstruct) => Section::Reconstruct(self.reconstructs.intern(reconstruct)),
            Step::Restore(restore) => Section::Restore(self.restores.intern(restore)),
        });
        let sequence: Arc<[Section]> = numbered.collect();
        self.sequences.insert(key, Arc::clone(&sequence));
        sequence
    }

    fn stages(&mut self, run: &RunConfig, parts: Parts) -> Vec<Arc<StageNode>> {
        let Parts { base, evaluate, seed, .. } = parts;
        let dense = self.dense.entry(base).or_insert_with(|| dense(run)).clone();
        let doing = Doing { run, base, dense: dense.key };
        let sequence = self.sequence(run, parts);
        let mut state = 0;
        let mut steps = Vec::with_capacity(sequence.len());
        for &section in sequence.iter() {
            let key = (base, state, section, seed);
            let done = match self.done.get(&key) {
                Some(known) => Arc::clone(known),
                None => {
                    let done = Arc::new(match section {
                        Section::Prune(prune) => self.prune(doing, state, prune),
                        Section::Refine(refine) => self.refine(doing, state, refine),
                        Section::Structure(structure) => self.structure(doing, state, structure),
                        Section::Reconstruct(reconstruct) => self.reconstruct(doing, state, reconstruct),
                        Section::Restore(restore) => self.restore(doing, state, restore),
                    });
                    self.done.insert(key, Arc::clone(&done));
                    done
                }
            };
            state = done.state;
            steps.push(done);
        }
        let scored = Arc::clone(self.scored.entry((base, evaluate)).or_insert_with(|| Arc::new(scored(run))));

        let of_steps: usize = steps.iter().map(|done| done.nodes.len()).sum();
        let mut nodes = Vec::with_capacity(dense.nodes.len() + of_steps + scored.len());
        nodes.extend(dense.nodes.iter().cloned());
        nodes.extend(steps.iter().flat_map(|done| done.nodes.iter().cloned()));
        let state = &self.states.all[state as usize];
        let read = |masks: Vec<StageKey>| {
            Read::new(Inputs { dense: Some(dense.key), masks, merge: state.merge, ..Inputs::default() })
        };
        // Retrieval never runs the language model, so a language mask that is not merged is not one of its inputs.
        let is_blind = state.masks.iter().any(|masked| masked.tower == Tower::Language);
        let blind = is_blind.then(|| {
            let masks = state.masks(|tower| tower != Tower::Language);
            let make = |(_, _, _, masks): &Blind| {
                let read = read(masks.clone());
                let blind = scored.iter().filter(|scored| !scored.task.uses_language());
                blind.map(|scored| scored.node(&read)).collect()
            };
            Arc::clone(self.blind.entry((base, evaluate, state.merge, masks)).or_insert_with_key(make))
        });
        let mut blind = blind.iter().flat_map(|nodes| nodes.iter());
        let whole = read(state.masks(|_| true));
        for scored in scored.iter() {
            let known = if scored.task.uses_language() { None } else { blind.next() };
            nodes.push(known.map_or_else(|| scored.node(&whole), Arc::clone));
        }
        nodes
    }

    /// Prunes the towers of a state.
    fn prune(&mut self, doing: Doing<'_>, state: u32, prune: u32) -> Done {
        let config = self.prunes.value(prune);
        let mut after = self.states.all[state as usize].clone();
        // One is kept for every run: nothing of it is to spare.
        let mut nodes: Vec<Arc<StageNode>> = Vec::new();
        let mut is_first = true;
        for tower in config.pruned() {
            let pruning = self.pruning(doing, state, (prune, &config), tower);
            let above = pruning.nodes.iter().filter(|node| !nodes.iter().any(|known| known.key == node.key));
            let above: Vec<Arc<StageNode>> = above.cloned().collect();
            nodes.extend(above);
            let node = match pruning.sees_masks && !is_first {
                false => Arc::clone(&pruning.first),
                true => {
                    let masks = after.masks(|other| other <= tower);
                    let read = Read::new(Inputs { masks, ..pruning.inputs.clone() });
                    let node = pruning.configured.node(&read, &mut self.buffer);
                    Arc::clone(self.towers.entry(node.key).or_insert(node))
                }
            };
            is_first = false;
            after.prune(tower, node.key, self.own[&(prune, tower)]);
            nodes.push(node);
        }
        nodes.shrink_to_fit();
        Done { nodes, state: self.states.number(after) }
    }

    /// How a tower of a state is pruned.
    fn pruning(
        &mut self,
        doing: Doing<'_>,
        state: u32,
        (number, prune): (u32, &PruneConfig),
        tower: Tower,
    ) -> Arc<Pruning> {
        let run = doing.run;
        let own = match self.own.get(&(number, tower)) {
            Some(&own) => own,
            None => {
                let own = self.alone.intern(alone(prune, tower));
                self.own.insert((number, tower), own);
                own
            }
        };
        let key = (doing.base, state, own, tower, run.seed);
        if let Some(known) = self.prunings.get(&key) {
            return Arc::clone(known);
        }
        let before = self.states.all[state as usize].clone();
        let mut nodes = Vec::new();
        let (budget_config, sensitivities) = self.division(doing, &before, prune, tower, &mut nodes);
        let budget = prune.tower(tower);
        let calibrated = prune.metric.needs_calibration();
        let unstructured = prune.pattern == Pattern::Unstructured;
        let sees_masks = calibrated && prune.calibration.propagate == Propagate::Pruned;
        let statistics = (calibrated && !sees_masks).then(|| self.statistics(doing, &before, prune, tower, &mut nodes));
        let method = prune.method();
        let configured = Configured::new(Stage::Prune {
            tower,
            projection: budget.projection,
            metric: prune.metric,
            pattern: prune.pattern,
            sparsity: unstructured.then_some(budget.sparsity),
            group: unstructured.then(|| budget.group.unwrap_or(prune.metric.published_group())),
            calibration: calibrated.then(|| prune.calibration_of(tower)),
            data: calibrated.then(|| run.data.for_calibration_of(budget)),
            seed: (calibrated || prune.metric == Metric::Random).then_some(run.seed),
            compute: run.model.compute,
            budget: budget_config,
            method: (!method.is_default()).then(|| Box::new(method)),
        });
        // Activations come from the towers before this one; without them, only what this one has lost counts.
        let masks = before.masks(|other| if calibrated { other <= tower } else { other == tower });
        let (dense, merge) = (Some(doing.dense), before.merge);
        let inputs = Inputs { dense, sensitivities, statistics, masks, adapter: None, merge };
        let first = configured.node(&Read::new(inputs.clone()), &mut self.buffer);
        let first = Arc::clone(self.towers.entry(first.key).or_insert(first));
        let pruning = Arc::new(Pruning { nodes, inputs, configured, sees_masks, first });
        self.prunings.insert(key, Arc::clone(&pruning));
        pruning
    }

    /// Refines the towers that were pruned since the last restoration, each by what its layers see in the state, calibrated as its pruning was.
    fn refine(&mut self, doing: Doing<'_>, state: u32, refine: RefineConfig) -> Done {
        let run = doing.run;
        let before = self.states.all[state as usize].clone();
        let mut after = before.clone();
        let mut nodes = Vec::new();
        for &Masked { tower, own, .. } in &before.masks {
            let Some(own) = own else { continue };
            let config = self.alone.value(own);
            let needs = StatisticsNeeds { gram: true, ..StatisticsNeeds::default() };
            // Nothing is propagated: every layer is measured before the first is refined.
            let calibration = CalibrationConfig { propagate: Propagate::Dense, ..config.calibration_of(tower) };
            let statistics = self.measure(doing, &before, (&config, tower), (needs, &calibration), &mut nodes);
            let node = Stage::Refine {
                tower,
                method: refine.method,
                iterations: refine.iterations(),
                calibration,
                data: run.data.for_calibration_of(config.tower(tower)),
                seed: run.seed,
                compute: run.model.compute,
            }
            .node_with(
                Inputs {
                    dense: Some(doing.dense),
                    statistics: Some(statistics),
                    masks: before.masks(|other| other <= tower),
                    merge: before.merge,
                    ..Inputs::default()
                },
                &mut self.buffer,
            );
            after.change(tower, node.key);
            nodes.push(Arc::new(node));
        }
        Done { nodes, state: self.states.number(after) }
    }

    /// Trains on a state and merges.
    fn restore(&mut self, doing: Doing<'_>, state: u32, restore: u32) -> Done {
        let config = self.restores.value(restore);
        let before = &self.states.all[state as usize];
        let [adapt, merge] = restoration(doing, &config, before, &mut self.buffer).map(Arc::new);
        let restorations = before.restorations + 1;
        let after = State { merge: Some(merge.key), restorations, ..State::default() };
        Done { nodes: vec![adapt, merge], state: self.states.number(after) }
    }

    /// The key of what is collected of a tower's inputs on a state, whose stage joins `nodes`.
    fn statistics(
        &mut self,
        doing: Doing<'_>,
        state: &State,
        prune: &PruneConfig,
        tower: Tower,
        nodes: &mut Vec<Arc<StageNode>>,
    ) -> StageKey {
        let needs = StatisticsNeeds::of(prune.metric, &prune.method());
        self.measure(doing, state, (prune, tower), (needs, &prune.calibration_of(tower)), nodes)
    }

    /// As [`Planner::statistics`], of what is asked for.
    fn measure(
        &mut self,
        Doing { run, dense, .. }: Doing<'_>,
        state: &State,
        (prune, tower): (&PruneConfig, Tower),
        (needs, calibration): (StatisticsNeeds, &CalibrationConfig),
        nodes: &mut Vec<Arc<StageNode>>,
    ) -> StageKey {
        let masks = state.masks(|other| other <= tower);
        let node = Stage::Statistics {
            tower,
            projection: prune.tower(tower).projection,
            needs,
            calibration: calibration.clone(),
            data: run.data.for_calibration_of(prune.tower(tower)),
            seed: run.seed,
            compute: run.model.compute,
        }
        .node_with(Inputs { dense: Some(dense), masks, merge: state.merge, ..Inputs::default() }, &mut self.buffer);
        let key = node.key;
        nodes.push(Arc::clone(self.towers.entry(key).or_insert_with(|| Arc::new(node))));
        key
    }

    /// How a tower's budget is divided, and the keys of the measurements behind it, whose stages join `nodes`.
    fn division(
        &mut self,
        Doing { run, dense, .. }: Doing<'_>,
        state: &State,
        prune: &PruneConfig,
        tower: Tower,
        nodes: &mut Vec<Arc<StageNode>>,
    ) -> (Option<Box<BudgetConfig>>, Vec<StageKey>) {
        let rule = &prune.allocation;
        if rule.is_default() {
            return (None, Vec::new());
        }
        let together = |other: &Tower| rule.towers == AllocationScope::Joint || *other == tower;
        let towers: BTreeMap<Tower, f64> = Tower::ALL
            .into_iter()
            .filter(together)
            .map(|tower| (tower, prune.tower(tower).sparsity))
            .filter(|(_, sparsity)| *sparsity > 0.0)
            .collect();
        let mut keys = Vec::new();
        for &tower in towers.keys() {
            if let Some(measurement) = rule.measurement(prune, tower) {
                let node = Stage::Sensitivity {
                    tower,
                    projection: prune.tower(tower).projection,
                    measurement,
                    samples: rule.samples,
                    // Measured on the state, whatever later stages propagate, and on every token.
                    calibration: CalibrationConfig {
                        propagate: CalibrationConfig::default().propagate,
                        tokens: CalibrationConfig::default().tokens,
                        ..prune.calibration_of(tower)
                    },
                    data: run.data.for_calibration_of(prune.tower(tower)),
                    seed: run.seed,
                    compute: run.model.compute,
                }
                .node_with(
                    Inputs {
                        dense: Some(dense),
                        masks: state.masks(|_| true),
                        merge: state.merge,
                        ..Inputs::default()
                    },
                    &mut self.buffer,
                );
                keys.push(node.key);
                let node = self.towers.entry(node.key).or_insert_with(|| Arc::new(node));
                if !nodes.iter().any(|known| known.key == node.key) {
                    nodes.push(Arc::clone(node));
                }
            }
        }
        // A table is held to all layers that there are.
        let sees_connector = rule.method == AllocationMethod::Table || towers.contains_key(&Tower::Connector);
        let projection = sees_connector && prune.connector.projection;
        (Some(Box::new(BudgetConfig { rule: rule.clone(), towers, projection })), keys)
    }
}

/// What of a section decides about one tower. A budget that is divided may depend on every tower's.
fn alone(prune: &PruneConfig, tower: Tower) -> PruneConfig {
    let mut own = prune.clone();
    if own.allocation.is_default() {
        let neutral = [
            (Tower::Vision, &mut own.vision),
            (Tower::Connector, &mut own.connector),
            (Tower::Language, &mut own.language),
        ];
        for (_, other) in neutral.into_iter().filter(|(other, _)| *other != tower) {
            *other = TowerPrune::default();
        }
    }
    own
}

fn dense(run: &RunConfig) -> Dense {
    let trained = run.model.preset.is_some();
    let made = Stage::Dense {
        preset: run.model.preset,
        checkpoint: run.model.checkpoint.as_ref().map(|path| path.display().to_string()),
        // A published checkpoint has seen its data elsewhere: ours is none of its settings.
        data: if trained { run.data.benchmarks() } else { DataConfig::default() },
        seed: run.dense.seed,
        steps: run.dense.steps,
    }
    .node(Inputs::default());
    let ModelConfig { channel_spread: spread, channel_seed: seed, .. } = *run.model;
    let rescaled = (spread > 0.0)
        .then(|| Stage::Rescale { spread, seed }.node(Inputs { dense: Some(made.key), ..Inputs::default() }));
    let key = rescaled.as_ref().unwrap_or(&made).key;
    Dense { nodes: [Some(made), rescaled].into_iter().flatten().map(Arc::new).collect(), key }
}

/// The training and the merge of a restoration.
fn restoration(
    Doing { run, dense, .. }: Doing<'_>,
    restore: &RestoreConfig,
    state: &State,
    buffer: &mut Vec<u8>,
) -> [StageNode; 2] {
    let masks = state.masks(|_| true);
    let inputs = Inputs { dense: Some(dense), masks, merge: state.merge, ..Inputs::default() };
    let tower = |tower: Tower| Some(restore.tower(tower)).filter(|adapter| adapter.tune).cloned();
    let adapt = Stage::Adapt {
        masked: restore.method.trains_masked(),
        training: Box::new(AdaptTraining {
            update: restore.method.update(),
            vision: tower(Tower::Vision),
            connector: tower(Tower::Connector),
            language: tower(Tower::Language),
            steps: restore.steps,
            align: restore.align,
            batch: restore.batch,
            questions: restore.questions,
            samples: restore.samples,
            loading: restore.loading,
            learning_rate: restore.learning_rate,
            warmup: restore.warmup,
            final_rate: restore.final_rate,
            weight_decay: restore.weight_decay,
            clip: restore.clip,
            contrastive: restore.contrastive,
            hardness: restore.hardness,
            evolve: restore.evolve,
            perturb: restore.perturb,
            penalty: restore.penalty,
            distill: (restore.distill.weight > 0.0).then(|| restore.distill.clone()),
            micro_batch: restore.micro_batch,
            recompute: restore.recompute,
        }),
        data: run.data.for_restoration(),
        seed: nth_seed(run.seed, state.restorations),
        compute: run.model.compute,
    }
    .node_with(inputs.clone(), buffer);
    let merge = Stage::Merge { method: restore.method, compute: run.model.compute }
        .node_with(Inputs { adapter: Some(adapt.key), ..inputs }, buffer);
    [adapt, merge]
}

/// The seed of a run's restoration with so many others before it: a later one goes on with other samples instead of those that the first has seen.
/// Replicate seeds have 32 bits.
fn nth_seed(seed: u64, before: u64) -> u64 {
    seed + (before << 32)
}

fn scored(run: &RunConfig) -> Vec<Scored> {
    let evaluate = &run.evaluate;
    let stage = |&task: &Task| {
        let stage = Stage::Evaluate {
            task,
            items: evaluate.items(task),
            beams: task.writes().then_some(evaluate.beams),
            data: run.data.of_task(task),
            asking: evaluate.asking(task).filter(|asking| !asking.is_default()).cloned().map(Box::new),
            okvqa: (task == Task::Okvqa && !evaluate.okvqa.is_default()).then(|| Box::new(evaluate.okvqa)),
            retrieval: (task.asks() == Asks::Match && !evaluate.retrieval.is_default())
                .then(|| Box::new(evaluate.retrieval.clone())),
            compute: run.model.compute,
            window: (task.asks() == Asks::Text).then_some(evaluate.perplexity.window),
            aids: Some(evaluate.aids(task)).filter(|aids| !aids.is_none()).map(Box::new),
        };
        Scored::new(task, stage)
    };
    evaluate.tasks.iter().map(stage).collect()
}
