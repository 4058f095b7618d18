//! A vision-language model: an image encoder, a connector and a language model, each behind its trait.

use std::collections::{BTreeSet, HashMap};

use ressa_checkpoint::names::role;
use ressa_experiment::{job::Compute, search::SearchSizes};
use tch::{Device, Kind, Tensor};

use crate::{
    Answer, AnswerBatch, Entry, Feed, Flow, Forced, LayerId, Linear, LoadOptions, ModelError, Prompts, Scope, Search,
    Shapes, Targets, TensorMap, TensorSource, TextBatch, TokenKind, Tower, VisionLanguage, Weight,
    config::{GenerationConfig, SpecialTokens},
    connector::Connector,
    encoder::ImageEncoder,
    families::{Architecture, Networks},
    language::LanguageModel,
    layers::Parts,
    qformer::Images,
    raw::longest,
    retrieval::Retrieval,
    scope::Keep,
    weights::Rounding,
};

/// The error of asking a retrieval model for words.
pub(crate) const MUTE: &str = "a retrieval model has no language model; it gives embeddings and matching scores";

/// A model of any family.
pub struct Model {
    architecture: Box<dyn Architecture>,
    special: SpecialTokens,
    vision: Box<dyn ImageEncoder>,
    connector: Box<dyn Connector>,
    language: Option<Box<dyn LanguageModel>>,
    retrieval: Option<Retrieval>,
    ids: Vec<LayerId>,
    tensors: TensorMap,
    kind: Kind,
    rounding: Rounding,
    device: Device,
}

impl Model {
    /// Reads the networks' tensors from a source onto a device, computing as the options say. The source is to be asked afterwards whether
    /// it has more.
    ///
    /// # Errors
    /// A configuration that no network can have; a tensor that is missing or of another shape.
    pub fn load(
        architecture: &dyn Architecture,
        special: SpecialTokens,
        source: &mut dyn TensorSource,
        options: &LoadOptions,
    ) -> Result<Self, ModelError> {
        architecture.check()?;
        let (kind, device) = (options.kind(), options.device);
        let mut keep = Keep { source, device, kept: TensorMap::new() };
        let networks = architecture.build(&Scope::root(&mut keep, kind, options.rounding))?;
        let Networks { vision, connector, language, retrieval } = networks;
        let ids = layer_ids(vision.as_ref(), connector.as_ref(), language.as_deref());
        let mut model = Self {
            architecture: architecture.boxed(),
            special,
            vision,
            connector,
            language,
            retrieval,
            ids,
            tensors: keep.kept,
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
    ///
    /// # Errors
    /// As [`Model::load`].
    pub fn from_tensors(architecture: &dyn Architecture, tensors: &TensorMap) -> Result<Self, ModelError> {
        let device = tensors.values().next().map_or(Device::Cpu, Tensor::device);
        let special = architecture.special_tokens(&GenerationConfig::default());
        Self::load(architecture, special, &mut &*tensors, &LoadOptions::on(device))
    }

    /// Names and shapes of all tensors of a configuration, optional parts included.
    ///
    /// # Errors
    /// A configuration that no network can have.
    pub fn tensor_shapes(architecture: &dyn Architecture) -> Result<Vec<(String, Vec<i64>)>, ModelError> {
        let mut shapes = Shapes::default();
        let special = architecture.special_tokens(&GenerationConfig::default());
        Self::load(architecture, special, &mut shapes, &LoadOptions::on(Device::Cpu))?;
        Ok(shapes.into_inner())
    }

    /// The configuration.
    pub fn config(&self) -> &dyn Architecture {
        self.architecture.as_ref()
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

    /// The language model; nothing in a retrieval model.
    pub(crate) fn language(&self) -> Option<&dyn LanguageModel> {
        self.language.as_deref()
    }

    /// The language model, for callers who have made sure that there is one.
    fn writing(&self) -> &dyn LanguageModel {
        self.language.as_deref().expect(MUTE)
    }

    /// Features `[1, tokens, width]` of an image that was cut into patches `[1, patches, values]`, in so many rows and columns; nothing where
    /// the encoder takes no such images.
    pub(crate) fn encode_patches(&self, patches: &Tensor, grid: [i64; 2]) -> Option<Tensor> {
        let entry = self.vision.enter_patches(patches, grid)?;
        let flow = (0..self.vision.needed()).fold(entry, |flow, block| self.vision.run_block(block, &flow));
        Some(self.vision.leave(&flow))
    }

    /// What left the encoder's last norm for a prompt; nothing for a decoder-only model.
    pub fn encode_prompt(&self, prefix: &Tensor, prompt: &TextBatch) -> Option<Tensor> {
        self.language.as_ref()?.encode(prefix, prompt)
    }

    /// Linears that are not pruned and can be tapped like the others: projections into the language model, and its head.
    pub fn unpruned_linears(&self) -> Vec<&Linear> {
        match &self.language {
            Some(language) => self.connector.projections().into_iter().chain([language.head()]).collect(),
            None => Vec::new(),
        }
    }

    /// Norms whose outputs are read by prunable linears and by nothing else. A Q-Former has none: its norms are read by residuals.
    pub fn feeds(&self) -> Vec<Feed> {
        let language = self.language.iter().flat_map(|language| language.feeds());
        self.vision.feeds().into_iter().chain(self.connector.feeds()).chain(language).collect()
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

    /// A model of the same configuration and blocks over other tensors.
    fn over(&self, tensors: &TensorMap) -> Result<Self, ModelError> {
        let mut model = Self::load(self.config(), self.special.clone(), &mut &*tensors, &self.options())?;
        if self.connector.has_joined() {
            VisionLanguage::join_projection(&mut model);
        }
        Ok(model)
    }

    fn options(&self) -> LoadOptions {
        let compute = match self.kind {
            Kind::BFloat16 => Compute::Bfloat16,
            Kind::Half => Compute::Float16,
            _ => Compute::Float32,
        };
        LoadOptions { compute, rounding: self.rounding, ..LoadOptions::on(self.device) }
    }

    /// What the tokens before a row's own text are, for a flow of the language model.
    fn prefix_kinds(&self, flow: &Flow) -> Vec<TokenKind> {
        match self.writing().image_places(flow) {
            None => vec![TokenKind::Visual; self.connector.image_tokens()],
            Some(places) => crate::generate::ids(&places.to_kind(Kind::Int64))
                .into_iter()
                .map(|of_image| if of_image != 0 { TokenKind::Visual } else { TokenKind::Text })
                .collect(),
        }
    }

    /// So many tokens, of which the first are those before a row's own text.
    fn language_kinds(&self, flow: &Flow, tokens: i64) -> Vec<TokenKind> {
        let mut kinds = self.prefix_kinds(flow);
        kinds.resize(tokens.max(0) as usize, TokenKind::Text);
        kinds
    }
}

/// Places of all prunable linears, in the order of execution.
fn layer_ids(
    vision: &dyn ImageEncoder,
    connector: &dyn Connector,
    language: Option<&dyn LanguageModel>,
) -> Vec<LayerId> {
    let towers = [
        (Tower::Vision, vision.by_block()),
        (Tower::Connector, connector.by_block()),
        (Tower::Language, language.map(|language| language.by_block()).unwrap_or_default()),
    ];
    let mut ids = Vec::new();
    for (tower, blocks) in towers {
        for (block, linears) in blocks.into_iter().enumerate() {
            for linear in linears {
                let name = linear.name().to_owned();
                let role = role(&name).to_owned();
                ids.push(LayerId { tower, block, role, name });
            }
        }
    }
    ids
}

impl VisionLanguage for Model {
    fn writes(&self) -> bool {
        self.language.is_some()
    }

    fn check_prompts(&self, prompts: &Prompts) -> Result<(), ModelError> {
        let language = self.language.as_ref().ok_or_else(|| ModelError::Config(MUTE.to_owned()))?;
        self.connector.check_prompts(prompts)?;
        let before = prompts.language.layout().map_or(self.connector.image_tokens(), crate::Layout::tokens);
        match language.longest() {
            Some(positions) => longest("prompt", before as i64 + prompts.language.ids.size()[1], positions - 1),
            None => Ok(()),
        }
    }

    fn encode_images(&self, pixels: &Tensor) -> Tensor {
        self.vision.forward(pixels)
    }

    fn query_output(&self, features: &Tensor, prompts: &Prompts) -> Tensor {
        self.connector.forward(features, prompts)
    }

    fn project(&self, queries: &Tensor) -> Tensor {
        self.connector.project(queries)
    }

    fn word_embeddings(&self, ids: &Tensor) -> Option<Tensor> {
        Some(self.language()?.words(ids))
    }

    fn place_images(&self, states: Tensor, prompt: &TextBatch) -> Tensor {
        match prompt.layout() {
            None => states,
            Some(layout) => {
                let ids: Vec<i64> = layout.ids.iter().map(|&id| i64::from(id)).collect();
                let ids = Tensor::from_slice(&ids).unsqueeze(0).to_device(self.device);
                // The image token may lie outside the vocabulary; what is looked up for it is not used.
                let known = ids.masked_fill(&ids.eq(i64::from(layout.image_token)), 0);
                crate::layout::merge(layout, &self.writing().words(&known), &states)
            }
        }
    }

    fn force_padded(&self, prefix: Option<&Tensor>, prompt: &TextBatch, answers: AnswerBatch<'_>) -> Forced {
        self.writing().force(prefix, prompt, &answers, &self.special, None)
    }

    fn force_traced(&self, prefix: Option<&Tensor>, prompt: &TextBatch, answers: &[Vec<u32>]) -> (Forced, Vec<Tensor>) {
        let mut states = Vec::new();
        let answers = AnswerBatch::whole(answers);
        let forced = self.writing().force(prefix, prompt, &answers, &self.special, Some(&mut states));
        // A decoder-only model's rows go on with the answer where the prompt ends; T5's encoder ends there by itself.
        let width = prefix.map_or(0, |prefix| prefix.size()[1]) + prompt.ids.size()[1];
        let states = states.into_iter().map(|x| x.narrow(1, 0, width.min(x.size()[1]))).collect();
        (forced, states)
    }

    fn generate(&self, prefix: &Tensor, prompt: &TextBatch, search: &Search) -> Result<Vec<Answer>, ModelError> {
        let image_token = self.architecture.image_token();
        let language = self.language.as_ref().ok_or_else(|| ModelError::Config(MUTE.to_owned()))?;
        tch::no_grad(|| language.generate(prefix, prompt, &self.special, image_token, search))
    }

    fn answer(&self, features: &Tensor, prompts: &Prompts, search: &Search) -> Result<Vec<Answer>, ModelError> {
        // Where words stand before the image, nothing before a row's own text depends on the row. Elsewhere rows are not read: that would
        // wait for the device.
        let rows = prompts.language.layout().map(|_| crate::generate::ids(&prompts.image)).unwrap_or_default();
        let images: Vec<i64> = rows.iter().copied().collect::<BTreeSet<_>>().into_iter().collect();
        let (Some(language), true) = (&self.language, prompts.language.layout().is_some() && images.len() < rows.len())
        else {
            return self.generate(&self.visual_prefix(features, prompts), &prompts.language, search);
        };
        let once = Prompts {
            image: Tensor::from_slice(&images).to_device(self.device),
            qformer: prompts.qformer.shallow_clone(),
            language: prompts.language.shallow_clone(),
        };
        let prefixes = self.visual_prefix(features, &once);
        let of_row = |row: &i64| images.binary_search(row).unwrap_or_default() as i64;
        let about = Tensor::from_slice(&rows.iter().map(of_row).collect::<Vec<_>>()).to_device(self.device);
        tch::no_grad(|| language.generate_about(&prefixes, &about, &prompts.language, &self.special, search))
    }

    fn search_sizes(&self) -> Option<SearchSizes> {
        Some(self.language()?.search_sizes(self.kind.elt_size_in_bytes() as u64))
    }

    fn text_positions(&self) -> Option<usize> {
        self.language()?;
        self.config().text_config().positions()
    }

    fn image_tokens(&self) -> usize {
        self.connector.image_tokens()
    }

    fn retrieval_images(&self, features: &Tensor) -> Option<Tensor> {
        Some(self.retrieval.as_ref()?.images(self.connector.qformer()?, features, self.kind))
    }

    fn retrieval_texts(&self, texts: &TextBatch) -> Option<Tensor> {
        self.retrieval.as_ref()?.texts(self.connector.qformer()?, texts, self.kind)
    }

    fn matching_scores(&self, features: &Tensor, images: &Tensor, captions: &TextBatch) -> Option<Tensor> {
        let images = Images { features, rows: images };
        self.retrieval.as_ref()?.matching(self.connector.qformer()?, images, captions, self.kind)
    }

    fn with_vision_of(&self, other: &dyn VisionLanguage) -> Result<Box<dyn VisionLanguage>, ModelError> {
        let (mine, theirs) = (self.blocks(Tower::Vision), other.blocks(Tower::Vision));
        if mine != theirs {
            let message = format!("an image encoder of {theirs} blocks cannot take the place of one of {mine}");
            return Err(ModelError::Config(message));
        }
        let mut tensors = self.tensors();
        let path = format!("{}.", self.architecture.vision_path());
        let of_vision = |name: &str| name.starts_with(&path);
        tensors.extend(other.tensors().into_iter().filter(|(name, _)| of_vision(name)));
        for weight in other.weights().into_iter().filter(|weight| of_vision(weight.name())) {
            tensors.insert(weight.name().to_owned(), tch::no_grad(|| weight.exact().detach()));
        }
        self.vision.refit(&mut tensors);
        let model = self.over(&tensors)?;
        Ok(Box::new(
            model.wearing(VisionLanguage::weights(self).into_iter().filter(|weight| !of_vision(weight.name()))),
        ))
    }

    fn linears(&self) -> Vec<(&LayerId, &Linear)> {
        let language = self.language.iter().flat_map(|language| language.linears());
        self.ids.iter().zip(self.vision.linears().into_iter().chain(self.connector.linears()).chain(language)).collect()
    }

    fn linears_mut(&mut self) -> Vec<(&LayerId, &mut Linear)> {
        let Self { vision, connector, language, ids, .. } = self;
        let language = language.iter_mut().flat_map(|language| language.linears_mut());
        ids.iter().zip(vision.linears_mut().into_iter().chain(connector.linears_mut()).chain(language)).collect()
    }

    fn join_projection(&mut self) -> bool {
        let has_joined = self.connector.join_projection();
        self.ids = layer_ids(self.vision.as_ref(), self.connector.as_ref(), self.language.as_deref());
        has_joined
    }

    fn connectors(&self) -> Vec<&Linear> {
        let retrieval = self.retrieval.iter().flat_map(Parts::linears);
        self.connector.projections().into_iter().chain(retrieval).collect()
    }

    fn weights(&self) -> Vec<&Weight> {
        let mut all = self.vision.weights();
        all.extend(self.connector.weights());
        all.extend(self.language.iter().flat_map(|language| language.weights()));
        all.extend(self.connector.projections().into_iter().flat_map(Linear::weights));
        all.extend(self.connector.queries());
        all.extend(self.retrieval.iter().flat_map(Parts::weights));
        all
    }

    fn weights_mut(&mut self) -> Vec<&mut Weight> {
        let Self { vision, connector, language, retrieval, .. } = self;
        let mut all = vision.weights_mut();
        let (prunable, projections) = connector.all_weights_mut();
        all.extend(prunable);
        all.extend(language.iter_mut().flat_map(|language| language.weights_mut()));
        all.extend(projections);
        all.extend(retrieval.iter_mut().flat_map(Parts::weights_mut));
        all
    }

    fn queries(&self) -> Option<&Weight> {
        self.connector.queries()
    }

    fn norms(&self, tower: Tower) -> Vec<&Weight> {
        match tower {
            Tower::Vision => self.vision.norms(),
            Tower::Connector => self.connector.norms(),
            Tower::Language => self.language.iter().flat_map(|language| language.norms()).collect(),
        }
    }

    fn block_weights(&self, tower: Tower, block: usize) -> Vec<&Weight> {
        match tower {
            Tower::Vision => self.vision.block_weights(block),
            Tower::Connector => self.connector.block_weights(block),
            Tower::Language => self.language.iter().flat_map(|language| language.block_weights(block)).collect(),
        }
    }

    fn blocks(&self, tower: Tower) -> usize {
        match tower {
            Tower::Vision => self.vision.by_block().len(),
            Tower::Connector => self.connector.by_block().len(),
            Tower::Language => self.language.as_ref().map_or(0, |language| language.by_block().len()),
        }
    }

    fn enter_from(&self, entry: Entry<'_>) -> Flow {
        match entry {
            Entry::Pixels(pixels) => self.vision.enter(pixels),
            Entry::Features { features, prompts } => self.connector.enter(features, prompts),
            Entry::Prefix { prefix, prompt, answers } => self.writing().enter(prefix, prompt, &answers, &self.special),
        }
    }

    fn leave(&self, tower: Tower, flow: &Flow) -> Tensor {
        match tower {
            Tower::Vision => self.vision.leave(flow),
            Tower::Connector => self.connector.hand_over(flow),
            Tower::Language => self.writing().finish(flow),
        }
    }

    fn stack(&self, tower: Tower, flows: &[Flow]) -> Option<Flow> {
        match tower {
            Tower::Vision => self.vision.stack(flows),
            Tower::Connector => self.connector.stack(flows),
            Tower::Language => self.language()?.stack(flows),
        }
    }

    fn targets(&self, answers: &AnswerBatch<'_>) -> Targets {
        self.writing().targets(answers, &self.special)
    }

    fn run_block(&self, tower: Tower, block: usize, flow: &Flow) -> Flow {
        match tower {
            Tower::Vision => self.vision.run_block(block, flow),
            Tower::Connector => self.connector.run_block(block, flow),
            Tower::Language => self.writing().run_block(block, flow),
        }
    }

    fn token_kinds(&self, tower: Tower, block: usize, flow: &Flow) -> Vec<TokenKind> {
        let tokens = flow.hidden.size()[1];
        match tower {
            Tower::Vision => TokenKind::parts(&[(TokenKind::Visual, tokens)]),
            Tower::Connector => self.connector.token_kinds(flow),
            Tower::Language if self.writing().sees_image(block) => self.language_kinds(flow, tokens),
            Tower::Language => TokenKind::parts(&[(TokenKind::Text, tokens)]),
        }
    }

    fn layer_tokens(&self, layer: &LayerId, flow: &Flow) -> Vec<TokenKind> {
        match layer.tower {
            Tower::Connector => self.connector.layer_tokens(layer, flow),
            Tower::Language => match self.writing().memory_read_by(layer, flow) {
                Some(tokens) => self.language_kinds(flow, tokens),
                None => self.token_kinds(layer.tower, layer.block, flow),
            },
            Tower::Vision => self.token_kinds(layer.tower, layer.block, flow),
        }
    }

    fn shallow_clone(&self) -> Box<dyn VisionLanguage> {
        let clone = self.over(&self.tensors()).expect("a model holds the tensors that its own configuration asks for");
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
