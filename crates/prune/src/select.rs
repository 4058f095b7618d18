//! Which weights go: the same exact selection for every pattern.
//!
//! All patterns are one problem. Importance is laid out as `[groups, members]` and the `count` least important members of each group are
//! pruned: a group is a row, a matrix, a whole tower, or `of` consecutive inputs of a row. The `count`-th smallest value of a group is its
//! threshold; what lies below it goes, and of what equals it as many as are still missing, lowest index first. So counts are
//! exact, ties are settled by position (earlier layer, then lower row, then lower column go first), and keep sets nest as sparsity grows.
//!
//! On the host, [`host`] finds thresholds without sorting; on another device [`device`] does it in tensor operations, with the same result.

mod across;
pub(crate) mod device;
pub(crate) mod host;

pub use across::keep_across_with;

use ressa_experiment::{Pattern, config::Group};
use tch::{Device, Kind, Tensor};

use crate::{
    allocation::keep_all_but,
    rows::{new_mask, with_floats},
};

/// Weights pruned among `members` at `sparsity`: the integer part of the product as decimal arithmetic would give it.
///
/// `90 * 0.7` is 62.999... in binary floating point. Truncating it, as the reference does, prunes 62 of a row's 90 weights where
/// 70 % is 63. The product is therefore raised by a millionth first; a sparsity written with up to five decimals is never rounded up by that.
pub fn pruned_count(members: i64, sparsity: f64) -> i64 {
    Rounding::Decimal.count(members, sparsity)
}

/// How a product of a size and a sparsity becomes a number of weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rounding {
    /// The integer part that decimal arithmetic gives; see [`pruned_count`].
    #[default]
    Decimal,
    /// The integer part of the binary product: one weight less where the product falls just short. What published code does.
    Binary,
    /// The nearest integer, halves to the even one. What the VLM study's DSnoT does.
    Nearest,
}

impl Rounding {
    /// Weights pruned among `members` at `sparsity`.
    pub fn count(self, members: i64, sparsity: f64) -> i64 {
        let product = members as f64 * sparsity;
        let rounded = match self {
            Rounding::Decimal => (product + 1e-6).floor(),
            Rounding::Binary => product.floor(),
            Rounding::Nearest => product.round_ties_even(),
        };
        (rounded as i64).clamp(0, members)
    }
}

/// What is asked of one tower.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Selection {
    /// `pruned_count` of every group goes.
    Unstructured {
        /// Fraction removed, at least 0 and below 1.
        sparsity: f64,
        /// The weights that compete.
        group: Group,
    },
    /// `count` of every group go, for those who count for themselves.
    Exact {
        /// Weights removed from each row, or from the matrix.
        count: i64,
        /// The weights that compete; a tower is one matrix here.
        group: Group,
    },
    /// `count` of the matrix go, for those who divide a budget among layers.
    Total {
        /// Weights removed from the matrix.
        count: i64,
        /// The weights that compete. Rows give the same number each; what does not divide by the rows comes from those whose next weight is
        /// the least important. A tower is one matrix here.
        group: Group,
    },
    /// `keep` of every `of` consecutive inputs stay.
    NOfM {
        /// Weights kept in each group.
        keep: i64,
        /// Group size.
        of: i64,
    },
}

impl Selection {
    /// The pattern as it is written in experiments.
    pub fn pattern(self) -> Pattern {
        match self {
            Selection::NOfM { keep, of } => Pattern::NOfM { keep: keep as u32, of: of as u32 },
            _ => Pattern::Unstructured,
        }
    }

    /// Weights that must be pruned in a matrix of `[rows, columns]`; `None` where only the tower's total is fixed.
    pub fn pruned_in(self, rows: i64, columns: i64) -> Option<i64> {
        match self {
            Selection::Unstructured { group: Group::Tower, .. } => None,
            Selection::NOfM { keep, of } => Some(rows * (columns / of) * (of - keep)),
            _ => {
                let (members, count) = self.groups(rows, columns);
                Some(rows * columns / members.max(1) * count)
            }
        }
    }

    /// Members of a group in a matrix of `[rows, columns]`, and how many of them go.
    pub(crate) fn groups(self, rows: i64, columns: i64) -> (i64, i64) {
        let members = match self {
            Selection::NOfM { keep, of } => return (of, of - keep),
            Selection::Unstructured { group: Group::Row, .. } | Selection::Exact { group: Group::Row, .. } => columns,
            _ => rows * columns,
        };
        match self {
            Selection::Unstructured { sparsity, .. } => (members, pruned_count(members, sparsity)),
            Selection::Exact { count, .. } | Selection::Total { count, .. } => (members, count.clamp(0, members)),
            Selection::NOfM { keep, of } => (of, of - keep),
        }
    }

    /// Keep mask of one matrix, bool `[out, in]`, from its importance `[out, in]`.
    ///
    /// `Group::Tower` competes over one matrix here; use [`keep_across`] for a tower. With N:M the width must be a multiple of `of`.
    /// Importance must be finite.
    pub fn keep(self, importance: &Tensor) -> Tensor {
        if let Selection::Total { count, group: Group::Row } = self {
            return keep_all_but(importance, count);
        }
        let size = importance.size();
        let (members, count) = self.groups(size[0], size[1]);
        if importance.numel() == 0 {
            return importance.ones_like().to_kind(Kind::Bool);
        }
        if importance.device() == Device::Cpu {
            return with_floats(importance, |values| {
                new_mask(&size, |keep| host::prune(values, members as usize, count as usize, keep))
            });
        }
        device::keep(&importance.reshape([-1, members]), count).reshape(size)
    }
}

/// Keep mask, bool `[out, in]`, by threshold instead of by number: in each group of `selection` whatever lies below the first weight that should
/// stay goes, and with `inclusive` what equals it too. N:M groups are counted whatever is asked.
pub fn keep_by_threshold(importance: &Tensor, selection: Selection, inclusive: bool) -> Tensor {
    let size = importance.size();
    let (members, count) = selection.groups(size[0], size[1]);
    if matches!(selection, Selection::NOfM { .. }) || importance.numel() == 0 || count >= members {
        return selection.keep(importance);
    }
    let groups = importance.reshape([-1, members]);
    let (threshold, _) = groups.kthvalue(count + 1, 1, true);
    let keep = if inclusive { groups.gt_tensor(&threshold) } else { groups.ge_tensor(&threshold) };
    keep.reshape(size)
}

/// Keep masks of matrices that compete with each other, in their order: `pruned_count` over all of them goes.
pub fn keep_across(importances: &[Tensor], sparsity: f64) -> Vec<Tensor> {
    let mut keeps = Vec::with_capacity(importances.len());
    let mut importance = |at: usize| Ok::<_, std::convert::Infallible>(importances[at].shallow_clone());
    let Ok(()) = keep_across_with(importances.len(), sparsity, &mut importance, &mut |_, keep| keeps.push(keep));
    keeps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keep(selection: Selection, importance: &[f32], rows: i64) -> Vec<bool> {
        let mask = selection.keep(&Tensor::from_slice(importance).view([rows, -1]));
        Vec::<bool>::try_from(mask.reshape([-1])).expect("bool")
    }

    #[test]
    fn seventy_percent_of_ninety_is_sixty_three() {
        assert_eq!(pruned_count(90, 0.7), 63);
        assert_eq!(pruned_count(90, 0.69), 62);
        assert_eq!(pruned_count(1000, 0.29), 290);
        assert_eq!(pruned_count(3, 0.5), 1);
        assert_eq!(pruned_count(2_717_908_992, 0.7), 1_902_536_294);
    }

    #[test]
    fn published_code_truncates_the_binary_product() {
        assert_eq!(Rounding::Binary.count(90, 0.7), 62);
        assert_eq!(Rounding::Binary.count(64, 0.7), 44);
        assert_eq!(Rounding::Nearest.count(64, 0.7), 45);
        assert_eq!(Rounding::Nearest.count(5, 0.5), 2);
    }

    #[test]
    fn among_equals_the_lower_column_then_row_goes() {
        let row = Selection::Unstructured { sparsity: 0.5, group: Group::Row };
        assert_eq!(
            keep(row, &[1.0, 1.0, 1.0, 1.0, 2.0, 1.0, 1.0, 0.0], 2),
            [false, false, true, true, true, false, true, false]
        );
        let matrix = Selection::Unstructured { sparsity: 0.5, group: Group::Matrix };
        assert_eq!(
            keep(matrix, &[1.0, 1.0, 1.0, 1.0, 2.0, 1.0, 1.0, 0.0], 2),
            [false, false, false, true, true, true, true, false]
        );
        let two_of_four = Selection::NOfM { keep: 2, of: 4 };
        assert_eq!(
            keep(two_of_four, &[5.0, 5.0, 5.0, 5.0, 1.0, 3.0, 2.0, 3.0], 1),
            [false, false, true, true, false, true, false, true]
        );
    }

    #[test]
    fn matrices_of_a_tower_compete_and_the_earlier_loses_ties() {
        let importances = [
            Tensor::from_slice(&[1.0f32, 9.0]).view([1, 2]),
            Tensor::from_slice(&[1.0f32, 1.0, 9.0, 9.0]).view([2, 2]),
        ];
        let masks = keep_across(&importances, 0.4);
        assert_eq!(Vec::<bool>::try_from(masks[0].reshape([-1])).expect("bool"), [false, true]);
        assert_eq!(Vec::<bool>::try_from(masks[1].reshape([-1])).expect("bool"), [false, true, true, true]);
    }

    #[test]
    fn a_tower_is_ranked_the_same_on_host_and_device() {
        let values = |seed: u32, n: u32| -> Vec<f32> {
            (0..n).map(|i| ((i + seed).wrapping_mul(2_654_435_761) >> 9) as f32 % 97.0 - 3.0).collect()
        };
        let layers: Vec<Tensor> = [(1, 12_000), (2, 5), (3, 70_000)]
            .map(|(seed, n)| Tensor::from_slice(&values(seed, n)).view([-1, 5]))
            .into();
        for sparsity in [0.0, 0.01, 0.5, 0.731, 0.999] {
            let host = keep_across(&layers, sparsity);
            let count = pruned_count(82_005, sparsity);
            let all = Tensor::cat(&layers.iter().map(|layer| layer.view([-1])).collect::<Vec<_>>(), 0);
            let device = device::keep_counted(&all, count);
            let host = Tensor::cat(&host.iter().map(|keep| keep.view([-1])).collect::<Vec<_>>(), 0);
            assert!(host.equal(&device), "{sparsity}");
            assert_eq!(host.logical_not().sum(Kind::Int64).int64_value(&[]), count);
        }
    }

    /// Rows, N:M groups of every size, a group large enough for the histogram; many ties and signed zeros.
    #[test]
    fn host_and_device_select_the_same() {
        let values: Vec<f32> = (0..96 * 1024u32)
            .map(|i| match i.wrapping_mul(2_654_435_761) >> 8 {
                h if h % 11 == 0 => -0.0,
                h => (h % 40) as f32 * 0.25 - 1.0,
            })
            .collect();
        let importance = Tensor::from_slice(&values);
        for (members, count) in
            [(2, 1), (4, 2), (6, 1), (8, 4), (16, 5), (32, 31), (1024, 0), (1024, 700), (98304, 49_000)]
        {
            let groups = importance.view([-1, members]);
            let found = new_mask(&groups.size(), |keep| host::prune(&values, members as usize, count as usize, keep));
            assert!(found.equal(&device::keep(&groups, count)), "{count} of {members}");
        }
    }
}
