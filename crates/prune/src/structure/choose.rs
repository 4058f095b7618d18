//! The stacks of a tower, and which of their groups and blocks stay.

use std::collections::BTreeMap;

use ressa_experiment::{Tower, structure::remaining};
use ressa_models::{BlockGroups, GroupSet, VisionLanguage};

use super::StructureRequest;
use crate::error::PruneError;

/// Blocks of one kind behind each other, such as T5's encoder.
pub(super) struct Stack {
    /// Path in a checkpoint.
    pub path: String,
    pub blocks: Vec<Block>,
    /// Tensors with a column for each group of its tied sets.
    pub tables: Vec<String>,
}

/// A block of a stack.
pub(super) struct Block {
    /// Number within the stack.
    pub index: usize,
    /// Number within the tower, in the order of execution.
    pub block: usize,
    pub sets: Vec<GroupSet>,
    pub is_removable: bool,
    /// Module paths of its linears.
    pub layers: Vec<String>,
}

/// The stacks of a tower whose blocks have something that can be removed.
pub(super) fn stacks(model: &dyn VisionLanguage, tower: Tower) -> Vec<Stack> {
    let mut of_block: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for (id, _) in model.linears().into_iter().filter(|(id, _)| id.tower == tower) {
        of_block.entry(id.block).or_default().push(id.name.clone());
    }
    let mut stacks: Vec<Stack> = Vec::new();
    for (block, layers) in of_block {
        let BlockGroups { sets, is_removable, tables, place } = model.groups(tower, block);
        let Some((path, index)) = place.filter(|_| is_removable || !sets.is_empty()) else { continue };
        let own = Block { index, block, sets, is_removable, layers };
        match stacks.iter_mut().find(|stack| stack.path == path) {
            Some(stack) => stack.blocks.push(own),
            None => stacks.push(Stack { path, blocks: vec![own], tables }),
        }
    }
    stacks
}

/// How many of `count` are left by a target.
pub(super) fn left_of(
    request: &StructureRequest,
    what: &'static str,
    target: f64,
    count: usize,
) -> Result<usize, PruneError> {
    let left = remaining(target, count as u64).map(|left| left as usize);
    left.ok_or(PruneError::Target { tower: request.tower, what, target, count })
}

/// Places of what stays when so many go: those that are gone already first, then those of the least worth; of equals, the first.
pub(super) fn least(worth: &[f64], gone: &[bool], removed: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..worth.len()).collect();
    order.sort_by(|&a, &b| gone[b].cmp(&gone[a]).then(worth[a].total_cmp(&worth[b])).then(a.cmp(&b)));
    let mut kept = order.split_off(removed);
    kept.sort_unstable();
    kept
}

#[cfg(test)]
mod tests {
    use super::least;

    #[test]
    fn what_is_gone_goes_first_then_the_least_worth() {
        let worth = [3.0, 1.0, 2.0, 1.0];
        assert_eq!(least(&worth, &[false; 4], 0), [0, 1, 2, 3]);
        assert_eq!(least(&worth, &[false; 4], 1), [0, 2, 3]);
        assert_eq!(least(&worth, &[true, false, false, false], 2), [2, 3]);
        assert_eq!(least(&worth, &[false; 4], 3), [0]);
    }
}
