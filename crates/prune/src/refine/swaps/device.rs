//! The swaps in tensor operations, for devices other than the host; the same swaps, all rows together.
//!
//! Every row makes its next swap in the same few launches, and a row that has ended makes none; whether all have is asked once in a while. Sums are f64 as on the host, and
//! candidates are ranked by the same f32 scores, of equal ones the lower column first.

use tch::{Kind, Tensor};

use super::{SparseSwaps, Start, Swapped};
use crate::select::device::order;

/// Rounds after which it is asked whether any row still swaps.
const ASKED: usize = 32;

/// The rows of a part, f64 `[rows, in]` but for the mask.
struct Rows<'a> {
    dense: Tensor,
    weight: Tensor,
    keep: Tensor,
    /// What must not come back, bool.
    gone: Option<Tensor>,
    /// `G (dense - weight)`.
    product: Tensor,
    gram: &'a Tensor,
    /// f64 `[in]`.
    diagonal: Tensor,
}

/// The best swap of each row: columns and change of the error, each `[rows, 1]`.
struct Best {
    back: Tensor,
    gone: Tensor,
    change: Tensor,
}

pub(super) fn swap(method: &SparseSwaps, start: &Start<'_>) -> Swapped {
    let mut rows = Rows {
        dense: start.part.dense.to_kind(Kind::Double),
        weight: start.part.weight.to_kind(Kind::Double),
        keep: start.part.keep.copy(),
        gone: start.part.gone.as_ref().map(Tensor::shallow_clone),
        product: start.product.to_kind(Kind::Double),
        gram: start.gram,
        diagonal: start.gram.diagonal(0, 0, 1).to_kind(Kind::Double),
    };
    let corners = start.of.map(|of| corners(start.gram, of));
    let candidates = i64::try_from(method.candidates).unwrap_or(i64::MAX).min(rows.diagonal.size()[0]);
    let most = if corners.is_none() && candidates == 0 { 0 } else { method.max_swaps };
    let needed = start.least.neg().unsqueeze(1);
    let mut active = Tensor::ones_like(&needed).to_kind(Kind::Bool);
    let mut error = start.before.unsqueeze(1);
    for round in 1..=most {
        let best = match &corners {
            Some(corners) => rows.best_in_groups(corners),
            None => rows.best_of_candidates(candidates),
        };
        active = active.logical_and(&best.change.lt_tensor(&needed));
        error += best.change.where_self(&active, &best.change.zeros_like());
        rows.make(&best, &active);
        // Asking waits for the device.
        if round % ASKED == 0 && active.any().int64_value(&[]) == 0 {
            break;
        }
    }
    Swapped { keep: rows.keep, weight: rows.weight.to_kind(Kind::Float), after: error.squeeze_dim(1) }
}

/// The corners of a matrix on its diagonal, f64 `[groups, of, of]`.
fn corners(gram: &Tensor, of: i64) -> Tensor {
    let groups = gram.size()[0] / of;
    gram.view([groups, of, groups, of]).diagonal(0, 0, 2).permute([2, 0, 1]).to_kind(Kind::Double)
}

impl Rows<'_> {
    /// What bringing a pruned weight back and what pruning a kept one add to the error, alone; infinite for the others.
    fn alone(&self) -> [Tensor; 2] {
        let back = &self.dense * (&self.dense * &self.diagonal - &self.product * 2.0);
        let gone = &self.weight * (&self.weight * &self.diagonal + &self.product * 2.0);
        let barred = self.gone.as_ref().map_or(self.keep.shallow_clone(), |gone| gone.logical_or(&self.keep));
        [back.masked_fill(&barred, f64::INFINITY), gone.masked_fill(&self.keep.logical_not(), f64::INFINITY)]
    }

    fn best_in_groups(&self, corners: &Tensor) -> Best {
        let [back, gone] = self.alone();
        let (rows, of) = (back.size()[0], corners.size()[1]);
        let in_groups = |tensor: &Tensor| tensor.view([rows, -1, of]);
        let products = in_groups(&self.dense).unsqueeze(3) * in_groups(&self.weight).unsqueeze(2);
        let change = in_groups(&back).unsqueeze(3) + in_groups(&gone).unsqueeze(2) - products * 2.0 * corners;
        let (change, at) = least(&change);
        let first = at.divide_scalar_mode(of * of, "floor") * of;
        let within = at.remainder(of * of);
        Best { back: &first + within.divide_scalar_mode(of, "floor"), gone: first + within.remainder(of), change }
    }

    fn best_of_candidates(&self, candidates: i64) -> Best {
        let [backs, gones] = self.alone().map(|scores| {
            let columns = smallest(&scores, candidates);
            (scores.gather(1, &columns, false), columns)
        });
        let (back, gone) = (backs.1.unsqueeze(2), gones.1.unsqueeze(1));
        let weights =
            self.dense.gather(1, &backs.1, false).unsqueeze(2) * self.weight.gather(1, &gones.1, false).unsqueeze(1);
        let shared = self.gram.take(&(back * self.gram.size()[0] + gone)).to_kind(Kind::Double);
        let change = backs.0.unsqueeze(2) + gones.0.unsqueeze(1) - weights * 2.0 * shared;
        let (change, at) = least(&change);
        let place = |columns: &Tensor, at: &Tensor| columns.gather(1, at, false);
        Best {
            back: place(&backs.1, &at.divide_scalar_mode(candidates, "floor")),
            gone: place(&gones.1, &at.remainder(candidates)),
            change,
        }
    }

    /// Swaps in the rows that are active.
    fn make(&mut self, Best { back, gone, .. }: &Best, active: &Tensor) {
        let at = |values: &Tensor, column: &Tensor| values.gather(1, column, false);
        let gram = |column: &Tensor| self.gram.index_select(0, &column.view([-1])).to_kind(Kind::Double);
        let (added, removed) = (at(&self.dense, back) * active, at(&self.weight, gone) * active);
        self.product = &self.product + removed * gram(gone) - added * gram(back);
        let _ = self.weight.scatter_(1, back, &at(&self.dense, back).where_self(active, &at(&self.weight, back)));
        let _ = self.weight.scatter_(1, gone, &at(&self.weight, gone).masked_fill(active, 0.0));
        let _ = self.keep.scatter_(1, back, &at(&self.keep, back).logical_or(active));
        let _ = self.keep.scatter_(1, gone, &at(&self.keep, gone).logical_and(&active.logical_not()));
    }
}

/// The smallest change of each row and its place among all of the row, the first of equal ones.
fn least(changes: &Tensor) -> (Tensor, Tensor) {
    let changes = changes.reshape([changes.size()[0], -1]);
    let at = changes.argmin(1, true);
    (changes.gather(1, &at, false), at)
}

/// Columns of the smallest scores of each row, in their order.
fn smallest(scores: &Tensor, count: i64) -> Tensor {
    /// Bits of a column's number.
    const COLUMN: i64 = 1 << 31;
    let columns = Tensor::arange(scores.size()[1], (Kind::Int64, scores.device()));
    let keys = order(&scores.to_kind(Kind::Float)).to_kind(Kind::Int64) * COLUMN + columns;
    keys.topk(count, 1, false, true).1
}
