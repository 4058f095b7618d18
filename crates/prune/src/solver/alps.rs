//! ALPS: the mask and the weights under it are found together, by alternating between the layer's least squares and the nearest sparse matrix.
//!
//! - Formula: `G = X^T X + a I` is scaled to a diagonal of ones, and the weights with it. Until the mask settles, `B = (W G - V + rho D) (G + rho I)^-1`, `D` is `B + V / rho` without
//!   the smallest weights of each group, `V += rho (B - D)`; every third time `rho` grows, by more the more of the mask has changed. What is smallest in the last `B`
//!   goes, and the rest takes steps of least squares
//! - Needs: the Gram matrix of the layer's inputs
//! - Paper: Meng et al., "ALPS: improved optimization for highly sparse one-shot pruning for large language models", NeurIPS 2024, algorithms 1 and 2
//! - Reference: `alps.py` in mazumder-lab/ALPS
//! - Differs: the inverse comes from the factor that SparseGPT uses (see [`super::factor`]), made when `rho` changes, where the reference has an eigendecomposition in f64, whose
//!   bits depend on the number of threads. Counts are exact for every group and pattern. The penalty has a lower bound, at which a mask that never changes ends. Inputs
//!   that are never alive lose their weights first

use ressa_runtime::is_finite;
use tch::{Kind, Tensor, no_grad};

use super::{LayerProblem, LayerSolution, LayerSolver, check, factor};
use crate::{
    error::PruneError,
    refine::LeastSquares,
    statistics::{ColumnStatistics, Needs},
};

/// Iterations between two looks at the mask.
const LOOK: usize = 3;
/// From this iteration on, a mask of which hardly anything changes is taken.
const PATIENCE: usize = 30;
/// Bounds of the penalty.
const PENALTIES: (f64, f64) = (1e-4, 1e6);

/// The method with its settings.
#[derive(Clone, Copy, Debug)]
pub struct Alps {
    /// What is added to the diagonal of the Gram matrix, as a fraction of its mean.
    pub damping_ratio: f64,
    /// The first `rho`.
    pub penalty: f64,
    /// Maximum number of iterations before the mask is taken as it is.
    pub iterations: usize,
    /// Maximum number of steps of least squares after that.
    pub steps: usize,
}

impl Default for Alps {
    fn default() -> Self {
        Self { damping_ratio: 0.01, penalty: 0.1, iterations: 300, steps: 10 }
    }
}

impl LayerSolver for Alps {
    fn needs(&self) -> Needs {
        Needs::GRAM
    }

    fn solve(
        &self,
        layers: &[LayerProblem<'_>],
        statistics: Option<&ColumnStatistics>,
    ) -> Result<Vec<LayerSolution>, PruneError> {
        check(layers, self.needs(), statistics)?;
        let (Some(first), Some(statistics)) = (layers.first(), statistics) else { return Ok(Vec::new()) };
        no_grad(|| {
            let input = Input::new(self, first.name, statistics)?;
            layers.iter().map(|layer| input.solve(layer)).collect()
        })
    }
}

/// What layers that read one input share.
struct Input<'a> {
    method: &'a Alps,
    /// `G`, f32 `[in, in]`.
    gram: Tensor,
    /// `G` with a diagonal of ones.
    scaled: Tensor,
    /// Square roots of the diagonal of `G`, `[in]`.
    scale: Tensor,
    /// Inputs that are never alive, bool `[in]`.
    dead: Tensor,
    /// `(G + rho I)^-1` for the first `rho`.
    inverse: Tensor,
}

/// Where the penalty goes after a look at the mask.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Turn {
    /// On with this penalty.
    On(f64),
    /// Back to the start with this penalty.
    Again(f64),
    /// The mask is found.
    End,
}

/// `moved`: whether a look has seen more than half a percent change, this one included; `share`: changes of the mask for each kept weight since the last look.
fn turn(penalty: f64, share: f64, moved: bool, iteration: usize) -> Turn {
    let (least, most) = PENALTIES;
    let grown =
        |by: f64| if iteration > PATIENCE && share < 0.0003 { Turn::End } else { Turn::On((penalty * by).min(most)) };
    match share {
        share if share > 0.1 => grown(1.3),
        share if share > 0.005 => grown(1.2),
        share if moved => {
            if share > 0.0 {
                grown(1.1)
            } else {
                Turn::End
            }
        }
        // Nothing moves: the penalty holds every weight where it was.
        _ if penalty <= least => Turn::End,
        share if share > 0.0 => Turn::Again((penalty / 5.0).max(least)),
        _ => Turn::On((penalty / 5.0).max(least)),
    }
}

impl<'a> Input<'a> {
    fn new(method: &'a Alps, layer: &str, statistics: &ColumnStatistics) -> Result<Self, PruneError> {
        let missing = || PruneError::NoStatistics { layer: layer.to_owned() };
        let mut gram = statistics.hessian().ok_or_else(missing)?;
        let dead = factor::dead_columns(&gram);
        let added = method.damping_ratio * factor::mean_diagonal(&gram, &dead);
        factor::dampen(&mut gram, &dead, added);
        let scale = gram.diagonal(0, 0, 1).sqrt();
        let scaled = &gram / &scale / scale.unsqueeze(1);
        let inverse = inverse(&scaled, method.penalty, layer)?;
        Ok(Self { method, gram, scaled, scale, dead, inverse })
    }

    fn solve(&self, layer: &LayerProblem<'_>) -> Result<LayerSolution, PruneError> {
        let (kind, device) = (layer.weight.kind(), layer.weight.device());
        let weight = layer.weight.detach().to_device(self.gram.device()).to_kind(Kind::Float);
        if !is_finite(&weight) {
            return Err(PruneError::NotFiniteWeight { layer: layer.name.to_owned() });
        }
        let weight = weight.masked_fill(&self.dead, 0.0);
        let scaled = &weight * &self.scale;
        let keep = mask(layer, scaled.abs());
        if keep.all().int64_value(&[]) == 1 {
            let importance = Some(scaled.abs().to_device(device));
            return Ok(LayerSolution { keep: keep.to_device(device), importance, weight: None });
        }
        let found = self.alternate(layer, &scaled, keep)?;
        let importance = layer.ranked(found.abs());
        let keep = layer.without_gone(layer.selection.keep(&importance));
        let start = (found / &self.scale).masked_fill(&keep.logical_not(), 0.0);
        let squares = LeastSquares { steps: self.method.steps, ..LeastSquares::default() };
        let solved = squares.solve(&weight, start, &keep, &self.gram);
        Ok(LayerSolution {
            keep: keep.to_device(device),
            importance: Some(importance.to_device(device)),
            weight: Some(solved.to_kind(kind).to_device(device)),
        })
    }

    /// The last `B` for scaled weights, from a mask to start with.
    fn alternate(&self, layer: &LayerProblem<'_>, weight: &Tensor, first: Tensor) -> Result<Tensor, PruneError> {
        let target = weight.matmul(&self.scaled);
        let sparse = |values: &Tensor, keep: &Tensor| values.masked_fill(&keep.logical_not(), 0.0);
        let kept = first.sum(Kind::Int64).int64_value(&[]).max(1);
        let (mut penalty, mut inverse_of) = (self.method.penalty, self.inverse.shallow_clone());
        let (mut keep, mut seen) = (first.shallow_clone(), first.shallow_clone());
        let mut solved = weight.shallow_clone();
        let (mut nearest, mut dual) = (sparse(weight, &keep), weight.zeros_like());
        let mut moved = false;
        for iteration in 1..=self.method.iterations {
            solved = (&target - &dual + &nearest * penalty).matmul(&inverse_of);
            let shifted = &solved + &dual / penalty;
            keep = mask(layer, shifted.abs());
            nearest = sparse(&shifted, &keep);
            dual += (&solved - &nearest) * penalty;
            if iteration % LOOK != 0 {
                continue;
            }
            let changes = keep.ne_tensor(&seen).sum(Kind::Int64).int64_value(&[]);
            let share = changes as f64 / kept as f64;
            seen = keep.shallow_clone();
            moved = moved || share > 0.005;
            let next = match turn(penalty, share, moved, iteration) {
                Turn::End => break,
                Turn::On(next) => next,
                Turn::Again(next) => {
                    (nearest, dual) = (sparse(weight, &first), weight.zeros_like());
                    next
                }
            };
            if next != penalty {
                (penalty, inverse_of) = (next, inverse(&self.scaled, next, layer.name)?);
            }
        }
        Ok(solved)
    }
}

/// The mask of a layer whose weights have such sizes.
fn mask(layer: &LayerProblem<'_>, size: Tensor) -> Tensor {
    layer.without_gone(layer.selection.keep(&layer.ranked(size)))
}

/// `(gram + penalty I)^-1`, f32.
fn inverse(gram: &Tensor, penalty: f64, layer: &str) -> Result<Tensor, PruneError> {
    let raised = gram.copy();
    let _ = raised.diagonal(0, 0, 1).g_add_scalar_(penalty);
    let singular = |_| PruneError::Singular { layer: layer.to_owned() };
    let upper = factor::inverse_factor(raised).map_err(singular)?;
    Ok(upper.transpose(0, 1).matmul(&upper))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_penalty_follows_the_mask() {
        // Much, some and little change; none once something moved.
        assert_eq!(turn(0.1, 0.2, true, 3), Turn::On(0.1 * 1.3));
        assert_eq!(turn(0.1, 0.01, true, 3), Turn::On(0.1 * 1.2));
        assert_eq!(turn(0.1, 0.001, true, 3), Turn::On(0.1 * 1.1));
        assert_eq!(turn(0.1, 0.0, true, 3), Turn::End);
        // Nothing has moved yet.
        assert_eq!(turn(0.1, 0.001, false, 3), Turn::Again(0.1 / 5.0));
        assert_eq!(turn(0.1, 0.0, false, 3), Turn::On(0.1 / 5.0));
        assert_eq!(turn(PENALTIES.0, 0.0, false, 3), Turn::End);
        // Hardly anything changes any more; the penalty is bounded.
        assert_eq!(turn(0.1, 0.0001, true, 33), Turn::End);
        assert_eq!(turn(0.1, 0.0001, true, 30), Turn::On(0.1 * 1.1));
        assert_eq!(turn(9.9e5, 0.2, true, 60), Turn::On(PENALTIES.1));
    }
}
