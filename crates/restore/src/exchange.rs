//! One exchange in one matrix: which kept weights go, and which pruned ones come in their place.

use tch::{Kind, Tensor};

/// What keeps its number of weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Groups {
    /// The matrix.
    Matrix,
    /// Every row.
    Rows,
    /// So many consecutive inputs of a row, and with them the row.
    Cells(i64),
}

/// Weights that change sides, bool `[out, in]`; in every group as many of the one as of the other.
#[derive(Debug)]
pub(crate) struct Exchange {
    /// Kept before, pruned now.
    pub dropped: Tensor,
    /// Pruned before, kept now.
    pub grown: Tensor,
}

/// Exchanges a `share` of the weights that `keep` (bool `[out, in]`) keeps in the matrix or in each row, rounded down: those of the smallest `importance` for pruned
/// ones of the largest `promise` in the same group, both f32 `[out, in]`. A group gives at most as many as it has pruned. Ties go by position.
pub(crate) fn exchange(keep: &Tensor, importance: &Tensor, promise: &Tensor, share: f64, groups: Groups) -> Exchange {
    let size = keep.size();
    let (rows, columns) = (size[0], size[1]);
    let members = match groups {
        Groups::Matrix => rows * columns,
        Groups::Rows => columns,
        Groups::Cells(of) => of,
    };
    let budget = if groups == Groups::Matrix { rows * columns } else { columns };
    let grouped = |tensor: &Tensor| tensor.reshape([-1, members]);
    let budgeted = |tensor: &Tensor| tensor.reshape([-1, budget]);
    let count = |flags: &Tensor| flags.sum_dim_intlist([-1i64].as_slice(), true, Kind::Int64);
    let kept = grouped(keep);
    let pruned = kept.logical_not();
    let worth = grouped(importance).masked_fill(&pruned, f64::INFINITY);
    let place = ranks(&worth, false);
    let can_go = place.less_tensor(&count(&pruned)).logical_and(&kept);
    let of_budget = count(&budgeted(keep)).to_kind(Kind::Double);
    // Raised by a millionth, so that 0.3 of 10 is 3.
    let asked = (of_budget * share + 1e-6).floor().to_kind(Kind::Int64);
    let dropped = match groups {
        Groups::Matrix | Groups::Rows => place.less_tensor(&asked).logical_and(&can_go),
        Groups::Cells(_) => {
            let worth = budgeted(&worth.masked_fill(&can_go.logical_not(), f64::INFINITY));
            ranks(&worth, false).less_tensor(&asked).logical_and(&budgeted(&can_go))
        }
    };
    let wanted = count(&grouped(&dropped));
    let promise = grouped(promise).masked_fill(&kept, f64::NEG_INFINITY);
    let grown = ranks(&promise, true).less_tensor(&wanted).logical_and(&pruned);
    Exchange { dropped: dropped.reshape(&size), grown: grown.reshape(&size) }
}

/// The place of each element in its row by size, i64; of equal ones the first comes first.
fn ranks(values: &Tensor, descending: bool) -> Tensor {
    let (_, order) = values.sort_stable(true, -1, descending);
    let places = Tensor::arange(values.size()[1], (Kind::Int64, values.device())).expand_as(&order);
    order.zeros_like().scatter(-1, &order, &places)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(tensor: &Tensor) -> Vec<bool> {
        Vec::<bool>::try_from(tensor.reshape([-1])).expect("bool")
    }

    fn matrix(values: &[f32], rows: i64) -> Tensor {
        Tensor::from_slice(values).view([rows, -1])
    }

    fn positions(tensor: &Tensor) -> Vec<usize> {
        flags(tensor).into_iter().enumerate().filter_map(|(at, flag)| flag.then_some(at)).collect()
    }

    /// Half of what a row or the matrix keeps goes, the smallest first; the largest promises come.
    #[test]
    fn the_smallest_go_and_the_largest_come() {
        let keep = matrix(&[1., 1., 1., 1., 0., 0., 0., 0., 1., 1., 0., 0., 1., 1., 0., 0.], 2).to_kind(Kind::Bool);
        let weights = matrix(&[4., 1., 3., 2., 0., 0., 0., 0., 8., 9., 0., 0., 6., 7., 0., 0.], 2);
        let slopes = matrix(&[99., 0., 0., 0., 1., 2., 5., 4., 0., 0., 3., 8., 0., 0., 9., 1.], 2);
        let rows = exchange(&keep, &weights, &slopes, 0.5, Groups::Rows);
        assert_eq!((positions(&rows.dropped), positions(&rows.grown)), (vec![1, 3, 12, 13], vec![6, 7, 11, 14]));
        // Over the matrix, the first row's four are the smallest, and three of the largest promises are in the second.
        let whole = exchange(&keep, &weights, &slopes, 0.5, Groups::Matrix);
        assert_eq!((positions(&whole.dropped), positions(&whole.grown)), (vec![0, 1, 2, 3], vec![6, 7, 11, 14]));
    }

    /// Of two of four at most two can go in a cell, and a row's share is made of its smallest, wherever they are.
    #[test]
    fn cells_keep_their_number() {
        let keep = matrix(&[1., 1., 0., 0., 1., 0., 1., 0.], 1).to_kind(Kind::Bool);
        let weights = matrix(&[1., 2., 0., 0., 3., 0., 4., 0.], 1);
        let slopes = matrix(&[0., 0., 1., 2., 0., 7., 0., 8.], 1);
        let half = exchange(&keep, &weights, &slopes, 0.5, Groups::Cells(4));
        assert_eq!((positions(&half.dropped), positions(&half.grown)), (vec![0, 1], vec![2, 3]));
        let most = exchange(&keep, &weights, &slopes, 0.8, Groups::Cells(4));
        assert_eq!((positions(&most.dropped), positions(&most.grown)), (vec![0, 1, 4], vec![2, 3, 7]));
        // Three of four can give one each.
        let keep = matrix(&[1., 1., 1., 0., 1., 1., 0., 1.], 1).to_kind(Kind::Bool);
        let weights = matrix(&[1., 2., 3., 0., 4., 5., 0., 6.], 1);
        let found = exchange(&keep, &weights, &slopes, 0.5, Groups::Cells(4));
        assert_eq!((positions(&found.dropped), positions(&found.grown)), (vec![0, 4], vec![3, 6]));
    }

    /// Ties go by position, and no more is exchanged than is pruned.
    #[test]
    fn equal_weights_and_full_rows() {
        let keep = matrix(&[1., 1., 1., 0., 1., 1., 1., 1.], 2).to_kind(Kind::Bool);
        let equal = keep.ones_like().to_kind(Kind::Float);
        let found = exchange(&keep, &equal, &equal, 1.0, Groups::Rows);
        assert_eq!((positions(&found.dropped), positions(&found.grown)), (vec![0], vec![3]));
        let none = exchange(&keep, &equal, &equal, 0.1, Groups::Rows);
        assert_eq!((positions(&none.dropped), positions(&none.grown)), (vec![], vec![]));
    }

    /// Whatever is kept, every group keeps its number, and no weight is dropped that was not kept or grown that was.
    #[test]
    fn budgets_hold_on_random_masks() {
        let noise = |label: &str| {
            ressa_runtime::normal_like(&Tensor::zeros([12, 24], (Kind::Float, tch::Device::Cpu)), 4, label)
        };
        let (weights, slopes) = (noise("weights").abs(), noise("slopes").abs());
        for (name, groups, members) in [("m", Groups::Matrix, 288), ("r", Groups::Rows, 24), ("c", Groups::Cells(8), 8)]
        {
            for threshold in [-1.0, 0.0, 0.8] {
                let keep = noise(name).gt(threshold);
                let Exchange { dropped, grown } = exchange(&keep, &weights, &slopes, 0.4, groups);
                assert!(!dropped.logical_and(&keep.logical_not()).any().is_true());
                assert!(!grown.logical_and(&keep).any().is_true());
                let of_groups =
                    |flags: &Tensor| flags.view([-1, members]).sum_dim_intlist([-1i64].as_slice(), false, Kind::Int64);
                assert!(of_groups(&dropped).equal(&of_groups(&grown)), "{name} {threshold}");
                assert!(dropped.any().is_true());
            }
        }
    }

    trait Truth {
        fn is_true(&self) -> bool;
    }

    impl Truth for Tensor {
        fn is_true(&self) -> bool {
            self.int64_value(&[]) != 0
        }
    }
}
