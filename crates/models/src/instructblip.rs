//! InstructBLIP: image encoder, Q-Former that reads the instruction, projection, language model.
//!
//! Reference: `InstructBlipForConditionalGeneration` in transformers, `modeling_instructblip.py`; the optional retrieval head is that of
//! `Blip2ForImageTextRetrieval`, `modeling_blip_2.py`.

use tch::{Device, Tensor};

use crate::{
    Answer, Flow, Forced, LayerId, Linear, ModelError, Prompts, Sample, Scope, Search, Shapes, TensorMap, TensorSource,
    TextBatch, Tower, VisionLanguage,
    config::{GenerationConfig, InstructBlipConfig, SpecialTokens},
    language::Language,
    layers::Linears,
    qformer::{Images, QFormer},
    scope::Keep,
    vit::Vit,
};

/// `vision_projection` and `text_projection`: both sides into one space.
struct Retrieval {
    vision: Linear,
    text: Linear,
}

impl Retrieval {
    /// A checkpoint has the head if its configuration gives it a width and its tensors are there.
    fn load(scope: &Scope<'_>, c: &InstructBlipConfig) -> Result<Option<Self>, ModelError> {
        let Some(width) = c.image_text_hidden_size.filter(|_| scope.contains("vision_projection.weight")) else {
            return Ok(None);
        };
        let from = c.qformer_config.hidden_size;
        Ok(Some(Self {
            vision: Linear::load(&scope.at("vision_projection"), width, from, true)?,
            text: Linear::load(&scope.at("text_projection"), width, from, true)?,
        }))
    }
}

/// The model.
pub struct InstructBlip {
    config: InstructBlipConfig,
    special: SpecialTokens,
    vision: Vit,
    qformer: QFormer,
    projection: Linear,
    language: Language,
    retrieval: Option<Retrieval>,
    ids: Vec<LayerId>,
    tensors: TensorMap,
}

impl InstructBlip {
    /// Reads the network's tensors from a source onto a device. The source is to be asked afterwards whether it has more.
    pub fn load(
        config: &InstructBlipConfig,
        special: SpecialTokens,
        source: &mut dyn TensorSource,
        device: Device,
    ) -> Result<Self, ModelError> {
        config.check()?;
        let mut keep = Keep { source, device, kept: TensorMap::new() };
        let scope = Scope::root(&mut keep);
        let c = &config.qformer_config;
        let vision = Vit::load(&scope.at("vision_model"), &config.vision_config)?;
        let qformer = QFormer::load(&scope, c, config.num_query_tokens)?;
        let projection = Linear::load(&scope.at("language_projection"), config.text_width(), c.hidden_size, true)?;
        let language = Language::load(&scope.at("language_model"), &config.text_config)?;
        let retrieval = Retrieval::load(&scope, config)?;
        drop(scope);
        let ids = layer_ids(&vision, &qformer, &language);
        let (config, tensors) = (config.clone(), keep.kept);
        Ok(Self { config, special, vision, qformer, projection, language, retrieval, ids, tensors })
    }

    /// A network over tensors in memory, sharing them. Cheap: call it again for a second network with masks and adapters of its own.
    pub fn from_tensors(config: &InstructBlipConfig, tensors: &TensorMap) -> Result<Self, ModelError> {
        let device = tensors.values().next().map_or(Device::Cpu, Tensor::device);
        let special = config.special_tokens(&GenerationConfig::default());
        Self::load(config, special, &mut &*tensors, device)
    }

    /// Names and shapes of all tensors of a configuration, retrieval head included if the configuration gives it a width.
    pub fn tensor_shapes(config: &InstructBlipConfig) -> Result<Vec<(String, Vec<i64>)>, ModelError> {
        let mut shapes = Shapes::default();
        let special = config.special_tokens(&GenerationConfig::default());
        Self::load(config, special, &mut shapes, Device::Cpu)?;
        Ok(shapes.into_inner())
    }

    /// The configuration.
    pub fn config(&self) -> &InstructBlipConfig {
        &self.config
    }

    /// Tokens with a meaning of their own.
    pub fn special_tokens(&self) -> &SpecialTokens {
        &self.special
    }

    /// What leaves the vision tower's last norm for a flow that has run all its blocks; what the queries give for the Q-Former's; logits of
    /// the answer for the language model's.
    pub fn finish(&self, tower: Tower, flow: &Flow) -> Tensor {
        match tower {
            Tower::Vision => self.vision.finish(&flow.hidden),
            Tower::Qformer => self.projection.forward(&flow.hidden.narrow(1, 0, self.qformer.queries())),
            Tower::Language => self.language.finish(flow),
        }
    }

    /// What left the T5 encoder's last norm; nothing for a decoder-only model.
    pub fn encode_prompt(&self, prefix: &Tensor, prompt: &TextBatch) -> Option<Tensor> {
        match &self.language {
            Language::T5(t5) => Some(t5.encode(Some(prefix), prompt, None).states),
            Language::Llama(_) => None,
        }
    }

    fn all(&self) -> Vec<&Linear> {
        let vision = self.vision.layers.iter().flat_map(Linears::linears);
        let qformer = self.qformer.layers.iter().flat_map(Linears::linears);
        vision.chain(qformer).chain(self.language.linears()).collect()
    }

    fn all_mut(&mut self) -> Vec<&mut Linear> {
        let vision = self.vision.layers.iter_mut().flat_map(Linears::linears_mut);
        let qformer = self.qformer.layers.iter_mut().flat_map(Linears::linears_mut);
        vision.chain(qformer).chain(self.language.linears_mut()).collect()
    }
}

/// Places of all prunable linears, in the order of execution.
fn layer_ids(vision: &Vit, qformer: &QFormer, language: &Language) -> Vec<LayerId> {
    let towers = [
        (Tower::Vision, vision.layers.iter().map(Linears::linears).collect()),
        (Tower::Qformer, qformer.layers.iter().map(Linears::linears).collect()),
        (Tower::Language, language.by_block()),
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

impl VisionLanguage for InstructBlip {
    fn encode_images(&self, pixels: &Tensor) -> Tensor {
        self.vision.forward(pixels)
    }

    fn query_output(&self, features: &Tensor, prompts: &Prompts) -> Tensor {
        self.qformer.forward(Images { features, rows: &prompts.image }, Some(&prompts.qformer))
    }

    fn project(&self, queries: &Tensor) -> Tensor {
        self.projection.forward(queries)
    }

    fn force(&self, prefix: Option<&Tensor>, prompt: &TextBatch, answers: &[Vec<u32>]) -> Forced {
        self.language.force(prefix, prompt, answers, &self.special, None)
    }

    fn force_traced(&self, prefix: Option<&Tensor>, prompt: &TextBatch, answers: &[Vec<u32>]) -> (Forced, Vec<Tensor>) {
        let mut states = Vec::new();
        let forced = self.language.force(prefix, prompt, answers, &self.special, Some(&mut states));
        // A decoder-only model's rows go on with the answer where the prompt ends; T5's encoder ends there by itself.
        let width = prefix.map_or(0, |prefix| prefix.size()[1]) + prompt.ids.size()[1];
        let states = states.into_iter().map(|x| x.narrow(1, 0, width.min(x.size()[1]))).collect();
        (forced, states)
    }

    fn generate(&self, prefix: &Tensor, prompt: &TextBatch, search: &Search) -> Result<Vec<Answer>, ModelError> {
        tch::no_grad(|| self.language.generate(prefix, prompt, &self.special, self.config.image_token(), search))
    }

    fn retrieval_images(&self, features: &Tensor) -> Option<Tensor> {
        let head = self.retrieval.as_ref()?;
        let rows = QFormer::each(features.size()[0], features.device());
        Some(unit(&head.vision.forward(&self.qformer.forward(Images { features, rows: &rows }, None))))
    }

    fn retrieval_texts(&self, texts: &TextBatch) -> Option<Tensor> {
        let head = self.retrieval.as_ref()?;
        Some(unit(&head.text.forward(&self.qformer.forward_text(texts))))
    }

    fn linears(&self) -> Vec<(&LayerId, &Linear)> {
        self.ids.iter().zip(self.all()).collect()
    }

    fn linears_mut(&mut self) -> Vec<(&LayerId, &mut Linear)> {
        let Self { vision, qformer, language, ids, .. } = self;
        let vision = vision.layers.iter_mut().flat_map(Linears::linears_mut);
        let qformer = qformer.layers.iter_mut().flat_map(Linears::linears_mut);
        ids.iter().zip(vision.chain(qformer).chain(language.linears_mut())).collect()
    }

    fn blocks(&self, tower: Tower) -> usize {
        match tower {
            Tower::Vision => self.vision.layers.len(),
            Tower::Qformer => self.qformer.layers.len(),
            Tower::Language => self.language.by_block().len(),
        }
    }

    fn enter(&self, tower: Tower, sample: &Sample) -> Flow {
        if tower == Tower::Vision {
            return Flow { hidden: self.vision.embed(&sample.pixels), context: Vec::new() };
        }
        let features = self.encode_images(&sample.pixels);
        let prompts = &sample.prompt;
        if tower == Tower::Qformer {
            let (hidden, bias) = self.qformer.embed(prompts.image.size()[0], Some(&prompts.qformer));
            let context = [Some(features), Some(prompts.image.shallow_clone()), bias].into_iter().flatten().collect();
            return Flow { hidden, context };
        }
        let prefix = self.visual_prefix(&features, prompts);
        self.language.enter(&prefix, &prompts.language, &sample.answer, &self.special)
    }

    fn run_block(&self, tower: Tower, block: usize, flow: &Flow) -> Flow {
        match tower {
            Tower::Vision => Flow { hidden: self.vision.layers[block].forward(&flow.hidden), context: Vec::new() },
            Tower::Qformer => {
                let [features, rows, rest @ ..] = flow.context.as_slice() else {
                    unreachable!("a Q-Former's flow holds features and rows from its beginning")
                };
                let layer = &self.qformer.layers[block];
                let images = Some(Images { features, rows });
                let hidden = layer.forward(&flow.hidden, self.qformer.queries(), rest.first(), images);
                Flow { hidden, context: flow.context.iter().map(Tensor::shallow_clone).collect() }
            }
            Tower::Language => self.language.run_block(block, flow),
        }
    }

    fn shallow_clone(&self) -> Box<dyn VisionLanguage> {
        let device = self.projection.weight().device();
        let tensors = self.tensors();
        let mut clone = Self::load(&self.config, self.special.clone(), &mut &tensors, device)
            .expect("a model holds the tensors that its own configuration asks for");
        for (mine, theirs) in self.all().into_iter().zip(clone.all_mut()) {
            let mask = theirs.set_mask(mine.mask().map(Tensor::shallow_clone));
            let adapter = theirs.set_adapter(mine.adapter().map(crate::Adapter::shallow_clone));
            mask.and(adapter).expect("masks and adapters of equal layers fit");
        }
        Box::new(clone)
    }

    fn tensors(&self) -> TensorMap {
        let mut tensors: TensorMap = self.tensors.iter().map(|(name, t)| (name.clone(), t.shallow_clone())).collect();
        for linear in self.all() {
            tensors.insert(format!("{}.weight", linear.name()), linear.weight().shallow_clone());
        }
        tensors
    }
}
