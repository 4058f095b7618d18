//! Densities of outputs, what TAMP divides a budget by: a layer whose outputs all point one way can give more of its weights.
//!
//! - Formula: `(1 - v) + (1 - l) + (1 - vl)` over the tokens that leave a layer: `v` and `l` the mean positive cosine of two visual tokens and of two
//!   tokens of text of a sample, `vl` the mean cosine of a visual token and one of text; each a mean over samples
//! - Needs: outputs of every layer, one sample at a time
//! - Paper: Lee et al., "TAMP: token-adaptive layerwise pruning in multimodal large language models", arXiv 2504.09897, section 3.2
//! - Reference: `llava/pruners/layer_single_base_pruner.py` in G-JWLee/TAMP, `compute_density` with `density_sum`
//! - Differs: any tower of any family. Of a layer that sees one kind of token only, as in an image encoder, or a single token of a kind, the mean is
//!   taken over the terms that exist; the reference has no such layers. Queries of a connector stand for the image.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use ressa_experiment::{Tower, allocation::Sensitivities};
use ressa_models::{LayerId, Linear, Observer, Sample, TokenKind, VisionLanguage};
use tch::{Device, Kind, Tensor, no_grad};

use super::alone::alone;
use crate::error::PruneError;

/// Length below which an output has no direction.
const SHORTEST: f64 = 1e-12;

/// Tokens that are compared with all others at once.
const PIECE: i64 = 1024;

/// Densities of every layer of a tower. `model` carries no masks.
pub(super) fn densities(
    model: &dyn VisionLanguage,
    tower: Tower,
    samples: &[Sample],
    progress: &mut dyn FnMut(f64),
) -> Result<Sensitivities, PruneError> {
    let layers: Vec<(&LayerId, &Linear)> = model.linears().into_iter().filter(|(id, _)| id.tower == tower).collect();
    let seen = Arc::new(Mutex::new(Seen::default()));
    let tap = |(id, linear): &(&LayerId, &Linear)| {
        let weight = linear.weight().shallow_clone();
        let bias = linear.bias().map(Tensor::shallow_clone);
        linear.tap(Arc::new(Mutex::new(Tap { layer: id.name.clone(), weight, bias, seen: Arc::clone(&seen) })))
    };
    let taps: Vec<_> = layers.iter().map(tap).collect();
    alone(model, tower, samples, progress, &mut |block, flow| {
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        let of_block = layers.iter().filter(|(id, _)| id.block == block);
        seen.kinds = of_block.map(|(id, _)| (id.name.clone(), model.layer_tokens(id, flow))).collect();
    })?;
    drop(taps);
    let seen = std::mem::take(&mut *seen.lock().unwrap_or_else(PoisonError::into_inner));
    // A layer that no sample reaches has nothing to say.
    let of = |(id, _): &(&LayerId, &Linear)| (id.name.clone(), seen.sums.get(&id.name).map_or(0.0, Sums::score));
    Ok(layers.iter().map(of).collect())
}

/// What the layers of a tower gave.
#[derive(Default)]
struct Seen {
    /// Kinds of the tokens that each layer of the present block reads of the present sample.
    kinds: HashMap<String, Vec<TokenKind>>,
    sums: BTreeMap<String, Sums>,
}

/// Sum over samples and their number, of the three cosines.
#[derive(Clone, Copy, Debug, Default)]
struct Sums([(f64, u64); 3]);

impl Sums {
    fn add(&mut self, cosines: [Option<f64>; 3]) {
        for (sum, cosine) in self.0.iter_mut().zip(cosines) {
            if let Some(cosine) = cosine {
                *sum = (sum.0 + cosine, sum.1 + 1);
            }
        }
    }

    /// Three times the mean of the terms that exist: their sum, where all do.
    fn score(&self) -> f64 {
        let terms: Vec<f64> = self.0.iter().filter(|(_, n)| *n > 0).map(|(sum, n)| 1.0 - sum / *n as f64).collect();
        3.0 * terms.iter().sum::<f64>() / terms.len().max(1) as f64
    }
}

struct Tap {
    layer: String,
    weight: Tensor,
    bias: Option<Tensor>,
    seen: Arc<Mutex<Seen>>,
}

impl Observer for Tap {
    fn observe(&mut self, input: &Tensor) {
        let output = no_grad(|| input.linear(&self.weight, self.bias.as_ref()));
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(cosines) = seen.kinds.get(&self.layer).map(|kinds| no_grad(|| cosines(&output, kinds))) else {
            return;
        };
        seen.sums.entry(self.layer.clone()).or_default().add(cosines);
    }
}

/// Cosines among visual tokens, among those of text, and between both, of outputs `[1, tokens, features]`.
fn cosines(output: &Tensor, kinds: &[TokenKind]) -> [Option<f64>; 3] {
    let output = output.reshape([-1, output.size().last().copied().unwrap_or(0)]).to_kind(Kind::Float);
    let length = output.norm_scalaropt_dim(2.0, [1], true).clamp_min(SHORTEST);
    let directions = output / length;
    let of = |text: bool| {
        let is = |(at, kind): (usize, &TokenKind)| ((*kind == TokenKind::Text) == text).then_some(at as i64);
        let at: Vec<i64> = kinds.iter().enumerate().filter_map(is).collect();
        directions.index_select(0, &Tensor::from_slice(&at).to_device(directions.device()))
    };
    let (image, text) = (of(false), of(true));
    let across = (image.size()[0] > 0 && text.size()[0] > 0)
        .then(|| image.mean_dim(0, false, Kind::Float).dot(&text.mean_dim(0, false, Kind::Float)).double_value(&[]));
    [among(&image), among(&text), across]
}

/// Mean of the positive cosines of two of several directions, f32 `[tokens, features]`; `None` without a pair.
fn among(directions: &Tensor) -> Option<f64> {
    let tokens = directions.size()[0];
    if tokens < 2 {
        return None;
    }
    let (mut count, mut sum) = (Tensor::from(0i64), Tensor::from(0.0f64));
    for from in (0..tokens).step_by(PIECE as usize) {
        let rows = directions.narrow(0, from, PIECE.min(tokens - from));
        // Each with those behind it.
        let mut pairs = rows.matmul(&directions.narrow(0, from, tokens - from).transpose(0, 1)).triu(1);
        count += pairs.gt(0.0).sum(Kind::Int64).to_device(Device::Cpu);
        sum += pairs.clamp_min_(0.0).sum(Kind::Double).to_device(Device::Cpu);
    }
    let (count, sum) = (count.int64_value(&[]), sum.double_value(&[]));
    // Nothing points the same way: as far apart as can be.
    Some(if count > 0 { sum / count as f64 } else { 0.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cosines_by_hand() {
        use TokenKind::{Text, Visual};
        // Visual: (1, 0), (0, 2), (3, 0); pairs 0, 1, 0, of which one is positive. Text: (0, 1). Across: the mean of 0, 1, 0.
        let output = Tensor::from_slice(&[1.0f32, 0.0, 0.0, 2.0, 3.0, 0.0, 0.0, 1.0]).view([1, 4, 2]);
        let [image, text, across] = cosines(&output, &[Visual, Visual, Visual, Text]);
        assert_eq!((image, text), (Some(1.0), None));
        assert!((across.unwrap() - 1.0 / 3.0).abs() < 1e-6);
        let mut sums = Sums::default();
        sums.add([image, text, across]);
        sums.add([Some(0.0), None, Some(1.0 / 3.0)]);
        assert!((sums.score() - 3.0 * (0.5 + 2.0 / 3.0) / 2.0).abs() < 1e-6);
        let all = cosines(&output, &[Visual, Text, Visual, Text]);
        assert_eq!(all.map(|term| term.map(|term| (term * 10.0).round())), [Some(10.0), Some(10.0), Some(0.0)]);
    }
}
