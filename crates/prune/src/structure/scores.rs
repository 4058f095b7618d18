//! What groups and blocks are worth.
//!
//! - Formulas: with importances `s_ij` of the weights of a layer, a group's worth is their sum over the rows and columns that are the group's, over all of its
//!   layers. `magnitude`: `s = w^2`, and the root of the sum; `gradient`: `s = |w g|`, `g` the gradient of the answers' loss summed over samples;
//!   `wanda`: `s = |w| norm(x)`, of the layer that reads the group alone. A block's worth is the same over all of its weights.
//! - Papers: Ma et al., "LLM-Pruner", arXiv 2305.11627 (element-wise first order, sums over coupled structures; LoRAShear, arXiv 2310.18356, and SAAP, arXiv
//!   2412.15127, start from it); An et al., "FLAP", arXiv 2312.11983 (its baseline Wanda-sp)
//! - Differs: groups compete within a layer and every layer loses the same number. LLM-Pruner and LoRAShear compare all layers; SAAP also fuses the elementwise
//!   with a vector-wise estimate.

use std::collections::BTreeMap;

use ressa_experiment::{
    Tower,
    config::TokenConfig,
    structure::{BlockScore, GroupScore},
};
use ressa_models::{GroupSet, LayerId, Linear, Sample, Side, VisionLanguage};
use ressa_runtime::stream;
use tch::{Kind, Tensor};

use super::{StructureRequest, choose::Stack, influence::influences, of_tower};
use crate::{
    allocation::{WINDOW, differentiate},
    error::PruneError,
    statistics::{ColumnStatistics, Needs},
    tower::collect,
    walk::Look,
};

/// What is measured.
pub(super) struct Wanted {
    tower: Tower,
    groups: Option<GroupScore>,
    blocks: Option<BlockScore>,
    seed: u64,
}

impl Wanted {
    pub fn of(request: &StructureRequest) -> Self {
        let StructureRequest { tower, target, score, block_score, seed } = *request;
        // Queries have scores of their own.
        Self { tower, groups: score.filter(|_| target.cuts_layers()), blocks: block_score, seed }
    }

    fn calibrates(&self) -> bool {
        self.groups.is_some_and(GroupScore::calibrates) || self.blocks.is_some_and(BlockScore::calibrates)
    }

    fn differentiates(&self) -> bool {
        self.groups == Some(GroupScore::Gradient) || self.blocks == Some(BlockScore::Gradient)
    }
}

/// Importances of a layer's weights, summed over its rows and over its columns.
struct Margins {
    rows: Vec<f64>,
    columns: Vec<f64>,
}

impl Margins {
    /// Of importances `[out, in]`.
    fn of(importance: &Tensor) -> Self {
        let sum = |over: i64| {
            let sums = importance.to_kind(Kind::Double).sum_dim_intlist([over].as_slice(), false, Kind::Double);
            Vec::try_from(&sums.to_device(tch::Device::Cpu)).unwrap_or_default()
        };
        Self { rows: sum(1), columns: sum(0) }
    }
}

type Layers = BTreeMap<String, Margins>;

/// Gradients of weights summed over samples, by layer. Sums are f32 whatever the type of the weights: a sum of eight bits loses what is small beside it.
#[derive(Default)]
struct Sums(BTreeMap<String, Tensor>);

impl Sums {
    /// Adds the gradient of a sample; undefined where the loss does not depend on the layer.
    fn add(&mut self, name: &str, gradient: &Tensor) {
        if gradient.defined() {
            let nothing = || Tensor::zeros(gradient.size(), (Kind::Float, gradient.device()));
            let sum = self.0.entry(name.to_owned()).or_insert_with(nothing);
            let _ = sum.g_add_(&gradient.to_kind(Kind::Float));
        }
    }
}

/// Measured worth.
pub(super) struct Scores {
    wanted: Wanted,
    magnitudes: Layers,
    gradients: Layers,
    readings: Layers,
    /// Of each block of the tower.
    influences: Vec<f64>,
}

impl Scores {
    /// Measures the scores of a request on a model, which is unchanged afterwards.
    pub fn measure(
        model: &mut dyn VisionLanguage,
        wanted: &Wanted,
        samples: &[Sample],
        progress: &mut dyn FnMut(f64),
    ) -> Result<Self, PruneError> {
        let &Wanted { tower, groups, blocks, seed } = wanted;
        if wanted.calibrates() && samples.is_empty() {
            return Err(PruneError::needs_samples(tower));
        }
        let wanted = Wanted { tower, groups, blocks, seed };
        let by_magnitude = groups == Some(GroupScore::Magnitude) || blocks == Some(BlockScore::Magnitude);
        let magnitude = |(id, linear): (&LayerId, &Linear)| {
            (id.name.clone(), Margins::of(&linear.effective_weight().to_kind(Kind::Double).square()))
        };
        let magnitudes = if by_magnitude { of_tower(model, tower).map(magnitude).collect() } else { Layers::new() };
        let influences = match blocks {
            Some(BlockScore::Influence) => influences(model, tower, samples, &mut |share| progress(0.5 * share))?,
            _ => Vec::new(),
        };
        let mut readings = Layers::new();
        if groups == Some(GroupScore::Wanda) {
            let blocks = model.blocks(tower) as f64;
            let look = Look { needs: Needs::NORMS, tokens: TokenConfig::default() };
            let model: &dyn VisionLanguage = model;
            collect(model, tower, look, samples, &mut |block, statistics| {
                for (id, linear) in of_tower(model, tower).filter(|(id, _)| id.block == block) {
                    if let Some(norm) = statistics.get(&id.name).and_then(ColumnStatistics::norm) {
                        let weight = linear.effective_weight().to_kind(Kind::Float);
                        readings.insert(id.name.clone(), Margins::of(&(weight.abs() * norm.unsqueeze(0))));
                    }
                }
                progress(0.5 + 0.5 * (block + 1) as f64 / blocks);
                Ok(())
            })?;
        }
        let mut gradients = Layers::new();
        if wanted.differentiates() {
            let mut show = |share| progress(0.5 + 0.5 * share);
            let mut sums = Sums::default();
            // A window holds gradients in the type of the weights and their sums in f32: three times the gradients where the type has half the size.
            differentiate(model, tower, WINDOW / 3, samples, &mut show, &mut |name, weight, is_last| {
                sums.add(name, &weight.grad());
                weight.zero_grad();
                if is_last && let Some(sum) = sums.0.remove(name) {
                    gradients.insert(name.to_owned(), Margins::of(&(weight.detach().to_kind(Kind::Float) * sum).abs()));
                }
            })?;
        }
        Ok(Self { wanted, magnitudes, gradients, readings, influences })
    }

    /// Worth of each group of a set, in block `index` of a stack. A layer that nothing was measured of is worth nothing: no sample goes through it.
    pub fn groups(&self, index: usize, set: &GroupSet, stack: &str) -> Result<Vec<f64>, PruneError> {
        let worth = match self.wanted.groups {
            None => vec![0.0; set.count as usize],
            Some(GroupScore::Random) => {
                let layer = set.slices.first().map_or("", |slice| slice.layer.as_str());
                // Sets that are tied are drawn together.
                let name = if set.is_tied { stack } else { layer };
                let mut stream = stream(self.wanted.seed, &format!("groups of {name}"));
                (0..set.count).map(|_| f64::from(rand::Rng::next_u32(&mut stream))).collect()
            }
            Some(GroupScore::Magnitude) => sums(set, &self.magnitudes, false).iter().map(|sum| sum.sqrt()).collect(),
            Some(GroupScore::Gradient) => sums(set, &self.gradients, false),
            Some(GroupScore::Wanda) => sums(set, &self.readings, true),
        };
        let layer =
            || set.slices.first().map(|slice| slice.layer.clone()).unwrap_or_else(|| format!("{stack}.{index}"));
        if worth.iter().all(|worth| worth.is_finite()) {
            Ok(worth)
        } else {
            Err(PruneError::NotFiniteWeight { layer: layer() })
        }
    }

    /// Worth of a block of a stack.
    pub fn block(&self, at: usize, stack: &Stack) -> Result<f64, PruneError> {
        let block = &stack.blocks[at];
        let total = |layers: &Layers| {
            let margins = block.layers.iter().filter_map(|layer| layers.get(layer));
            margins.map(|margins| margins.rows.iter().sum::<f64>()).sum::<f64>()
        };
        let worth = match self.wanted.blocks {
            None => 0.0,
            Some(BlockScore::Influence) => self.influences.get(block.block).copied().unwrap_or_default(),
            Some(BlockScore::Magnitude) => total(&self.magnitudes).sqrt(),
            Some(BlockScore::Gradient) => total(&self.gradients),
            Some(BlockScore::Random) => {
                let mut stream = stream(self.wanted.seed, &format!("block {} of {}", block.index, stack.path));
                f64::from(rand::Rng::next_u32(&mut stream))
            }
        };
        let layer = || block.layers.first().cloned().unwrap_or_default();
        if worth.is_finite() { Ok(worth) } else { Err(PruneError::NotFiniteWeight { layer: layer() }) }
    }
}

/// Sums of each group of a set over its rows and columns, or over the columns alone.
fn sums(set: &GroupSet, layers: &Layers, columns_alone: bool) -> Vec<f64> {
    let mut sums = vec![0.0; set.count as usize];
    for slice in set.slices.iter().filter(|slice| !columns_alone || slice.side == Side::Columns) {
        let Some(margins) = layers.get(&slice.layer) else { continue };
        let margin = if slice.side == Side::Rows { &margins.rows } else { &margins.columns };
        for (group, sum) in sums.iter_mut().enumerate() {
            let positions = slice.positions(set.count, &[group as i64]);
            *sum += positions.into_iter().filter_map(|at| margin.get(at as usize)).sum::<f64>();
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use ressa_models::{Slice, Unit};

    use super::*;

    /// Two channels: rows of `a`, columns of `b`.
    #[test]
    fn groups_are_summed_over_rows_and_columns() {
        let slice = |layer: &str, side| Slice { layer: layer.to_owned(), side, parts: 1, width: 1 };
        let slices = vec![slice("a", Side::Rows), slice("b", Side::Columns)];
        let set = GroupSet { unit: Unit::Channels, count: 2, is_tied: false, slices };
        let a = Tensor::from_slice(&[1.0f32, -2.0, 3.0, 0.0, 0.0, -1.0]).view([2, 3]);
        let b = Tensor::from_slice(&[2.0f32, 5.0, -4.0, 1.0]).view([2, 2]);
        let squares = |w: &Tensor| Margins::of(&w.square());
        let layers = Layers::from([("a".to_owned(), squares(&a)), ("b".to_owned(), squares(&b))]);
        // 1 + 4 + 9 + 4 + 16 and 1 + 25 + 1.
        assert_eq!(sums(&set, &layers, false), [34.0, 27.0]);
        assert_eq!(sums(&set, &layers, true), [20.0, 26.0]);
        // Nothing is known of a layer that no sample goes through.
        assert_eq!(sums(&set, &Layers::new(), false), [0.0, 0.0]);
    }

    /// In bf16, 1 + 1 / 512 is 1 again, as often as it is added.
    #[test]
    fn gradients_of_half_precision_are_summed_in_f32() {
        let mut sums = Sums::default();
        let of = |value: f64| Tensor::full([1, 1], value, (Kind::BFloat16, tch::Device::Cpu));
        sums.add("a", &of(1.0));
        (0..256).for_each(|_| sums.add("a", &of(1.0 / 512.0)));
        sums.add("a", &Tensor::new());
        assert_eq!(sums.0["a"].double_value(&[0, 0]), 1.5);
    }
}
