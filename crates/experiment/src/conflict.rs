//! Settings that are each valid and together make no sense.

mod attention;
mod evaluation;
mod loading;
mod restore;

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    Pattern, RunConfig, Tower,
    allocation::{AllocationGroup, AllocationMethod, AllocationScope},
    config::{
        BlockThreshold, CalibrationConfig, DataSource, Group, Metric, PruneConfig, RestoreConfig, RestoreMethod,
        SampleForm, Threshold, TowerPrune,
    },
    reconstruct::{ReconstructConfig, Trained},
    refine::RefineMethod,
    steps::{Step, StepKind},
    structure::{StructureConfig, TowerStructure},
    task::Task,
};

/// A contradiction, with the setting that is most likely the wrong one.
#[derive(Debug)]
pub(crate) struct Conflict {
    pub path: &'static str,
    /// Name of the step whose setting it is.
    pub step: Option<String>,
    pub message: String,
    pub help: String,
}

impl Conflict {
    /// A contradiction within one step of a list, whose settings are known by its name; one that knows its step stays as it is.
    fn within(mut self, step: &str) -> Self {
        let Some(kind) = StepKind::of_section(self.path).filter(|_| self.step.is_none()) else { return self };
        for text in [&mut self.message, &mut self.help] {
            *text = text.replace(&format!("`{}.", kind.name()), &format!("`steps.{step}."));
        }
        self.step = Some(step.to_owned());
        self
    }

    /// Paths of what may have said so, the most likely first.
    pub fn paths(&self) -> impl Iterator<Item = String> {
        let (step, path) = (self.step.as_ref(), self.path);
        let own = step.zip(path.split_once('.')).map(|(step, (_, below))| format!("steps.{step}.{below}"));
        own.into_iter().chain([path.to_owned()]).chain(step.map(|step| format!("steps.{step}")))
    }
}

/// The first contradiction of a run, as it was written (not canonical).
pub(crate) fn conflict(run: &RunConfig) -> Option<Conflict> {
    model(run)
        .or_else(|| data(run))
        .or_else(|| steps(run))
        .or_else(|| evaluation::asking(run))
        .or_else(|| corpora(run))
        .or_else(|| published(run))
        .or_else(|| evaluation::aids(run))
}

/// What the steps before one have done.
#[derive(Default)]
struct Earlier<'a> {
    /// What is gone of each tower, and the step that removed it.
    gone: BTreeMap<Tower, (f64, &'a str)>,
    /// The step that pruned the projection with the connector.
    projection: Option<&'a str>,
    /// By tower, its last pruning since the last restoration, and the name of that step.
    pruned: BTreeMap<Tower, (&'a PruneConfig, &'a str)>,
    /// Towers that are smaller, by the last step that made them so.
    smaller: BTreeMap<Tower, (TowerStructure, &'a str)>,
    /// Towers that a step has reconstructed.
    reconstructed: BTreeSet<Tower>,
    /// Towers that follow an N:M pattern, and the step that pruned them by it.
    patterns: BTreeMap<Tower, &'a str>,
    /// Whether a step has restored the model, which may change every tower.
    is_restored: bool,
    /// Whether a step has changed anything.
    is_changed: bool,
}

impl Earlier<'_> {
    fn has_changed(&self, tower: Tower) -> bool {
        self.is_restored
            || self.gone.contains_key(&tower)
            || self.smaller.contains_key(&tower)
            || self.reconstructed.contains(&tower)
    }
}

/// What steps cannot be, each after those before it.
fn steps(run: &RunConfig) -> Option<Conflict> {
    let sequence = run.sequence();
    let mut before = Earlier::default();
    for (step, name) in sequence.iter().zip(run.step_names()) {
        let found = match step {
            Step::Prune(config) => {
                let calibrated = config.pruned().filter(|_| config.calibrates());
                let found = prune(config).or_else(|| calibrated_from(run, config, calibrated, "pruning"));
                found.or_else(|| divided(config, &before.smaller)).or_else(|| removes(config, name, &mut before))
            }
            Step::Refine(config) if config.method == RefineMethod::None => None,
            Step::Refine(_) => refine(run, name, &before),
            Step::Structure(config) => structure(config, name, &mut before.smaller, &before.patterns).or_else(|| {
                let calibrates = config.calibrates() && run.data.source == DataSource::Folder;
                let calibration = config.calibration.config();
                calibrates.then(|| drawn_from(run, &calibration, "structure.calibration.questions")).flatten()
            }),
            Step::Reconstruct(config) => reconstruct(run, config, name, &mut before),
            Step::Restore(config) => {
                let found = restore::restore(config, &before.gone)
                    .or_else(|| revived(config, &before.smaller))
                    .or_else(|| attention::attention(config, &before.smaller))
                    .or_else(|| attention::states(config, &before.smaller))
                    .or_else(|| trained_on(run, config))
                    .or_else(|| loading::loading(run, config));
                restored(config, &mut before);
                found
            }
        };
        before.is_changed |= step.does_something();
        if let Some(found) = found {
            return Some(if run.steps.is_empty() { found } else { found.within(name) });
        }
    }
    None
}

/// What a pruning cannot remove after the steps before it; otherwise it joins them.
fn removes<'a>(config: &'a PruneConfig, name: &'a str, before: &mut Earlier<'a>) -> Option<Conflict> {
    for tower in config.pruned() {
        let sparsity = config.tower(tower).sparsity;
        if let Some((earlier, first)) = before.gone.insert(tower, (sparsity, name))
            && sparsity < earlier
        {
            let way_out = match config.pattern {
                Pattern::Unstructured => "raise it".to_owned(),
                Pattern::NOfM { .. } => {
                    format!(
                        "set `prune.pattern` to one that removes at least {earlier}, or to unstructured with such a sparsity"
                    )
                }
            };
            return found(
                sparsity_of(tower),
                format!(
                    "`{name}` removes {sparsity} of tower `{tower}`, of which `{first}` has removed {earlier} already"
                ),
                format!(
                    "what is removed stays removed, and a sparsity counts from the whole tower: {way_out}, or set `{}` to 0 to leave the tower as it is",
                    sparsity_of(tower)
                ),
            );
        }
        if tower == Tower::Connector {
            match before.projection {
                Some(first) if !config.connector.projection => {
                    return found(
                        "prune.connector.projection",
                        format!(
                            "`{name}` prunes the connector without its projection, which `{first}` has pruned with it"
                        ),
                        "what was pruned once is one of the layers that a sparsity counts: set `prune.connector.projection` to true",
                    );
                }
                first => before.projection = first.or(config.connector.projection.then_some(name)),
            }
        }
        before.pruned.insert(tower, (config, name));
        match config.pattern {
            // Zeros anywhere: what is left follows no pattern that anybody claims.
            Pattern::Unstructured => before.patterns.remove(&tower),
            Pattern::NOfM { .. } => before.patterns.insert(tower, name),
        };
    }
    None
}

/// What the step `name` cannot refine after the steps before it. It is calibrated as each tower's pruning, whose settings it reads, was.
fn refine(run: &RunConfig, name: &str, before: &Earlier<'_>) -> Option<Conflict> {
    if before.pruned.is_empty() {
        return found(
            "refine.method",
            format!("`{name}` has nothing to refine: nothing was pruned before it, or since the last restoration"),
            "put it behind a step `prune`, or set its method to none",
        );
    }
    before.pruned.iter().find_map(|(&tower, &(config, pruning))| {
        let found = texts(config, tower, &format!("`{name}`")).or_else(|| tokens(config, tower));
        let found = found.or_else(|| calibrated_from(run, config, [tower].into_iter(), "refining"));
        found.map(|found| found.within(pruning))
    })
}

/// What is left to later steps of what was pruned before a restoration. Where `lora` fills every matrix of a tower, nothing of it is gone any longer.
fn restored(config: &RestoreConfig, before: &mut Earlier<'_>) {
    if config.method != RestoreMethod::None {
        before.pruned.clear();
        before.is_restored = true;
    }
    let fills = |tower: &Tower| {
        let adapter = config.tower(*tower);
        adapter.tune && adapter.trains_matrices() && adapter.targets.is_empty()
    };
    for tower in Tower::ALL.iter().filter(|tower| config.method == RestoreMethod::Lora && fills(tower)) {
        before.gone.remove(tower);
        before.patterns.remove(tower);
        if *tower == Tower::Connector {
            before.projection = None;
        }
    }
}

fn found(path: &'static str, message: impl Into<String>, help: impl Into<String>) -> Option<Conflict> {
    Some(Conflict { path, step: None, message: message.into(), help: help.into() })
}

fn model(run: &RunConfig) -> Option<Conflict> {
    match (&run.model.preset, &run.model.checkpoint) {
        (Some(preset), Some(_)) => found(
            "model.checkpoint",
            format!("both a checkpoint and the preset `{}` are given", preset.name()),
            "keep one; a base file's preset goes away with `model.preset: null`",
        ),
        (None, None) => found(
            "model.preset",
            "no model is given",
            "extend a base such as `../base/shapes-flant5.yaml`, or set `model.preset` or `model.checkpoint`",
        ),
        _ => None,
    }
}

fn data(run: &RunConfig) -> Option<Conflict> {
    match (run.data.source, &run.data.root) {
        (DataSource::Folder, None) => found(
            "data.source",
            "`data.source: folder` needs `data.root`",
            "set `data.root` to the folder that holds the benchmarks",
        ),
        (DataSource::Shapes, _)
            if run.evaluate.tasks.iter().any(|task| task.uses_vision() && !task.has_miniature()) =>
        {
            let strange = run.evaluate.tasks.iter().find(|task| task.uses_vision() && !task.has_miniature());
            found(
                "evaluate.tasks",
                format!("`{}` is not in the embedded world", strange.map_or("it", |task| task.name())),
                "set `data.source: folder` and `data.root` to the folder that holds the benchmark, or drop the task",
            )
        }
        _ if run.data.text.is_none() && run.evaluate.tasks.contains(&Task::Perplexity) => found(
            "data.text",
            "`perplexity` needs a text",
            "set `data.text` to a text file such as the test part of WikiText-2, or drop the task",
        ),
        (DataSource::Shapes, Some(_)) => found(
            "data.root",
            "`data.root` has no effect: the data are the embedded world",
            "remove it, or set `data.source: folder`",
        ),
        _ => None,
    }
}

/// What pruning settings cannot be together.
pub(crate) fn prune(prune: &PruneConfig) -> Option<Conflict> {
    if prune.metric == Metric::None {
        return None;
    }
    if let Some(implied) = prune.pattern.sparsity() {
        if Tower::ALL.iter().all(|&tower| prune.tower(tower).sparsity <= 0.0) {
            return found(
                "prune.pattern",
                format!("`{}` prunes nothing: the sparsity of every tower is 0", prune.pattern),
                format!(
                    "set `prune.vision.sparsity` and `prune.language.sparsity` to {implied}, or `prune.metric: none` for the dense model"
                ),
            );
        }
        for tower in Tower::ALL {
            let sparsity = prune.tower(tower).sparsity;
            if sparsity > 0.0 && (sparsity - implied).abs() > 1e-6 {
                let path = sparsity_of(tower);
                return found(
                    path,
                    format!("`{path}` is {sparsity}, but `{}` removes {implied}", prune.pattern),
                    format!(
                        "write {implied} to prune the tower or 0 to leave it; `zip:` moves pattern and sparsity together"
                    ),
                );
            }
        }
    }
    if let Some(conflict) = method(prune).or_else(|| allocation(prune)) {
        return Some(conflict);
    }
    let mut calibrated = prune.pruned().filter(|_| prune.metric.needs_calibration());
    let who = format!("`{}`", prune.metric.name());
    calibrated.find_map(|tower| tokens(prune, tower).or_else(|| texts(prune, tower, &who)))
}

/// Why there is nothing to calibrate a tower with, which `who` needs.
fn texts(prune: &PruneConfig, tower: Tower, who: &str) -> Option<Conflict> {
    let calibration = prune.calibration_of(tower);
    if calibration.questions > 0 || calibration.captions > 0 {
        return None;
    }
    let (path, of_tower) = questions_of(prune, tower);
    let section = path.trim_end_matches("questions");
    found(
        path,
        format!("{who} needs calibration text, but both questions and captions{of_tower} are 0"),
        format!("set `{path}` or `{section}captions` to at least 1"),
    )
}

/// Where questions of a tower's calibration are set, and what words add to that.
fn questions_of(prune: &PruneConfig, tower: Tower) -> (&'static str, &'static str) {
    let own = &prune.tower(tower).calibration;
    match tower {
        _ if own.questions.is_none() && own.captions.is_none() => ("prune.calibration.questions", ""),
        Tower::Vision => ("prune.vision.calibration.questions", " of tower `vision`"),
        Tower::Connector => ("prune.connector.calibration.questions", " of tower `connector`"),
        Tower::Language => ("prune.language.calibration.questions", " of tower `language`"),
    }
}

fn method(prune: &PruneConfig) -> Option<Conflict> {
    let (metric, name) = (prune.metric, prune.metric.name());
    if prune.pattern != Pattern::Unstructured {
        return None;
    }
    for tower in Tower::ALL {
        let TowerPrune { sparsity, group, .. } = *prune.tower(tower);
        if sparsity > 0.0 && group == Some(Group::Tower) && !metric.ranks() {
            return found(
                group_of(tower),
                format!("`{name}` solves every layer for itself, it cannot compare the weights of a whole tower"),
                "compare in rows or matrices, or let `prune.allocation` divide the budget",
            );
        }
    }
    let inexact = match metric {
        Metric::SparseGpt if prune.sparsegpt.threshold == BlockThreshold::Inclusive => {
            Some("prune.sparsegpt.threshold")
        }
        _ if metric.ranks() && prune.threshold != Threshold::Exact => Some("prune.threshold"),
        _ => None,
    };
    if let Some(path) = inexact.filter(|_| prune.allocation.method != AllocationMethod::Uniform) {
        return found(
            path,
            "a divided budget is met exactly, and such a threshold is not",
            format!("set `{path}: exact`, or `prune.allocation.method: uniform`"),
        );
    }
    None
}

/// Weights that are all zero compare nothing. An image encoder sees one kind of token, which counts whatever its weight.
fn tokens(prune: &PruneConfig, tower: Tower) -> Option<Conflict> {
    let tokens = &prune.calibration.tokens;
    let (path, weight) = match tower {
        Tower::Vision => return None,
        Tower::Connector => ("prune.calibration.tokens.query", tokens.query + tokens.text),
        Tower::Language => ("prune.calibration.tokens.text", tokens.text + tokens.visual),
    };
    if weight > 0.0 {
        return None;
    }
    found(
        path,
        format!("none of the tokens that tower `{tower}` sees counts: all have weight 0"),
        format!("raise `{path}`, or leave the tower dense"),
    )
}

/// What structured removal cannot be, behind other removals and N:M patterns. Takes note of what it makes smaller.
fn structure<'a>(
    config: &StructureConfig,
    name: &'a str,
    smaller: &mut BTreeMap<Tower, (TowerStructure, &'a str)>,
    patterns: &BTreeMap<Tower, &str>,
) -> Option<Conflict> {
    for tower in config.towers() {
        let target = *config.tower(tower);
        let (known, first) = smaller.get(&tower).copied().unwrap_or_default();
        let targets = [
            ("heads", target.heads, known.heads),
            ("channels", target.channels, known.channels),
            ("blocks", target.blocks, known.blocks),
            ("queries", target.queries, known.queries),
        ];
        for (what, now, before) in targets {
            if now > 1.0 && now.fract() != 0.0 {
                return found(
                    target_of(tower, what),
                    format!("{now} is neither a fraction of the {what} that goes nor a number of them that remains"),
                    "write a number below 1 for a fraction, such as 0.25, or a whole number for what is to remain",
                );
            }
            if let Some(first) = patterns.get(&tower).filter(|_| now > 0.0 && ["heads", "channels"].contains(&what)) {
                return found(
                    target_of(tower, what),
                    format!(
                        "`{first}` has pruned tower `{tower}` by an N:M pattern, whose groups would be others in smaller layers"
                    ),
                    "remove heads and channels first, and prune by the pattern behind",
                );
            }
            let is_less = if now < 1.0 { now < before && before < 1.0 } else { now > before && before >= 1.0 };
            if now > 0.0 && before > 0.0 && is_less {
                return found(
                    target_of(tower, what),
                    format!(
                        "`{name}` asks for {now} of the {what}, and `{first}` has removed more already for {before}"
                    ),
                    "what is removed stays removed, and targets count from the whole tower: remove more, or set it to 0 to leave what there is",
                );
            }
        }
        // What is not asked for again stays as an earlier step left it.
        let either = |now: f64, before: f64| if now > 0.0 { now } else { before };
        let now = TowerStructure {
            heads: either(target.heads, known.heads),
            channels: either(target.channels, known.channels),
            blocks: either(target.blocks, known.blocks),
            queries: either(target.queries, known.queries),
        };
        smaller.insert(tower, (now, name));
    }
    let calibration = &config.calibration;
    if config.calibrates() && calibration.questions == 0 && calibration.captions == 0 {
        return found(
            "structure.calibration.questions",
            "the scores need calibration text, but both questions and captions are 0",
            "set `structure.calibration.questions` or `structure.calibration.captions` to at least 1",
        );
    }
    None
}

/// A budget that is divided among the layers of a tower from which groups were removed.
fn divided(prune: &PruneConfig, smaller: &BTreeMap<Tower, (TowerStructure, &str)>) -> Option<Conflict> {
    // An N:M pattern says every budget.
    let divides = prune.allocation.method != AllocationMethod::Uniform && prune.pattern == Pattern::Unstructured;
    if prune.metric == Metric::None || !divides {
        return None;
    }
    let is_smaller =
        |tower: &Tower, target: &TowerStructure| target.cuts_weights() && prune.tower(*tower).sparsity > 0.0;
    let (tower, (_, first)) = smaller.iter().find(|(tower, (target, _))| is_smaller(tower, target))?;
    found(
        "prune.allocation.method",
        format!("`{first}` has made tower `{tower}` smaller, and budgets are divided among whole layers only"),
        "set `prune.allocation.method: uniform`, or divide the budget before the removal",
    )
}

/// A training that would give values to what was removed as a whole.
fn revived(restore: &RestoreConfig, smaller: &BTreeMap<Tower, (TowerStructure, &str)>) -> Option<Conflict> {
    if restore.method == RestoreMethod::None || restore.method.trains_masked() {
        return None;
    }
    let is_smaller = |tower: &Tower, target: &TowerStructure| target.cuts_weights() && restore.tower(*tower).tune;
    let (tower, (_, first)) = smaller.iter().find(|(tower, (target, _))| is_smaller(tower, target))?;
    let method = restore.method.name();
    found(
        "restore.method",
        format!(
            "`{method}` trains as if nothing were removed, and `{first}` has removed parts of tower `{tower}` as a whole"
        ),
        "set it to sparse-lora, which is LoRA on what is left",
    )
}

fn target_of(tower: Tower, what: &str) -> &'static str {
    match (tower, what) {
        (Tower::Vision, "heads") => "structure.vision.heads",
        (Tower::Vision, "channels") => "structure.vision.channels",
        (Tower::Vision, _) => "structure.vision.blocks",
        (Tower::Connector, "heads") => "structure.connector.heads",
        (Tower::Connector, "channels") => "structure.connector.channels",
        (Tower::Connector, "queries") => "structure.connector.queries",
        (Tower::Connector, _) => "structure.connector.blocks",
        (Tower::Language, "heads") => "structure.language.heads",
        (Tower::Language, "channels") => "structure.language.channels",
        (Tower::Language, _) => "structure.language.blocks",
    }
}

fn sparsity_of(tower: Tower) -> &'static str {
    match tower {
        Tower::Vision => "prune.vision.sparsity",
        Tower::Connector => "prune.connector.sparsity",
        Tower::Language => "prune.language.sparsity",
    }
}

fn group_of(tower: Tower) -> &'static str {
    match tower {
        Tower::Vision => "prune.vision.group",
        Tower::Connector => "prune.connector.group",
        Tower::Language => "prune.language.group",
    }
}

fn allocation(prune: &PruneConfig) -> Option<Conflict> {
    let rule = &prune.allocation;
    if rule.method == AllocationMethod::Uniform || prune.pattern != Pattern::Unstructured {
        return None;
    }
    if rule.method == AllocationMethod::Table && rule.table.is_empty() {
        return found(
            "prune.allocation.method",
            "`prune.allocation.method: table` needs `prune.allocation.table`",
            "write a sparsity for some layers, as in `{ \"language.0\": 0.3 }`",
        );
    }
    let apart = matches!(rule.method, AllocationMethod::Losa | AllocationMethod::Evopress);
    if apart && rule.towers == AllocationScope::Joint && prune.pruned().nth(1).is_some() {
        return found(
            "prune.allocation.towers",
            format!(
                "`{}` compares the blocks of one tower, and says nothing about one tower beside another",
                rule.method.name()
            ),
            "set `prune.allocation.towers: each`",
        );
    }
    if rule.method == AllocationMethod::Losa && rule.group != AllocationGroup::Block {
        return found(
            "prune.allocation.group",
            "`losa` compares the inputs of blocks, so the layers of a block get one sparsity",
            "set `prune.allocation.group: block`",
        );
    }
    if rule.method == AllocationMethod::Losa && rule.samples == Some(1) {
        return found(
            "prune.allocation.samples",
            "`losa` compares samples with each other, and there is one",
            "raise it, to 32 as it is where it is not set",
        );
    }
    if rule.floor > rule.cap {
        return found(
            "prune.allocation.floor",
            format!("at least {} and at most {} of a group cannot be removed together", rule.floor, rule.cap),
            "lower `prune.allocation.floor` or raise `prune.allocation.cap`",
        );
    }
    for tower in Tower::ALL {
        let TowerPrune { sparsity, group, .. } = *prune.tower(tower);
        if sparsity > 0.0 && group == Some(Group::Tower) {
            return found(
                group_of(tower),
                "weights of a whole tower are compared, which divides the budget by itself",
                "compare in rows or matrices, or set `prune.allocation.method: uniform`",
            );
        }
        // Towers that trade, and tables, may still find a way; whether they do is known when sizes are.
        let alone = rule.is_measured() && rule.towers == AllocationScope::Each && sparsity > 0.0;
        if alone && !(rule.floor..=rule.cap).contains(&sparsity) {
            let (path, bound) = if sparsity > rule.cap {
                ("prune.allocation.cap", rule.cap)
            } else {
                ("prune.allocation.floor", rule.floor)
            };
            return found(
                path,
                format!(
                    "a bound of {bound} for every group cannot give the {sparsity} that tower `{tower}` is to lose"
                ),
                "move the bound, or the tower's sparsity",
            );
        }
    }
    let mut measured = prune.pruned().filter(|_| rule.is_measured());
    measured.find_map(|tower| texts(prune, tower, "the division of the budget"))
}

/// What a reconstruction cannot be after the steps before it; otherwise it joins them.
fn reconstruct(run: &RunConfig, config: &ReconstructConfig, name: &str, before: &mut Earlier<'_>) -> Option<Conflict> {
    if config.train == Trained::None {
        return None;
    }
    if Tower::ALL.iter().all(|&tower| !config.tower(tower).tune) {
        return found(
            "reconstruct.train",
            format!("`{name}` trains no tower: every `tune` is false"),
            "set `reconstruct.vision.tune`, `reconstruct.connector.tune` or `reconstruct.language.tune` to true",
        );
    }
    if !before.is_changed {
        return found(
            "reconstruct.train",
            format!("`{name}` has nothing to reconstruct: no step before it changes the model"),
            "put it behind a step `prune` or `restore`, or set `reconstruct.train` to none",
        );
    }
    let mut is_due = false;
    for tower in Tower::ALL.into_iter().filter(|&tower| config.tower(tower).tune) {
        if config.is_due(tower, |other| before.has_changed(other)) {
            before.reconstructed.insert(tower);
            is_due = true;
        }
    }
    if !is_due {
        return found(
            "reconstruct.train",
            format!("`{name}` has nothing to reconstruct: no step before it changes a tower that it tunes"),
            "tune a tower that is pruned, leave such a point out with `exclude`, or set `reconstruct.train` to none",
        );
    }
    let queries = before.smaller.get(&Tower::Connector).filter(|(target, _)| target.cuts_queries());
    for (tower, setting) in
        [(Tower::Connector, "reconstruct.connector.tune"), (Tower::Language, "reconstruct.language.tune")]
    {
        if let Some((_, first)) = queries.filter(|_| before.reconstructed.contains(&tower) && config.tower(tower).tune)
        {
            return found(
                setting,
                format!(
                    "`{first}` has removed queries, and a reconstruction compares each token of tower `{tower}` with the dense model's"
                ),
                "set it to false, reconstruct before the removal, or train with `restore`, which compares answers",
            );
        }
    }
    if config.batch > config.samples {
        return found(
            "reconstruct.batch",
            format!("a batch of {} cannot come from {} samples", config.batch, config.samples),
            "lower `reconstruct.batch` or raise `reconstruct.samples`",
        );
    }
    if run.data.source != DataSource::Folder {
        return None;
    }
    if config.questions > 0 {
        return found(
            "reconstruct.questions",
            "an entry of a corpus is one image with one caption or question",
            "set `reconstruct.questions` to 0",
        );
    }
    if run.data.calibration.corpora.is_empty() {
        return found(
            "data.calibration.corpora",
            format!("`{name}` needs calibration samples here, but no corpus is named"),
            "set `data.calibration.corpora`, for instance to [cc3m]",
        );
    }
    None
}

/// How questions of a corpus are read.
fn corpora(run: &RunConfig) -> Option<Conflict> {
    let both = [
        ("data.calibration.form", "data.calibration.question", &run.data.calibration),
        ("data.restoration.form", "data.restoration.question", &run.data.restoration),
    ];
    for (form, question, config) in both {
        if let Some(corpus) = config.corpora.iter().find(|corpus| corpus.asks() && config.form == SampleForm::Prefix) {
            return found(
                form,
                format!("`{}` has questions with answers, which are not cut in two", corpus.name()),
                "set `form` to instruct, or name caption corpora alone",
            );
        }
        if let Some(text) = config.question.as_ref().filter(|text| text.matches("{}").count() != 1) {
            return found(
                question,
                format!("`{text}` does not say where the question goes"),
                "write `{}` there, once, as in `Question: {} Short answer:`",
            );
        }
    }
    None
}

/// What published data cannot give to an evaluation.
fn published(run: &RunConfig) -> Option<Conflict> {
    if run.data.source == DataSource::Folder
        && run.evaluate.tasks.contains(&Task::Flickr30k)
        && run.evaluate.retrieval.checkpoint.is_none()
    {
        return found(
            "evaluate.tasks",
            "`flickr30k` needs a model that compares images and texts, which published checkpoints that answer are not",
            "set `evaluate.retrieval.checkpoint` to the folder of a BLIP-2 image-text matching model, or drop the task",
        );
    }
    None
}

/// What corpora cannot give to the calibration of a step, whose setting `questions` is at a path.
fn drawn_from(run: &RunConfig, calibration: &CalibrationConfig, questions: &'static str) -> Option<Conflict> {
    if run.data.calibration.corpora.is_empty() {
        return found(
            "data.calibration.corpora",
            "pruning needs calibration samples here, but no corpus is named",
            "set `data.calibration.corpora`, for instance to [cc3m]",
        );
    }
    if calibration.questions > 0 || calibration.captions != 1 {
        return found(
            questions,
            "an entry of a corpus is one image with one caption or question",
            format!("set `{questions}` to 0 and `{}` to 1", questions.replace("questions", "captions")),
        );
    }
    None
}

/// What published data cannot give to the calibration of some towers of a pruning, by `doing` which they are calibrated.
fn calibrated_from(
    run: &RunConfig,
    prune: &PruneConfig,
    towers: impl Iterator<Item = Tower>,
    doing: &str,
) -> Option<Conflict> {
    let mut towers = towers.filter(|_| run.data.source == DataSource::Folder);
    towers.find_map(|tower| {
        if run.data.for_calibration_of(prune.tower(tower)).calibration.corpora.is_empty() {
            return found(
                "data.calibration.corpora",
                format!("{doing} needs calibration samples here, but no corpus is named"),
                "set `data.calibration.corpora`, for instance to [cc3m]",
            );
        }
        let calibration = prune.calibration_of(tower);
        if calibration.questions == 0 && calibration.captions == 1 {
            return None;
        }
        let (path, _) = questions_of(prune, tower);
        let section = path.trim_end_matches("questions");
        found(
            path,
            "an entry of a corpus is one image with one caption or question",
            format!("set `{path}` to 0 and `{section}captions` to 1"),
        )
    })
}

/// What published data cannot give to a restoration.
fn trained_on(run: &RunConfig, restore: &RestoreConfig) -> Option<Conflict> {
    if run.data.source != DataSource::Folder || restore.method == RestoreMethod::None {
        return None;
    }
    if run.data.restoration.corpora.is_empty() {
        return found(
            "data.restoration.corpora",
            format!("`{}` needs training samples, but no corpus is named", restore.method.name()),
            "set `data.restoration.corpora`, for instance to [cc3m]",
        );
    }
    if restore.questions > 0 {
        return found("restore.questions", "entries of corpora are drawn one by one", "set `restore.questions` to 0");
    }
    None
}
