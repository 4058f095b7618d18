//! What is asked of one tower, and of each of its layers.

use ressa_experiment::{
    Pattern, Tower,
    config::{BlockThreshold, Group, MethodConfig, Metric, Propagate, Threshold, TokenConfig},
};

use crate::{
    allocation::{AllocationError, Counts},
    error::PruneError,
    method,
    select::{Rounding, Selection},
};

/// What is asked of one tower.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PruneRequest {
    /// The tower.
    pub tower: Tower,
    /// What decides which weights go.
    pub metric: Metric,
    /// Settings of the method.
    pub method: MethodConfig,
    /// Which positions go together.
    pub pattern: Pattern,
    /// Fraction removed; `None` when the pattern says it.
    pub sparsity: Option<f64>,
    /// Comparison group; `None` means the metric's published one. Has no meaning with N:M.
    pub group: Option<Group>,
    /// What a block sees while its statistics are collected. A tower-wide group ranks all blocks at once, so blocks of
    /// that tower then see dense predecessors whatever is asked.
    pub propagate: Propagate,
    /// What each kind of token counts in the statistics.
    pub tokens: TokenConfig,
    /// Replicate seed, for metrics that draw.
    pub seed: u64,
}

impl PruneRequest {
    /// The selection rule, checked.
    ///
    /// # Errors
    /// A sparsity that is no fraction below 1; a method that cannot compare a tower.
    pub fn selection(&self) -> Result<Selection, PruneError> {
        match self.pattern {
            Pattern::NOfM { keep, of } => Ok(Selection::NOfM { keep: i64::from(keep), of: i64::from(of) }),
            Pattern::Unstructured => match self.sparsity {
                Some(sparsity) if (0.0..1.0).contains(&sparsity) => {
                    let group = self.group.unwrap_or(self.metric.published_group());
                    if group == Group::Tower && !self.metric.ranks() {
                        return Err(PruneError::TowerGroup { metric: self.metric });
                    }
                    Ok(Selection::Unstructured { sparsity, group })
                }
                sparsity => Err(PruneError::Sparsity { tower: self.tower, sparsity }),
            },
        }
    }

    /// What is asked of one layer `[rows, columns]`; `counts` are those of a divided budget.
    ///
    /// # Errors
    /// As [`PruneRequest::selection`]; a division of an N:M pattern, or one that leaves the layer out.
    pub fn of_layer(
        &self,
        layer: &str,
        (rows, columns): (i64, i64),
        counts: Option<&Counts>,
    ) -> Result<Selection, PruneError> {
        let selection = self.selection()?;
        if let Some(counts) = counts {
            let Selection::Unstructured { group, .. } = selection else {
                return Err(AllocationError::Pattern { pattern: selection.pattern() }.into());
            };
            let count = counts.get(layer).ok_or_else(|| AllocationError::NotDivided { layer: layer.to_owned() })?;
            return Ok(Selection::Total { count: *count as i64, group });
        }
        let rounding = method::rounding(&self.method);
        Ok(match selection {
            Selection::Unstructured { sparsity, group } if rounding != Rounding::Decimal && group != Group::Tower => {
                let members = if group == Group::Row { columns } else { rows * columns };
                Selection::Exact { count: rounding.count(members, sparsity), group }
            }
            selection => selection,
        })
    }

    /// Whether numbers of weights are met, not only approached by a threshold.
    pub fn is_exact(&self) -> bool {
        self.pattern != Pattern::Unstructured
            || match self.metric {
                Metric::SparseGpt => self.method.sparsegpt.threshold == BlockThreshold::Exact,
                metric => !metric.ranks() || self.method.threshold == Threshold::Exact,
            }
    }
}
