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
    Pattern, RunConfig, Stage, StageKey, StageNode, Task, Tower,
    allocation::{AllocationScope, BudgetConfig},
    config::{
        CalibrationConfig, DataConfig, EvaluateConfig, Metric, Propagate, PruneConfig, RestoreConfig, RestoreMethod,
        StatisticsNeeds,
    },
    model::{DenseConfig, ModelConfig},
    reading::{ReadingKind, Readings},
    stage::{AdaptTraining, Inputs, identify},
};

/// The chain of one run, upstream first. `run` must be canonical, see [`crate::canonical::canonical`].
pub fn stages(run: &RunConfig) -> Vec<StageNode> {
    Planner::default().make(run).stages.iter().map(|node| (**node).clone()).collect()
}

/// A canonical configuration with its identity and its stages.
#[derive(Debug)]
pub(crate) struct Run {
    pub id: String,
    pub config: Arc<RunConfig>,
    pub stages: Vec<Arc<StageNode>>,
}

/// Remembers what earlier runs shared.
#[derive(Default)]
pub(crate) struct Planner {
    bases: Interner<(ModelConfig, DenseConfig, DataConfig)>,
    prunes: Interner<PruneConfig>,
    restores: Interner<RestoreConfig>,
    evaluations: Interner<EvaluateConfig>,
    dense: HashMap<u32, Dense>,
    pruned: HashMap<(u32, u32, u64), Arc<Pruned>>,
    towers: HashMap<StageKey, Arc<StageNode>>,
    restored: HashMap<(u32, u32, u32, u64), Restored>,
    scored: HashMap<(u32, u32), Arc<Vec<Scored>>>,
    /// Runs by their parts, with the number that [`Planner::run`] was given.
    runs: HashMap<Parts, usize>,
    buffer: Vec<u8>,
}

/// Numbers of base, prune, restore and evaluate sections, and the seed.
type Parts = (u32, u32, u32, u32, u64);

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

type Restored = Option<(Arc<StageNode>, Arc<StageNode>)>;

/// An evaluation without its inputs, and its JSON.
struct Scored {
    task: Task,
    stage: Arc<Stage>,
    configuration: Vec<u8>,
}

/// What evaluations read, and its JSON.
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
                Found::New(self.of_parts(run, parts))
            }
        }
    }

    /// The run of a canonical configuration, whether it was asked for before or not.
    pub fn make(&mut self, run: &RunConfig) -> Run {
        let parts = self.parts(run);
        self.of_parts(run, parts)
    }

    fn of_parts(&mut self, run: &RunConfig, parts: Parts) -> Run {
        Run { id: self.identity(parts), config: Arc::new(run.clone()), stages: self.stages(run, parts) }
    }

    fn parts(&mut self, run: &RunConfig) -> Parts {
        let base = self.bases.intern(
            |(model, dense, data)| *model == run.model && *dense == run.dense && *data == run.data,
            || (run.model.clone(), run.dense.clone(), run.data.clone()),
        );
        let prune = self.prunes.intern(|known| *known == run.prune, || run.prune.clone());
        let restore = self.restores.intern(|known| *known == run.restore, || run.restore.clone());
        let evaluate = self.evaluations.intern(|known| *known == run.evaluate, || run.evaluate.clone());
        (base, prune, restore, evaluate, run.seed)
    }

    /// Number of distinct runs so far.
    pub fn distinct(&self) -> usize {
        self.runs.len()
    }

    /// A run's identity: the digest of the digests of its sections, and its seed.
    fn identity(&self, (base, prune, restore, evaluate, seed): Parts) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"ressa run 1");
        hasher.update(self.bases.digest(base));
        hasher.update(self.prunes.digest(prune));
        hasher.update(self.restores.digest(restore));
        hasher.update(self.evaluations.digest(evaluate));
        hasher.update(&seed.to_le_bytes());
        hasher.finalize().to_hex().as_str().to_owned()
    }

    fn stages(&mut self, run: &RunConfig, (base, prune, restore, evaluate, seed): Parts) -> Vec<Arc<StageNode>> {
        let dense = self.dense.entry(base).or_insert_with(|| dense(run)).clone();
        let pruned = match self.pruned.get(&(base, prune, seed)) {
            Some(known) => Arc::clone(known),
            None => {
                let made = Arc::new(self.prune(run, &dense.key));
                self.pruned.insert((base, prune, seed), Arc::clone(&made));
                made
            }
        };
        let restored = self
            .restored
            .entry((base, prune, restore, seed))
            .or_insert_with(|| restoration(run, &dense.key, &pruned.masks, &mut self.buffer))
            .clone();
        let scored = Arc::clone(self.scored.entry((base, evaluate)).or_insert_with(|| Arc::new(scored(run))));

        let mut nodes = Vec::with_capacity(4 + pruned.nodes.len() + scored.len());
        nodes.extend(dense.nodes.iter().cloned());
        nodes.extend(pruned.nodes.iter().cloned());
        let merge = restored.map(|(adapt, merge)| {
            let key = merge.key;
            nodes.extend([adapt, merge]);
            key
        });
        let read = |seen: fn(Tower) -> bool| {
            let masks = pruned.masks.iter().filter(|(tower, _)| merge.is_none() && seen(*tower));
            let masks = masks.map(|(_, key)| *key).collect();
            Read::new(Inputs { dense: Some(dense.key), masks, merge, ..Inputs::default() })
        };
        let whole = read(|_| true);
        // Retrieval never runs the language model, so an unrestored run's language mask is not one of its inputs.
        let blind = (merge.is_none() && pruned.masks.iter().any(|(tower, _)| *tower == Tower::Language))
            .then(|| read(|tower| tower != Tower::Language));
        for Scored { task, stage, configuration } in scored.iter() {
            let read = blind.as_ref().filter(|_| !task.uses_language()).unwrap_or(&whole);
            let ready = |buffer: &mut Vec<u8>| buffer.extend_from_slice(configuration);
            let key = identify(&mut self.buffer, stage, ready, |buffer| buffer.extend_from_slice(&read.json));
            let (stage, inputs) = (Arc::clone(stage), Arc::clone(&read.inputs));
            nodes.push(Arc::new(StageNode { key, stage, inputs, readings: Readings::default() }));
        }
        nodes
    }

    fn prune(&mut self, run: &RunConfig, dense: &StageKey) -> Pruned {
        let prune = &run.prune;
        let mut pruned = Pruned { nodes: Vec::new(), masks: Vec::new() };
        for tower in Tower::ALL {
            let budget = prune.tower(tower);
            if prune.metric == Metric::None || budget.sparsity <= 0.0 {
                continue;
            }
            let (budget_config, sensitivities) = self.division(run, dense, tower, &mut pruned.nodes);
            let calibrated = prune.metric.needs_calibration();
            let unstructured = prune.pattern == Pattern::Unstructured;
            let sees_masks = calibrated && prune.calibration.propagate == Propagate::Pruned;
            let statistics = (calibrated && !sees_masks).then(|| self.statistics(run, dense, tower, &mut pruned.nodes));
            let earlier = pruned.masks.iter().filter(|_| sees_masks).map(|(_, key)| *key);
            let method = prune.method();
            let node = Stage::Prune {
                tower,
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
            }
            .node_with(
                Inputs {
                    dense: Some(*dense),
                    sensitivities,
                    statistics,
                    masks: earlier.collect(),
                    ..Inputs::default()
                },
                &mut self.buffer,
            );
            let node = self.towers.entry(node.key).or_insert_with(|| Arc::new(node));
            pruned.masks.push((tower, node.key));
            pruned.nodes.push(Arc::clone(node));
        }
        pruned
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
        (Some(Box::new(BudgetConfig { rule: rule.clone(), towers })), keys)
    }
}

/// Lets runs that read statistics of the same inputs read them from one stage, which collects what any of them needs.
pub(crate) fn share_statistics<'a>(chains: impl Iterator<Item = &'a mut Vec<Arc<StageNode>>>) {
    let mut chains: Vec<_> = chains.filter(|chain| chain.iter().any(|node| is_statistics(node))).collect();
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
    for chain in &mut chains {
        let mut moved: HashMap<StageKey, StageKey> = HashMap::new();
        for node in chain.iter_mut() {
            if is_statistics(node) {
                let old = node.key;
                let all = needs[&bares[&old]];
                let new = shared.entry(old).or_insert_with(|| Arc::new(with_needs(node, all)));
                *node = Arc::clone(new);
                moved.insert(old, new.key);
            } else if let Some(new) = node.inputs.statistics.as_ref().and_then(|old| moved.get(old)) {
                let inputs = Inputs { statistics: Some(*new), ..(*node.inputs).clone() };
                *node = Arc::new(StageNode { inputs: Arc::new(inputs), ..(**node).clone() });
            }
        }
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
    let ModelConfig { channel_spread: spread, channel_seed: seed, .. } = run.model;
    let rescaled = (spread > 0.0)
        .then(|| Stage::Rescale { spread, seed }.node(Inputs { dense: Some(made.key), ..Inputs::default() }));
    let key = rescaled.as_ref().unwrap_or(&made).key;
    Dense { nodes: [Some(made), rescaled].into_iter().flatten().map(Arc::new).collect(), key }
}

fn restoration(run: &RunConfig, dense: &StageKey, masks: &[(Tower, StageKey)], buffer: &mut Vec<u8>) -> Restored {
    let restore = &run.restore;
    if restore.method == RestoreMethod::None {
        return None;
    }
    let inputs =
        Inputs { dense: Some(*dense), masks: masks.iter().map(|(_, key)| *key).collect(), ..Inputs::default() };
    let tower = |tower: Tower| Some(restore.tower(tower)).filter(|adapter| adapter.tune).cloned();
    let adapt = Stage::Adapt {
        masked: restore.method == RestoreMethod::SparseLora,
        training: Box::new(AdaptTraining {
            vision: tower(Tower::Vision),
            qformer: tower(Tower::Qformer),
            language: tower(Tower::Language),
            steps: restore.steps,
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
    Some((Arc::new(adapt), Arc::new(merge)))
}

fn scored(run: &RunConfig) -> Vec<Scored> {
    let evaluate = &run.evaluate;
    let stage = |&task: &Task| {
        let stage = Stage::Evaluate {
            task,
            items: if Task::QUESTIONS.contains(&task) { evaluate.questions } else { evaluate.images },
            beams: task.uses_language().then_some(evaluate.beams),
            data: run.data.benchmarks(),
            asking: evaluate.asking(task).filter(|asking| !asking.is_default()).cloned().map(Box::new),
            okvqa: (task == Task::Okvqa && !evaluate.okvqa.is_default()).then(|| Box::new(evaluate.okvqa)),
            retrieval: (!task.uses_language() && !evaluate.retrieval.is_default())
                .then(|| Box::new(evaluate.retrieval.clone())),
            compute: run.model.compute,
        };
        let mut configuration = Vec::new();
        stage.write(&mut configuration);
        Scored { task, stage: Arc::new(stage), configuration }
    };
    evaluate.tasks.iter().map(stage).collect()
}

/// Numbers for equal values. Looking at the last value first makes the common case a comparison.
struct Interner<T> {
    last: Option<(T, u32)>,
    known: HashMap<Vec<u8>, u32>,
    digests: Vec<[u8; 32]>,
}

impl<T> Default for Interner<T> {
    fn default() -> Self {
        Self { last: None, known: HashMap::new(), digests: Vec::new() }
    }
}

impl<T: Serialize> Interner<T> {
    fn intern(&mut self, is: impl Fn(&T) -> bool, make: impl FnOnce() -> T) -> u32 {
        if let Some((last, id)) = &self.last
            && is(last)
        {
            return *id;
        }
        let value = make();
        let bytes = serde_json::to_vec(&value).expect("a configuration is plain data with text keys");
        let id = match self.known.get(&bytes) {
            Some(&id) => id,
            None => {
                let id = self.digests.len() as u32;
                self.digests.push(*blake3::hash(&bytes).as_bytes());
                self.known.insert(bytes, id);
                id
            }
        };
        self.last = Some((value, id));
        id
    }

    fn digest(&self, id: u32) -> &[u8; 32] {
        &self.digests[id as usize]
    }
}
