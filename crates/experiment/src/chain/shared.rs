//! What the stages of several runs have in common: statistics that one stage collects for all, and keys by what is read from outside the store.

use std::{collections::HashMap, sync::Arc};

use crate::{
    Stage, StageKey, StageNode,
    config::StatisticsNeeds,
    reading::{ReadingKind, Readings},
    stage::{Inputs, identify},
};

/// Lets runs that read statistics of the same inputs read them from one stage, which collects what any of them needs.
pub(crate) fn share_statistics<'a>(chains: impl Iterator<Item = &'a mut Vec<Arc<StageNode>>>) {
    let chains: Vec<_> = chains.filter(|chain| chain.iter().any(|node| is_statistics(node))).collect();
    // By the stage as it would be if it collected nothing.
    let mut needs: HashMap<StageKey, StatisticsNeeds> = HashMap::new();
    let bare = |node: &StageNode| with_needs(node, StatisticsNeeds::default());
    let mut bares: HashMap<StageKey, StageKey> = HashMap::new();
    for node in chains.iter().flat_map(|chain| chain.iter()).filter(|node| is_statistics(node)) {
        let Stage::Statistics { needs: own, .. } = &*node.stage else { continue };
        let bare = bares.entry(node.key).or_insert_with(|| bare(node).key);
        let all = needs.entry(*bare).or_default();
        *all = all.and(*own);
    }
    let mut shared: HashMap<StageKey, Arc<StageNode>> = HashMap::new();
    for node in chains.into_iter().flatten() {
        if let Some(new) = shared.get(&node.key) {
            *node = Arc::clone(new);
            continue;
        }
        let new = if is_statistics(node) {
            with_needs(node, needs[&bares[&node.key]])
        } else if let Some(new) = node.inputs.statistics.and_then(|old| shared.get(&old)) {
            let inputs = Inputs { statistics: Some(new.key), ..(*node.inputs).clone() };
            StageNode { inputs: Arc::new(inputs), ..(**node).clone() }
        } else {
            continue;
        };
        let new = Arc::new(new);
        shared.insert(std::mem::replace(node, Arc::clone(&new)).key, new);
    }
}

/// Tells stages what they read from outside the store (`of`, asked once per stage and configuration), and gives them and all that is made
/// from them keys by content.
pub(crate) fn mark_contents<'a>(
    chains: impl Iterator<Item = &'a mut Vec<Arc<StageNode>>>,
    of: &mut dyn FnMut(&Stage) -> Readings,
) {
    let mut moved: HashMap<StageKey, Arc<StageNode>> = HashMap::new();
    // Evaluations of all runs share their stages.
    let mut own: HashMap<*const Stage, Readings> = HashMap::new();
    let mut buffer = Vec::new();
    for node in chains.flatten() {
        if let Some(new) = moved.get(&node.key) {
            *node = Arc::clone(new);
            continue;
        }
        let readings = own.entry(Arc::as_ptr(&node.stage)).or_insert_with(|| of(&node.stage)).clone();
        let inputs = node.inputs.renamed(|key| *moved.get(key).map_or(key, |new| &new.key));
        let stage = node.stage.by_content(&readings);
        let key = identify(&mut buffer, &stage, |buffer| stage.write(buffer), |buffer| inputs.write(buffer));
        let dense = node.inputs.dense.as_ref().and_then(|dense| moved.get(dense));
        let adapter = node.inputs.adapter.as_ref().and_then(|adapter| moved.get(adapter));
        let readings = readings
            .with(dense.and_then(|dense| dense.readings.of(ReadingKind::Model)))
            .with(adapter.and_then(|adapter| adapter.readings.of(ReadingKind::Data)));
        let new = StageNode { key, stage: Arc::clone(&node.stage), inputs: Arc::new(inputs), readings };
        let new = Arc::new(new);
        moved.insert(std::mem::replace(node, Arc::clone(&new)).key, new);
    }
}

fn is_statistics(node: &StageNode) -> bool {
    matches!(*node.stage, Stage::Statistics { .. })
}

fn with_needs(node: &StageNode, all: StatisticsNeeds) -> StageNode {
    let mut stage = Stage::clone(&node.stage);
    if let Stage::Statistics { needs, .. } = &mut stage {
        *needs = all;
    }
    stage.node((*node.inputs).clone())
}
