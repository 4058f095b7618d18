//! Image encoders that are a stack of equal blocks over patches: what enters the first block differs between them, and which states a model
//! takes.

use std::collections::BTreeSet;

use serde_json::{Map, Value};
use tch::Tensor;

use ressa_checkpoint::EncoderKind;

use crate::{
    Attended, BlockGroups, Feed, Flow, Linear, ModelError, Scope, TensorMap, Weight, clip,
    config::EncoderSizes,
    dinov2,
    encoder::ImageEncoder,
    idefics_vision, internvl_vision,
    layers::{Activation, LayerNorm, Part, PartMut, Parts, key_bias},
    siglip,
    transformer::{Block, BlockShape, Names},
};

/// Place of the taken states among the companions of a flow.
const TAKEN: usize = 0;

/// Which states of an encoder are image features.
#[derive(Clone, Debug)]
pub(crate) enum Takes {
    /// Those behind the last block, through the last norm.
    Last,
    /// Those after so many blocks, one beside the other.
    After {
        /// Blocks that have run, for each of them.
        blocks: Vec<usize>,
        /// Whether the first token of an image, where there is one its class token, is left out.
        without_first: bool,
    },
}

/// How pixels become what enters the first block.
pub(crate) trait Embeddings: Parts + Send {
    /// `[images, tokens, width]` of pixels `[images, 3, height, width]`.
    fn forward(&self, pixels: &Tensor) -> Tensor;

    /// The same of images of which so many rows and columns of patches, on the left and above, are no padding; nothing where the encoder
    /// knows no padding.
    fn forward_padded(&self, pixels: &Tensor, real: &[[i64; 2]]) -> Option<Tensor> {
        let _ = (pixels, real);
        None
    }

    /// Makes tensors of an encoder of the same shape for another image size fit this one.
    fn refit(&self, tensors: &mut TensorMap) {
        let _ = tensors;
    }
}

/// Sizes of an encoder, from a `vision_config` with the defaults of its class.
#[derive(Clone, Debug, PartialEq)]
pub struct EncoderConfig {
    /// Which encoder it is.
    pub kind: EncoderKind,
    /// Width.
    pub width: i64,
    /// Width of the feed-forward layers.
    pub inner: i64,
    /// Blocks.
    pub layers: usize,
    /// Heads.
    pub heads: i64,
    /// Height and width of an image.
    pub image: i64,
    /// Height and width of a patch.
    pub patch: i64,
    /// Activation of the feed-forward layers; nothing where they are gated.
    pub activation: Option<Activation>,
    /// Added to the variance in norms.
    pub eps: f64,
    /// Whether the projections of queries, keys and values have biases.
    pub bias: bool,
}

impl EncoderConfig {
    /// Reads the fields of an encoder, all of which are there.
    pub(crate) fn read(kind: EncoderKind, fields: &Map<String, Value>) -> serde_json::Result<Self> {
        let field = |name: &str| fields.get(name).cloned().unwrap_or_default();
        let whole = |name: &str| serde_json::from_value::<i64>(field(name));
        let flag = |name: &str, default: bool| field(name).as_bool().unwrap_or(default);
        let gated = kind == EncoderKind::Dinov2 && flag("use_swiglu_ffn", false);
        Ok(Self {
            kind,
            width: whole("hidden_size")?,
            inner: whole("intermediate_size")?,
            layers: serde_json::from_value(field("num_hidden_layers"))?,
            heads: whole("num_attention_heads")?,
            image: whole("image_size")?,
            patch: whole("patch_size")?,
            activation: if gated { None } else { Some(serde_json::from_value(field("hidden_act"))?) },
            eps: serde_json::from_value(field("layer_norm_eps"))?,
            bias: match kind {
                EncoderKind::Dinov2 => flag("qkv_bias", true),
                EncoderKind::InternVl => flag("attention_bias", false),
                EncoderKind::Clip | EncoderKind::Siglip | EncoderKind::Idefics3 => true,
            },
        })
    }

    pub(crate) fn check(&self) -> Result<(), ModelError> {
        EncoderSizes {
            layers: self.layers,
            width: self.width,
            heads: self.heads,
            inner: self.inner,
            image: self.image,
            patch: self.patch,
            eps: self.eps,
        }
        .check()
    }

    /// Tokens of an image of the configured size: its patches, and the class token where there is one.
    pub fn tokens(&self) -> i64 {
        self.patches() + i64::from(self.kind.has_class())
    }

    /// Patches of an image of the configured size.
    pub(crate) fn patches(&self) -> i64 {
        let side = self.image / self.patch;
        side * side
    }

    pub(crate) fn block(&self) -> BlockShape {
        BlockShape {
            width: self.width,
            inner: self.inner,
            heads: self.heads,
            activation: self.activation,
            eps: self.eps,
            bias: self.bias,
        }
    }
}

/// The encoder of a configuration, for images or, where they are `tiled`, for canvases of tiles of the configured size.
pub(crate) fn load(
    scope: &Scope<'_>,
    c: &EncoderConfig,
    takes: Takes,
    tiled: bool,
) -> Result<Box<dyn ImageEncoder>, ModelError> {
    fn boxed<E: Embeddings + 'static>(encoder: PatchEncoder<E>, tile: Option<Tile>) -> Box<dyn ImageEncoder> {
        Box::new(PatchEncoder { tile, ..encoder })
    }
    let tile = tiled.then(|| Tile { side: c.image, tokens: c.tokens(), patches: c.patches() });
    Ok(match c.kind {
        EncoderKind::Clip => boxed(clip::load(scope, c, takes)?, tile),
        EncoderKind::Siglip => boxed(siglip::load(scope, c, takes)?, tile),
        EncoderKind::Dinov2 => boxed(dinov2::load(scope, c, takes)?, tile),
        EncoderKind::Idefics3 => boxed(idefics_vision::load(scope, c, takes)?, tile),
        EncoderKind::InternVl => boxed(internvl_vision::load(scope, c, takes)?, tile),
    })
}

/// A stack of blocks behind embeddings.
pub(crate) struct PatchEncoder<E> {
    embeddings: E,
    layers: Vec<Block>,
    /// Where states are taken before the last norm, it is in the checkpoint and on the way to nothing. InternVL's encoder has none.
    last_norm: Option<LayerNorm>,
    takes: Takes,
    tile: Option<Tile>,
}

/// A tile of an image, which sees no other.
#[derive(Clone, Copy)]
struct Tile {
    /// Height and width in pixels.
    side: i64,
    /// Tokens in the encoder, and those of them that are patches.
    tokens: i64,
    patches: i64,
}

impl Tile {
    /// Tiles `[images * tiles, 3, side, side]` of canvases `[images, 3, height, width]`: rows of tiles, and in a row of its own below, on the
    /// left, the whole image. A canvas of one tile is an image that was not split. Pixels behind the tiles are not seen.
    fn cut(self, canvases: &Tensor) -> Tensor {
        let (size, side) = (canvases.size(), self.side);
        let (rows, columns) = (size[2] / side - 1, size[3] / side);
        let whole = canvases.narrow(2, rows * side, side).narrow(3, 0, side).unsqueeze(1);
        if rows == 0 {
            return whole.squeeze_dim(1);
        }
        let tiles = canvases.narrow(2, 0, rows * side).narrow(3, 0, columns * side);
        let tiles = tiles.reshape([size[0], 3, rows, side, columns, side]);
        let tiles = tiles.permute([0, 2, 4, 1, 3, 5]).reshape([size[0], rows * columns, 3, side, side]);
        Tensor::cat(&[tiles, whole], 1).flatten(0, 1)
    }
}

impl<E: Embeddings> Parts for PatchEncoder<E> {
    fn visit<'a>(&'a self, show: &mut dyn FnMut(Part<'a>)) {
        self.embeddings.visit(show);
        self.layers.visit(show);
        self.last_norm.visit(show);
    }
    fn visit_mut<'a>(&'a mut self, show: &mut dyn FnMut(PartMut<'a>)) {
        self.embeddings.visit_mut(show);
        self.layers.visit_mut(show);
        self.last_norm.visit_mut(show);
    }
}

impl<E: Embeddings> PatchEncoder<E> {
    /// Blocks `stack.0` to `stack.(count - 1)` of `scope`, and its norm `last_norm` where it has one.
    pub fn load(
        scope: &Scope<'_>,
        embeddings: E,
        (stack, count, last_norm): (&str, usize, Option<&str>),
        names: &Names,
        shape: BlockShape,
        takes: Takes,
    ) -> Result<Self, ModelError> {
        let layers = scope.at(stack);
        Ok(Self {
            embeddings,
            layers: (0..count).map(|i| Block::load(&layers.at(i), names, shape)).collect::<Result<_, _>>()?,
            last_norm: last_norm.map(|name| LayerNorm::load(&scope.at(name), shape.width, shape.eps)).transpose()?,
            takes,
            tile: None,
        })
    }

    /// The states after `ran` blocks, kept aside if they are taken, beside those that were before.
    fn take(&self, flow: Flow, ran: usize) -> Flow {
        let Takes::After { blocks, without_first } = &self.takes else { return flow };
        if !blocks.contains(&ran) {
            return flow;
        }
        let size = flow.hidden.size();
        let tokens = self.tile.map_or(size[1], |tile| tile.tokens);
        let taken = match without_first {
            true => {
                let tiles = flow.hidden.view([size[0], -1, tokens, size[2]]);
                tiles.narrow(2, 1, tokens - 1).reshape([size[0], -1, size[2]])
            }
            false => flow.hidden.shallow_clone(),
        };
        let taken = match flow.context.get(TAKEN) {
            Some(before) => Tensor::cat(&[before, &taken], -1),
            None => taken,
        };
        Flow { context: vec![taken], carried: Some(TAKEN), ..flow }
    }
}

impl<E: Embeddings> PatchEncoder<E> {
    /// What `run` makes of hidden states, each tile for itself, with what is hidden of padding.
    fn by_tile(&self, flow: &Flow, run: impl Fn(&Tensor, Option<&Tensor>) -> Tensor) -> Flow {
        let (tiles, hidden) = self.tiles(flow);
        flow.with_hidden(run(&tiles, hidden).view(flow.hidden.size().as_slice()))
    }

    /// Hidden states with a row for each tile, and what is hidden of padding.
    fn tiles<'f>(&self, flow: &'f Flow) -> (Tensor, Option<&'f Tensor>) {
        let Some(tile) = self.tile else { return (flow.hidden.shallow_clone(), None) };
        // Only an encoder that takes no states aside keeps what is hidden of padding there.
        let hidden = matches!(self.takes, Takes::Last).then(|| flow.context.first()).flatten();
        (flow.hidden.reshape([-1, tile.tokens, flow.hidden.size()[2]]), hidden)
    }
}

impl<E: Embeddings> ImageEncoder for PatchEncoder<E> {
    fn by_block(&self) -> Vec<Vec<&Linear>> {
        self.layers.iter().map(Parts::linears).collect()
    }

    fn block_weights(&self, block: usize) -> Vec<&Weight> {
        self.layers[block].weights()
    }

    /// The last norm's outputs go to the connector.
    fn feeds(&self) -> Vec<Feed> {
        self.layers.iter().flat_map(Block::feeds).collect()
    }

    /// A block behind the states that are taken changes nothing, whether it is there or not.
    fn groups(&self, block: usize) -> BlockGroups {
        let (sets, is_removable) = (self.layers[block].groups(), block < self.needed());
        BlockGroups { sets, is_removable, ..BlockGroups::default() }
    }

    fn enter(&self, pixels: &Tensor) -> Flow {
        let hidden = match self.tile {
            None => self.embeddings.forward(pixels),
            Some(tile) => {
                let hidden = self.embeddings.forward(&tile.cut(pixels));
                hidden.reshape([pixels.size()[0], -1, hidden.size()[2]])
            }
        };
        self.take(Flow { hidden, context: Vec::new(), carried: None }, 0)
    }

    fn enter_tiles(&self, tiles: &Tensor, real: &[[i64; 2]]) -> Option<Flow> {
        let Some(hidden) = self.embeddings.forward_padded(tiles, real) else {
            // An encoder that knows no padding reads tiles without any.
            let hidden = self.embeddings.forward(tiles);
            let patches = self.tile.map_or(hidden.size()[1], |tile| tile.patches);
            let whole = real.iter().all(|[rows, columns]| rows * columns >= patches);
            return whole.then(|| self.take(Flow { hidden, context: Vec::new(), carried: None }, 0));
        };
        let side = (hidden.size()[1] as f64).sqrt() as i64;
        let seen: Vec<bool> = real
            .iter()
            .flat_map(|&[rows, columns]| (0..side * side).map(move |at| at / side < rows && at % side < columns))
            .collect();
        let seen = Tensor::from_slice(&seen).view([real.len() as i64, -1]).to_device(hidden.device());
        Some(Flow { context: vec![key_bias(&seen, hidden.kind())], hidden, carried: None })
    }

    /// What is taken belongs to its row.
    fn stack(&self, flows: &[Flow]) -> Option<Flow> {
        Flow::stack(flows, usize::MAX)
    }

    fn run_block(&self, block: usize, flow: &Flow) -> Flow {
        let layer = &self.layers[block];
        self.take(self.by_tile(flow, |x, bias| layer.forward(x, bias)), block + 1)
    }

    fn parts(&self, _block: usize) -> usize {
        2
    }

    fn run_part(&self, block: usize, part: usize, flow: &Flow) -> Flow {
        let layer = &self.layers[block];
        match part {
            0 => self.by_tile(flow, |x, bias| layer.attend(x, bias)),
            _ => self.take(self.by_tile(flow, |x, _| layer.feed(x)), block + 1),
        }
    }

    fn attention_heads(&self, block: usize) -> Vec<i64> {
        if block < self.needed() { vec![self.layers[block].heads()] } else { Vec::new() }
    }

    fn attended(&self, block: usize, flow: &Flow) -> Vec<Attended> {
        let (tiles, hidden) = self.tiles(flow);
        vec![self.layers[block].attended(&tiles, hidden)]
    }

    fn leave(&self, flow: &Flow) -> Tensor {
        match &self.takes {
            Takes::Last => match &self.last_norm {
                Some(norm) => norm.forward(&flow.hidden),
                None => flow.hidden.shallow_clone(),
            },
            Takes::After { blocks, .. } => listed(&flow.context[TAKEN], blocks),
        }
    }

    fn needed(&self) -> usize {
        match &self.takes {
            Takes::Last => self.layers.len(),
            Takes::After { blocks, .. } => blocks.iter().copied().max().unwrap_or_default(),
        }
    }

    fn refit(&self, tensors: &mut TensorMap) {
        self.embeddings.refit(tensors);
    }
}

/// States `[..., width]` that were taken after each of some numbers of blocks, in the order in which the numbers are listed and as often.
fn listed(taken: &Tensor, blocks: &[usize]) -> Tensor {
    let distinct: Vec<usize> = blocks.iter().copied().collect::<BTreeSet<_>>().into_iter().collect();
    if distinct == blocks {
        return taken.shallow_clone();
    }
    let states = taken.chunk(distinct.len() as i64, -1);
    let place = |block: &usize| &states[distinct.binary_search(block).unwrap_or_default()];
    Tensor::cat(&blocks.iter().map(place).collect::<Vec<_>>(), -1)
}

/// A convolution whose stride is its kernel, written as the matrix product that it is.
pub(crate) struct PatchEmbedding {
    /// `[width, 3, side, side]`.
    weight: Tensor,
    bias: Option<Tensor>,
    side: i64,
}

impl PatchEmbedding {
    pub fn load(scope: &Scope<'_>, width: i64, side: i64, bias: bool) -> Result<Self, ModelError> {
        Ok(Self {
            weight: scope.tensor("weight", &[width, 3, side, side])?,
            bias: bias.then(|| scope.tensor("bias", &[width])).transpose()?,
            side,
        })
    }

    /// Rows and columns of patches of pixels `[images, 3, height, width]`.
    pub fn grid(&self, pixels: &Tensor) -> [i64; 2] {
        let size = pixels.size();
        [size[2] / self.side, size[3] / self.side]
    }

    /// Pixels `[images, 3, height, width]` to `[images, patches, width]`. Pixels beyond the last whole patch are not seen.
    pub fn forward(&self, pixels: &Tensor) -> Tensor {
        let (images, [rows, columns], side) = (pixels.size()[0], self.grid(pixels), self.side);
        pixels
            .to_kind(self.weight.kind())
            .narrow(2, 0, rows * side)
            .narrow(3, 0, columns * side)
            .reshape([images, 3, rows, side, columns, side])
            .permute([0, 2, 4, 1, 3, 5])
            .reshape([images, rows * columns, -1])
            .linear(&self.weight.flatten(1, -1), self.bias.as_ref())
    }
}

/// Number of blocks that have run where `hidden_states[index]` of the reference is taken; negative indices count from the end.
pub(crate) fn after(field: &str, index: i64, blocks: usize) -> Result<usize, ModelError> {
    let states = blocks as i64 + 1;
    let found = if index < 0 { states + index } else { index };
    if (0..states).contains(&found) {
        return Ok(found as usize);
    }
    Err(ModelError::Config(format!("`{field}` is {index}; the encoder has states {} to {blocks}", -states)))
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    #[test]
    fn states_are_counted_as_the_reference_counts_them() {
        assert_eq!(after("vision_feature_layer", -2, 24).expect("there"), 23);
        assert_eq!(after("vision_feature_layer", -1, 24).expect("there"), 24);
        assert_eq!(after("vision_feature_layer", 0, 24).expect("there"), 0);
        for outside in [25, -26] {
            let error = after("vision_feature_layer", outside, 24).expect_err("outside").to_string();
            assert!(error.contains("-25 to 24"), "{error}");
        }
    }

    #[test]
    fn states_come_in_the_order_of_the_list() {
        let taken = Tensor::from_slice(&[0i64, 0, 1, 1, 2, 2]).view([1, 6]);
        let of = |blocks: &[usize]| Vec::<i64>::try_from(listed(&taken, blocks).view([-1])).expect("numbers");
        assert_eq!(of(&[3, 5, 9]), [0, 0, 1, 1, 2, 2]);
        assert_eq!(of(&[9, 3, 9, 5]), [2, 2, 0, 0, 2, 2, 1, 1]);
    }

    #[test]
    fn patches_are_what_a_convolution_makes() {
        let pixels = Tensor::arange(3 * 4 * 5, (Kind::Float, Device::Cpu)).view([1, 3, 4, 5]);
        let weight = Tensor::ones([1, 3, 2, 2], (Kind::Float, Device::Cpu));
        let convolved =
            pixels.conv2d::<Tensor>(&weight, None, [2i64, 2].as_slice(), [0i64].as_slice(), [1i64].as_slice(), 1);
        let embedding = PatchEmbedding { weight, bias: None, side: 2 };
        assert!(embedding.forward(&pixels).view([-1]).equal(&convolved.view([-1])));
    }
}
