//! The BLIP-2 family: image encoder, Q-Former, and behind it a language model or the heads of retrieval.
//!
//! Reference: `InstructBlipForConditionalGeneration` in transformers, `modeling_instructblip.py`; `Blip2ForConditionalGeneration` and
//! `Blip2ForImageTextRetrieval`, `modeling_blip_2.py`.

use std::collections::HashMap;

use ressa_experiment::{job::Compute, search::SearchSizes};
use tch::{Device, Kind, Tensor};

use crate::{
    Answer, AnswerBatch, Blip2Config, Entry, Feed, Flow, Forced, LayerId, Linear, LoadOptions, ModelError, Prompts,
    Scope, Search, Shapes, Targets, TensorMap, TensorSource, TextBatch, TokenKind, Tower, VisionLanguage, Weight,
    config::{Family, GenerationConfig, SpecialTokens},
    language::Language,
    layers::{Part, PartMut, Parts, parts},
    qformer::{Images, QFormer, Reads, Shape},
    raw::longest,
    scope::Keep,
    tokens::Share,
    vit::Vit,
    weights::Rounding,
};

/// What is wrong with asking a retrieval model for words.
pub(crate) const MUTE: &str = "a retrieval model has no language model; it gives embeddings and matching scores";

/// Place of the image features among the companions of a Q-Former's flow.
const FEATURES: usize = 0;

/// The image encoder's path in a checkpoint.
const VISION: &str = "vision_model";

/// `vision_projection` and `text_projection`: both sides into one space. `itm_head`: whether a caption fits an image.
struct Retrieval {
    vision: Linear,
    text: Linear,
    matching: Option<Linear>,
}

impl Retrieval {
    /// An InstructBLIP checkpoint has the two projections if its configuration gives them a width and their tensors are there; a retrieval
    /// checkpoint always has all three.
    fn load(scope: &Scope<'_>, c: &Blip2Config) -> Result<Option<Self>, ModelError> {
        let family = c.family()?;
        let there = family == Family::ImageTextRetrieval || scope.contains("vision_projection.weight");
        let Some(width) = c.retrieval_width()?.filter(|_| there) else {
            return Ok(None);
        };
        let from = c.qformer_config.hidden_size;
        let matching = match family {
            Family::ImageTextRetrieval => Some(Linear::load(&scope.at("itm_head"), 2, from, true)?),
            Family::InstructBlip | Family::Blip2 => None,
        };
        Ok(Some(Self {
            vision: Linear::load(&scope.at("vision_projection"), width, from, true)?,
            text: Linear::load(&scope.at("text_projection"), width, from, true)?,
            matching,
        }))
    }
}

/// What writes: `language_projection` and `language_model`.
pub(crate) struct Writer {
    pub projection: Linear,
    pub language: Language,
}

/// A model of the family.
pub struct Blip2 {
    config: Blip2Config,
    special: SpecialTokens,
    pub(crate) vision: Vit,
    pub(crate) qformer: QFormer,
    writer: Option<Writer>,
    retrieval: Option<Retrieval>,
    ids: Vec<LayerId>,
    tensors: TensorMap,
    kind: Kind,
    rounding: Rounding,
    device: Device,
}

impl Blip2 {
    /// Reads the network's tensors from a source onto a device, computing as the options say. The source is to be asked afterwards whether
    /// it has more.
    pub fn load(
        config: &Blip2Config,
        special: SpecialTokens,
        source: &mut dyn TensorSource,
        options: &LoadOptions,
    ) -> Result<Self, ModelError> {
        config.check()?;
        let family = config.family()?;
        let (kind, device) = (options.kind(), options.device);
        let mut keep = Keep { source, device, kept: TensorMap::new() };
        let scope = Scope::root(&mut keep, kind, options.rounding);
        let shape = Shape {
            config: &config.qformer_config,
            queries: config.num_query_tokens,
            image_width: config.vision_config.hidden_size,
            reads: match family {
                Family::InstructBlip => Reads::Instructions,
                Family::Blip2 => Reads::Nothing,
                Family::ImageTextRetrieval => Reads::Captions,
            },
        };
        let vision = Vit::load(&scope.at(VISION), &config.vision_config)?;
        let qformer = QFormer::load(&scope, shape)?;
        let writer = match family.writes() {
            true => Some(Writer {
                projection: Linear::load(
                    &scope.at("language_projection"),
                    config.text_width(),
                    config.qformer_config.hidden_size,
                    true,
                )?,
                language: Language::load(&scope.at("language_model"), &config.text_config)?,
            }),
            false => None,
        };
        let retrieval = Retrieval::load(&scope, config)?;
        drop(scope);
        let ids = layer_ids(&vision, &qformer, writer.as_ref());
        let (config, tensors) = (config.clone(), keep.kept);
        let mut model = Self {
            config,
            special,
            vision,
            qformer,
            writer,
            retrieval,
            ids,
            tensors,
            kind,
            rounding: options.rounding,
            device,
        };
        // A weight that is replaced must not be held here.
        let owned: Vec<String> =
            VisionLanguage::weights(&model).iter().map(|weight| weight.name().to_owned()).collect();
        owned.iter().for_each(|name| drop(model.tensors.remove(name)));
        Ok(model)
    }

    /// A network over tensors in memory, sharing them, computing in f32. Cheap: call it again for a second network with masks and adapters
    /// of its own.
    pub fn from_tensors(config: &Blip2Config, tensors: &TensorMap) -> Result<Self, ModelError> {
        let device = tensors.values().next().map_or(Device::Cpu, Tensor::device);
        let special = config.special_tokens(&GenerationConfig::default());
        Self::load(config, special, &mut &*tensors, &LoadOptions::on(device))
    }

    /// Names and shapes of all tensors of a configuration, retrieval head included if the configuration gives it a width.
    pub fn tensor_shapes(config: &Blip2Config) -> Result<Vec<(String, Vec<i64>)>, ModelError> {
        let mut shapes = Shapes::default();
        let special = config.special_tokens(&GenerationConfig::default());
        Self::load(config, special, &mut shapes, &LoadOptions::on(Device::Cpu))?;
        Ok(shapes.into_inner())
    }

    /// The configuration.
    pub fn config(&self) -> &Blip2Config {
        &self.config
    }

    /// Tokens with a meaning of their own.
    pub fn special_tokens(&self) -> &SpecialTokens {
        &self.special
    }

    /// Type of the computation.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Where it computes.
    pub fn device(&self) -> Device {
        self.device
    }

    /// What writes; nothing in a retrieval model.
    pub(crate) fn writer(&self) -> Option<&Writer> {
        self.writer.as_ref()
    }

    /// What writes, for those who have made sure that this model does.
    fn writing(&self) -> &Writer {
        self.writer.as_ref().expect(MUTE)
    }

    /// What leaves the vision tower's last norm for a flow that has run all its blocks; what the queries give for the Q-Former's, projected
    /// where there is a language model; logits of the answer for the language model's.
    pub fn finish(&self, tower: Tower, flow: &Flow) -> Tensor {
        match tower {
            Tower::Vision => self.vision.finish(&flow.hidden),
            Tower::Qformer => {
                let queries = flow.hidden.narrow(1, 0, self.qformer.queries());
                if self.writer.is_some() { self.project(&queries) } else { queries }
            }
            Tower::Language => self.writing().language.finish(flow),
        }
    }

    /// What left the T5 encoder's last norm; nothing for a decoder-only model.
    pub fn encode_prompt(&self, prefix: &Tensor, prompt: &TextBatch) -> Option<Tensor> {
        match &self.writer.as_ref()?.language {
            Language::T5(t5) => Some(t5.encode(Some(prefix), prompt, None).states),
            Language::Llama(_) | Language::Opt(_) => None,
        }
    }

    /// Linears that are never pruned and can be tapped like the others: the projection into the language model and its head.
    pub fn unpruned_linears(&self) -> Vec<&Linear> {
        self.writer.iter().flat_map(|writer| [&writer.projection, writer.language.head()]).collect()
    }

    /// Norms whose outputs are read by prunable linears and by nothing else. The Q-Former has none: its norms are read by residuals.
    pub fn feeds(&self) -> Vec<Feed> {
        let language = self.writer.iter().flat_map(|writer| writer.language.feeds());
        self.vision.feeds().into_iter().chain(language).collect()
    }

    /// This model with the masks and updates of another's weights of the same names.
    fn wearing<'a>(mut self, others: impl IntoIterator<Item = &'a Weight>) -> Self {
        let others: HashMap<&str, &Weight> = others.into_iter().map(|other| (other.name(), other)).collect();
        for mine in VisionLanguage::weights_mut(&mut self) {
            if let Some(other) = others.get(mine.name()) {
                mine.wear(other);
            }
        }
        self
    }

    fn options(&self) -> LoadOptions {
        let compute = match self.kind {
            Kind::BFloat16 => Compute::Bfloat16,
            Kind::Half => Compute::Float16,
            _ => Compute::Float32,
        };
        LoadOptions { compute, rounding: self.rounding, ..LoadOptions::on(self.device) }
    }
}

impl Parts for Writer {
    fn visit<'a>(&'a self, show: &mut dyn FnMut(Part<'a>)) {
        self.language.visit(show);
    }
    fn visit_mut<'a>(&'a mut self, show: &mut dyn FnMut(PartMut<'a>)) {
        self.language.visit_mut(show);
    }
}

parts!(Retrieval: vision, text, matching);
// The towers. What connects them is beside: it is never pruned.
parts!(Blip2: vision, qformer, writer);

/// Places of all prunable linears, in the order of execution.
fn layer_ids(vision: &Vit, qformer: &QFormer, writer: Option<&Writer>) -> Vec<LayerId> {
    let towers = [
        (Tower::Vision, vision.layers.iter().map(Parts::linears).collect()),
        (Tower::Qformer, qformer.layers.iter().map(Parts::linears).collect()),
        (Tower::Language, writer.map(|writer| writer.language.by_block()).unwrap_or_default()),
    ];
    let mut ids = Vec::new();
    for (tower, blocks) in towers {
        let blocks: Vec<Vec<&Linear>> = blocks;
        for (block, linears) in blocks.into_iter().enumerate() {
            for linear in linears {
                let name = linear.name().to_owned();
                let role = name.rsplit('.').next().unwrap_or_default().to_owned();
                ids.push(LayerId { tower, block, role, name });
            }
        }
    }
    ids
}

/// Vectors of length 1 along the last dimension.
fn unit(x: &Tensor) -> Tensor {
    /// As the reference's `normalize`.
    const SMALLEST: f64 = 1e-12;
    x / x.norm_scalaropt_dim(2.0, [-1], true).clamp_min(SMALLEST)
}

impl VisionLanguage for Blip2 {
    fn writes(&self) -> bool {
        self.writer.is_some()
    }

    fn check_prompts(&self, prompts: &Prompts) -> Result<(), ModelError> {
        let writer = self.writer.as_ref().ok_or_else(|| ModelError::Config(MUTE.to_owned()))?;
        if self.config.family()? != Family::Blip2 {
            let positions = self.config.qformer_config.max_position_embeddings;
            longest("Q-Former's text", prompts.qformer.ids.size()[1], positions)?;
        }
        match &writer.language {
            Language::Opt(opt) => {
                let tokens = self.qformer.queries() + prompts.language.ids.size()[1];
                longest("prompt", tokens, opt.longest() - 1)
            }
            _ => Ok(()),
        }
    }

    fn encode_images(&self, pixels: &Tensor) -> Tensor {
        self.vision.forward(pixels)
    }

    fn query_output(&self, features: &Tensor, prompts: &Prompts) -> Tensor {
        self.qformer.forward(Images { features, rows: &prompts.image }, Some(&prompts.qformer))
    }

    fn project(&self, queries: &Tensor) -> Tensor {
        self.writing().projection.forward(&queries.to_kind(self.kind))
    }

    fn word_embeddings(&self, ids: &Tensor) -> Option<Tensor> {
        Some(self.writer()?.language.words(ids))
    }

    fn force_padded(&self, prefix: Option<&Tensor>, prompt: &TextBatch, answers: AnswerBatch<'_>) -> Forced {
        self.writing().language.force(prefix, prompt, &answers, &self.special, None)
    }

    fn force_traced(&self, prefix: Option<&Tensor>, prompt: &TextBatch, answers: &[Vec<u32>]) -> (Forced, Vec<Tensor>) {
        let mut states = Vec::new();
        let answers = AnswerBatch::whole(answers);
        let forced = self.writing().language.force(prefix, prompt, &answers, &self.special, Some(&mut states));
        // A decoder-only model's rows go on with the answer where the prompt ends; T5's encoder ends there by itself.
        let width = prefix.map_or(0, |prefix| prefix.size()[1]) + prompt.ids.size()[1];
        let states = states.into_iter().map(|x| x.narrow(1, 0, width.min(x.size()[1]))).collect();
        (forced, states)
    }

    fn generate(&self, prefix: &Tensor, prompt: &TextBatch, search: &Search) -> Result<Vec<Answer>, ModelError> {
        let image_token = self.config.image_token();
        let writer = self.writer.as_ref().ok_or_else(|| ModelError::Config(MUTE.to_owned()))?;
        tch::no_grad(|| writer.language.generate(prefix, prompt, &self.special, image_token, search))
    }

    fn search_sizes(&self) -> Option<SearchSizes> {
        Some(self.writer()?.language.search_sizes(self.kind.elt_size_in_bytes() as u64))
    }

    fn text_positions(&self) -> Option<usize> {
        self.writer()?;
        let positions = match &self.config.text_config {
            crate::config::TextConfig::T5(_) => return None,
            crate::config::TextConfig::Llama(text) => text.max_position_embeddings,
            crate::config::TextConfig::Opt(text) => text.max_position_embeddings,
        };
        usize::try_from(positions).ok()
    }

    fn image_tokens(&self) -> usize {
        self.qformer.queries() as usize
    }

    fn retrieval_images(&self, features: &Tensor) -> Option<Tensor> {
        let head = self.retrieval.as_ref()?;
        let rows = QFormer::each(features.size()[0], features.device());
        let queries = self.qformer.forward(Images { features, rows: &rows }, None);
        Some(unit(&head.vision.forward(&queries.to_kind(self.kind))))
    }

    fn retrieval_texts(&self, texts: &TextBatch) -> Option<Tensor> {
        let head = self.retrieval.as_ref()?;
        Some(unit(&head.text.forward(&self.qformer.forward_text(texts)?.to_kind(self.kind))))
    }

    fn matching_scores(&self, features: &Tensor, images: &Tensor, captions: &TextBatch) -> Option<Tensor> {
        const FITS: i64 = 1;
        let head = self.retrieval.as_ref()?.matching.as_ref()?;
        let queries = self.qformer.forward(Images { features, rows: images }, Some(captions));
        let logits = head.forward(&queries.to_kind(self.kind)).mean_dim([1i64].as_slice(), false, Kind::Float);
        Some(logits.select(1, FITS))
    }

    fn with_vision_of(&self, other: &dyn VisionLanguage) -> Result<Box<dyn VisionLanguage>, ModelError> {
        let (mine, theirs) = (self.blocks(Tower::Vision), other.blocks(Tower::Vision));
        if mine != theirs {
            let message = format!("an image encoder of {theirs} blocks cannot take the place of one of {mine}");
            return Err(ModelError::Config(message));
        }
        let mut tensors = self.tensors();
        let of_vision = |name: &str| name.starts_with(&format!("{VISION}."));
        tensors.extend(other.tensors().into_iter().filter(|(name, _)| of_vision(name)));
        for weight in other.weights().into_iter().filter(|weight| of_vision(weight.name())) {
            tensors.insert(weight.name().to_owned(), tch::no_grad(|| weight.exact().detach()));
        }
        let positions = format!("{VISION}.embeddings.position_embedding");
        if let Some(found) = tensors.get_mut(&positions) {
            let side = self.config.vision_config.side();
            *found = tch::no_grad(|| crate::vit::interpolate_positions(found, side, side));
        }
        let options = self.options();
        let model = Self::load(&self.config, self.special.clone(), &mut &tensors, &options)?;
        Ok(Box::new(
            model.wearing(VisionLanguage::weights(self).into_iter().filter(|weight| !of_vision(weight.name()))),
        ))
    }

    fn linears(&self) -> Vec<(&LayerId, &Linear)> {
        self.ids.iter().zip(Parts::linears(self)).collect()
    }

    fn linears_mut(&mut self) -> Vec<(&LayerId, &mut Linear)> {
        let Self { vision, qformer, writer, ids, .. } = self;
        let towers = vision.linears_mut().into_iter().chain(qformer.linears_mut()).chain(writer.linears_mut());
        ids.iter().zip(towers).collect()
    }

    fn connectors(&self) -> Vec<&Linear> {
        self.writer
            .iter()
            .map(|writer| &writer.projection)
            .chain(self.retrieval.iter().flat_map(Parts::linears))
            .collect()
    }

    fn weights(&self) -> Vec<&Weight> {
        let connectors = self.connectors().into_iter().flat_map(Linear::weights);
        Parts::weights(self).into_iter().chain(connectors).chain(self.queries()).collect()
    }

    fn weights_mut(&mut self) -> Vec<&mut Weight> {
        let Self { vision, qformer: QFormer { layernorm, layers, query_tokens, .. }, writer, retrieval, .. } = self;
        let mut all = vision.weights_mut();
        all.extend(layernorm.weights_mut());
        all.extend(layers.weights_mut());
        if let Some(Writer { projection, language }) = writer {
            all.extend(language.weights_mut());
            all.extend(projection.weights_mut());
        }
        all.extend(retrieval.iter_mut().flat_map(Parts::weights_mut));
        all.push(query_tokens);
        all
    }

    fn queries(&self) -> Option<&Weight> {
        Some(&self.qformer.query_tokens)
    }

    fn norms(&self, tower: Tower) -> Vec<&Weight> {
        match tower {
            Tower::Vision => self.vision.norms(),
            Tower::Qformer => self.qformer.norms(),
            Tower::Language => self.writer.norms(),
        }
    }

    fn block_weights(&self, tower: Tower, block: usize) -> Vec<&Weight> {
        match tower {
            Tower::Vision => self.vision.layers[block].weights(),
            Tower::Qformer => self.qformer.layers[block].weights(),
            Tower::Language => self.writer.iter().flat_map(|writer| writer.language.block_weights(block)).collect(),
        }
    }

    fn blocks(&self, tower: Tower) -> usize {
        match tower {
            Tower::Vision => self.vision.layers.len(),
            Tower::Qformer => self.qformer.layers.len(),
            Tower::Language => self.writer.as_ref().map_or(0, |writer| writer.language.by_block().len()),
        }
    }

    fn enter_from(&self, entry: Entry<'_>) -> Flow {
        match entry {
            Entry::Pixels(pixels) => Flow { hidden: self.vision.embed(pixels), context: Vec::new(), carried: None },
            Entry::Features { features, prompts } => {
                let (hidden, bias) = self.qformer.embed(prompts.image.size()[0], Some(&prompts.qformer));
                let features = self.qformer.features(features);
                let context =
                    [Some(features), Some(prompts.image.shallow_clone()), bias].into_iter().flatten().collect();
                Flow { hidden, context, carried: Some(FEATURES) }
            }
            Entry::Prefix { prefix, prompt, answers } => {
                self.writing().language.enter(prefix, prompt, &answers, &self.special)
            }
        }
    }

    fn leave(&self, tower: Tower, flow: &Flow) -> Tensor {
        self.finish(tower, flow)
    }

    fn stack(&self, tower: Tower, flows: &[Flow]) -> Option<Flow> {
        match tower {
            Tower::Vision => Flow::stack(flows, 0),
            Tower::Qformer => {
                // Each row looks at its own image, wherever that came from.
                let alone = flows.iter().map(|flow| {
                    let mut flow = flow.shallow_clone();
                    flow.context[0] = flow.context[0].index_select(0, &flow.context[1]);
                    flow
                });
                let mut stacked = Flow::stack(&alone.collect::<Vec<_>>(), usize::MAX)?;
                stacked.context[1] = QFormer::each(stacked.hidden.size()[0], stacked.hidden.device());
                Some(stacked)
            }
            Tower::Language => self.writer()?.language.stack(flows),
        }
    }

    fn targets(&self, answers: &AnswerBatch<'_>) -> Targets {
        self.writing().language.targets(answers, &self.special)
    }

    fn run_block(&self, tower: Tower, block: usize, flow: &Flow) -> Flow {
        match tower {
            Tower::Vision => flow.with_hidden(self.vision.layers[block].forward(&flow.hidden)),
            Tower::Qformer => {
                let [features, rows, rest @ ..] = flow.context.as_slice() else {
                    unreachable!("a Q-Former's flow holds features and rows from its beginning")
                };
                let layer = &self.qformer.layers[block];
                let images = Some(Images { features, rows });
                flow.with_hidden(layer.forward(&flow.hidden, self.qformer.queries(), rest.first(), images))
            }
            Tower::Language => self.writing().language.run_block(block, flow),
        }
    }

    fn token_kinds(&self, tower: Tower, block: usize, flow: &Flow) -> Vec<TokenKind> {
        let (tokens, queries) = (flow.hidden.size()[1], self.qformer.queries());
        match tower {
            Tower::Vision => TokenKind::parts(&[(TokenKind::Visual, tokens)]),
            Tower::Qformer => TokenKind::parts(&[(TokenKind::Query, queries), (TokenKind::Text, tokens - queries)]),
            Tower::Language if self.writing().language.sees_image(block) => {
                TokenKind::parts(&[(TokenKind::Visual, queries), (TokenKind::Text, tokens - queries)])
            }
            Tower::Language => TokenKind::parts(&[(TokenKind::Text, tokens)]),
        }
    }

    fn layer_tokens(&self, layer: &LayerId, flow: &Flow) -> Vec<TokenKind> {
        let own = self.token_kinds(layer.tower, layer.block, flow);
        match layer.tower {
            Tower::Vision => own,
            Tower::Qformer => {
                let below = format!(".layer.{}.", layer.block);
                let only = |kind| own.iter().copied().filter(|own| *own == kind).collect();
                match Share::of(layer.name.split_once(&below).map_or("", |(_, path)| path)) {
                    Share::All => own,
                    Share::Queries => only(TokenKind::Query),
                    Share::Texts => only(TokenKind::Text),
                    Share::Images => {
                        let patches = flow.context.first().map_or(0, |features| features.size()[..2].iter().product());
                        TokenKind::parts(&[(TokenKind::Visual, patches)])
                    }
                }
            }
            Tower::Language => match self.writing().language.memory_read_by(layer, flow) {
                None => own,
                Some(tokens) => {
                    let queries = self.qformer.queries();
                    TokenKind::parts(&[(TokenKind::Visual, queries), (TokenKind::Text, tokens - queries)])
                }
            },
        }
    }

    fn shallow_clone(&self) -> Box<dyn VisionLanguage> {
        let tensors = self.tensors();
        let clone = Self::load(&self.config, self.special.clone(), &mut &tensors, &self.options())
            .expect("a model holds the tensors that its own configuration asks for");
        Box::new(clone.wearing(VisionLanguage::weights(self)))
    }

    fn tensors(&self) -> TensorMap {
        let mut tensors: TensorMap = self.tensors.iter().map(|(name, t)| (name.clone(), t.shallow_clone())).collect();
        for weight in VisionLanguage::weights(self) {
            tensors.insert(weight.name().to_owned(), weight.base().shallow_clone());
        }
        tensors
    }
}
