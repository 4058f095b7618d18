//! The swaps in tensor operations, for devices other than the host; the same swaps.
//!
//! A row never makes more than `max_cycles` swaps, so all that it can ever ask for are the first so many weights of four orders: what may come back and
//! what may go, for an error of either sign. These candidates are listed first; the cycles then work on lists, all rows of all layers together,
//! whatever their widths. The row's error is added up in another order than on the host, in f64.

use tch::{Kind, Tensor};

use super::{Dsnot, SignRule};
use crate::{error::PruneError, rows::floats, select::Selection, solver::LayerProblem, statistics::ColumnStatistics};

/// Statistics, f32 `[in]` each.
pub(super) struct Inputs {
    sum: Tensor,
    /// `v^a`.
    spread: Tensor,
    norm: Tensor,
}

impl Inputs {
    pub(super) fn new(layer: &str, statistics: &ColumnStatistics, power: f64) -> Result<Self, PruneError> {
        let (Some(sum), Some(variance), Some(norm)) = (statistics.sum(), statistics.variance(), statistics.norm())
        else {
            return Err(PruneError::NoStatistics { layer: layer.to_owned() });
        };
        let spread = match power {
            1.0 => variance,
            // A device's powers are not the host's to the bit.
            _ => {
                let powers: Vec<f32> = floats(&variance).iter().map(|v| v.powf(power as f32)).collect();
                Tensor::from_slice(&powers).to_device(variance.device())
            }
        };
        Ok(Self { sum, spread, norm })
    }
}

/// A layer before its swaps.
pub(super) struct Layer {
    /// Bool `[out, in]`.
    keep: Tensor,
    /// f64 `[out, 1]`.
    error: Tensor,
    /// What may come back where the error is positive, then where it is not, `[out, 2 * places]`; in each list the last place, and those
    /// that no weight fills, say that there is none.
    back: Candidates,
    /// What may go at the same place of the lists; with N:M what may go from the group, the least important first, `[out, 2 * places * (slots + 1)]`.
    gone: Candidates,
    /// With N:M, the group of each place in `back`.
    groups: Option<Tensor>,
    /// Weights that an N:M group keeps; 0 without a pattern.
    slots: i64,
}

/// Weights of each row.
struct Candidates {
    /// Columns.
    columns: Tensor,
    /// What they add to the row's expected output, f64; not a number where there is no weight.
    shares: Tensor,
}

impl Candidates {
    fn at(&self, places: &Tensor) -> Candidates {
        Candidates { columns: self.columns.gather(1, places, false), shares: self.shares.gather(1, places, false) }
    }

    fn cat(all: &[&Candidates]) -> Candidates {
        let join =
            |of: &dyn Fn(&Candidates) -> Tensor| Tensor::cat(&all.iter().map(|one| of(one)).collect::<Vec<_>>(), 0);
        Candidates {
            columns: join(&|one| one.columns.shallow_clone()),
            shares: join(&|one| one.shares.shallow_clone()),
        }
    }
}

impl Layer {
    /// Lists the candidates of a layer for at most `most` swaps in a row.
    pub(super) fn new(layer: &LayerProblem<'_>, importance: &Tensor, inputs: &Inputs, most: i64) -> Self {
        let keep = layer.without_gone(layer.selection.keep(importance));
        let weight = layer.weight.to_kind(Kind::Float);
        let share = &weight * &inputs.sum;
        let pruned = keep.logical_not();
        let error = share.masked_fill(&keep, 0.0).sum_dim_intlist([1i64].as_slice(), true, Kind::Double);
        let gain = (&share / &inputs.spread).abs();
        let (above, below) = (share.gt(0.0), share.lt(0.0));
        let back = [
            first(&gain, &pruned.logical_and(&above), Order::LargestLastFirst, &share, most),
            first(&gain, &pruned.logical_and(&below), Order::LargestFirst, &share, most),
        ];
        let both = |lists: &[Candidates; 2]| {
            let join = |left: &Tensor, right: &Tensor| Tensor::cat(&[left, right], 1);
            let [left, right] = lists;
            Candidates { columns: join(&left.columns, &right.columns), shares: join(&left.shares, &right.shares) }
        };
        let back = both(&back);
        if let Selection::NOfM { keep: slots, of } = layer.selection {
            let groups = back.columns.divide_scalar_mode(of, "floor");
            let gone = in_groups(&groups, (slots, of), importance, &keep, &share);
            return Self { keep, error, back, gone, groups: Some(groups), slots };
        }
        let worth = weight.abs() * &inputs.norm;
        // A positive error wants a weight of negative share to go.
        let gone = both(&[
            first(&worth, &keep.logical_and(&below), Order::Smallest, &share, most),
            first(&worth, &keep.logical_and(&above), Order::Smallest, &share, most),
        ]);
        Self { keep, error, back, gone, groups: None, slots: 0 }
    }

    /// The mask after swaps: columns that come back and that go, of those that were `made`, `[out, cycles]` each.
    fn swapped(&self, back: &Tensor, gone: &Tensor, made: &Tensor) -> Tensor {
        let size = self.keep.size();
        let nowhere = Tensor::full([1], size[1], (Kind::Int64, self.keep.device()));
        let place = |columns: &Tensor| columns.where_self(made, &nowhere);
        let mut keep = Tensor::cat(&[&self.keep, &self.keep.narrow(1, 0, 1)], 1);
        let _ = keep.scatter_value_(1, &place(back), 1);
        let _ = keep.scatter_value_(1, &place(gone), 0);
        keep.narrow(1, 0, size[1]).contiguous()
    }
}

/// How a list is ordered, and which of equals comes first.
#[derive(Clone, Copy, PartialEq)]
enum Order {
    /// Largest score; of equals the higher column.
    LargestLastFirst,
    /// Largest score; of equals the lower column.
    LargestFirst,
    /// Smallest score; of equals the lower column.
    Smallest,
}

/// The first `most` candidates of each row, and a place for none. Scores are f32 `[out, in]`, not negative.
fn first(scores: &Tensor, candidates: &Tensor, order: Order, share: &Tensor, most: i64) -> Candidates {
    /// Bits of a column's number.
    const COLUMN: i64 = 1 << 31;
    let (rows, width, device) = (scores.size()[0], scores.size()[1], scores.device());
    let columns = Tensor::arange(width, (Kind::Int64, device));
    let ties = if order == Order::LargestFirst { COLUMN - 1 - columns } else { columns };
    // Scores that are not negative sort as their bits do, and a key is given once.
    let keys = scores.contiguous().view_dtype(Kind::Int).to_kind(Kind::Int64) * COLUMN + ties;
    let largest = order != Order::Smallest;
    let none = if largest { -1 } else { i64::MAX };
    let taken = most.min(width);
    let (keys, columns) = keys.masked_fill(&candidates.logical_not(), none).topk(taken, 1, largest, true);
    let shares = share.gather(1, &columns, false).to_kind(Kind::Double).masked_fill(&keys.eq(none), f64::NAN);
    let rest = most + 1 - taken;
    let columns = Tensor::cat(&[columns, Tensor::zeros([rows, rest], (Kind::Int64, device))], 1);
    let shares = Tensor::cat(&[shares, Tensor::full([rows, rest], f64::NAN, (Kind::Double, device))], 1);
    Candidates { columns, shares }
}

/// Of each group `[out, places]` the weights that were kept at first, the least important first, of equals the lower column, and a place for none.
fn in_groups(
    groups: &Tensor,
    (slots, of): (i64, i64),
    importance: &Tensor,
    keep: &Tensor,
    share: &Tensor,
) -> Candidates {
    let (rows, places, device) = (groups.size()[0], groups.size()[1], groups.device());
    let members = groups.unsqueeze(2) * of + Tensor::arange(of, (Kind::Int64, device));
    let flat = members.reshape([rows, -1]);
    let kept = keep.gather(1, &flat, false);
    // Negative zero equals zero here, and importances are finite.
    let values = (importance.gather(1, &flat, false) + 0.0).masked_fill(&kept.logical_not(), f64::INFINITY);
    let (_, order) = values.view([-1, of]).sort_stable(true, 1, false);
    let columns = members.view([-1, of]).gather(1, &order.narrow(1, 0, slots), false).view([rows, -1]);
    let shares = share.gather(1, &columns, false).to_kind(Kind::Double).view([rows, places, slots]);
    let none = Tensor::full([rows, places, 1], f64::NAN, (Kind::Double, device));
    let shares = Tensor::cat(&[shares, none], 2).view([rows, -1]);
    let columns = Tensor::cat(&[columns.view([rows, places, slots]), groups.unsqueeze(2) * of], 2).view([rows, -1]);
    Candidates { columns, shares }
}

/// Makes the swaps of layers whose candidates were listed for `most` swaps; masks in their order.
pub(super) fn swap(method: &Dsnot, layers: &[Layer], most: i64) -> Vec<Tensor> {
    let alike =
        layers.chunk_by(|left, right| left.slots == right.slots && left.groups.is_some() == right.groups.is_some());
    alike.flat_map(|layers| swap_alike(method, layers, most)).collect()
}

fn swap_alike(method: &Dsnot, layers: &[Layer], most: i64) -> Vec<Tensor> {
    let device = layers[0].keep.device();
    let back = Candidates::cat(&layers.iter().map(|layer| &layer.back).collect::<Vec<_>>());
    let gone = Candidates::cat(&layers.iter().map(|layer| &layer.gone).collect::<Vec<_>>());
    let groups: Vec<&Tensor> = layers.iter().filter_map(|layer| layer.groups.as_ref()).collect();
    let groups = (!groups.is_empty()).then(|| Tensor::cat(&groups, 0));
    let mut error = Tensor::cat(&layers.iter().map(|layer| &layer.error).collect::<Vec<_>>(), 0);
    let (rows, slots) = (error.size()[0], layers[0].slots);
    let counts = (Kind::Int64, device);
    let same_sign = method.sign == SignRule::Always || groups.is_some();
    let first_sign = error.sign();
    let mut active = Tensor::ones([rows, 1], (Kind::Bool, device));
    // How far each of a row's two lists has been read, and the groups that lost a weight.
    let mut read = Tensor::zeros([rows, 2], counts);
    let touched = Tensor::full([rows, most.max(1)], -1, counts);
    let (mut backs, mut gones, mut made) = (Vec::new(), Vec::new(), Vec::new());
    for cycle in 0..most {
        let side = error.le(0.0).to_kind(Kind::Int64);
        let at = read.gather(1, &side, false) + &side * (most + 1);
        let from = match &groups {
            None => at.shallow_clone(),
            Some(groups) => {
                let group = groups.gather(1, &at, false);
                let before = touched.eq_tensor(&group).sum_dim_intlist([1i64].as_slice(), true, Kind::Int64);
                touched.narrow(1, cycle, 1).copy_(&group);
                &at * (slots + 1) + before.clamp_max(slots)
            }
        };
        let after = &error + gone.shares.gather(1, &from, false) - back.shares.gather(1, &at, false);
        // What is not a number equals nothing.
        let mut goes_on = error.abs().gt(method.threshold).logical_and(&after.eq_tensor(&after));
        if same_sign {
            goes_on = goes_on.logical_and(&after.sign().eq_tensor(&first_sign));
        }
        active = active.logical_and(&goes_on);
        error = after.where_self(&active, &error);
        let _ = read.scatter_add_(1, &side, &active.to_kind(Kind::Int64));
        backs.push(at);
        gones.push(from);
        made.push(active.shallow_clone());
    }
    if made.is_empty() {
        return layers.iter().map(|layer| layer.keep.shallow_clone()).collect();
    }
    let [backs, gones, made] = [backs, gones, made].map(|parts| Tensor::cat(&parts, 1));
    let (backs, gones) = (back.at(&backs).columns, gone.at(&gones).columns);
    let mut start = 0;
    let of_layer = |layer: &Layer| {
        let rows = layer.keep.size()[0];
        let part = |tensor: &Tensor| tensor.narrow(0, start, rows);
        let keep = layer.swapped(&part(&backs), &part(&gones), &part(&made));
        start += rows;
        keep
    };
    layers.iter().map(of_layer).collect()
}
