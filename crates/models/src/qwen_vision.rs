//! The image encoders of Qwen2-VL and Qwen2.5-VL: pre-norm Vision Transformers over images of any size, with rotary positions of rows and
//! columns. The newer one attends within windows in most of its blocks.
//!
//! Reference: `Qwen2VisionTransformerPretrainedModel` in transformers, `modeling_qwen2_vl.py`, and its sibling in `modeling_qwen2_5_vl.py`.
//! Differs: windows of one size lie side by side and run as rows of one attention; the order of windows changes nothing.

use std::collections::BTreeMap;

use tch::{Kind, Tensor};

use crate::{
    Feed, Flow, Linear, ModelError, Scope, Weight,
    config::{at_least_one, divides, layers},
    encoder::ImageEncoder,
    layers::{Activation, Attend, LayerNorm, Part, PartMut, Parts, RmsNorm, attention, parts},
    llama::Rotary,
};

/// Added to the variance or the mean square in norms; no setting of the reference.
const EPS: f64 = 1e-6;
/// Base of the rotary frequencies; no setting of the reference.
const THETA: f32 = 10_000.0;
/// Most values of a patch or a feature: far more than published models have.
const MOST_VALUES: i64 = 1 << 24;
/// The rotary tables' places among the companions of a flow; windows come behind them.
const TABLES: usize = 2;

/// Sizes of an image encoder.
#[derive(Clone, Debug, PartialEq)]
pub struct QwenVision {
    /// Blocks.
    pub depth: usize,
    /// Width.
    pub width: i64,
    /// Width of the feed-forward layers.
    pub inner: i64,
    /// Heads.
    pub heads: i64,
    /// Activation of the feed-forward layers.
    pub activation: Activation,
    /// Colours.
    pub channels: i64,
    /// Height and width of a patch.
    pub patch: i64,
    /// Frames that a patch spans; an image is as many equal ones.
    pub frames: i64,
    /// Patches along a side that become one feature.
    pub merge: i64,
    /// Width of a feature of the language model.
    pub handed: i64,
    /// Windows of the newer encoder, which also has other norms and feed-forward layers.
    pub windows: Option<Windows>,
}

/// Attention within windows.
#[derive(Clone, Debug, PartialEq)]
pub struct Windows {
    /// Pixels along a side.
    pub size: i64,
    /// Blocks that attend to the whole image.
    pub whole: Vec<usize>,
}

impl QwenVision {
    pub(crate) fn check(&self) -> Result<(), ModelError> {
        let width = if self.windows.is_some() { "vision_config.hidden_size" } else { "vision_config.embed_dim" };
        layers("vision_config.depth", self.depth)?;
        divides(width, self.width, "num_heads", self.heads)?;
        for (field, size) in [
            ("width of the feed-forward layers in `vision_config`", self.inner),
            ("vision_config.in_channels", self.channels),
            ("vision_config.patch_size", self.patch),
            ("vision_config.temporal_patch_size", self.frames),
            ("vision_config.spatial_merge_size", self.merge),
        ] {
            at_least_one(field, size)?;
        }
        for (what, factors) in [
            ("a feature of `spatial_merge_size` squared patches", [self.width, self.merge, self.merge, 1]),
            ("a patch of `patch_size` squared pixels in all frames", [3, self.frames, self.patch, self.patch]),
        ] {
            let product = factors.iter().try_fold(1i64, |all, &factor| all.checked_mul(factor));
            if product.is_none_or(|product| product > MOST_VALUES) {
                let message = format!("`vision_config`: {what} has more than {MOST_VALUES} values");
                return Err(ModelError::Config(message));
            }
        }
        if self.channels != 3 {
            let message = format!("`vision_config.in_channels` is {}; images have 3", self.channels);
            return Err(ModelError::Config(message));
        }
        if (self.width / self.heads) % 4 != 0 {
            return Err(ModelError::Config(format!(
                "`{width}` is {}, {} for each head; positions of rows and columns need a multiple of 4",
                self.width,
                self.width / self.heads
            )));
        }
        if self.windows.as_ref().is_some_and(|windows| windows.size < self.patch * self.merge) {
            return Err(ModelError::Config(format!(
                "`vision_config.window_size` is smaller than {} pixels, which is a feature's side",
                self.patch * self.merge
            )));
        }
        Ok(())
    }

    /// Features along a side of a window.
    fn window(&self) -> Option<i64> {
        self.windows.as_ref().map(|windows| windows.size / self.merge / self.patch)
    }
}

/// A norm of either kind.
pub(crate) enum Norm {
    /// With mean and shift.
    Layer(LayerNorm),
    /// Without.
    Rms(RmsNorm),
}

impl Norm {
    pub fn load(scope: &Scope<'_>, width: i64, newer: bool) -> Result<Self, ModelError> {
        Ok(match newer {
            true => Norm::Rms(RmsNorm::load(scope, width, EPS)?),
            false => Norm::Layer(LayerNorm::load(scope, width, EPS)?),
        })
    }

    pub fn forward(&self, x: &Tensor) -> Tensor {
        match self {
            Norm::Layer(norm) => norm.forward(x),
            Norm::Rms(norm) => norm.forward(x),
        }
    }

    fn feeds(&self, readers: &[&Linear]) -> Option<Feed> {
        match self {
            Norm::Layer(norm) => norm.feeds(readers),
            Norm::Rms(norm) => norm.feeds(readers),
        }
    }
}

impl Parts for Norm {
    fn visit<'a>(&'a self, show: &mut dyn FnMut(Part<'a>)) {
        match self {
            Norm::Layer(norm) => norm.visit(show),
            Norm::Rms(norm) => norm.visit(show),
        }
    }
    fn visit_mut<'a>(&'a mut self, show: &mut dyn FnMut(PartMut<'a>)) {
        match self {
            Norm::Layer(norm) => norm.visit_mut(show),
            Norm::Rms(norm) => norm.visit_mut(show),
        }
    }
}

/// `attn`: one projection for queries, keys and values.
struct Attention {
    qkv: Linear,
    proj: Linear,
    heads: i64,
}

/// `mlp`; `gate` only where it is gated.
struct Mlp {
    gate: Option<Linear>,
    up: Linear,
    down: Linear,
    activation: Activation,
}

/// `blocks.i`.
struct Block {
    norm1: Norm,
    attn: Attention,
    norm2: Norm,
    mlp: Mlp,
    /// Whether it attends to the whole image.
    whole: bool,
}

parts!(Attention: qkv, proj);
parts!(Mlp: gate, up, down);
parts!(Block: norm1, attn, norm2, mlp);
parts!(QwenVit: blocks);

impl Attention {
    /// `x` `[images, tokens, width]`; `windows` are those within which tokens see each other, each a table `[windows, tokens]` of windows of one
    /// size, in the order of the tokens.
    fn forward(&self, x: &Tensor, rotary: &Rotary, windows: &[Tensor]) -> Tensor {
        let size = x.size();
        let (images, tokens, width) = (size[0], size[1], size[2] / self.heads);
        let qkv = self.qkv.forward(x).view([images, tokens, 3, self.heads, width]).permute([2, 0, 3, 1, 4]);
        let [q, k, v]: [Tensor; 3] = qkv.unbind(0).try_into().expect("three parts");
        // In f32 whatever the computation's type, as the reference.
        let turn = |x: &Tensor| rotary.turn(&x.to_kind(Kind::Float), true).to_kind(x.kind());
        let (q, k) = (turn(&q), turn(&k));
        let attend = Attend { scale: (width as f64).powf(-0.5), bias: None, causal: false, rounded: false };
        if windows.is_empty() {
            return self.proj.forward(&attention(&q, &k, &v, attend));
        }
        let mut from = 0;
        let mixed = windows.iter().map(|window| {
            let (count, length) = (window.size()[0], window.size()[1]);
            let part = |x: &Tensor| {
                let part = x.narrow(2, from, count * length).reshape([images, self.heads, count, length, width]);
                part.transpose(1, 2).reshape([images * count, self.heads, length, width])
            };
            let mixed = attention(&part(&q), &part(&k), &part(&v), attend);
            from += count * length;
            mixed.reshape([images, count * length, size[2]])
        });
        self.proj.forward(&Tensor::cat(&mixed.collect::<Vec<_>>(), 1))
    }
}

impl Block {
    fn load(scope: &Scope<'_>, c: &QwenVision, number: usize) -> Result<Self, ModelError> {
        let (d, newer) = (c.width, c.windows.is_some());
        let linear = |name: &str, outputs, inputs| Linear::load(&scope.at(name), outputs, inputs, true);
        let [up, down] = if newer { ["mlp.up_proj", "mlp.down_proj"] } else { ["mlp.fc1", "mlp.fc2"] };
        Ok(Self {
            norm1: Norm::load(&scope.at("norm1"), d, newer)?,
            attn: Attention { qkv: linear("attn.qkv", 3 * d, d)?, proj: linear("attn.proj", d, d)?, heads: c.heads },
            norm2: Norm::load(&scope.at("norm2"), d, newer)?,
            mlp: Mlp {
                gate: if newer { Some(linear("mlp.gate_proj", c.inner, d)?) } else { None },
                up: linear(up, c.inner, d)?,
                down: linear(down, d, c.inner)?,
                activation: c.activation,
            },
            whole: c.windows.as_ref().is_none_or(|windows| windows.whole.contains(&number)),
        })
    }

    fn feeds(&self) -> impl Iterator<Item = Feed> {
        let readers: Vec<&Linear> = self.mlp.gate.iter().chain([&self.mlp.up]).collect();
        [self.norm1.feeds(&[&self.attn.qkv]), self.norm2.feeds(&readers)].into_iter().flatten()
    }

    fn attend(&self, x: &Tensor, rotary: &Rotary, windows: &[Tensor]) -> Tensor {
        let windows = if self.whole { &[] } else { windows };
        x + self.attn.forward(&self.norm1.forward(x), rotary, windows)
    }

    fn feed(&self, x: &Tensor) -> Tensor {
        let (read, mlp) = (self.norm2.forward(x), &self.mlp);
        let inner = match &mlp.gate {
            Some(gate) => mlp.activation.forward(&gate.forward(&read)) * mlp.up.forward(&read),
            None => mlp.activation.forward(&mlp.up.forward(&read)),
        };
        x + mlp.down.forward(&inner)
    }
}

/// `visual` without its merger.
pub(crate) struct QwenVit {
    /// `[width, 3, frames, patch, patch]`.
    patch_weight: Tensor,
    blocks: Vec<Block>,
    config: QwenVision,
}

impl QwenVit {
    pub fn load(scope: &Scope<'_>, c: &QwenVision) -> Result<Self, ModelError> {
        let shape = [c.width, c.channels, c.frames, c.patch, c.patch];
        let blocks = scope.at("blocks");
        Ok(Self {
            patch_weight: scope.at("patch_embed.proj").tensor("weight", &shape)?,
            blocks: (0..c.depth).map(|i| Block::load(&blocks.at(i), c, i)).collect::<Result<_, _>>()?,
            config: c.clone(),
        })
    }

    /// Pixels `[images, 3, height, width]` as patches `[images, patches, values]`: those of one feature follow each other. Pixels beyond the
    /// last whole feature are not seen.
    fn patches(&self, pixels: &Tensor) -> (Tensor, [i64; 2]) {
        let QwenVision { patch, merge, frames, channels, .. } = self.config;
        let size = pixels.size();
        let [down, across] = [size[2], size[3]].map(|side| side / (patch * merge));
        let cut = pixels.narrow(2, 0, down * patch * merge).narrow(3, 0, across * patch * merge);
        let cut = cut.reshape([size[0], channels, down, merge, patch, across, merge, patch]);
        // An image is a video that stands still.
        let still = cut.permute([0, 2, 5, 3, 6, 1, 4, 7]).unsqueeze(6);
        let still = still.expand([-1, -1, -1, -1, -1, -1, frames, -1, -1], false);
        (still.reshape([size[0], down * across * merge * merge, -1]), [down * merge, across * merge])
    }

    /// Row and column of each patch, in the order of the patches.
    fn places(&self, [rows, columns]: [i64; 2]) -> Vec<[i64; 2]> {
        let merge = self.config.merge;
        let mut places = Vec::with_capacity((rows * columns) as usize);
        for (row, column) in (0..rows / merge).flat_map(|row| (0..columns / merge).map(move |column| (row, column))) {
            let of_feature = (0..merge).flat_map(|down| (0..merge).map(move |across| (down, across)));
            places.extend(of_feature.map(|(down, across)| [row * merge + down, column * merge + across]));
        }
        places
    }

    /// Patches of each window, one table `[windows, patches]` for each number of patches that a window has.
    fn windows(&self, [rows, columns]: [i64; 2]) -> Vec<Vec<Vec<i64>>> {
        let Some(side) = self.config.window() else { return Vec::new() };
        let (merge, merged) = (self.config.merge, self.config.merge * self.config.merge);
        let (down, across) = (rows / merge, columns / merge);
        let mut sizes: BTreeMap<usize, Vec<Vec<i64>>> = BTreeMap::new();
        for (top, left) in (0..down)
            .step_by(side as usize)
            .flat_map(|top| (0..across).step_by(side as usize).map(move |left| (top, left)))
        {
            let features = (top..(top + side).min(down))
                .flat_map(|row| (left..(left + side).min(across)).map(move |column| row * across + column));
            let patches: Vec<i64> = features.flat_map(|feature| feature * merged..(feature + 1) * merged).collect();
            sizes.entry(patches.len()).or_default().push(patches);
        }
        sizes.into_values().rev().collect()
    }

    fn enter_cut(&self, patches: &Tensor, grid: [i64; 2]) -> Flow {
        let device = self.patch_weight.device();
        let hidden =
            patches.to_kind(self.patch_weight.kind()).linear::<Tensor>(&self.patch_weight.flatten(1, -1), None);
        let table = |rows: &[Vec<i64>]| {
            let flat: Vec<i64> = rows.concat();
            Tensor::from_slice(&flat).view([rows.len() as i64, -1]).to_device(device)
        };
        let windows: Vec<Tensor> = self.windows(grid).iter().map(|rows| table(rows)).collect();
        let places: Vec<i64> = self.places(grid).concat();
        let mut places = Tensor::from_slice(&places).view([-1, 2]).to_device(device);
        let mut entering = hidden;
        if let Some(order) = ordered(&windows) {
            (places, entering) = (places.index_select(0, &order), entering.index_select(1, &order));
        }
        // Half of the frequencies turn with rows, half with columns.
        let count = self.config.width / self.config.heads / 4;
        let frequencies: Vec<f32> = (0..count).map(|i| 1.0 / THETA.powf((2 * i) as f32 / (2 * count) as f32)).collect();
        let frequencies = Tensor::from_slice(&frequencies).to_device(device);
        let angles = (places.to_kind(Kind::Float).unsqueeze(-1) * frequencies).flatten(1, -1);
        let mut context = Rotary::of(&angles, Kind::Float).into_tables();
        context.extend(windows);
        Flow { hidden: entering, context, carried: None }
    }
}

/// The patches in the order of their windows; nothing where there are none.
fn ordered(windows: &[Tensor]) -> Option<Tensor> {
    let flat: Vec<Tensor> = windows.iter().map(|window| window.flatten(0, -1)).collect();
    (!flat.is_empty()).then(|| Tensor::cat(&flat, 0))
}

impl ImageEncoder for QwenVit {
    fn by_block(&self) -> Vec<Vec<&Linear>> {
        self.blocks.iter().map(Parts::linears).collect()
    }

    fn block_weights(&self, block: usize) -> Vec<&Weight> {
        self.blocks[block].weights()
    }

    fn feeds(&self) -> Vec<Feed> {
        self.blocks.iter().flat_map(Block::feeds).collect()
    }

    fn enter(&self, pixels: &Tensor) -> Flow {
        let (patches, grid) = self.patches(pixels);
        self.enter_cut(&patches, grid)
    }

    fn enter_patches(&self, patches: &Tensor, grid: [i64; 2]) -> Option<Flow> {
        Some(self.enter_cut(patches, grid))
    }

    /// Images of as many patches can have other rows and columns.
    fn stack(&self, flows: &[Flow]) -> Option<Flow> {
        let first = flows.first()?;
        let same = |flow: &Flow| {
            let pairs = || flow.context.iter().zip(&first.context);
            flow.context.len() == first.context.len() && pairs().all(|(a, b)| a.size() == b.size() && a.equal(b))
        };
        if flows.iter().all(same) { Flow::stack(flows, 0) } else { None }
    }

    fn run_block(&self, block: usize, flow: &Flow) -> Flow {
        self.run_part(block, 1, &self.run_part(block, 0, flow))
    }

    fn parts(&self, _block: usize) -> usize {
        2
    }

    fn run_part(&self, block: usize, part: usize, flow: &Flow) -> Flow {
        let (block, (tables, windows)) = (&self.blocks[block], flow.context.split_at(TABLES));
        flow.with_hidden(match part {
            0 => block.attend(&flow.hidden, &Rotary::from_tables(tables), windows),
            _ => block.feed(&flow.hidden),
        })
    }

    /// In the order of the image again.
    fn leave(&self, flow: &Flow) -> Tensor {
        match ordered(&flow.context[TABLES..]) {
            Some(order) => flow.hidden.index_select(1, &order.argsort(0, false)),
            None => flow.hidden.shallow_clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    fn encoder(windows: Option<Windows>) -> QwenVit {
        let config = QwenVision {
            depth: 0,
            width: 8,
            inner: 8,
            heads: 1,
            activation: Activation::Silu,
            channels: 3,
            patch: 2,
            frames: 2,
            merge: 2,
            handed: 8,
            windows,
        };
        let patch_weight = Tensor::zeros([8, 3, 2, 2, 2], (Kind::Float, Device::Cpu));
        QwenVit { patch_weight, blocks: Vec::new(), config }
    }

    #[test]
    fn patches_of_a_feature_follow_each_other_and_windows_hold_every_patch_once() {
        let plain = encoder(None);
        let pixels = Tensor::arange(3 * 8 * 12, (Kind::Float, Device::Cpu)).view([1, 3, 8, 12]);
        let (patches, grid) = plain.patches(&pixels);
        assert_eq!((patches.size(), grid), (vec![1, 24, 24], [4, 6]));
        // The second patch of the second feature: red of the first frame, then of the second, the same.
        let found: Vec<f64> = Vec::try_from(patches.get(0).get(5).narrow(0, 0, 8).to_kind(Kind::Double)).unwrap();
        assert_eq!(found, [6.0, 7.0, 18.0, 19.0, 6.0, 7.0, 18.0, 19.0]);
        assert_eq!(plain.places(grid)[..6], [[0, 0], [0, 1], [1, 0], [1, 1], [0, 2], [0, 3]]);
        assert!(plain.windows(grid).is_empty());

        // Windows of two features a side over two by three features: one whole, one half.
        let newer = encoder(Some(Windows { size: 8, whole: Vec::new() }));
        let windows = newer.windows(grid);
        assert_eq!(windows.iter().map(|rows| (rows.len(), rows[0].len())).collect::<Vec<_>>(), [(1, 16), (1, 8)]);
        let mut all: Vec<i64> = windows.into_iter().flatten().flatten().collect();
        assert_eq!(all[..4], [0, 1, 2, 3]);
        assert_eq!(all[16..20], [8, 9, 10, 11]);
        all.sort_unstable();
        assert_eq!(all, (0..24).collect::<Vec<i64>>());
        let flow = newer.enter(&pixels);
        assert_eq!(newer.leave(&flow).size(), [1, 24, 8]);
        let turned = encoder(Some(Windows { size: 8, whole: Vec::new() })).enter(&pixels.view([1, 3, 12, 8]));
        assert!(newer.stack(&[flow.shallow_clone(), turned]).is_none());
        assert_eq!(newer.stack(&[flow.shallow_clone(), flow]).unwrap().hidden.size(), [2, 24, 8]);
    }
}
