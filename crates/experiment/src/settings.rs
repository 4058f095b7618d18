//! The settings of a run: path, shape, meaning. The one table behind reading, overriding, labelling and the JSON Schema.

use serde_yaml::Value;

use crate::{
    RunConfig, Task,
    aids::{Perturbation, SmoothingMethod},
    flow::Reading,
    reconstruct::{Trained, Window},
    refine::RefineMethod,
    shape::{Bounds, Shape},
    steps::StepKind,
    structure::{BlockScore, GroupScore},
};

/// One setting, addressed by its dotted path.
pub struct Setting {
    /// Path in an experiment file, such as `prune.vision.sparsity`.
    pub path: &'static str,
    /// One sentence for people.
    pub doc: &'static str,
    pub(crate) shape: Shape,
    set: fn(&mut RunConfig, &Value) -> Result<(), serde_yaml::Error>,
    get: fn(&RunConfig) -> Result<Value, serde_yaml::Error>,
}

impl Setting {
    /// Puts a value that [`Shape::check`] has passed into a run.
    pub(crate) fn set(&self, run: &mut RunConfig, value: &Value) -> Result<(), serde_yaml::Error> {
        (self.set)(run, value)
    }

    /// The value in a run. Of a section that steps have in their own ways, what is said at all of its steps; null where they differ.
    pub fn get(&self, run: &RunConfig) -> Value {
        match StepKind::of_section(self.path).filter(|_| !run.steps.is_empty()) {
            Some(kind) => run.common(kind, |run| self.get_section(run)).unwrap_or_default(),
            None => self.get_section(run),
        }
    }

    /// The value in the section of a run, whatever its steps say.
    pub(crate) fn get_section(&self, run: &RunConfig) -> Value {
        // Every setting is plain data, which always serialises; null would show as an absent label.
        (self.get)(run).unwrap_or(Value::Null)
    }

    /// How its value is read on the command line.
    pub(crate) fn reading(&self) -> Reading {
        match self.shape {
            Shape::Set { of: Shape::Text, .. } | Shape::List(Shape::Text) => Reading::List { texts: true },
            Shape::Set { .. } | Shape::List(_) | Shape::Steps => Reading::List { texts: false },
            Shape::Text | Shape::Path | Shape::OrNull(Shape::Text | Shape::Path) => Reading::Text,
            _ => Reading::Plain,
        }
    }

    /// Whether a mapping is a value of this setting rather than a range of values.
    pub(crate) fn is_map(&self) -> bool {
        matches!(self.shape, Shape::Floors | Shape::Shares)
    }

    /// Whether its values are numbers.
    pub(crate) fn is_number(&self) -> bool {
        self.is_integer() || matches!(self.shape, Shape::Number(_) | Shape::OrNull(Shape::Number(_)))
    }

    /// Whether `0..2` means whole numbers here.
    pub(crate) fn is_integer(&self) -> bool {
        matches!(self.shape, Shape::Integer { .. } | Shape::OrNull(Shape::Integer { .. }))
    }
}

impl std::fmt::Debug for Setting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.path)
    }
}

/// The setting at a path.
pub fn find(path: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.path == path)
}

/// Whether a path is a section, such as `prune` or `restore.vision`.
pub(crate) fn is_section(path: &str) -> bool {
    SETTINGS.iter().any(|setting| setting.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')))
}

const fn whole(min: u64) -> Shape {
    Shape::Integer { min, max: u32::MAX as u64 }
}

const SEED: Shape = whole(0);
const SPARSITY: Shape = Shape::Number(Bounds { at_least: Some(0.0), below: Some(1.0), ..Bounds::ANY });
const SHARE: Shape = Shape::Number(Bounds { at_least: Some(0.0), at_most: Some(1.0), ..Bounds::ANY });
const POSITIVE_SHARE: Shape = Shape::Number(Bounds { above: Some(0.0), at_most: Some(1.0), ..Bounds::ANY });
const NOT_NEGATIVE: Shape = Shape::Number(Bounds { at_least: Some(0.0), ..Bounds::ANY });
const POSITIVE: Shape = Shape::Number(Bounds { above: Some(0.0), ..Bounds::ANY });
const TARGET: Shape = Shape::Number(Bounds { at_least: Some(0.0), ..Bounds::ANY });
const GROUP: Shape = Shape::OrNull(&Shape::Choice(&["row", "matrix", "tower"]));
const RANK: Shape = Shape::Integer { min: 0, max: 4096 };
const METHOD: Shape = Shape::Choice(&["uniform", "table", "owl", "ecoflap", "tamp", "losa", "evopress"]);
const RULE: Shape = Shape::Choice(&["aobd", "obd", "obd-absolute", "gradient"]);
const BIAS: Shape = Shape::Choice(&["none", "lora-only", "all"]);
const TARGETS: Shape = Shape::Set { of: &Shape::Text, min: 0 };
const TOWER: Shape = Shape::Choice(&["vision", "connector", "language"]);
const TASK: Shape = Shape::Choice(&Task::NAMES);
const CORPORA: Shape = Shape::Set { of: &Shape::Choice(&["coco", "vg", "cc3m", "easy-vqa", "shapes"]), min: 0 };
const CAPTION_CORPORA: Shape = Shape::Set { of: &Shape::Choice(&["coco", "vg", "cc3m"]), min: 0 };
const FORM: Shape = Shape::Choice(&["prefix", "instruct"]);
const INSTRUCTIONS: Shape = Shape::Set { of: &Shape::Text, min: 1 };
const AUGMENT: Shape = Shape::Choice(&["none", "crop"]);
const TOKENS: Shape = Shape::OrNull(&Shape::Integer { min: 1, max: 4096 });
const PENALTY: Shape = Shape::OrNull(&POSITIVE);

macro_rules! settings {
    ($($path:literal $shape:expr, $($place:ident).+, $doc:literal;)*) => {
        &[$(Setting {
            path: $path,
            doc: $doc,
            shape: $shape,
            set: |run, value| {
                run.$($place).+ = serde_yaml::from_value(value.clone())?;
                Ok(())
            },
            get: |run| serde_yaml::to_value(&run.$($place).+),
        }),*]
    };
}

/// Every setting, in the order of the documentation.
pub static SETTINGS: &[Setting] = settings! {
    "model.preset" Shape::OrNull(&Shape::Choice(&["shapes-flant5", "shapes-vicuna"])), model.preset,
        "A small model that the program trains itself; exclusive with `model.checkpoint`.";
    "model.checkpoint" Shape::OrNull(&Shape::Path), model.checkpoint,
        "A Hugging Face checkpoint folder; exclusive with `model.preset`.";
    "model.compute" Shape::OrNull(&Shape::Choice(&["float32", "bfloat16", "float16"])), model.compute,
        "Type of the computation; null means float32 on a CPU, and on a GPU the type of the checkpoint's weights. Adapters and their optimiser, losses, calibration statistics and pruning's arithmetic stay float32, and with float16 also what `transformers` keeps wide: T5's `wo`, BLIP-2's Q-Former and query tokens.";
    "model.channel-spread" NOT_NEGATIVE, model.channel_spread,
        "Standard deviation of the natural logarithm of planted channel scales, 0 for none: an emulation of the outlier channels of large models. Norm gains are multiplied by powers of two and the columns that read them divided; same function to the bit. Scales are rounded to powers of two, so little is planted below 0.3.";
    "model.channel-seed" SEED, model.channel_seed,
        "Seed of the planted channel scales. Not the replicate seed: all replicates share one dense model.";
    "dense.seed" SEED, dense.seed,
        "Seed of the dense model's training. Not the replicate seed: all replicates share one dense model.";
    "dense.steps" Shape::OrNull(&whole(1)), dense.steps,
        "Training steps of the joint stage; null means the preset's own number.";
    "dense.gate" Shape::Floors, dense.gate,
        "Lowest acceptable dense score by task or task/part, in points; checked before a sweep spends anything.";
    "data.source" Shape::Choice(&["shapes", "folder"]), data.source,
        "The embedded world, or folders of published benchmarks.";
    "data.seed" SEED, data.seed,
        "Seed of the embedded world; every split follows from it.";
    "data.root" Shape::OrNull(&Shape::Path), data.root,
        "Root folder of published benchmarks and corpora, with `data.source: folder`.";
    "data.text" Shape::OrNull(&Shape::Path), data.text,
        "Text file (UTF-8) of the task `perplexity`.";
    "data.calibration.corpora" CORPORA, data.calibration.corpora,
        "Corpora under `data.root` that calibration draws from, samples split evenly.";
    "data.calibration.form" FORM, data.calibration.form,
        "`instruct`: an instruction is read and the caption written; `prefix`: the caption's beginning is read and its rest written.";
    "data.calibration.instructions" INSTRUCTIONS, data.calibration.instructions,
        "Instructions of `form: instruct`, one drawn per sample.";
    "data.calibration.question" Shape::OrNull(&Shape::Text), data.calibration.question,
        "What the model reads of a corpus of questions, with `{}` where the question goes; null means the question alone.";
    "data.calibration.augment" AUGMENT, data.calibration.augment,
        "`crop`: a random part of the image, mirrored every other time, as in training; `none`: the image as evaluation sees it.";
    "data.restoration.corpora" CORPORA, data.restoration.corpora,
        "Corpora under `data.root` that restoration trains on, samples split evenly.";
    "data.restoration.form" FORM, data.restoration.form,
        "`instruct`: an instruction is read and the caption written; `prefix`: the caption's beginning is read and its rest written.";
    "data.restoration.instructions" INSTRUCTIONS, data.restoration.instructions,
        "Instructions of `form: instruct`, one drawn per sample.";
    "data.restoration.question" Shape::OrNull(&Shape::Text), data.restoration.question,
        "What the model reads of a corpus of questions, with `{}` where the question goes; null means the question alone.";
    "data.restoration.augment" AUGMENT, data.restoration.augment,
        "`crop`: a random part of the image, mirrored every other time; `none`: the image as evaluation sees it.";
    "prune.metric" Shape::Choice(&["none", "random", "magnitude", "wanda", "ria", "sparsegpt", "alps", "dsnot"]), prune.metric,
        "What decides which weights go; `sparsegpt` and `alps` also change those that stay, `dsnot` swaps from the mask of another metric, `none` leaves the model dense.";
    "prune.pattern" Shape::Pattern, prune.pattern,
        "`unstructured`, or N:M as in the field: `2:4` keeps 2 of every 4.";
    "prune.vision.sparsity" SPARSITY, prune.vision.sparsity,
        "Fraction removed from the image encoder. With an N:M pattern: 0, or what the pattern implies.";
    "prune.vision.group" GROUP, prune.vision.group,
        "Weights among which importance is compared; null means the metric's published group.";
    "prune.vision.calibration.images" Shape::OrNull(&whole(1)), prune.vision.calibration.images,
        "Distinct calibration images of this tower; null means as `prune.calibration`.";
    "prune.vision.calibration.questions" Shape::OrNull(&whole(0)), prune.vision.calibration.questions,
        "Questions for each calibration image of this tower; null means as `prune.calibration`.";
    "prune.vision.calibration.captions" Shape::OrNull(&whole(0)), prune.vision.calibration.captions,
        "Captions for each calibration image of this tower; null means as `prune.calibration`.";
    "prune.vision.calibration.corpora" CORPORA, prune.vision.calibration.corpora,
        "Corpora that this tower's calibration draws from; none means those of `data.calibration`.";
    "prune.connector.sparsity" SPARSITY, prune.connector.sparsity,
        "Fraction removed from the connector; the paper never prunes it.";
    "prune.connector.group" GROUP, prune.connector.group,
        "Weights among which importance is compared; null means the metric's published group.";
    "prune.connector.projection" Shape::Flag, prune.connector.projection,
        "Whether the projection into the language model (`language_projection`) is pruned with the connector, within its budget; the paper leaves it dense. Connectors of LLaVA and Qwen-VL have none beside them.";
    "prune.connector.calibration.images" Shape::OrNull(&whole(1)), prune.connector.calibration.images,
        "Distinct calibration images of this tower; null means as `prune.calibration`.";
    "prune.connector.calibration.questions" Shape::OrNull(&whole(0)), prune.connector.calibration.questions,
        "Questions for each calibration image of this tower; null means as `prune.calibration`.";
    "prune.connector.calibration.captions" Shape::OrNull(&whole(0)), prune.connector.calibration.captions,
        "Captions for each calibration image of this tower; null means as `prune.calibration`.";
    "prune.connector.calibration.corpora" CORPORA, prune.connector.calibration.corpora,
        "Corpora that this tower's calibration draws from; none means those of `data.calibration`.";
    "prune.language.sparsity" SPARSITY, prune.language.sparsity,
        "Fraction removed from the language model. With an N:M pattern: 0, or what the pattern implies.";
    "prune.language.group" GROUP, prune.language.group,
        "Weights among which importance is compared; null means the metric's published group.";
    "prune.language.calibration.images" Shape::OrNull(&whole(1)), prune.language.calibration.images,
        "Distinct calibration images of this tower; null means as `prune.calibration`.";
    "prune.language.calibration.questions" Shape::OrNull(&whole(0)), prune.language.calibration.questions,
        "Questions for each calibration image of this tower; null means as `prune.calibration`.";
    "prune.language.calibration.captions" Shape::OrNull(&whole(0)), prune.language.calibration.captions,
        "Captions for each calibration image of this tower; null means as `prune.calibration`.";
    "prune.language.calibration.corpora" CORPORA, prune.language.calibration.corpora,
        "Corpora that this tower's calibration draws from; none means those of `data.calibration`.";
    "prune.calibration.images" whole(1), prune.calibration.images,
        "Distinct training images behind the statistics.";
    "prune.calibration.questions" whole(0), prune.calibration.questions,
        "Questions drawn for each calibration image.";
    "prune.calibration.captions" whole(0), prune.calibration.captions,
        "Captions drawn for each calibration image.";
    "prune.calibration.propagate" Shape::Choice(&["pruned", "dense"]), prune.calibration.propagate,
        "Whether a block sees pruned or dense predecessors while its statistics are collected. Dense statistics are collected once for all methods, ratios and patterns.";
    "prune.calibration.tokens.select" Shape::Choice(&["all", "atv"]), prune.calibration.tokens.select,
        "`all` tokens count; `atv`: all text, and of the visual tokens of a block with text those it changes most, as many as their mean change (1 - cosine) times the number of text tokens.";
    "prune.calibration.tokens.text" NOT_NEGATIVE, prune.calibration.tokens.text,
        "Weight of a text token in the statistics. Weights compare the kinds that a layer sees: one kind alone, as in an image encoder, counts fully.";
    "prune.calibration.tokens.visual" NOT_NEGATIVE, prune.calibration.tokens.visual,
        "Weight of a visual token: image patches, and the image's tokens in the language model.";
    "prune.calibration.tokens.query" NOT_NEGATIVE, prune.calibration.tokens.query,
        "Weight of a query token of the connector.";
    "prune.calibration.tokens.alpha" POSITIVE, prune.calibration.tokens.alpha,
        "`atv`: factor on the mean change.";
    "prune.rounding" Shape::Choice(&["decimal", "truncated", "nearest"]), prune.rounding,
        "How size times sparsity becomes a number of weights: down as in decimal arithmetic, down from the binary product (published code), or to the nearest (the reference's DSnoT).";
    "prune.threshold" Shape::Choice(&["exact", "strict", "inclusive"]), prune.threshold,
        "`exact`: the number is met, ties go by position; `strict`: only what lies below the first weight that should stay (the reference's image encoder); `inclusive`: that weight too (ECoFLaP). For metrics that rank.";
    "prune.magnitude.signed" Shape::Flag, prune.magnitude.signed,
        "Without the absolute value, as in the reference: the most negative weights go first.";
    "prune.sparsegpt.damping" Shape::Choice(&["always", "on-failure"]), prune.sparsegpt.damping,
        "Whether the Gram matrix is damped once in any case (published), or only while it cannot be factorised (the reference).";
    "prune.sparsegpt.damping-share" POSITIVE, prune.sparsegpt.damping_share,
        "What damping adds to the diagonal, as a share of its mean.";
    "prune.sparsegpt.block" whole(1), prune.sparsegpt.block,
        "Columns whose masks are chosen at once; the comparison group is the block, or with `group: row` each of its rows.";
    "prune.sparsegpt.threshold" Shape::Choice(&["exact", "inclusive"]), prune.sparsegpt.threshold,
        "Whether blocks add up to the number that is asked for, or each takes all up to and with the first weight that should stay (published; one more per block).";
    "prune.sparsegpt.order" Shape::Choice(&["natural", "loss"]), prune.sparsegpt.order,
        "Columns are walked from left to right (published), or, where blocks lose unlike shares, those first in which most is lost (ROSE).";
    "prune.alps.damping-share" POSITIVE, prune.alps.damping_share,
        "What damping adds to the diagonal of the Gram matrix, as a share of its mean.";
    "prune.alps.penalty" POSITIVE, prune.alps.penalty,
        "The first penalty on the distance between the weights and the nearest sparse ones; it follows from the changes of the mask after that.";
    "prune.alps.iterations" whole(1), prune.alps.iterations,
        "Maximum number of iterations that look for the mask.";
    "prune.alps.steps" whole(0), prune.alps.steps,
        "Maximum number of steps of least squares on the mask that was found.";
    "prune.dsnot.initial" Shape::Choice(&["magnitude", "wanda", "ria", "sparsegpt"]), prune.dsnot.initial,
        "What makes the first mask; `sparsegpt`: its saliency of the weights as they are.";
    "prune.dsnot.cycles" whole(0), prune.dsnot.cycles,
        "Maximum number of swaps in a row. 0 leaves the first mask, which is what the reference's unstructured DSnoT does.";
    "prune.dsnot.threshold" NOT_NEGATIVE, prune.dsnot.threshold,
        "Errors of a row's expected output up to this are left alone.";
    "prune.dsnot.sign" Shape::Choice(&["published", "always"]), prune.dsnot.sign,
        "Whether a swap that turns the sign of the error ends the row with N:M only, or always.";
    "prune.dsnot.variance-power" NOT_NEGATIVE, prune.dsnot.variance_power,
        "Exponent of the variance that contributions are divided by.";
    "prune.allocation.method" METHOD, prune.allocation.method,
        "How a budget is divided among layers: evenly, by a table, by shares of outliers (OWL), by how much the loss depends on them (ECoFLaP), by how unlike each other the outputs of tokens are (TAMP), by what a block's input shares with other blocks' (LoSA), or as a search finds best (EvoPress).";
    "prune.allocation.group" Shape::Choice(&["layer", "block", "tower"]), prune.allocation.group,
        "Layers that get one sparsity: each matrix for itself, the matrices of a block, or those of a tower.";
    "prune.allocation.towers" Shape::Choice(&["each", "joint"]), prune.allocation.towers,
        "`each`: every tower meets its own sparsity; `joint`: together they meet the sum of their budgets, and may trade.";
    "prune.allocation.cap" SHARE, prune.allocation.cap,
        "Maximum fraction removed from a group.";
    "prune.allocation.floor" SHARE, prune.allocation.floor,
        "Minimum fraction removed from a group.";
    "prune.allocation.samples" Shape::OrNull(&whole(1)), prune.allocation.samples,
        "Calibration samples that are looked at before budgets are divided, the first so many; null means all.";
    "prune.allocation.margin" Shape::OrNull(&POSITIVE_SHARE), prune.allocation.margin,
        "TAMP: how far above its tower's sparsity a group's may be; LoSA: how far above or below. null means 0.1 for TAMP, and for LoSA 0.01, 0.02 or 0.03 at sparsities up to 0.5, up to 0.6 and beyond.";
    "prune.allocation.search.generations" whole(1), prune.allocation.search.generations,
        "EvoPress: rounds of mutation and selection.";
    "prune.allocation.search.offspring" whole(1), prune.allocation.search.offspring,
        "EvoPress: candidates in a round. A quarter of them is compared on more samples than all, and an eighth on all samples.";
    "prune.allocation.search.levels" Shape::Integer { min: 1, max: 100 }, prune.allocation.search.levels,
        "EvoPress: sparsities above the tower's that a group can have, and as many below.";
    "prune.allocation.order" Shape::Choice(&["first", "zeroth"]), prune.allocation.order,
        "ECoFLaP: gradients of the loss, or its differences under noise on one matrix at a time.";
    "prune.allocation.score" RULE, prune.allocation.score,
        "ECoFLaP, from weights w and gradients g: `aobd` |w||g|, `obd` w^2 g^2, `obd-absolute` w^2|g| (the reference's `aobd`), `gradient` |g|.";
    "prune.allocation.aggregate" Shape::Choice(&["sum", "average"]), prune.allocation.aggregate,
        "ECoFLaP: kept weights of a group go by the sum of its scores, or by the sum divided by its weights.";
    "prune.allocation.epsilon" POSITIVE, prune.allocation.epsilon,
        "ECoFLaP, zeroth order: factor on the noise.";
    "prune.allocation.noise" whole(1), prune.allocation.noise,
        "ECoFLaP, zeroth order: noises per matrix and sample.";
    "prune.allocation.lambda" SHARE, prune.allocation.lambda,
        "OWL: half the range of sparsities.";
    "prune.allocation.m" POSITIVE, prune.allocation.m,
        "OWL: how many times the mean of its group an outlier is.";
    "prune.allocation.table" Shape::Shares, prune.allocation.table,
        "Sparsity by layer pattern, such as `{ \"language.0\": 0.3, \"*.wo\": 0.6 }`; the other layers fill the budget. Layers are called `tower.block.role` or by module path, `*` stands for anything, the longest pattern counts.";
    "refine.method" Shape::Choice(&RefineMethod::NAMES), refine.method,
        "How a step `refine` changes what was pruned: `sparseswaps` swaps pruned weights for kept ones, `least-squares` solves for the kept ones; both by Gram matrices of the layers' inputs, calibrated as the pruning was.";
    "refine.iterations" Shape::OrNull(&whole(1)), refine.iterations,
        "Maximum number of swaps in a row, or of steps of the solver; null means 100 swaps, 10 steps.";
    "structure.score" Shape::Choice(&GroupScore::NAMES), structure.score,
        "What ranks the heads, channels and queries that a step `structure` removes: `magnitude` the norm of a group's weights or of a query, `wanda` weights that read its outputs times the norms of these, `gradient` the first-order change of the loss, element by element, `random`. Groups compete within a layer.";
    "structure.block-score" Shape::Choice(&BlockScore::NAMES), structure.block_score,
        "What ranks blocks: `influence` 1 minus the mean cosine of what enters and leaves, `magnitude`, `gradient`, `random`.";
    "structure.vision.heads" TARGET, structure.vision.heads,
        "Attention heads of each layer of the image encoder: below 1 the fraction removed, from 1 on the number that remains, 0 all stay. Here and below, a model whose configuration cannot say the new number is refused by name.";
    "structure.vision.channels" TARGET, structure.vision.channels,
        "Channels of each feed-forward layer of the image encoder: fraction removed, or number that remains.";
    "structure.vision.blocks" TARGET, structure.vision.blocks,
        "Blocks of the image encoder: fraction removed, or number that remains.";
    "structure.connector.heads" TARGET, structure.connector.heads,
        "Attention heads of each layer of the connector: fraction removed, or number that remains.";
    "structure.connector.channels" TARGET, structure.connector.channels,
        "Channels of each feed-forward layer of the connector: fraction removed, or number that remains.";
    "structure.connector.blocks" TARGET, structure.connector.blocks,
        "Blocks of the connector: fraction removed, or number that remains.";
    "structure.connector.queries" TARGET, structure.connector.queries,
        "Learned queries of a Q-Former, each a token that the language model reads of an image: fraction removed, or number that remains.";
    "structure.language.heads" TARGET, structure.language.heads,
        "Attention heads of each layer of the language model: fraction removed, or number that remains. Where query heads share keys and values, these with their query heads; T5's position biases belong to heads, so that its encoder, and its decoder, loses the same ones in all blocks.";
    "structure.language.channels" TARGET, structure.language.channels,
        "Channels of each feed-forward layer of the language model: fraction removed, or number that remains.";
    "structure.language.blocks" TARGET, structure.language.blocks,
        "Blocks of the language model: fraction removed, or number that remains; of T5, of encoder and decoder each.";
    "structure.calibration.images" whole(1), structure.calibration.images,
        "Distinct training images behind the scores.";
    "structure.calibration.questions" whole(0), structure.calibration.questions,
        "Questions drawn for each of these images.";
    "structure.calibration.captions" whole(0), structure.calibration.captions,
        "Captions drawn for each of these images.";
    "reconstruct.train" Shape::Choice(&Trained::NAMES), reconstruct.train,
        "What a step `reconstruct` trains in a window, under the masks that there are: `all` kept weights, `norms` and biases alone, or these beside an update of the matrices that keeps masks; `none` leaves the model as it is.";
    "reconstruct.window" Shape::ChoiceOr(&Window::NAMES, &whole(1)), reconstruct.window,
        "What is trained together: each `matrix`, attention and MLP apart (`attention-mlp`), a `block`, or so many blocks.";
    "reconstruct.inputs" Shape::Choice(&["dense", "changed"]), reconstruct.inputs,
        "What enters a window: what does in the `dense` model, or in the model as earlier steps and windows have `changed` it.";
    "reconstruct.targets" Shape::Choice(&["dense", "window"]), reconstruct.targets,
        "With `inputs: changed`, what is to leave a window: what leaves it in the `dense` model, or what the dense `window` makes of the same inputs.";
    "reconstruct.vision.tune" Shape::Flag, reconstruct.vision.tune,
        "Whether the image encoder is reconstructed. A tower that no step has changed is left alone, unless what it reads has changed and is to be made good (`inputs: changed`, `targets: dense`).";
    "reconstruct.connector.tune" Shape::Flag, reconstruct.connector.tune,
        "Whether the connector is reconstructed, as `reconstruct.vision.tune`; its projection where it was pruned with it.";
    "reconstruct.language.tune" Shape::Flag, reconstruct.language.tune,
        "Whether the language model is reconstructed, as `reconstruct.vision.tune`.";
    "reconstruct.rank" Shape::Integer { min: 1, max: 4096 }, reconstruct.rank,
        "Rank of the update that `reconstruct.train` names.";
    "reconstruct.scale" POSITIVE, reconstruct.scale,
        "Factor on the update (alpha / rank of the reference); `scale-lora` has none.";
    "reconstruct.samples" whole(1), reconstruct.samples,
        "Samples: images for the image encoder, texts about images for connector and language model; of the calibration data.";
    "reconstruct.questions" whole(0), reconstruct.questions,
        "Questions about each image, beside one caption.";
    "reconstruct.batch" whole(1), reconstruct.batch,
        "Samples of a step.";
    "reconstruct.passes" whole(1), reconstruct.passes,
        "How often a window sees every sample.";
    "reconstruct.learning-rate" POSITIVE, reconstruct.learning_rate,
        "Peak learning rate of AdamW, which decays no weight.";
    "reconstruct.warmup" SHARE, reconstruct.warmup,
        "Share of a window's steps over which the learning rate rises; then it falls to 0, both linearly.";
    "reconstruct.cosine" NOT_NEGATIVE, reconstruct.cosine,
        "Weight of the mean cosine between outputs and targets, which is taken from the mean squared error.";
    "restore.method" Shape::Choice(&["none", "lora", "lora-remasked", "sparse-lora", "scale-lora", "spp", "spp-lora"]), restore.method,
        "How quality is given back; `none` leaves the pruned model as it is.";
    "restore.vision.tune" Shape::Flag, restore.vision.tune,
        "Whether the image encoder is trained.";
    "restore.vision.rank" RANK, restore.vision.rank,
        "Rank of the update; with `spp`, rows of its factor of the columns. 0 leaves the matrices as they are.";
    "restore.vision.scale" POSITIVE, restore.vision.scale,
        "Factor on the update (alpha / rank of the reference).";
    "restore.vision.targets" TARGETS, restore.vision.targets,
        "Roles of the linears that get an adapter, such as `qkv`, or modules on their path, such as `self_attn`; empty means every prunable one.";
    "restore.vision.full" Shape::Flag, restore.vision.full,
        "Whether the matrices of the image encoder that are trained change element by element instead of by a product of low rank.";
    "restore.vision.bias" BIAS, restore.vision.bias,
        "Biases of the image encoder that train beside the low-rank updates: `none`, `lora-only` those of the linears with an update, `all` with the shifts of norms.";
    "restore.vision.norms" Shape::Flag, restore.vision.norms,
        "Whether gains and shifts of the image encoder's norms train beside the low-rank updates.";
    "restore.connector.tune" Shape::Flag, restore.connector.tune,
        "Whether the connector is trained.";
    "restore.connector.rank" RANK, restore.connector.rank,
        "Rank of the update; with `spp`, rows of its factor of the columns. 0 leaves the matrices as they are.";
    "restore.connector.scale" POSITIVE, restore.connector.scale,
        "Factor on the update (alpha / rank of the reference).";
    "restore.connector.targets" TARGETS, restore.connector.targets,
        "Roles of the linears that get an adapter, such as `query`, or modules on their path, such as `crossattention`; empty means every prunable one. What connects the towers can be named here too: `language_projection`, and the projections of a retrieval head.";
    "restore.connector.full" Shape::Flag, restore.connector.full,
        "Whether the matrices of the connector that are trained change element by element instead of by a product of low rank.";
    "restore.connector.bias" BIAS, restore.connector.bias,
        "Biases of the connector that train beside the low-rank updates: `none`, `lora-only` those of the linears with an update, `all` with the shifts of norms. Those of what connects the towers train where `targets` names it.";
    "restore.connector.queries" Shape::Flag, restore.connector.queries,
        "Whether the learned queries of the connector train, element by element.";
    "restore.connector.norms" Shape::Flag, restore.connector.norms,
        "Whether gains and shifts of the connector's norms train beside the low-rank updates.";
    "restore.language.tune" Shape::Flag, restore.language.tune,
        "Whether the language model is trained.";
    "restore.language.rank" RANK, restore.language.rank,
        "Rank of the update; with `spp`, rows of its factor of the columns. 0 leaves the matrices as they are.";
    "restore.language.scale" POSITIVE, restore.language.scale,
        "Factor on the update (alpha / rank of the reference).";
    "restore.language.targets" TARGETS, restore.language.targets,
        "Roles of the linears that get an adapter, such as `wi_0`, or modules on their path, such as `decoder`; empty means every prunable one.";
    "restore.language.full" Shape::Flag, restore.language.full,
        "Whether the matrices of the language model that are trained change element by element instead of by a product of low rank.";
    "restore.language.bias" BIAS, restore.language.bias,
        "Biases of the language model that train beside the low-rank updates: `none`, `lora-only` those of the linears with an update, `all` with the shifts of norms.";
    "restore.language.norms" Shape::Flag, restore.language.norms,
        "Whether gains and shifts of the language model's norms train beside the low-rank updates.";
    "restore.steps" whole(1), restore.steps,
        "Optimiser steps.";
    "restore.align" whole(0), restore.align,
        "The first so many steps leave the language model out, for a connector that knows nothing yet: its outputs are compared with the embeddings of the answers' words (cosine, among the words of the batch), which takes a tenth of the time.";
    "restore.batch" whole(1), restore.batch,
        "Images per step; each brings its questions and one caption.";
    "restore.questions" whole(0), restore.questions,
        "Questions per image and step.";
    "restore.samples" whole(1), restore.samples,
        "Distinct training images to draw from.";
    "restore.loading.method" Shape::Choice(&["fixed", "dynamic"]), restore.loading.method,
        "How batches are divided among corpora, or among the embedded world's kinds of questions: by the shares that the data has, or by weights that follow held-out losses (Sheared LLaMA's dynamic batch loading, arXiv 2310.06694): a weight is multiplied by exp of how far a domain's loss is above the dense model's.";
    "restore.loading.every" whole(1), restore.loading.every,
        "Steps between two measurements of the held-out losses.";
    "restore.loading.held-out" whole(1), restore.loading.held_out,
        "Items of each corpus or kind of question that losses are measured on; no batch is drawn from them. An image with several captions may have one here and others in batches.";
    "restore.learning-rate" POSITIVE, restore.learning_rate,
        "Peak learning rate of AdamW.";
    "restore.warmup" whole(0), restore.warmup,
        "Linear warm-up steps.";
    "restore.final-rate" SHARE, restore.final_rate,
        "Learning rate at the end of the cosine, as a share of the peak.";
    "restore.weight-decay" NOT_NEGATIVE, restore.weight_decay,
        "Decoupled weight decay.";
    "restore.clip" POSITIVE, restore.clip,
        "Gradient norm above which gradients are scaled down.";
    "restore.contrastive" NOT_NEGATIVE, restore.contrastive,
        "Weight of the contrastive image-text loss, for models with a retrieval head.";
    "restore.hardness" NOT_NEGATIVE, restore.hardness,
        "How much more a wrong text or image counts in the contrastive loss, the more it is like the right one: this times the likeness is added to its logit, without a gradient (LLaVE). 0 counts all the same.";
    "restore.evolve.every" whole(0), restore.evolve.every,
        "Steps between two exchanges of masked weights: the least important kept weights of a layer are dropped and as many pruned ones grown, at zero, within every row of a row-balanced mask and every N:M group. 0 leaves masks as they are. Matrices of pruned towers that train, with `sparse-lora`.";
    "restore.evolve.share" POSITIVE_SHARE, restore.evolve.share,
        "Share of a layer's kept weights that would be exchanged at the first step; it falls to 0 along a half cosine. 0.3 is RigL's.";
    "restore.evolve.until" POSITIVE_SHARE, restore.evolve.until,
        "Share of the steps behind which masks stay as they are.";
    "restore.evolve.drop" Shape::Choice(&["magnitude", "sensitivity"]), restore.evolve.drop,
        "What makes a kept weight important: the magnitude of the effective weight, or its product with the gradient (SEFT).";
    "restore.evolve.grow" Shape::Choice(&["gradient", "random"]), restore.evolve.grow,
        "Which pruned weights grow: those with the largest gradient of the batch at hand (RigL), or any (SET).";
    "restore.perturb.sigma" NOT_NEGATIVE, restore.perturb.sigma,
        "Noise on the effective matrices while they train (LoRA-GGPO, arXiv 2502.14538v1): the expected length of a row's noise as a share of the row's own. 0 adds none; what is merged has none. 0.03 is usual.";
    "restore.perturb.beta" NOT_NEGATIVE, restore.perturb.beta,
        "Weight of the squared gradient of a row beside its squared length in the variance of its noise.";
    "restore.penalty.weight" NOT_NEGATIVE, restore.penalty.weight,
        "Weight of a group l1/l2 penalty on matrices that train element by element (`restore.TOWER.full`): behind each step a group shrinks by the learning rate times this times the root of its size, to exactly zero (arXiv 2308.12114). 0 for none.";
    "restore.penalty.groups" Shape::Choice(&["structure", "rows"]), restore.penalty.groups,
        "Weights that become zero together: heads and channels as the step `structure` removes them, or rows of every matrix.";
    "restore.distill.weight" SHARE, restore.distill.weight,
        "Share of the distillation loss; 0 trains on the task alone.";
    "restore.distill.temperature" POSITIVE, restore.distill.temperature,
        "Softmax temperature of teacher and student.";
    "restore.distill.reduction" Shape::Choice(&["mean", "sum"]), restore.distill.reduction,
        "Divergence as the mean over answer tokens, or the sum over positions (the reference).";
    "restore.distill.top-k" Shape::OrNull(&Shape::Integer { min: 1, max: 65_536 }), restore.distill.top_k,
        "Compare the teacher's so many most probable tokens, and all others as one: what it said is then small enough to be kept for other trainings; null compares every token.";
    "restore.distill.divergence" Shape::Choice(&["forward", "reverse", "symmetric", "jensen-shannon"]), restore.distill.divergence,
        "Divergence of the student's distribution q from the teacher's p: KL(p || q), KL(q || p), the mean of both, or that of both from their mean.";
    "restore.distill.square" Shape::Flag, restore.distill.square,
        "Whether the divergence is multiplied by the squared temperature, so that its gradient does not shrink with it.";
    "restore.distill.logits" NOT_NEGATIVE, restore.distill.logits,
        "Weight of the divergence of next-token distributions within the distillation loss.";
    "restore.distill.hidden.weight" NOT_NEGATIVE, restore.distill.hidden.weight,
        "Weight of the language model's hidden states within the distillation loss: squared distance over the teacher's squared length, per row; 0 compares none. A learned linear map brings another teacher's width to the student's. What a teacher said is then not kept for other trainings.";
    "restore.distill.hidden.layers" Shape::List(&whole(0)), restore.distill.hidden.layers,
        "Blocks whose outputs are compared, counted from 0 (T5: encoder, then decoder); empty means the last. A teacher of other depth is compared at the same share of it.";
    "restore.distill.hidden.image" NOT_NEGATIVE, restore.distill.hidden.image,
        "Weight of image tokens among the hidden states.";
    "restore.distill.hidden.text" NOT_NEGATIVE, restore.distill.hidden.text,
        "Weight of the instruction's tokens among the hidden states.";
    "restore.distill.hidden.answer" NOT_NEGATIVE, restore.distill.hidden.answer,
        "Weight of the answer's tokens among the hidden states.";
    "restore.distill.attention.weight" NOT_NEGATIVE, restore.distill.attention.weight,
        "Weight of attention within the distillation loss: the divergence KL(teacher || student) of what each query looks at, the mean over queries, heads and rows (MiniLM, arXiv 2002.10957); 0 compares none. What a teacher said is then not kept for other trainings.";
    "restore.distill.attention.blocks" Shape::Choice(&["last", "all"]), restore.distill.attention.blocks,
        "Blocks of a tower whose attention is compared: the last one (T5: of the encoder and of the decoder, which also looks at the encoder's output), or all.";
    "restore.distill.attention.towers" Shape::Set { of: &TOWER, min: 1 }, restore.distill.attention.towers,
        "Towers whose attention is compared; something has to train in them or below.";
    "restore.distill.teacher" Shape::OrNull(&Shape::Path), restore.distill.teacher,
        "Folder of another model that teaches, with the same tokenizer and image preprocessing; null is the dense model of the run.";
    "restore.micro-batch" Shape::OrNull(&whole(1)), restore.micro_batch,
        "Maximum number of images of a step that are computed at once, at most `restore.batch`: a smaller number takes less memory and adds up to the same step, within rounding; null means all. Not part of a stage's identity.";
    "restore.recompute" Shape::Choice(&["auto", "none", "blocks"]), restore.recompute,
        "What is computed again in the backward pass instead of kept: blocks, nothing, or (auto) blocks once memory has run out. The same step within rounding; not part of a stage's identity.";
    "evaluate.tasks" Shape::Set { of: &TASK, min: 1 }, evaluate.tasks,
        "Tasks that are measured.";
    "evaluate.questions" whole(1), evaluate.questions,
        "Questions per question-answering task: the first so many.";
    "evaluate.images" whole(1), evaluate.images,
        "Images for captions (in the embedded world: per caption set) and for retrieval: the first so many.";
    "evaluate.beams" Shape::Integer { min: 1, max: 64 }, evaluate.beams,
        "Beams of the search; 1 is greedy.";
    "evaluate.answer.prompt" Shape::OrNull(&Shape::Text), evaluate.answer.prompt,
        "Prompt of a question, `{}` where the question goes, such as `Question: {} Short answer:`; null means the question alone.";
    "evaluate.answer.text" Shape::Choice(&["verbatim", "blip-question", "blip-caption"]), evaluate.answer.text,
        "What happens to a question before it goes into the prompt; the last two are LAVIS' text processors.";
    "evaluate.answer.max-new-tokens" TOKENS, evaluate.answer.max_new_tokens,
        "Maximum number of tokens of an answer; null means 10, and 3 in the embedded world.";
    "evaluate.answer.min-new-tokens" TOKENS, evaluate.answer.min_new_tokens,
        "Minimum number of tokens of an answer; null means none.";
    "evaluate.answer.length-penalty" Shape::OrNull(&Shape::Number(Bounds::ANY)), evaluate.answer.length_penalty,
        "Exponent on the length in a beam's score; null means -1, which favours short answers.";
    "evaluate.answer.repetition-penalty" PENALTY, evaluate.answer.repetition_penalty,
        "Factor against tokens that are already there; null means none.";
    "evaluate.answer.repetition-over" Shape::Choice(&["prompt-and-answer", "answer"]), evaluate.answer.repetition_over,
        "Tokens that the penalty counts as there; `answer` leaves out the prompt's, as LAVIS does.";
    "evaluate.caption.prompt" Shape::OrNull(&Shape::Text), evaluate.caption.prompt,
        "Prompt of a caption; null means the embedded world's instruction, and none for published benchmarks.";
    "evaluate.caption.max-new-tokens" TOKENS, evaluate.caption.max_new_tokens,
        "Maximum number of tokens of a caption; null means 30, and 32 in the embedded world.";
    "evaluate.caption.min-new-tokens" TOKENS, evaluate.caption.min_new_tokens,
        "Minimum number of tokens of a caption; null means none.";
    "evaluate.caption.length-penalty" Shape::OrNull(&Shape::Number(Bounds::ANY)), evaluate.caption.length_penalty,
        "Exponent on the length in a beam's score; null means 1, the mean per token.";
    "evaluate.caption.repetition-penalty" PENALTY, evaluate.caption.repetition_penalty,
        "Factor against tokens that are already there; null means none.";
    "evaluate.caption.repetition-over" Shape::Choice(&["prompt-and-answer", "answer"]), evaluate.caption.repetition_over,
        "Tokens that the penalty counts as there; `answer` leaves out the prompt's, as LAVIS does.";
    "evaluate.okvqa.lemmatizer" Shape::Choice(&["none", "rules"]), evaluate.okvqa.lemmatizer,
        "Brings nouns and verbs of OK-VQA's answers to their base form, as LAVIS does with spaCy; by rules here. The score without is kept as the part `okvqa/unlemmatized`.";
    "evaluate.okvqa.crop" Shape::Choice(&["processor", "center"]), evaluate.okvqa.crop,
        "How OK-VQA's images become square: as the model's processor says, or by the middle of the longer side, as LAVIS does with Vicuna.";
    "evaluate.retrieval.checkpoint" Shape::OrNull(&Shape::Path), evaluate.retrieval.checkpoint,
        "Folder of a BLIP-2 image-text matching model for retrieval, its vision tower replaced by the run's; null means the model's own contrastive head.";
    "evaluate.retrieval.rerank" whole(0), evaluate.retrieval.rerank,
        "Best contrastive matches that the matching head looks at again.";
    "evaluate.retrieval.text-tokens" Shape::Integer { min: 3, max: 4096 }, evaluate.retrieval.text_tokens,
        "Tokens that texts are cut and padded to for the matching model.";
    "evaluate.perplexity.window" Shape::Integer { min: 2, max: 1 << 20 }, evaluate.perplexity.window,
        "Tokens of a window of the text; windows do not overlap, and a shorter one at the end is left out. 2048 is the published one.";
    "evaluate.perplexity.windows" Shape::OrNull(&whole(1)), evaluate.perplexity.windows,
        "The first so many windows; null means all.";
    "evaluate.retrieved.captions" Shape::Integer { min: 0, max: 64 }, evaluate.retrieved.captions,
        "Captions of a pool that are put before each prompt, those nearest to its image first (RAVEN); 0 is none. No caption of an image of the same file name, or number in COCO, is among them; the image itself under another name cannot be recognised (GQA or MMBench beside `coco`, images of COCO beside `vg`). The language model reads them, a Q-Former reads the question alone.";
    "evaluate.retrieved.pool" whole(1), evaluate.retrieved.pool,
        "Captions to choose from: in the embedded world one of each of the first so many training images, elsewhere a draw from `corpora` that is the same for every run.";
    "evaluate.retrieved.corpora" CAPTION_CORPORA, evaluate.retrieved.corpora,
        "Caption corpora under `data.root` that the pool is drawn from, split evenly; the embedded world needs none.";
    "evaluate.retrieved.checkpoint" Shape::OrNull(&Shape::Path), evaluate.retrieved.checkpoint,
        "Folder of a BLIP-2 image-text matching model that compares images and captions, as it is, the same for every run; null means the contrastive head of the evaluated model, pruned as it is.";
    "evaluate.retrieved.template" Shape::Text, evaluate.retrieved.template,
        "What is read: `{captions}` where the captions go, `{}` where the prompt goes.";
    "evaluate.retrieved.separator" Shape::OrNull(&Shape::Text), evaluate.retrieved.separator,
        "What stands between two captions; null means `. `, and in the embedded world, which has no marks, a blank.";
    "evaluate.perturb.rate" SHARE, evaluate.perturb.rate,
        "Share of the words of every question that are perturbed, the same for every model and replicate; 0 is none. What is perturbed at a rate is so at every higher one.";
    "evaluate.perturb.kind" Shape::Choice(&Perturbation::NAMES), evaluate.perturb.kind,
        "What happens to these words: `mask` puts `___` in their places, `drop` leaves them out, `replace` puts words of other questions there, `swap` exchanges each once with a neighbour, the one behind if it can, `typo` exchanges two of their letters.";
    "evaluate.perturb.seed" SEED, evaluate.perturb.seed,
        "Seed of the perturbed words. Not the replicate seed: all replicates answer the same questions.";
    "evaluate.smoothing.method" Shape::Choice(&SmoothingMethod::NAMES), evaluate.smoothing.method,
        "`masked`: copies of each question with words masked at random are answered and the most frequent answer counts (RanMASK); `removed`: these words are left out; `self-denoised`: the evaluated model fills the masks before it answers (needs a Flan-T5, or a decoder-only model that follows instructions); `none` asks each question once.";
    "evaluate.smoothing.copies" Shape::Integer { min: 1, max: 255 }, evaluate.smoothing.copies,
        "Copies of each question.";
    "evaluate.smoothing.mask" SHARE, evaluate.smoothing.mask,
        "Share of the words of each copy that are masked.";
    "evaluate.smoothing.seed" SEED, evaluate.smoothing.seed,
        "Seed of the masked words. Not the replicate seed: all replicates see the same copies.";
    "evaluate.smoothing.prompt" Shape::Text, evaluate.smoothing.prompt,
        "`self-denoised`: how a decoder-only model is asked to fill the masks, `{}` for the question. A T5 is not asked: it fills sentinels in their places.";
    "steps" Shape::Steps, steps,
        "What is done to the dense model, in order: each item a kind of step, with the settings that it does not leave to the section of that kind and a `name`. `steps.NAME.SETTING` is a step's setting anywhere else. Null, as nothing, is `[prune, restore]`.";
    "seed" SEED, seed,
        "Replicate seed: calibration sample, random masks, adapters, training batches. Usually set by `replicate`.";
};
