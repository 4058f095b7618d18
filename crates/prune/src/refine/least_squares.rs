//! Least squares on a fixed mask: the kept weights that lose least of the layer's output.
//!
//! - Formula: each row minimises `(w - v) (G + a I) (w - v)` over the `v` with its zeros, by conjugate gradients whose residuals are masked, with the diagonal of
//!   `G + a I` as preconditioner, from the weights as they are; `a` is a share of the diagonal's mean
//! - Needs: the Gram matrix of the layer's inputs
//! - Paper: Meng et al., "ALPS: improved optimization for highly sparse one-shot pruning for large language models", NeurIPS 2024, algorithm 2
//! - Reference: the last phase of `alps.py` in mazumder-lab/ALPS
//! - Differs: the preconditioner stands for the reference's scaling of the inputs. A row ends by its own residual, of the kept weights alone; the reference looks at
//!   pruned ones too, whose residuals never vanish, and so always takes all its steps. A row whose error without damping would rise keeps its weights

use tch::{Device, Kind, Tensor, no_grad};

use super::{Prepared, PrunedLayer, Refined, Refinement, error, gram, parts};
use crate::{error::PruneError, solver::factor, statistics::ColumnStatistics};

/// Elements of a weight that are solved for at once; each takes some forty bytes.
const PART: i64 = 1 << 23;

/// The method with its settings.
#[derive(Clone, Copy, Debug)]
pub struct LeastSquares {
    /// Maximum number of steps.
    pub steps: usize,
    /// A row ends when its residual is smaller than this share of the first one.
    pub tolerance: f64,
    /// What is added to the diagonal, as a share of its mean.
    pub damping_ratio: f64,
}

impl Default for LeastSquares {
    fn default() -> Self {
        Self { steps: 10, tolerance: 1e-4, damping_ratio: 0.01 }
    }
}

impl Refinement for LeastSquares {
    fn refine(
        &self,
        layers: &[PrunedLayer<'_>],
        statistics: Option<&ColumnStatistics>,
    ) -> Result<Vec<Refined>, PruneError> {
        no_grad(|| {
            let (Some(gram), Some(statistics)) = (gram(layers, statistics)?, statistics) else { return Ok(Vec::new()) };
            let mut damped = gram.copy();
            let dead = factor::dead_columns(&damped);
            let added = self.damping_ratio * factor::mean_diagonal(&damped, &dead);
            factor::dampen(&mut damped, &dead, added);
            let refine = |layer: &PrunedLayer<'_>| {
                let whole = Prepared::new(layer, statistics, &gram)?;
                let energy = error::energy(&whole.dense, &gram);
                let (mut weights, mut before, mut after) = (Vec::new(), Vec::new(), Vec::new());
                for rows in parts(whole.dense.size()[0], PART / whole.dense.size()[1].max(1)) {
                    let part = whole.rows(rows);
                    // Compared as it will be stored: in half precision, rounding moves a row too.
                    let solved = self.solve(&part.dense, part.weight.copy(), &part.keep, &damped);
                    let solved = solved.to_kind(layer.dense.kind()).to_kind(Kind::Float);
                    let [old, new] =
                        [&part.weight, &solved].map(|weight| error::energy(&(&part.dense - weight), &gram));
                    let better = new.lt_tensor(&old);
                    weights.push(solved.where_self(&better.unsqueeze(1), &part.weight));
                    after.push(new.where_self(&better, &old));
                    before.push(old);
                }
                let weight = Tensor::cat(&weights, 0).to_kind(layer.dense.kind()).to_device(layer.dense.device());
                let error = error::change(&before, &after, &energy);
                Ok(Refined { keep: layer.keep.shallow_clone(), weight: Some(weight), error })
            };
            layers.iter().map(refine).collect()
        })
    }
}

impl LeastSquares {
    /// The kept weights of some rows `[rows, in]` after the steps, from `weight`, which is zero where `keep` is false and overwritten; f32. `damped` is the Gram
    /// matrix with its damping.
    pub(crate) fn solve(&self, dense: &Tensor, mut weight: Tensor, keep: &Tensor, damped: &Tensor) -> Tensor {
        let by_row = |left: &Tensor, right: &Tensor| error::inner(left, right).unsqueeze(1);
        let step = |ratio: &Tensor, of: &Tensor| ratio.to_kind(Kind::Float) * of;
        let keep = keep.to_kind(Kind::Float);
        let inverse = damped.diagonal(0, 0, 1).reciprocal();
        let mut residual = (dense - &weight).matmul(damped) * &keep;
        let mut direction = &residual * &inverse;
        let mut length = by_row(&residual, &direction);
        let enough = &length * self.tolerance.powi(2);
        for _ in 0..self.steps {
            let product = direction.matmul(damped) * &keep;
            let curvature = by_row(&direction, &product);
            let goes_on = length.gt_tensor(&enough).logical_and(&curvature.gt(0.0));
            if weight.device() == Device::Cpu && goes_on.any().int64_value(&[]) == 0 {
                break;
            }
            let zero = length.zeros_like();
            let along = (&length / curvature).where_self(&goes_on, &zero);
            let _ = weight.g_add_(&step(&along, &direction));
            let _ = residual.g_sub_(&step(&along, &product));
            let scaled = &residual * &inverse;
            let next = by_row(&residual, &scaled);
            let turn = (&next / &length).where_self(&goes_on, &zero);
            direction = scaled + step(&turn, &direction);
            length = next.where_self(&goes_on, &length);
        }
        weight
    }
}
