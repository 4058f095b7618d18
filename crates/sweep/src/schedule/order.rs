//! The order of preference.
//!
//! The gate first. Then canaries: of each distinct code path the run with the least to do, so that a defect common to many runs shows in
//! minutes. Then stages of the dense model the worker holds, whose inputs it has just made; then the longest chain; evaluations last,
//! because they are short, nothing waits for them, and they fill the gaps at the end.
//!
//! What does not depend on the worker is settled once: every stage has a place in a line.

use std::collections::HashMap;

use super::costs::Costs;
use crate::Graph;

/// Where stages stand in line.
#[derive(Debug)]
pub(super) struct Places {
    /// The place of each stage.
    pub of: Vec<u32>,
    /// The stage at each place.
    pub at: Vec<u32>,
    /// First place of each band: of the stages that the gate and canaries do not tell apart.
    pub bands: Vec<u32>,
    /// First place of each half band: of those of a band that something waits for, and of the others.
    pub halves: Vec<u32>,
}

impl Places {
    /// Whether no place of one of `firsts` lies between two places, so that nothing it stands for tells them apart.
    pub fn together(firsts: &[u32], a: u32, b: u32) -> bool {
        let part = |place: u32| firsts.partition_point(|&first| first <= place);
        part(a) == part(b)
    }
}

/// The line of all stages, with `seconds` by sort.
pub(super) fn places(graph: &Graph, present: &[bool], costs: &Costs, seconds: &[f64]) -> Places {
    let canary = canaries(graph, present, |stage| costs.of(stage, seconds));
    // Seconds of the longest chain that begins with each stage.
    let mut chain = vec![0.0_f64; graph.stages.len()];
    for (position, stage) in graph.stages.iter().enumerate().rev() {
        let below = stage.dependents.iter().map(|&dependent| chain[dependent]).fold(0.0, f64::max);
        chain[position] = costs.of(position, seconds) + below;
    }
    let band = |position: usize| (!graph.stages[position].gate, canary[position]);
    let half = |position: usize| (band(position), graph.stages[position].dependents.is_empty());
    let mut at: Vec<u32> = (0..graph.stages.len() as u32).collect();
    at.sort_unstable_by(|&a, &b| {
        let (x, y) = (a as usize, b as usize);
        half(x).cmp(&half(y)).then(chain[y].total_cmp(&chain[x])).then(a.cmp(&b))
    });
    let mut places = Places { of: vec![0; at.len()], at, bands: Vec::new(), halves: Vec::new() };
    for (place, &position) in places.at.iter().enumerate() {
        let position = position as usize;
        let before = place.checked_sub(1).map(|place| places.at[place] as usize);
        if before.is_none_or(|before| band(before) != band(position)) {
            places.bands.push(place as u32);
        }
        if before.is_none_or(|before| half(before) != half(position)) {
            places.halves.push(place as u32);
        }
        places.of[position] = place as u32;
    }
    places
}

/// Rank per stage: stages of the cheapest run of each code path, cheapest path first; all others behind.
fn canaries(graph: &Graph, present: &[bool], seconds: impl Fn(usize) -> f64) -> Vec<u32> {
    let mut cheapest: HashMap<&str, (f64, usize)> = HashMap::new();
    for (index, run) in graph.runs.iter().enumerate() {
        let cost: f64 = run.stages.iter().filter(|&&stage| !present[stage]).map(|&stage| seconds(stage)).sum();
        cheapest
            .entry(&run.path)
            .and_modify(|known| {
                if cost < known.0 {
                    *known = (cost, index);
                }
            })
            .or_insert((cost, index));
    }
    let mut order: Vec<(f64, usize)> = cheapest.into_values().collect();
    order.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let mut ranks = vec![u32::MAX; graph.stages.len()];
    for (rank, (_, run)) in order.into_iter().enumerate() {
        for &stage in &graph.runs[run].stages {
            ranks[stage] = ranks[stage].min(rank as u32);
        }
    }
    ranks
}
