//! ROSE: the columns in which most is lost are walked first, while many are left to make up for them.
//!
//! - Formula: in each block, the weights that Wanda would take are what a column loses, `sum of |w_ij| |x_j|`. Where the losses of blocks are unlike, blocks are walked
//!   in descending order of loss, and so are the columns of a block; N:M groups stay together, and the columns in them where they are
//! - Paper: "ROSE: reordered SparseGPT for more accurate one-shot large language models pruning", arXiv 2603.05878
//! - Reference: `lib/prune_zoo/rose.py` in mingluo-su/ROSE
//! - Differs: the number of weights that go from a block is the one that SparseGPT takes. N:M groups are sorted, where the reference has no order of columns and fails. A
//!   shorter last block may come anywhere

use ressa_experiment::config::Group;
use tch::{Device, Kind, Tensor};

use super::quota;
use crate::select::Selection;

/// In which order columns are walked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// From left to right, as published.
    #[default]
    Natural,
    /// By what they lose; see [`self`].
    Loss,
}

/// Losses of blocks are unlike where they span more than this share of the largest.
const UNLIKE: f64 = 0.5;

/// The columns of a weight `[out, in]` in the order in which they are walked; `None` for the natural one. `norm`: norms of the inputs `[in]` up to a factor.
pub(super) fn by_loss(weight: &Tensor, norm: &Tensor, selection: Selection, block: i64) -> Option<Vec<i64>> {
    let score = weight.abs() * norm;
    let (width, keep) = match selection {
        Selection::NOfM { of, .. } => (of, selection.keep(&score)),
        _ => (block, keep_by_blocks(&score, selection, block)),
    };
    let lost = score.masked_fill(&keep, 0.0).sum_dim_intlist([0i64].as_slice(), false, Kind::Double);
    let lost = Vec::<f64>::try_from(lost.to_device(Device::Cpu)).ok()?;
    let in_blocks = !matches!(selection, Selection::NOfM { .. });
    sorted(&lost, width as usize, in_blocks)
}

/// The mask of each block for itself.
fn keep_by_blocks(score: &Tensor, selection: Selection, block: i64) -> Tensor {
    let (rows, columns) = (score.size()[0], score.size()[1]);
    let of_block = |from: i64| {
        let to = (from + block).min(columns);
        let (members, count) = quota::exact(selection, rows, (from, to), columns);
        let group = if members == to - from { Group::Row } else { Group::Matrix };
        Selection::Exact { count, group }.keep(&score.narrow(1, from, to - from))
    };
    Tensor::cat(&(0..columns).step_by(block as usize).map(of_block).collect::<Vec<_>>(), 1)
}

/// Columns by blocks of `width` in descending order of what is lost in them, with `in_blocks` also within blocks; of equal ones the lower first. `None` where
/// blocks lose nearly the same.
fn sorted(lost: &[f64], width: usize, in_blocks: bool) -> Option<Vec<i64>> {
    let mut blocks: Vec<(f64, usize)> =
        lost.chunks(width).enumerate().map(|(at, block)| (block.iter().sum(), at * width)).collect();
    blocks.sort_by(|a, b| b.0.total_cmp(&a.0));
    let (most, least) = (blocks.first()?.0, blocks.last()?.0);
    if most - least <= UNLIKE * most {
        return None;
    }
    let columns = |&(_, from): &(f64, usize)| {
        let mut columns: Vec<usize> = (from..(from + width).min(lost.len())).collect();
        if in_blocks {
            columns.sort_by(|&a, &b| lost[b].total_cmp(&lost[a]));
        }
        columns.into_iter().map(|at| at as i64)
    };
    Some(blocks.iter().flat_map(columns).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_and_columns_by_descending_loss() {
        let lost = [1.0, 2.0, 9.0, 9.0, 0.5, 0.0, 4.0];
        assert_eq!(sorted(&lost, 2, true), Some(vec![2, 3, 6, 1, 0, 4, 5]));
        assert_eq!(sorted(&lost, 2, false), Some(vec![2, 3, 6, 0, 1, 4, 5]));
        // The smallest block loses half as much as the largest; nothing is lost at all.
        assert_eq!(sorted(&[1.0, 1.0, 3.0, 1.0], 2, true), None);
        assert_eq!(sorted(&[0.0; 4], 2, true), None);
        assert_eq!(sorted(&[], 2, true), None);
    }

    /// Every row loses its smallest product of weight and norm in each block.
    #[test]
    fn what_wanda_would_take_is_lost() {
        let weight = Tensor::from_slice(&[1.0f32, 2.0, 30.0, 20.0, 2.0, 1.0, 10.0, 40.0]).view([2, 4]);
        let norm = Tensor::from_slice(&[4.0f32, 1.0, 1.0, 1.0]);
        let row = Selection::Unstructured { sparsity: 0.5, group: Group::Row };
        // Lost are 0, 2 + 1, 10 and 20.
        assert_eq!(by_loss(&weight, &norm, row, 2), Some(vec![3, 2, 1, 0]));
        let groups = Selection::NOfM { keep: 1, of: 2 };
        assert_eq!(by_loss(&weight, &norm, groups, 128), Some(vec![2, 3, 0, 1]));
        // Of the matrix the two smallest of each block go: 1 and 2, and 10 and 20.
        let matrix = Selection::Unstructured { sparsity: 0.5, group: Group::Matrix };
        assert_eq!(by_loss(&weight, &norm, matrix, 2), Some(vec![3, 2, 1, 0]));
    }
}
