//! SparseSwaps: pruned weights for kept ones, as long as the layer's output comes closer.
//!
//! - Formula: with `d = w - v` what a row misses and `c = G d`, bringing back `p` with its dense weight and pruning `u` changes the row's error by
//!   `w_p^2 G_pp - 2 w_p c_p + v_u^2 G_uu + 2 v_u c_u - 2 w_p v_u G_pu`. The pair with the smallest change is swapped, `c += v_u G_u - w_p G_p`, and so on, until no pair
//!   lowers the error or the row has made its number of swaps. With N:M both weights are of one group
//! - Needs: the Gram matrix of the layer's inputs
//! - Paper: Zimmer et al., "SparseSwaps: tractable LLM pruning mask refinement at scale", arXiv 2512.10922
//! - Reference: none is published; the formula follows from the error
//! - Differs: kept weights may be other than dense ones. N:M pairs are all compared; without a pattern, pairs of the `candidates` best of a row on either side, which are
//!   all pairs where a row has no more. Changes that rounding of `G d` could make up are not counted as gains. Sums are f64.

mod device;
mod host;

use tch::{Device, Kind, Tensor, no_grad};

use super::{Prepared, PrunedLayer, Refined, Refinement, error, gram, parts};
use crate::{error::PruneError, statistics::ColumnStatistics};

/// A swap must lower the error by more than this share of the larger of the row's error and its squares `sum of d_j^2 G_jj`.
const LEAST_GAIN: f64 = 1e-6;
/// Bytes that the swaps of a part may take.
const BYTES: i64 = 1 << 28;

/// The method with its settings.
#[derive(Clone, Copy, Debug)]
pub struct SparseSwaps {
    /// Maximum number of swaps in a row.
    pub max_swaps: usize,
    /// Weights on either side whose pairs are compared where there is no pattern: those whose own part of the change is smallest.
    pub candidates: usize,
}

impl Default for SparseSwaps {
    fn default() -> Self {
        Self { max_swaps: 100, candidates: 32 }
    }
}

/// Some rows after their swaps.
struct Swapped {
    keep: Tensor,
    weight: Tensor,
    /// Error of each row, f64 `[rows]`.
    after: Tensor,
}

/// What the swaps of some rows start from.
struct Start<'a> {
    part: &'a Prepared,
    /// Members of an N:M group.
    of: Option<i64>,
    gram: &'a Tensor,
    /// `G d` of each row, f32 `[rows, in]`.
    product: Tensor,
    /// Error of each row, f64 `[rows]`.
    before: Tensor,
    /// What a swap must gain at least, f64 `[rows]`.
    least: Tensor,
}

impl<'a> Start<'a> {
    fn new(part: &'a Prepared, of: Option<i64>, gram: &'a Tensor) -> Self {
        let missing = part.missing();
        let product = missing.matmul(gram);
        let before = error::inner(&missing, &product);
        let squares = error::inner(&(missing.square() * gram.diagonal(0, 0, 1)), &missing.ones_like());
        let least = before.maximum(&squares) * LEAST_GAIN;
        Self { part, of, gram, product, before, least }
    }
}

impl Refinement for SparseSwaps {
    fn refine(
        &self,
        layers: &[PrunedLayer<'_>],
        statistics: Option<&ColumnStatistics>,
    ) -> Result<Vec<Refined>, PruneError> {
        no_grad(|| {
            let (Some(gram), Some(statistics)) = (gram(layers, statistics)?, statistics) else { return Ok(Vec::new()) };
            layers.iter().map(|layer| self.refine_layer(layer, statistics, &gram)).collect()
        })
    }
}

impl SparseSwaps {
    fn refine_layer(
        &self,
        layer: &PrunedLayer<'_>,
        statistics: &ColumnStatistics,
        gram: &Tensor,
    ) -> Result<Refined, PruneError> {
        let whole = Prepared::new(layer, statistics, gram)?;
        let energy = error::energy(&whole.dense, gram);
        let of = layer.group().map(|(_, of)| of);
        let (mut swapped, mut before) = (Vec::new(), Vec::new());
        for rows in parts(whole.dense.size()[0], BYTES / self.bytes_per_row(whole.dense.size()[1], of)) {
            let part = whole.rows(rows);
            let start = Start::new(&part, of, gram);
            swapped.push(match gram.device() {
                Device::Cpu => host::swap(self, &start),
                _ => device::swap(self, &start),
            });
            before.push(start.before);
        }
        let join = |of: fn(&Swapped) -> &Tensor| {
            Tensor::cat(&swapped.iter().map(of).collect::<Vec<_>>(), 0).to_device(layer.dense.device())
        };
        let after: Vec<Tensor> = swapped.iter().map(|part| part.after.shallow_clone()).collect();
        Ok(Refined {
            keep: join(|part| &part.keep),
            weight: layer.weight.map(|_| join(|part| &part.weight).to_kind(layer.dense.kind())),
            error: error::change(&before, &after, &energy),
        })
    }

    /// Bytes that the swaps of a row of so many columns take: a dozen copies of the row in f64, and the pairs that are compared.
    fn bytes_per_row(&self, columns: i64, of: Option<i64>) -> i64 {
        let candidates = i64::try_from(self.candidates).unwrap_or(i64::MAX).min(columns);
        let pairs = of.map_or(candidates * candidates, |of| columns * of);
        (12 * columns + 4 * pairs).max(1) * Kind::Double.elt_size_in_bytes() as i64
    }
}

#[cfg(test)]
mod tests {
    use ressa_experiment::Pattern;

    use super::*;
    use crate::statistics::Needs;

    /// Tensor operations, on the host, against the loops of the host. All numbers are small integers, so that every sum is exact and only the order of ties could differ;
    /// inputs repeat, one is dead, and rows keep different numbers of weights.
    #[test]
    fn tensor_operations_swap_as_the_host_does() {
        let wave =
            |count: i64, step: f64, size: f64| (Tensor::arange(count, (Kind::Float, Device::Cpu)) * step).sin() * size;
        let inputs = wave(30 * 32, 0.31, 4.0).round().view([30, 32]);
        let _ = inputs.narrow(1, 3, 1).zero_();
        inputs.narrow(1, 9, 2).copy_(&inputs.narrow(1, 17, 2));
        let mut seen = ColumnStatistics::new(32, Needs::GRAM, Device::Cpu);
        seen.add_sample(&inputs);
        let gram = seen.hessian().expect("gram");
        let dense = wave(24 * 32, 0.77, 6.0).round().view([24, 32]);
        let weight = &dense + wave(24 * 32, 1.3, 1.0).round().view([24, 32]);
        let order = wave(24 * 32, 2.1, 1.0).view([24, 32]);
        let some = wave(24 * 32, 3.7, 1.0).view([24, 32]).gt(0.8);
        let mut made = 0;
        for (pattern, keep) in [
            (Pattern::Unstructured, order.gt(0.1)),
            (Pattern::NOfM { keep: 2, of: 4 }, crate::select::Selection::NOfM { keep: 2, of: 4 }.keep(&order)),
            (Pattern::NOfM { keep: 1, of: 8 }, crate::select::Selection::NOfM { keep: 1, of: 8 }.keep(&order)),
        ] {
            for weight in [None, Some(&weight)] {
                let gone = weight.is_some().then_some(&some);
                let layer = PrunedLayer { name: "layer", dense: &dense, weight, keep: &keep, pattern, gone };
                let part = Prepared::new(&layer, &seen, &gram).expect("sound");
                let start = Start::new(&part, layer.group().map(|(_, of)| of), &gram);
                for (max_swaps, candidates) in [(100, 32), (100, 3), (2, 8), (0, 8), (3, 0)] {
                    let method = SparseSwaps { max_swaps, candidates };
                    let [host, device] = [host::swap(&method, &start), device::swap(&method, &start)];
                    assert!(host.keep.equal(&device.keep), "{pattern}, {method:?}");
                    assert!(
                        host.weight.equal(&device.weight) && host.after.equal(&device.after),
                        "{pattern}, {method:?}"
                    );
                    let back = host.keep.logical_and(&keep.logical_not());
                    assert!(weight.is_none() || back.logical_and(&some).any().int64_value(&[]) == 0);
                    made += host.keep.ne_tensor(&keep).sum(Kind::Int64).int64_value(&[]) / 2;
                }
            }
        }
        assert!(made > 500, "{made} swaps");
    }
}
