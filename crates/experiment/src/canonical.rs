//! The canonical form of a run: what it cannot see is neutral, so runs that are the same work are equal.

use crate::{
    Pattern, RunConfig, Task, Tower,
    aids::{PerturbConfig, SmoothingConfig, SmoothingMethod},
    allocation::AllocationConfig,
    config::{
        CalibrationConfig, CorporaConfig, DataConfig, DataSource, EvaluateConfig, Metric, PruneConfig, Repetition,
        RestoreConfig, RestoreMethod, SampleForm, TowerAdapter, TowerCalibration, TowerPrune,
    },
    model::DenseConfig,
    reconstruct::ReconstructConfig,
    refine::{RefineConfig, RefineMethod},
    steps::{Step, StepKind},
};

/// Makes settings neutral that cannot change any of the run's numbers.
///
/// - The gate is checked, never computed with: it goes.
/// - A published checkpoint is not trained: `dense` becomes the default. The embedded world has no root, folders have no world seed.
/// - Without planted channel scales, there is no seed for them.
/// - Without a metric, or with every budget 0, there is no pruning: `prune` becomes the default. A tower with budget 0 loses its group.
/// - An N:M pattern implies the budget and needs no group. Else an absent group becomes the metric's published one.
/// - A metric that looks at no activations needs no calibration, unless the budget is divided by what is measured.
/// - Settings of methods that the metric does not read become the default: damping without SparseGPT, cycles without DSnoT, rounding and
///   threshold with N:M, and so on. Token weights without calibration too, and a tower's own calibration where it says what all say.
/// - Settings of allocation that its method does not look at become the default, as does all of it where it divides nothing: N:M patterns
///   say every layer's budget, and a tower on its own in one group has it already.
/// - Without a method there is no restoration: `restore` becomes the default. Towers that are not tuned lose their adapter settings,
///   distillation of weight 0 its temperature and reduction, masks that stay, noise and penalties of 0 and fixed loading all of their settings.
/// - Numbers of items that no task asks for, beams without generation and protocols of tasks that are not measured become the default;
///   tasks get the order of the tables. Captions before a prompt, perturbed questions and votes on copies go where no task asks so, or where they are
///   switched off; the embedded world's captions come from no corpus.
/// - Corpora that nothing reads become the default, as do instructions of samples that have none and what is read of questions where no corpus
///   has any. Matrices that train element by element have no rank, and those that are scaled no factor.
/// - Scores that rank nothing, and calibration that no score reads, become the default in a structured removal.
/// - Steps that change nothing go; a list that is a pruning and a restoration, or less, becomes the sections.
/// - A seed from which nothing is drawn becomes 0.
pub fn canonical(run: &RunConfig) -> RunConfig {
    let mut run = run.clone();
    run.dense.gate.clear();
    if run.model.preset.is_none() {
        run.dense = DenseConfig::default().into();
    }
    if run.model.channel_spread <= 0.0 {
        (run.model.channel_spread, run.model.channel_seed) = (0.0, 0);
    }
    match run.data.source {
        DataSource::Shapes => run.data.root = None,
        DataSource::Folder => run.data.seed = DataConfig::default().seed,
    }
    canonical_steps(&mut run);
    canonical_evaluate(&mut run.evaluate, run.data.source);
    if !run.evaluate.tasks.contains(&Task::Perplexity) {
        run.data.text = None;
    }
    let folder = run.data.source == DataSource::Folder;
    let calibrates = run.calibrates();
    let trains = run.restorations().next().is_some();
    canonical_corpora(&mut run.data.calibration, folder && calibrates);
    canonical_corpora(&mut run.data.restoration, folder && trains);
    if !draws(&run) {
        run.seed = 0;
    }
    run
}

/// Whether anything in a canonical run is drawn from its seed.
pub fn draws(run: &RunConfig) -> bool {
    run.calibrates()
        || run.prunings().any(|prune| prune.metric == Metric::Random)
        || run.structures().any(|structure| structure.draws())
        || run.restorations().next().is_some()
}

/// What steps cannot see is neutral, and steps that change nothing go. A list that is then at most one pruning and one restoration behind it, under
/// the names that they have without a list, becomes the sections; otherwise every step says all of its settings and the sections nothing.
fn canonical_steps(run: &mut RunConfig) {
    if run.steps.is_empty() {
        canonical_prune(&mut run.prune);
        run.refine = RefineConfig::default();
        run.structure = Default::default();
        run.reconstruct = ReconstructConfig::default().into();
        canonical_restore(&mut run.restore);
        return;
    }
    let names: Vec<String> = run.steps.iter().map(|step| step.name.clone()).collect();
    let mut steps: Vec<(String, Step)> = names.into_iter().zip(run.sequence()).collect();
    // Backwards: what refines a tower comes after its pruning, and reads the calibration of that.
    let mut refined: Vec<Tower> = Vec::new();
    for (_, step) in steps.iter_mut().rev() {
        match step {
            Step::Prune(prune) => {
                let pruned: Vec<Tower> = prune.pruned().collect();
                canonical_pruning(prune, &refined);
                refined.retain(|tower| !pruned.contains(tower));
            }
            Step::Refine(refine) => {
                *refine = refine.canonical();
                if refine.method != RefineMethod::None {
                    refined = Tower::ALL.into();
                }
            }
            Step::Structure(structure) => *structure = structure.canonical().into(),
            Step::Reconstruct(reconstruct) => **reconstruct = reconstruct.canonical(),
            Step::Restore(restore) => {
                canonical_restore(restore);
                if restore.method != RestoreMethod::None {
                    refined.clear();
                }
            }
        }
    }
    steps.retain(|(_, step)| step.does_something());
    (run.prune, run.refine, run.structure, run.reconstruct, run.restore, run.steps) = Default::default();
    let is_usual =
        steps.iter().all(|(name, step)| StepKind::USUAL.contains(&step.kind()) && name == step.kind().name())
            && steps.windows(2).all(|pair| pair[0].1.kind() < pair[1].1.kind());
    if is_usual {
        for (_, step) in steps {
            match step {
                Step::Prune(prune) => run.prune = prune,
                Step::Refine(refine) => run.refine = refine,
                Step::Structure(structure) => run.structure = structure,
                Step::Reconstruct(reconstruct) => run.reconstruct = reconstruct,
                Step::Restore(restore) => run.restore = restore,
            }
        }
    } else {
        *run.steps = steps.into_iter().map(|(name, step)| step.config(name)).collect();
    }
}

pub(crate) fn canonical_prune(prune: &mut PruneConfig) {
    canonical_pruning(prune, &[]);
}

/// The same of a pruning whose calibration is read by the refinement of some towers, where it prunes them.
fn canonical_pruning(prune: &mut PruneConfig, refined: &[Tower]) {
    let pruned: Vec<Tower> = prune.pruned().collect();
    if pruned.is_empty() {
        *prune = PruneConfig::default();
        return;
    }
    let (metric, pattern) = (prune.metric, prune.pattern);
    let shared = prune.calibration.clone();
    for tower in [&mut prune.vision, &mut prune.connector, &mut prune.language] {
        if tower.sparsity <= 0.0 {
            *tower = TowerPrune::default();
        } else {
            tower.sparsity = pattern.sparsity().unwrap_or(tower.sparsity);
            tower.group = (pattern == Pattern::Unstructured).then(|| tower.group.unwrap_or(metric.published_group()));
        }
    }
    prune.allocation = match pattern {
        Pattern::Unstructured => prune.allocation.canonical(pruned.len()),
        Pattern::NOfM { .. } => AllocationConfig::default(),
    };
    let groups: Vec<_> = pruned.iter().map(|&tower| prune.tower(tower).group).collect();
    let method = prune.method().canonical(metric, pattern, &groups);
    (prune.rounding, prune.threshold) = (method.rounding, method.threshold);
    (prune.magnitude, prune.sparsegpt) = (method.magnitude, method.sparsegpt);
    (prune.dsnot, prune.alps) = (method.dsnot, method.alps);
    prune.calibration.tokens = prune.calibration.tokens.canonical();
    let is_refined = |tower: &Tower| pruned.contains(tower) && refined.contains(tower);
    let calibrates = prune.calibrates();
    let towers = [
        (Tower::Vision, &mut prune.vision),
        (Tower::Connector, &mut prune.connector),
        (Tower::Language, &mut prune.language),
    ];
    for (tower, settings) in towers {
        let own = &mut settings.calibration;
        if !calibrates && !is_refined(&tower) {
            *own = TowerCalibration::default();
        }
        own.images = own.images.filter(|&images| images != shared.images);
        own.questions = own.questions.filter(|&questions| questions != shared.questions);
        own.captions = own.captions.filter(|&captions| captions != shared.captions);
        own.corpora.sort_unstable();
    }
    if !calibrates && !Tower::ALL.iter().any(is_refined) {
        prune.calibration = CalibrationConfig::default();
    } else if !metric.needs_calibration() {
        prune.calibration.propagate = CalibrationConfig::default().propagate;
    }
}

fn canonical_restore(restore: &mut RestoreConfig) {
    if restore.method == RestoreMethod::None {
        *restore = RestoreConfig::default();
        return;
    }
    for tower in [&mut restore.vision, &mut restore.connector, &mut restore.language] {
        if !tower.tune {
            *tower = TowerAdapter { tune: false, ..TowerAdapter::default() };
        }
        tower.targets.sort();
        if restore.method == RestoreMethod::ScaleLora {
            tower.scale = TowerAdapter::default().scale;
        }
        if tower.full {
            (tower.rank, tower.scale) = (TowerAdapter::default().rank, TowerAdapter::default().scale);
        }
    }
    restore.distill.make_canonical();
    if restore.contrastive <= 0.0 {
        restore.hardness = 0.0;
    }
    if !restore.evolve.is_on() {
        restore.evolve = Default::default();
    }
    if !restore.loading.is_on() {
        restore.loading = Default::default();
    }
    if !restore.perturb.is_on() {
        restore.perturb = Default::default();
    }
    if !restore.penalty.is_on() {
        restore.penalty = Default::default();
    }
    restore.micro_batch = restore.micro_batch.filter(|&size| size < restore.batch);
}

fn canonical_corpora(corpora: &mut CorporaConfig, read: bool) {
    if !read {
        *corpora = CorporaConfig::default();
        return;
    }
    corpora.corpora.sort_unstable();
    if corpora.form == SampleForm::Prefix {
        corpora.instructions = CorporaConfig::default().instructions;
    }
    if !corpora.corpora.iter().any(|corpus| corpus.asks()) {
        corpora.question = None;
    }
}

fn canonical_evaluate(evaluate: &mut EvaluateConfig, source: DataSource) {
    let neutral = EvaluateConfig::default();
    let EvaluateConfig {
        tasks,
        questions,
        images,
        beams,
        answer,
        caption,
        okvqa,
        retrieval,
        perplexity,
        retrieved,
        perturb,
        smoothing,
    } = evaluate;
    tasks.sort_unstable();
    if !tasks.iter().any(|task| task.has_questions()) {
        *questions = neutral.questions;
        *answer = neutral.answer;
    }
    if !tasks.iter().any(|task| task.has_images_only()) {
        *images = neutral.images;
    }
    if !tasks.iter().any(|task| task.writes()) {
        *beams = neutral.beams;
    }
    if !tasks.contains(&Task::Okvqa) {
        *okvqa = neutral.okvqa;
    }
    for asking in [&mut *answer, &mut *caption] {
        if asking.repetition_penalty.is_none() {
            asking.repetition_over = Repetition::default();
        }
    }
    if !tasks.contains(&Task::Nocaps) {
        *caption = neutral.caption;
    } else {
        // No question goes into a caption's prompt.
        caption.text = neutral.caption.text;
    }
    if !tasks.contains(&Task::Perplexity) {
        *perplexity = neutral.perplexity;
    }
    if !tasks.contains(&Task::Flickr30k) || retrieval.checkpoint.is_none() {
        *retrieval = neutral.retrieval;
    }
    if !retrieved.is_on() || !tasks.iter().any(|task| task.writes()) {
        *retrieved = neutral.retrieved;
    }
    if source == DataSource::Shapes {
        retrieved.corpora.clear();
    }
    retrieved.corpora.sort_unstable();
    let asks = tasks.iter().any(|task| task.has_questions());
    if !asks || !perturb.is_on() {
        *perturb = PerturbConfig::default();
    }
    match smoothing.method {
        SmoothingMethod::None => *smoothing = SmoothingConfig::default(),
        _ if !asks => *smoothing = SmoothingConfig::default(),
        SmoothingMethod::Masked | SmoothingMethod::Removed => smoothing.prompt = SmoothingConfig::default().prompt,
        SmoothingMethod::SelfDenoised => {}
    }
}
