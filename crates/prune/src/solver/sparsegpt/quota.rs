//! How many weights of a block go where the pattern does not say it.

use ressa_experiment::config::Group;

use crate::select::{Selection, pruned_count};

/// Members of a group in a layer's block, `rows` by the columns from `block.0` to `block.1`, and how many of them go: the blocks of a layer add up to
/// what is asked of all its `columns`.
pub(super) fn exact(selection: Selection, rows: i64, block: (i64, i64), columns: i64) -> (i64, i64) {
    let width = block.1 - block.0;
    let per_row = matches!(
        selection,
        Selection::Unstructured { group: Group::Row, .. } | Selection::Exact { group: Group::Row, .. }
    );
    let lines = if per_row { 1 } else { rows };
    // What goes from all columns up to one of the block's ends.
    let up_to = |end: i64| match selection {
        Selection::Unstructured { sparsity, .. } => pruned_count(lines * end, sparsity),
        // A layer's share of a divided budget is taken from its blocks, whatever the group.
        Selection::Exact { count, .. } | Selection::Total { count, .. } => {
            count.clamp(0, lines * columns) * end / columns
        }
        Selection::NOfM { .. } => 0,
    };
    (lines * width, up_to(block.1) - up_to(block.0))
}

/// Place in sorted order of the published threshold among the `members` weights of a layer's block: that one goes, and all before it.
pub(super) fn inclusive(selection: Selection, members: usize, rows: i64, columns: i64) -> usize {
    let (all, count) = selection.groups(rows, columns);
    match selection {
        Selection::Unstructured { sparsity, .. } => (members as f64 * sparsity) as usize,
        _ => (members as i64 * count / all.max(1)) as usize,
    }
}
