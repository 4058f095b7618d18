//! Outlier shares, what OWL divides a budget by.
//!
//! - Formula: number of weights with `|w_ij| norm_j > m mean`, the mean over all `|w| norm` of the group
//! - Needs: column norms with dense predecessors
//! - Paper: Yin et al., "Outlier weighed layerwise sparsity (OWL)", arXiv 2310.05175, section 3
//! - Reference: `luuyin/OWL`, `lib/prune_all.py`; the paper says "per layer" of transformer layers, which the code takes as one group of
//!   matrices: our `block`. With `layer` every matrix has a mean of its own.
//! - Differs: means and counts in f64; towers of any kind.

use std::collections::BTreeMap;

use ressa_experiment::{
    Tower,
    allocation::{AllocationGroup, Sensitivities},
    config::TokenConfig,
};
use ressa_models::{LayerId, Linear, Sample, VisionLanguage};
use ressa_runtime::count_nonzero;
use tch::{Kind, Tensor, no_grad};

use super::{AllocationError, groups::group_of};
use crate::{
    error::PruneError,
    metric::{PruningMetric, Wanda},
    statistics::{BlockStatistics, Needs},
    tower::collect,
    walk::Look,
};

/// Weights whose importances are held at once.
const PART: i64 = 1 << 22;

/// Outliers of every layer of a tower. `model` carries no masks.
pub(super) fn outliers(
    model: &dyn VisionLanguage,
    tower: Tower,
    group: AllocationGroup,
    m: f64,
    samples: &[Sample],
    progress: &mut dyn FnMut(f64),
) -> Result<Sensitivities, PruneError> {
    let look = Look { needs: Needs::NORMS, tokens: TokenConfig::default() };
    let (mut statistics, blocks) = (BlockStatistics::default(), model.blocks(tower));
    collect(model, tower, look, samples, &mut |block, of_block| {
        // Norms are vectors: those of a whole tower are small, and a mean over the tower needs them all.
        statistics.extend(of_block);
        progress((block + 1) as f64 / blocks as f64);
        Ok(())
    })?;
    let layers: Vec<(&LayerId, &Linear)> = model.linears().into_iter().filter(|(id, _)| id.tower == tower).collect();
    outliers_of(&layers, &statistics, group, m)
}

/// Outliers of layers whose inputs have been seen. Groups are those within `layers`, so all of a group must be there.
///
/// # Errors
/// Weights or norms that are not finite.
pub fn outliers_of(
    layers: &[(&LayerId, &Linear)],
    statistics: &BlockStatistics,
    group: AllocationGroup,
    m: f64,
) -> Result<Sensitivities, PruneError> {
    // Some rows after the other: what a large matrix takes beside its weights is then small.
    let parts = |id: &LayerId, weight: &Tensor, of_part: &dyn Fn(Tensor) -> f64| -> f64 {
        let rows = (PART / weight.size().last().copied().unwrap_or(1).max(1)).max(1);
        let seen = statistics.get(&id.name);
        weight.split(rows, 0).iter().map(|rows| of_part(Wanda.importance(&id.name, rows, seen))).sum()
    };
    no_grad(|| {
        let mut sums: BTreeMap<(Tower, usize, &str), (f64, f64)> = BTreeMap::new();
        for (id, linear) in layers {
            let sum = sums.entry(group_of(id, group)).or_default();
            sum.0 += parts(id, linear.weight(), &|scores| scores.sum(Kind::Double).double_value(&[]));
            sum.1 += linear.weight().numel() as f64;
        }
        let count = |(id, linear): &(&LayerId, &Linear)| {
            let (sum, elements) = sums[&group_of(id, group)];
            // A sum that is not finite has no outliers above it; it must not pass for a measurement.
            if !sum.is_finite() {
                return Err(AllocationError::NotFinite { layer: id.name.clone() }.into());
            }
            let threshold = m * sum / elements;
            let count = |scores: Tensor| count_nonzero(&scores.gt(threshold)) as f64;
            Ok((id.name.clone(), parts(id, linear.weight(), &count)))
        };
        layers.iter().map(count).collect()
    })
}
