//! A vision-language model: an image encoder, a connector and a language model, each behind its trait.

mod blocks;
mod infer;
mod retrieve;
mod surgery;

use std::collections::HashMap;

use ressa_checkpoint::names::role;
use ressa_experiment::job::Compute;
use tch::{Device, Kind, Tensor};

use crate::{
    Feed, LayerId, Linear, LoadOptions, ModelError, Mosaic, Scope, Shapes, Surgery, TensorMap, TensorSource, TextBatch,
    Tower, Weight,
    config::{GenerationConfig, SpecialTokens},
    connector::Connector,
    encoder::ImageEncoder,
    families::{Architecture, Networks},
    language::LanguageModel,
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
        let owned: Vec<String> = Surgery::weights(&model).iter().map(|weight| weight.name().to_owned()).collect();
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

    /// Features `[tiles, tokens, width]` of tiles `[tiles, 3, side, side]`, of each of which so many rows and columns of patches are no padding;
    /// nothing where the encoder takes no tiles.
    pub(crate) fn encode_tiles(&self, tiles: &Tensor, real: &[[i64; 2]]) -> Option<Tensor> {
        let entry = self.vision.enter_tiles(tiles, real)?;
        let flow = (0..self.vision.needed()).fold(entry, |flow, block| self.vision.run_block(block, &flow));
        Some(self.vision.leave(&flow))
    }

    /// What the language model reads of the features of an image's tiles `[rows, tokens, width]`.
    pub(crate) fn lay(&self, states: &Tensor, mosaic: &Mosaic) -> Tensor {
        self.connector.lay(states, mosaic)
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
        for mine in Surgery::weights_mut(&mut self) {
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
            Surgery::join_projection(&mut model);
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
