//! Settings against the layers of a model, known from its configuration: targets and ranks of updates, biases, widths of N:M patterns.

use std::{borrow::Cow, collections::BTreeSet};

use ressa_checkpoint::{
    Outline, Removable, is_idefics, is_internvl, is_llava, is_llava_next, is_qwen_vl, names, qwen_text, reads_tiles,
};
use ressa_experiment::{
    Pattern, Stage, Task, Tower,
    aids::Aids,
    config::{DataSource, TowerAdapter, TrainedBiases},
    stage::AdaptTraining,
    structure::TowerStructure,
};
use serde_json::{Map, Value};

use super::{
    Preflight,
    teaching::Depth,
    widths::{Groups, widths},
};

/// What connects the towers: tuned where a target of the connector names it.
const CONNECTORS: [&str; 4] = ["language_projection", "vision_projection", "text_projection", "itm_head"];

/// A network by its configuration.
pub(super) struct Network {
    linears: Vec<Linear>,
    /// The projection into the language model, where it is beside the connector's layers.
    projection: Option<Linear>,
    /// Whether the connector has learned queries.
    has_queries: bool,
    /// Whether what the image encoder's blocks look at can be compared.
    is_comparable: bool,
    /// Whether the connector has norms, as image encoders and language models have.
    has_connector_norms: bool,
    /// Whether the language model reads its prompt with an encoder.
    has_encoder: bool,
    /// Positions of the language model, where its configuration says how many.
    positions: Option<u64>,
    /// Blocks of the language model.
    depth: Depth,
    /// Whether images are read at their own size.
    keeps_sizes: bool,
    /// Whether the language model is one of those that were never tuned to follow instructions, by its kind.
    is_untuned: bool,
    /// Whether images and texts can be compared; `None` where tensors are not there to say so.
    compares: Option<bool>,
    /// What can be removed of each tower as a whole, in their order.
    removable: [Removable; 3],
}

/// A matrix of the network.
pub(super) struct Linear {
    tower: Tower,
    /// Last word of its module path, such as `qkv`.
    pub role: String,
    /// Module path.
    pub name: String,
    outputs: usize,
    pub inputs: usize,
    has_bias: bool,
}

impl Network {
    /// From a configuration; `None` where no supported network has it, which is said elsewhere.
    pub fn of(config: Map<String, Value>) -> Option<Self> {
        let outline = Outline::of(&config).ok()?;
        let linear = |(tensor, shape): (&String, &Vec<usize>)| {
            let (&[outputs, inputs], name) = (shape.as_slice(), tensor.strip_suffix(".weight")?) else { return None };
            let tower = names::counted_in(tensor, shape, true)?;
            let role = names::role(name).to_owned();
            let has_bias = has_bias(&config, tower, &role);
            Some(Linear { tower, role, name: name.to_owned(), outputs, inputs, has_bias })
        };
        let text = text(&config);
        let text = text.as_deref();
        let field = |name: &str| text.and_then(|text| text.get(name));
        // Where a configuration says nothing, its class does.
        let positions = |text: Option<&Map<String, Value>>| match field("model_type").and_then(Value::as_str) {
            Some("t5") => None,
            Some("llama" | "opt") | None => {
                Some(text.and_then(|text| text.get("max_position_embeddings")?.as_u64()).unwrap_or(2048))
            }
            _ => field("max_position_embeddings").and_then(Value::as_u64),
        };
        let is_of_language =
            |(tensor, shape): &(&String, &Vec<usize>)| names::counted_in(tensor, shape, true) == Some(Tower::Language);
        let of_language = || outline.linears.iter().filter(is_of_language).map(|(tensor, _)| tensor.as_str());
        let has_queries = outline.others.contains_key(names::QUERIES);
        Some(Self {
            linears: outline.linears.iter().filter_map(linear).collect(),
            projection: outline.others.get_key_value(names::PROJECTION).and_then(linear),
            has_queries,
            is_comparable: !is_qwen_vl(&config),
            has_connector_norms: has_queries || is_qwen_vl(&config) || is_internvl(&config),
            has_encoder: field("model_type").and_then(Value::as_str) == Some("t5"),
            positions: positions(text),
            depth: Depth::of(of_language()),
            is_untuned: field("model_type").and_then(Value::as_str) == Some("opt"),
            // Only on a Q-Former is there such a head.
            compares: (!has_queries).then_some(false),
            keeps_sizes: is_qwen_vl(&config) || reads_tiles(&config) || is_llava_next(&config),
            removable: Tower::ALL.map(|tower| Removable::of(&config, tower)),
        })
    }

    /// Whether the language model reads its prompt with an encoder.
    pub fn has_encoder(&self) -> bool {
        self.has_encoder
    }

    /// The same where tensors say whether there is a head that compares images and texts.
    pub fn with_head(self, compares: Option<bool>) -> Self {
        Self { compares: compares.or(self.compares), ..self }
    }

    /// What a stage could not follow. `removed` says what steps before it remove of a tower.
    pub fn look(&self, stage: &Stage, removed: &dyn Fn(Tower) -> Vec<TowerStructure>, found: &mut Preflight) {
        match stage {
            Stage::Prune { tower, projection, pattern, .. } => {
                if *projection && self.projection.is_none() {
                    let what =
                        "this model has no projection beside the prunable layers of its connector; set it to false";
                    found.problem("prune.connector.projection", what);
                }
                if let Pattern::NOfM { keep, of } = pattern {
                    let layers = self.of_tower(*tower).chain(self.projection.iter().filter(|_| *projection));
                    let groups = Groups { tower: *tower, keep: *keep, of: *of };
                    widths(layers, groups, self.removable(*tower), &removed(*tower), found);
                }
            }
            Stage::Structure { tower, target, .. } => {
                for (setting, what) in self.removable(*tower).refusals(*tower, target) {
                    found.problem(setting, what);
                }
            }
            Stage::Adapt { training, data, .. } => {
                if self.keeps_sizes && data.source == DataSource::Folder && training.batch > 1 {
                    let what = format!(
                        "this model reads images at their own size, and images of different sizes cannot be one batch of {}; set it to 1",
                        training.batch
                    );
                    found.problem("restore.batch", what);
                }
                self.depth.look(training, found);
                self.attention(training, found);
                if training.hardness > 0.0 && training.contrastive > 0.0 && self.compares == Some(false) {
                    let what = "this model has no retrieval head, so there is no contrastive loss: it has no effect";
                    found.note("restore.hardness", what);
                }
                for tower in Tower::ALL {
                    if let Some(adapter) = training.tower(tower).filter(|adapter| adapter.tune) {
                        self.adapter(tower, adapter, found);
                    }
                }
            }
            Stage::Evaluate { task: Task::Perplexity, window, .. } => {
                let window = window.unwrap_or_default();
                if self.has_encoder {
                    let what =
                        "`perplexity` needs a decoder-only language model; this one reads its prompt with an encoder";
                    found.problem("evaluate.tasks", what);
                }
                if let Some(positions) = self.positions.filter(|positions| *positions < u64::from(window)) {
                    let what = format!("a window has {window} tokens, and the language model {positions} positions");
                    found.problem("evaluate.perplexity.window", what);
                }
            }
            Stage::Evaluate { aids: Some(aids), .. } => self.aids(aids, found),
            _ => {}
        }
    }

    /// Towers whose attention cannot be compared with a teacher's.
    fn attention(&self, training: &AdaptTraining, found: &mut Preflight) {
        let Some(distill) = training.distill.as_ref().filter(|distill| distill.compares_attention()) else { return };
        let towers = &distill.attention.towers;
        let refused = [
            (Tower::Connector, self.has_queries, "the connector of this model has no attention"),
            (
                Tower::Vision,
                self.is_comparable,
                "the blocks of Qwen-VL's image encoder look at windows, or at all patches in the order of the windows",
            ),
        ];
        for (tower, _, why) in refused.into_iter().filter(|(tower, can, _)| towers.contains(tower) && !can) {
            let what = format!("{why}, so there is nothing to compare; leave {tower} out of the list");
            found.problem("restore.distill.attention.towers", what);
        }
    }

    /// What can be removed of a tower as a whole.
    pub fn removable(&self, tower: Tower) -> &Removable {
        let [vision, connector, language] = &self.removable;
        match tower {
            Tower::Vision => vision,
            Tower::Connector => connector,
            Tower::Language => language,
        }
    }

    /// Captions that the model cannot retrieve, and words that it cannot fill in.
    fn aids(&self, aids: &Aids, found: &mut Preflight) {
        let own = aids.retrieved.as_ref().is_some_and(|retrieved| retrieved.checkpoint.is_none());
        if own && self.compares == Some(false) {
            let what = "this model has no head that compares images and texts; name the folder of a BLIP-2 image-text matching model";
            found.problem("evaluate.retrieved.checkpoint", what);
        }
        if aids.denoises() && self.is_untuned {
            let what = "this language model (OPT) follows no instructions, so it cannot be asked to fill masked words; set it to masked or removed";
            found.problem("evaluate.smoothing.method", what);
        }
    }

    fn of_tower(&self, tower: Tower) -> impl Iterator<Item = &Linear> {
        self.linears.iter().filter(move |linear| linear.tower == tower)
    }

    fn adapter(&self, tower: Tower, adapter: &TowerAdapter, found: &mut Preflight) {
        let connects = |target: &str| tower == Tower::Connector && CONNECTORS.contains(&target);
        let is_role = |target: &str| self.of_tower(tower).any(|linear| is_named(linear, target));
        for target in adapter.targets.iter().filter(|target| !is_role(target) && !connects(target)) {
            let roles: BTreeSet<String> = self.of_tower(tower).map(|linear| format!("`{}`", linear.role)).collect();
            let roles: Vec<String> = roles.into_iter().collect();
            let what = match roles.is_empty() {
                true => format!("`{target}` names no layer: this model has no tower `{tower}`"),
                false => format!("`{target}` names no layer of this model; its layers are {}", roles.join(", ")),
            };
            found.problem(format!("restore.{tower}.targets"), what);
        }
        let is_target = |linear: &&Linear| {
            adapter.targets.is_empty() || adapter.targets.iter().any(|target| is_named(linear, target))
        };
        let side = |linear: &Linear| linear.outputs.min(linear.inputs);
        if let Some(narrowest) = self.of_tower(tower).filter(is_target).min_by_key(|linear| side(linear))
            && !adapter.full
            && adapter.rank as usize > side(narrowest)
        {
            let (rank, role, side) = (adapter.rank, &narrowest.role, side(narrowest));
            found.note(
                format!("restore.{tower}.rank"),
                format!("a rank of {rank} is larger than the shorter side of `{role}`, {side}, which is the rank of any change"),
            );
        }
        let lacks_biases = match adapter.bias {
            TrainedBiases::None => false,
            TrainedBiases::All => !self.of_tower(tower).any(|linear| linear.has_bias),
            TrainedBiases::LoraOnly => {
                let mut trained = self.of_tower(tower).filter(is_target);
                let connects = adapter.targets.iter().any(|target| connects(target));
                adapter.trains_matrices() && !connects && !trained.any(|linear| linear.has_bias)
            }
        };
        if lacks_biases {
            let what = match (tower, adapter.bias) {
                (_, TrainedBiases::LoraOnly) if self.of_tower(tower).any(|linear| linear.has_bias) => {
                    "the layers that `targets` names have no bias to train; name others, or set it to `none`".to_owned()
                }
                (Tower::Language, _) => "this language model has no bias to train; set it to `none`".to_owned(),
                _ => format!("tower `{tower}` of this model has no bias to train; set it to `none`"),
            };
            found.problem(format!("restore.{tower}.bias"), what);
        }
        if tower == Tower::Connector {
            self.element_wise(adapter, found);
        }
    }

    /// Queries and norms of a connector that has none: where nothing else of it trains, somebody waits for what cannot happen.
    fn element_wise(&self, adapter: &TowerAdapter, found: &mut Preflight) {
        let asked = [
            ("restore.connector.queries", "learned queries", adapter.queries, self.has_queries),
            ("restore.connector.norms", "norms", adapter.norms, self.has_connector_norms),
        ];
        let trains = adapter.trains_matrices() || adapter.bias == TrainedBiases::All;
        let trains = trains || asked.iter().any(|(_, _, is_asked, has)| *is_asked && *has);
        for (setting, what, _, _) in asked.into_iter().filter(|(_, _, is_asked, has)| *is_asked && !has) {
            let what = format!("the connector of this model has no {what}");
            match trains {
                true => found.note(setting, format!("{what}: it has no effect")),
                false => found.problem(
                    setting,
                    format!(
                        "{what}, and nothing else of it trains; set a `rank`, or `restore.connector.tune` to false"
                    ),
                ),
            }
        }
    }
}

/// The language model's part of a configuration; Qwen-VL's of 2024 have its settings at the top.
fn text(config: &Map<String, Value>) -> Option<Cow<'_, Map<String, Value>>> {
    match is_qwen_vl(config) {
        true => Some(Cow::Owned(qwen_text(config))),
        false => config.get("text_config")?.as_object().map(Cow::Borrowed),
    }
}

/// Whether a linear of a tower has a bias, by its role. Where a configuration says nothing, its class does.
fn has_bias(config: &Map<String, Value>, tower: Tower, role: &str) -> bool {
    let says = |part: Option<&Map<String, Value>>, name: &str, class: bool| {
        part.and_then(|part| part.get(name)).and_then(Value::as_bool).unwrap_or(class)
    };
    match tower {
        Tower::Vision => {
            let says = |name, class| says(config.get("vision_config").and_then(Value::as_object), name, class);
            match role {
                "qkv" => says("qkv_bias", true),
                "q_proj" | "k_proj" | "v_proj" if is_internvl(config) => says("attention_bias", false),
                _ => true,
            }
        }
        Tower::Connector => !is_idefics(config) && says(Some(config), "multimodal_projector_bias", true),
        Tower::Language if is_qwen_vl(config) => ["q_proj", "k_proj", "v_proj"].contains(&role),
        Tower::Language => {
            let text = text(config);
            let text = text.as_deref();
            match text.and_then(|text| text.get("model_type")).and_then(Value::as_str) {
                // Qwen2 has them in attention's inputs alone; LLaVA's language model is LLaMA where its configuration does not say.
                Some("qwen2") => ["q_proj", "k_proj", "v_proj"].contains(&role),
                Some("t5" | "mistral") => false,
                None if is_llava(config) => false,
                Some("llama") if ["gate_proj", "up_proj", "down_proj"].contains(&role) => says(text, "mlp_bias", false),
                Some("llama") => says(text, "attention_bias", false),
                _ => true,
            }
        }
    }
}

/// Whether a target means a linear: its role, or a module on its path.
fn is_named(linear: &Linear, target: &str) -> bool {
    linear.role == target || linear.name.split('.').any(|module| module == target)
}

#[cfg(test)]
mod tests {
    use ressa_checkpoint::{preset_config, published_config};
    use ressa_experiment::{
        RunConfig,
        config::{Metric, RestoreMethod, SmoothingMethod},
        model::{ModelConfig, Preset},
        stage::stages,
    };

    use super::*;

    fn found(config: Map<String, Value>, change: impl Fn(&mut RunConfig)) -> Vec<String> {
        found_behind(config, TowerStructure::default(), change)
    }

    fn looked(network: &Network, change: impl Fn(&mut RunConfig)) -> Vec<String> {
        looked_behind(network, TowerStructure::default(), change)
    }

    /// What is found where a step before the others removes `target` of every tower.
    fn found_behind(
        config: Map<String, Value>,
        target: TowerStructure,
        change: impl Fn(&mut RunConfig),
    ) -> Vec<String> {
        looked_behind(&Network::of(config).expect("a supported network"), target, change)
    }

    fn looked_behind(network: &Network, target: TowerStructure, change: impl Fn(&mut RunConfig)) -> Vec<String> {
        let mut run = RunConfig::of(ModelConfig { preset: Some(Preset::ShapesFlanT5), ..ModelConfig::default() });
        run.prune.metric = Metric::Magnitude;
        (run.prune.vision.sparsity, run.prune.language.sparsity) = (0.5, 0.5);
        run.restore.method = RestoreMethod::SparseLora;
        change(&mut run);
        let mut found = Preflight::default();
        stages(&run).iter().for_each(|node| network.look(&node.stage, &|_| vec![target], &mut found));
        let shown = |mark: &'static str| {
            move |problem: &super::super::Problem| format!("{mark}{}: {}", problem.setting, problem.what)
        };
        found.problems.iter().map(shown("")).chain(found.notes.iter().map(shown("note: "))).collect()
    }

    #[test]
    fn what_fits_is_silent() {
        for config in ["instructblip-vicuna-7b", "blip2-opt-2.7b"].map(|name| published_config(name).expect("known")) {
            let change = |run: &mut RunConfig| {
                run.prune.pattern = Pattern::NOfM { keep: 2, of: 4 };
                run.restore.language.targets = vec!["q_proj".to_owned()];
                run.restore.connector.targets = vec!["language_projection".to_owned(), "query".to_owned()];
                run.restore.vision.bias = TrainedBiases::All;
            };
            assert_eq!(found(config, change), [""; 0]);
        }
    }

    #[test]
    fn a_projection_that_is_to_be_pruned_must_be_there() {
        let asks = |run: &mut RunConfig| {
            run.prune.pattern = Pattern::NOfM { keep: 2, of: 4 };
            (run.prune.connector.sparsity, run.prune.connector.projection) = (0.5, true);
        };
        assert_eq!(found(published_config("instructblip-vicuna-7b").expect("known"), asks), [""; 0]);
        let llava = found(published_config("llava-1.5-7b-hf").expect("known"), asks);
        assert!(llava.len() == 1 && llava[0].starts_with("prune.connector.projection: this model has no"), "{llava:?}");
    }

    #[test]
    fn widths_are_those_that_a_removal_leaves() {
        let two_of_four = |run: &mut RunConfig| {
            run.prune.pattern = Pattern::NOfM { keep: 2, of: 4 };
            run.restore.method = RestoreMethod::None;
            run.prune.vision.sparsity = 0.0;
        };
        let said = |heads: f64, channels: f64| {
            let config = published_config("instructblip-vicuna-7b").expect("known");
            found_behind(config, TowerStructure { heads, channels, ..TowerStructure::default() }, two_of_four)
        };
        // 11008 channels: a fifth less is 8807, which groups of four do not divide; 8808 are.
        let odd = said(0.0, 0.2);
        assert!(odd.len() == 1 && odd[0].starts_with("structure.language.channels: "), "{odd:?}");
        assert!(odd[0].contains("8807 inputs") && odd[0].contains("down_proj"), "{odd:?}");
        assert_eq!([said(0.0, 8808.0), said(0.3, 0.0), said(0.25, 0.5)], [const { Vec::<String>::new() }; 3]);
    }

    #[test]
    fn hidden_states_are_those_of_blocks_and_of_tokens_that_are_there() {
        let shapes = || preset_config(Preset::ShapesFlanT5);
        let said = |layers: &[u32], text: f64, answer: f64| {
            let states = |run: &mut RunConfig| {
                run.restore.distill.weight = 0.5;
                run.restore.distill.hidden.weight = 1.0;
                run.restore.distill.hidden.layers = layers.to_vec();
                (run.restore.distill.hidden.text, run.restore.distill.hidden.answer) = (text, answer);
            };
            found(shapes(), states)
        };
        assert_eq!([said(&[0], 1.0, 0.0), said(&[], 1.0, 1.0)], [const { Vec::<String>::new() }; 2]);
        let beyond = said(&[99], 1.0, 1.0);
        assert!(beyond.len() == 1 && beyond[0].contains("there is no block 99"), "{beyond:?}");
        // The last block of a T5 is the decoder's.
        let none = said(&[], 1.0, 0.0);
        assert!(none.len() == 1 && none[0].contains("compared on no token"), "{none:?}");
    }

    #[test]
    fn attention_is_compared_where_there_is_some() {
        const QWEN: &str = include_str!("../../../models/tests/goldens/qwen2-vl/config.json");
        let said = |config: Map<String, Value>, towers: &[Tower]| {
            let towers = towers.to_vec();
            let looks = move |run: &mut RunConfig| {
                run.restore.distill.weight = 0.5;
                run.restore.distill.attention.weight = 1.0;
                run.restore.distill.attention.towers = towers.clone();
            };
            let of_attention = |said: &String| said.starts_with("restore.distill.attention");
            found(config, looks).into_iter().filter(of_attention).collect::<Vec<_>>()
        };
        assert_eq!(said(preset_config(Preset::ShapesFlanT5), &Tower::ALL), [""; 0]);
        let qwen: Map<String, Value> = serde_json::from_str(QWEN).expect("a configuration");
        assert_eq!(said(qwen.clone(), &[Tower::Language]), [""; 0]);
        let both = said(qwen, &Tower::ALL);
        assert!(both.len() == 2 && both[0].contains("windows") && both[1].contains("has no attention"), "{both:?}");
    }

    #[test]
    fn biases_are_those_of_the_decoder() {
        let llava = |text: Value| {
            let mut config = published_config("llava-1.5-7b-hf").expect("known");
            config.insert("text_config".to_owned(), text);
            move |role: &str| has_bias(&config, Tower::Language, role)
        };
        let qwen = llava(serde_json::json!({ "model_type": "qwen2" }));
        assert_eq!(["q_proj", "o_proj", "down_proj"].map(qwen), [true, false, false]);
        let unnamed = llava(serde_json::json!({}));
        assert_eq!(["q_proj", "down_proj"].map(unnamed), [false, false]);
    }

    #[test]
    fn texts_that_no_language_model_can_follow_are_said() {
        let asks = |run: &mut RunConfig| {
            run.evaluate.tasks = vec![Task::Perplexity];
            run.evaluate.perplexity.window = 4096;
        };
        let opt = found(published_config("blip2-opt-2.7b").expect("known"), asks);
        assert_eq!(
            opt,
            ["evaluate.perplexity.window: a window has 4096 tokens, and the language model 2048 positions"]
        );
        let t5 = found(preset_config(Preset::ShapesFlanT5), asks);
        assert!(t5.len() == 1 && t5[0].contains("decoder-only"), "{t5:?}");
    }

    #[test]
    fn captions_that_nothing_retrieves_and_masks_that_nothing_fills_are_said() {
        const LLAVA: &str = "llava-1.5-7b-hf";
        let retrieves = |run: &mut RunConfig| run.evaluate.retrieved.captions = 3;
        let of = |name: &str, head: Option<bool>| {
            let network = Network::of(published_config(name).expect("known")).expect("supported").with_head(head);
            looked(&network, retrieves)
        };
        assert_eq!(of("instructblip-vicuna-7b", None), [""; 0], "tensors would say");
        assert_eq!(of("instructblip-vicuna-7b", Some(true)), [""; 0]);
        for found in [of("instructblip-vicuna-7b", Some(false)), of(LLAVA, None)] {
            assert!(
                found.len() == 1 && found[0].starts_with("evaluate.retrieved.checkpoint: this model has no head"),
                "{found:?}"
            );
        }
        let named = |run: &mut RunConfig| {
            retrieves(run);
            run.evaluate.retrieved.checkpoint = Some("blip2-itm".into());
        };
        assert_eq!(found(published_config(LLAVA).expect("known"), named), [""; 0]);

        let fills = |run: &mut RunConfig| run.evaluate.smoothing.method = SmoothingMethod::SelfDenoised;
        for name in [LLAVA, "instructblip-flan-t5-xl"] {
            assert_eq!(found(published_config(name).expect("known"), fills), [""; 0]);
        }
        let opt = found(published_config("blip2-opt-2.7b").expect("known"), fills);
        assert!(
            opt.len() == 1 && opt[0].starts_with("evaluate.smoothing.method: this language model (OPT)"),
            "{opt:?}"
        );
    }

    #[test]
    fn batches_of_images_that_keep_their_sizes_are_said() {
        const QWEN: &str = include_str!("../../../models/tests/goldens/qwen2-vl/config.json");
        let said = |batch: u32, source: DataSource| {
            let config = serde_json::from_str(QWEN).expect("a configuration");
            let change = |run: &mut RunConfig| (run.restore.batch, run.data.source) = (batch, source);
            found(config, change).into_iter().filter(|said| said.starts_with("restore.batch")).collect::<Vec<_>>()
        };
        let two = said(2, DataSource::Folder);
        assert!(two.len() == 1 && two[0].contains("reads images at their own size"), "{two:?}");
        assert_eq!(said(1, DataSource::Folder), [""; 0]);
        assert_eq!(said(2, DataSource::Shapes), [""; 0], "its images have one size");
    }

    #[test]
    fn what_no_layer_can_follow_is_said() {
        let shapes = || preset_config(Preset::ShapesFlanT5);
        let targets = |run: &mut RunConfig| {
            run.restore.language.targets = vec!["q_proj".to_owned()];
            run.restore.vision.targets = vec!["qkv".to_owned(), "language_projection".to_owned()];
        };
        assert_eq!(
            found(shapes(), targets),
            [
                "restore.language.targets: `q_proj` names no layer of this model; its layers are `k`, `o`, `q`, `v`, `wi_0`, `wi_1`, `wo`",
                "restore.vision.targets: `language_projection` names no layer of this model; its layers are `fc1`, `fc2`, `projection`, `qkv`",
            ]
        );
        let odd = found(shapes(), |run| run.prune.pattern = Pattern::NOfM { keep: 1, of: 7 });
        assert!(odd.len() == 2 && odd[0].starts_with("prune.pattern: `1:7` does not fit tower `language`"), "{odd:?}");
        let rank = found(shapes(), |run| run.restore.language.rank = 512);
        assert_eq!(
            rank,
            [
                "note: restore.language.rank: a rank of 512 is larger than the shorter side of `k`, 96, which is the rank of any change"
            ]
        );
        let bias = found(shapes(), |run| run.restore.language.bias = TrainedBiases::LoraOnly);
        assert_eq!(bias, ["restore.language.bias: this language model has no bias to train; set it to `none`"]);
    }

    #[test]
    fn what_is_not_there_cannot_train() {
        let llava = || published_config("llava-1.5-7b-hf").expect("known");
        let both = |rank: u32| {
            move |run: &mut RunConfig| {
                let connector = &mut run.restore.connector;
                (connector.rank, connector.queries, connector.norms) = (rank, true, true);
            }
        };
        let alone = "and nothing else of it trains; set a `rank`, or `restore.connector.tune` to false";
        assert_eq!(
            found(llava(), both(0)),
            [
                format!("restore.connector.norms: the connector of this model has no norms, {alone}"),
                format!("restore.connector.queries: the connector of this model has no learned queries, {alone}"),
            ]
        );
        assert_eq!(
            found(llava(), both(4)),
            [
                "note: restore.connector.norms: the connector of this model has no norms: it has no effect",
                "note: restore.connector.queries: the connector of this model has no learned queries: it has no effect",
            ]
        );
        assert_eq!(found(published_config("instructblip-vicuna-7b").expect("known"), both(0)), [""; 0]);
        let (mut plain, mut shapes) = (llava(), preset_config(Preset::ShapesFlanT5));
        plain.insert("multimodal_projector_bias".to_owned(), false.into());
        shapes["vision_config"]["qkv_bias"] = false.into();
        let biases = |run: &mut RunConfig| run.restore.connector.bias = TrainedBiases::All;
        assert_eq!(
            found(plain, biases),
            ["restore.connector.bias: tower `connector` of this model has no bias to train; set it to `none`"]
        );
        let qkv = |targets: [&'static str; 1]| {
            move |run: &mut RunConfig| {
                (run.restore.vision.bias, run.restore.vision.targets) =
                    (TrainedBiases::LoraOnly, targets.map(str::to_owned).into());
            }
        };
        assert_eq!(
            found(shapes.clone(), qkv(["qkv"])),
            [
                "restore.vision.bias: the layers that `targets` names have no bias to train; name others, or set it to `none`"
            ]
        );
        assert_eq!(found(shapes, qkv(["fc1"])), [""; 0]);
    }
}
