//! From a run to its stages: `dense (-> rescale) -> (sensitivity, statistics per tower) -> prune per tower -> adapt -> merge -> evaluate per task`.
//!
//! A grid asks for the same parts again and again, so the [`Planner`] remembers them: sections of the configuration are interned,
//! pruned towers and restorations are looked up by the numbers of their sections, and only a new combination is hashed.

use std::{
    collections::{BTreeMap, HashMap, hash_map::Entry},
    sync::Arc,
};

use serde::Serialize;

use crate::{
    Asks, Pattern, RunConfig, Stage, StageKey, StageNode, Task, Tower,
    allocation::{AllocationMethod, AllocationScope, BudgetConfig},
    config::{
        CalibrationConfig, DataConfig, EvaluateConfig, Metric, Propagate, PruneConfig, RestoreConfig, RestoreMethod,
        StatisticsNeeds, TowerPrune,
    },
    model::{DenseConfig, ModelConfig},
    reading::{ReadingKind, Readings},
    shared::Shared,
    stage::{AdaptTraining, Identifier, Inputs, identify},
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
    restores: Interner<Shared<RestoreConfig>>,
    evaluations: Interner<Shared<EvaluateConfig>>,
    dense: HashMap<u32, Dense>,
    pruned: HashMap<(u32, u32, u64), Arc<Pruned>>,
    /// Prune sections that decide about one tower, see [`alone`].
    alone: Interner<PruneConfig>,
    own: HashMap<(u32, Tower), u32>,
    prunings: HashMap<(u32, u32, Tower, u64), Arc<Pruning>>,
    towers: HashMap<StageKey, Arc<StageNode>>,
    restored: HashMap<(u32, u32, u32, u64), Restored>,
    scored: HashMap<(u32, u32), Arc<Vec<Scored>>>,
    /// Evaluations that do not read the language mask.
    blind: HashMap<Blind, Arc<[Arc<StageNode>]>>,
    /// Runs by their parts, with the number that [`Planner::run`] was given.
    runs: HashMap<Parts, usize>,
    buffer: Vec<u8>,
}

/// Numbers of base, prune, restore and evaluate sections, and the seed.
type Parts = (u32, u32, u32, u32, u64);

/// Numbers of base and evaluate sections, and the masks that are read.
type Blind = (u32, u32, Vec<StageKey>);

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

struct Pruned {
    nodes: Vec<Arc<StageNode>>,
    masks: Vec<(Tower, StageKey)>,
}

/// How one tower is pruned, whatever the masks of earlier ones are.
struct Pruning {
    /// Stages that measure the dense model for it.
    nodes: Vec<Arc<StageNode>>,
    /// What is read, without masks.
    inputs: Inputs,
    configured: Configured,
    /// Whether masks of earlier towers are read.
    sees_masks: bool,
    /// The stage without masks.
    first: Arc<StageNode>,
}

type Restored = (Arc<StageNode>, Arc<StageNode>);

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
        let base = self.bases.intern((run.model.clone(), run.dense.clone(), run.data.clone()));
        let prune = self.prunes.intern(run.prune.clone());
        let restore = self.restores.intern(run.restore.clone());
        let evaluate = self.evaluations.intern(run.evaluate.clone());
        (base, prune, restore, evaluate, run.seed)
    }

    /// The configuration of some parts, which shares its sections with every other run that has them.
    fn config(&self, (base, prune, restore, evaluate, seed): Parts) -> RunConfig {
        let (model, dense, data) = self.bases.value(base);
        RunConfig {
            model,
            dense,
            data,
            prune: self.prunes.value(prune),
            restore: self.restores.value(restore),
            evaluate: self.evaluations.value(evaluate),
            seed,
        }
    }

    /// Number of distinct runs so far.
    pub fn distinct(&self) -> usize {
        self.runs.len()
    }

    /// A run's identity: the digest of the digests of its sections, and its seed.
    fn identity(&self, (base, prune, restore, evaluate, seed): Parts) -> Arc<str> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"ressa run 1");
        hasher.update(self.bases.digest(base));
        hasher.update(self.prunes.digest(prune));
        hasher.update(self.restores.digest(restore));
        hasher.update(self.evaluations.digest(evaluate));
        hasher.update(&seed.to_le_bytes());
        hasher.finalize().to_hex().as_str().into()
    }

    fn stages(&mut self, run: &RunConfig, parts: Parts) -> Vec<Arc<StageNode>> {
        let (base, prune, restore, evaluate, seed) = parts;
        let dense = self.dense.entry(base).or_insert_with(|| dense(run)).clone();
        let pruned = match self.pruned.get(&(base, prune, seed)) {
            Some(known) => Arc::clone(known),
            None => {
                let made = Arc::new(self.prune(run, parts, &dense.key));
                self.pruned.insert((base, prune, seed), Arc::clone(&made));
                made
            }
        };
        let restored = (run.restore.method != RestoreMethod::None).then(|| {
            let known = self.restored.entry((base, prune, restore, seed));
            known.or_insert_with(|| restoration(run, &dense.key, &pruned.masks, &mut self.buffer)).clone()
        });
        let scored = Arc::clone(self.scored.entry((base, evaluate)).or_insert_with(|| Arc::new(scored(run))));

        let restorations = if restored.is_some() { 2 } else { 0 };
        let mut nodes = Vec::with_capacity(dense.nodes.len() + pruned.nodes.len() + restorations + scored.len());
        nodes.extend(dense.nodes.iter().cloned());
        nodes.extend(pruned.nodes.iter().cloned());
        let merge = restored.map(|(adapt, merge)| {
            let key = merge.key;
            nodes.extend([adapt, merge]);
            key
        });
        let read =
            |masks: Vec<StageKey>| Read::new(Inputs { dense: Some(dense.key), masks, merge, ..Inputs::default() });
        let masks = |seen: fn(Tower) -> bool| -> Vec<StageKey> {
            let seen = pruned.masks.iter().filter(|(tower, _)| merge.is_none() && seen(*tower));
            let mut keys = Vec::with_capacity(pruned.masks.len());
            keys.extend(seen.map(|(_, key)| *key));
            keys
        };
        // Retrieval never runs the language model, so an unrestored run's language mask is not one of its inputs.
        let is_blind = merge.is_none() && pruned.masks.iter().any(|(tower, _)| *tower == Tower::Language);
        let blind = is_blind.then(|| {
            let masks = masks(|tower| tower != Tower::Language);
            let make = |(_, _, masks): &Blind| {
                let read = read(masks.clone());
                let blind = scored.iter().filter(|scored| !scored.task.uses_language());
                blind.map(|scored| scored.node(&read)).collect()
            };
            Arc::clone(self.blind.entry((base, evaluate, masks)).or_insert_with_key(make))
        });
        let mut blind = blind.iter().flat_map(|nodes| nodes.iter());
        let whole = read(masks(|_| true));
        for scored in scored.iter() {
            let known = if scored.task.uses_language() { None } else { blind.next() };
            nodes.push(known.map_or_else(|| scored.node(&whole), Arc::clone));
        }
        nodes
    }

    fn prune(&mut self, run: &RunConfig, parts: Parts, dense: &StageKey) -> Pruned {
        let prune = &run.prune;
        let is_pruned = |tower: &Tower| prune.metric != Metric::None && prune.tower(*tower).sparsity > 0.0;
        let towers = || Tower::ALL.into_iter().filter(is_pruned);
        // One is kept for every run: nothing of it is to spare.
        let mut pruned = Pruned { nodes: Vec::new(), masks: Vec::with_capacity(towers().count()) };
        for tower in towers() {
            let pruning = self.pruning(run, parts, dense, tower);
            let above = pruning.nodes.iter().filter(|node| !pruned.nodes.iter().any(|known| known.key == node.key));
            let above: Vec<Arc<StageNode>> = above.cloned().collect();
            pruned.nodes.extend(above);
            let node = match pruning.sees_masks && !pruned.masks.is_empty() {
                false => Arc::clone(&pruning.first),
                true => {
                    let masks = pruned.masks.iter().map(|(_, key)| *key).collect();
                    let read = Read::new(Inputs { masks, ..pruning.inputs.clone() });
                    let node = pruning.configured.node(&read, &mut self.buffer);
                    Arc::clone(self.towers.entry(node.key).or_insert(node))
                }
            };
            pruned.masks.push((tower, node.key));
            pruned.nodes.push(node);
        }
        pruned.nodes.shrink_to_fit();
        pruned
    }

    /// How a tower of a run is pruned.
    fn pruning(
        &mut self,
        run: &RunConfig,
        (base, prune, .., seed): Parts,
        dense: &StageKey,
        tower: Tower,
    ) -> Arc<Pruning> {
        let own = match self.own.get(&(prune, tower)) {
            Some(&own) => own,
            None => {
                let own = self.alone.intern(alone(&run.prune, tower));
                self.own.insert((prune, tower), own);
                own
            }
        };
        if let Some(known) = self.prunings.get(&(base, own, tower, seed)) {
            return Arc::clone(known);
        }
        let prune = &run.prune;
        let mut nodes = Vec::new();
        let (budget_config, sensitivities) = self.division(run, dense, tower, &mut nodes);
        let budget = prune.tower(tower);
        let calibrated = prune.metric.needs_calibration();
        let unstructured = prune.pattern == Pattern::Unstructured;
        let sees_masks = calibrated && prune.calibration.propagate == Propagate::Pruned;
        let statistics = (calibrated && !sees_masks).then(|| self.statistics(run, dense, tower, &mut nodes));
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
        let inputs = Inputs { dense: Some(*dense), sensitivities, statistics, ..Inputs::default() };
        let first = configured.node(&Read::new(inputs.clone()), &mut self.buffer);
        let first = Arc::clone(self.towers.entry(first.key).or_insert(first));
        let pruning = Arc::new(Pruning { nodes, inputs, configured, sees_masks, first });
        self.prunings.insert((base, own, tower, seed), Arc::clone(&pruning));
        pruning
    }

    /// The key of what is collected of a tower's inputs on the dense model, whose stage joins `nodes`.
    fn statistics(
        &mut self,
        run: &RunConfig,
        dense: &StageKey,
        tower: Tower,
        nodes: &mut Vec<Arc<StageNode>>,
    ) -> StageKey {
        let node = Stage::Statistics {
            tower,
            projection: run.prune.tower(tower).projection,
            needs: StatisticsNeeds::of(run.prune.metric, &run.prune.method()),
            calibration: run.prune.calibration_of(tower),
            data: run.data.for_calibration_of(run.prune.tower(tower)),
            seed: run.seed,
            compute: run.model.compute,
        }
        .node_with(Inputs { dense: Some(*dense), ..Inputs::default() }, &mut self.buffer);
        let key = node.key;
        nodes.push(Arc::clone(self.towers.entry(key).or_insert_with(|| Arc::new(node))));
        key
    }

    /// How a tower's budget is divided, and the keys of the measurements behind it, whose stages join `nodes`.
    fn division(
        &mut self,
        run: &RunConfig,
        dense: &StageKey,
        tower: Tower,
        nodes: &mut Vec<Arc<StageNode>>,
    ) -> (Option<Box<BudgetConfig>>, Vec<StageKey>) {
        let rule = &run.prune.allocation;
        if rule.is_default() {
            return (None, Vec::new());
        }
        let together = |other: &Tower| rule.towers == AllocationScope::Joint || *other == tower;
        let towers: BTreeMap<Tower, f64> = Tower::ALL
            .into_iter()
            .filter(together)
            .map(|tower| (tower, run.prune.tower(tower).sparsity))
            .filter(|(_, sparsity)| *sparsity > 0.0)
            .collect();
        let mut keys = Vec::new();
        if let Some(measurement) = rule.measurement() {
            for &tower in towers.keys() {
                let node = Stage::Sensitivity {
                    tower,
                    projection: run.prune.tower(tower).projection,
                    measurement,
                    samples: rule.samples,
                    // Measured on the dense model, whatever later stages propagate, and on every token.
                    calibration: CalibrationConfig {
                        propagate: CalibrationConfig::default().propagate,
                        tokens: CalibrationConfig::default().tokens,
                        ..run.prune.calibration_of(tower)
                    },
                    data: run.data.for_calibration_of(run.prune.tower(tower)),
                    seed: run.seed,
                    compute: run.model.compute,
                }
                .node_with(Inputs { dense: Some(*dense), ..Inputs::default() }, &mut self.buffer);
                keys.push(node.key);
                let node = self.towers.entry(node.key).or_insert_with(|| Arc::new(node));
                if !nodes.iter().any(|known| known.key == node.key) {
                    nodes.push(Arc::clone(node));
                }
            }
        }
        // A table is held to all layers that there are.
        let sees_connector = rule.method == AllocationMethod::Table || towers.contains_key(&Tower::Connector);
        let projection = sees_connector && run.prune.connector.projection;
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

/// Lets runs that read statistics of the same inputs read them from one stage, which collects what any of them needs.
pub(crate) fn share_statistics<'a>(chains: impl Iterator<Item = &'a mut Vec<Arc<StageNode>>>) {
    let chains: Vec<_> = chains.filter(|chain| chain.iter().any(|node| is_statistics(node))).collect();
    // By the stage as it would be if it collected nothing.
    let mut needs: HashMap<StageKey, StatisticsNeeds> = HashMap::new();
    let bare = |node: &StageNode| with_needs(node, StatisticsNeeds::default());
    let mut bares: HashMap<StageKey, StageKey> = HashMap::new();
    for node in chains.iter().flat_map(|chain| chain.iter()).filter(|node| is_statistics(node)) {
        let Stage::Statistics { needs: own, .. } = &*node.stage else { continue };
        let bare = bares.entry(node.key).or_insert_with(|| bare(node).key);
        let all = needs.entry(*bare).or_default();
        *all = all.and(*own);
    }
    let mut shared: HashMap<StageKey, Arc<StageNode>> = HashMap::new();
    for node in chains.into_iter().flatten() {
        if let Some(new) = shared.get(&node.key) {
            *node = Arc::clone(new);
            continue;
        }
        let new = if is_statistics(node) {
            with_needs(node, needs[&bares[&node.key]])
        } else if let Some(new) = node.inputs.statistics.and_then(|old| shared.get(&old)) {
            let inputs = Inputs { statistics: Some(new.key), ..(*node.inputs).clone() };
            StageNode { inputs: Arc::new(inputs), ..(**node).clone() }
        } else {
            continue;
        };
        let new = Arc::new(new);
        shared.insert(std::mem::replace(node, Arc::clone(&new)).key, new);
    }
}

/// Tells stages what they read from outside the store (`of`, asked once per stage and configuration), and gives them and all that is made
/// from them keys by content.
pub(crate) fn mark_contents<'a>(
    chains: impl Iterator<Item = &'a mut Vec<Arc<StageNode>>>,
    of: &mut dyn FnMut(&Stage) -> Readings,
) {
    let mut moved: HashMap<StageKey, Arc<StageNode>> = HashMap::new();
    // Evaluations of all runs share their stages.
    let mut own: HashMap<*const Stage, Readings> = HashMap::new();
    let mut buffer = Vec::new();
    for node in chains.flatten() {
        if let Some(new) = moved.get(&node.key) {
            *node = Arc::clone(new);
            continue;
        }
        let readings = own.entry(Arc::as_ptr(&node.stage)).or_insert_with(|| of(&node.stage)).clone();
        let inputs = node.inputs.renamed(|key| *moved.get(key).map_or(key, |new| &new.key));
        let stage = node.stage.by_content(&readings);
        let key = identify(&mut buffer, &stage, |buffer| stage.write(buffer), |buffer| inputs.write(buffer));
        let dense = node.inputs.dense.as_ref().and_then(|dense| moved.get(dense));
        let adapter = node.inputs.adapter.as_ref().and_then(|adapter| moved.get(adapter));
        let readings = readings
            .with(dense.and_then(|dense| dense.readings.of(ReadingKind::Model)))
            .with(adapter.and_then(|adapter| adapter.readings.of(ReadingKind::Data)));
        let new = StageNode { key, stage: Arc::clone(&node.stage), inputs: Arc::new(inputs), readings };
        let new = Arc::new(new);
        moved.insert(std::mem::replace(node, Arc::clone(&new)).key, new);
    }
}

fn is_statistics(node: &StageNode) -> bool {
    matches!(*node.stage, Stage::Statistics { .. })
}

fn with_needs(node: &StageNode, all: StatisticsNeeds) -> StageNode {
    let mut stage = Stage::clone(&node.stage);
    if let Stage::Statistics { needs, .. } = &mut stage {
        *needs = all;
    }
    stage.node((*node.inputs).clone())
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

fn restoration(run: &RunConfig, dense: &StageKey, masks: &[(Tower, StageKey)], buffer: &mut Vec<u8>) -> Restored {
    let restore = &run.restore;
    let inputs =
        Inputs { dense: Some(*dense), masks: masks.iter().map(|(_, key)| *key).collect(), ..Inputs::default() };
    let tower = |tower: Tower| Some(restore.tower(tower)).filter(|adapter| adapter.tune).cloned();
    let adapt = Stage::Adapt {
        masked: restore.method == RestoreMethod::SparseLora,
        training: Box::new(AdaptTraining {
            vision: tower(Tower::Vision),
            connector: tower(Tower::Connector),
            language: tower(Tower::Language),
            steps: restore.steps,
            align: restore.align,
            batch: restore.batch,
            questions: restore.questions,
            samples: restore.samples,
            learning_rate: restore.learning_rate,
            warmup: restore.warmup,
            final_rate: restore.final_rate,
            weight_decay: restore.weight_decay,
            clip: restore.clip,
            contrastive: restore.contrastive,
            distill: (restore.distill.weight > 0.0).then(|| restore.distill.clone()),
            micro_batch: restore.micro_batch,
            recompute: restore.recompute,
        }),
        data: run.data.for_restoration(),
        seed: run.seed,
        compute: run.model.compute,
    }
    .node_with(inputs.clone(), buffer);
    let merge = Stage::Merge { method: restore.method, compute: run.model.compute }
        .node_with(Inputs { adapter: Some(adapt.key), ..inputs }, buffer);
    (Arc::new(adapt), Arc::new(merge))
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
        };
        Scored::new(task, stage)
    };
    evaluate.tasks.iter().map(stage).collect()
}

/// Numbers for equal values. Looking at the last value first makes the common case a comparison.
struct Interner<T> {
    last: Option<(T, u32)>,
    /// By the digest of the value's JSON.
    known: HashMap<blake3::Hash, u32>,
    values: Vec<(T, blake3::Hash)>,
}

impl<T> Default for Interner<T> {
    fn default() -> Self {
        Self { last: None, known: HashMap::new(), values: Vec::new() }
    }
}

impl<T: Clone + PartialEq + Serialize> Interner<T> {
    fn intern(&mut self, value: T) -> u32 {
        if let Some((last, id)) = &self.last
            && *last == value
        {
            return *id;
        }
        let bytes = serde_json::to_vec(&value).expect("a configuration is plain data with text keys");
        let digest = blake3::hash(&bytes);
        let id = *self.known.entry(digest).or_insert_with(|| {
            self.values.push((value.clone(), digest));
            self.values.len() as u32 - 1
        });
        self.last = Some((value, id));
        id
    }

    /// The value of a number.
    fn value(&self, id: u32) -> T {
        self.values[id as usize].0.clone()
    }

    fn digest(&self, id: u32) -> &[u8; 32] {
        self.values[id as usize].1.as_bytes()
    }
}
