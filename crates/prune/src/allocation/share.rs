//! A layer's share, taken from its weights to one.

use ressa_experiment::config::Group;
use tch::{Kind, Tensor};

use crate::select::Selection;

/// Keep mask, bool `[out, in]`, without exactly `removed` weights of `importance` `[out, in]`, compared in rows.
///
/// Rows give the same number each. What does not divide by the rows goes on with one weight more from those rows whose next weight is the
/// least important, the lower row first among equals.
pub(crate) fn keep_all_but(importance: &Tensor, removed: i64) -> Tensor {
    let (rows, columns) = (importance.size()[0], importance.size()[1]);
    if rows * columns == 0 {
        return Selection::Exact { count: removed, group: Group::Matrix }.keep(importance);
    }
    let all_rows = |count| Selection::Exact { count, group: Group::Row }.keep(importance);
    let (each, over) = (removed / rows, removed % rows);
    let fewer = all_rows(each);
    if over == 0 {
        return fewer;
    }
    let more = all_rows(each + 1);
    // One weight of every row. Where it is takes a byte for each weight to find; to select by mask would take sixteen.
    let at = fewer.logical_and(&more.logical_not()).to_kind(Kind::Uint8).argmax(1, true);
    let next = importance.gather(1, &at, false).view([1, rows]);
    let spared = Selection::Exact { count: over, group: Group::Matrix }.keep(&next).view([rows, 1]);
    more.logical_or(&fewer.logical_and(&spared)).to_kind(Kind::Bool)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keep(group: Group, removed: i64) -> Vec<bool> {
        let importance = Tensor::from_slice(&[1.0f32, 5.0, 9.0, 2.0, 3.0, 9.0, 4.0, 6.0, 7.0]).view([3, 3]);
        let selection = Selection::Total { count: removed, group };
        Vec::<bool>::try_from(selection.keep(&importance).reshape([-1])).expect("bool")
    }

    #[test]
    fn rows_give_alike_and_the_rest_comes_from_the_least_important() {
        // One of each row, then the smallest of what is next: 5, 3, 6.
        assert_eq!(keep(Group::Row, 4), [false, true, true, false, false, true, false, true, true]);
        assert_eq!(keep(Group::Row, 5), [false, false, true, false, false, true, false, true, true]);
        assert_eq!(keep(Group::Matrix, 4), [false, true, true, false, false, true, false, true, true]);
        for removed in 0..=9 {
            for group in [Group::Row, Group::Matrix] {
                assert_eq!(keep(group, removed).iter().filter(|keep| !**keep).count() as i64, removed);
            }
        }
    }
}
