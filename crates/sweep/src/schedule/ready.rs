//! The stages that can be started, in line, and the best of them for a worker.

use std::collections::{BTreeSet, HashMap};

use super::{Resident, dense_of, order::Places};
use crate::Graph;

/// Stages of a line that are asked whether a worker can take them.
const LOOKED: usize = 64;

/// Ready stages by their places, a line for each class of workers.
#[derive(Debug)]
pub(super) struct Ready {
    places: Places,
    lines: Vec<Line>,
}

#[derive(Clone, Debug, Default)]
struct Line {
    all: BTreeSet<u32>,
    /// The same by dense model.
    of_model: HashMap<usize, BTreeSet<u32>>,
}

/// How much a stage suits a worker, the least first: the band, whether it is of another model than the worker holds, the half band,
/// whether it does not read what was just made, and the place.
type Rank = (usize, bool, usize, bool, u32);

impl Ready {
    pub fn new(places: Places, classes: usize) -> Self {
        Self { places, lines: vec![Line::default(); classes] }
    }

    pub fn insert(&mut self, graph: &Graph, position: usize, class: usize) {
        let place = self.places.of[position];
        let line = &mut self.lines[class];
        line.all.insert(place);
        if let Some(dense) = dense_of(graph, position) {
            line.of_model.entry(dense).or_default().insert(place);
        }
    }

    pub fn remove(&mut self, graph: &Graph, position: usize, class: usize) {
        let place = self.places.of[position];
        let line = &mut self.lines[class];
        line.all.remove(&place);
        if let Some(model) = dense_of(graph, position).and_then(|dense| line.of_model.get_mut(&dense)) {
            model.remove(&place);
        }
    }

    /// The next stage for a worker of a class (of none: for one that takes everything), of those that `fits` says it can take.
    pub fn best(
        &self,
        graph: &Graph,
        resident: &Resident,
        class: Option<usize>,
        fits: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let lines = class.map_or(&self.lines[..], |class| &self.lines[class..=class]);
        let best = lines.iter().filter_map(|line| self.best_of(line, graph, resident, &fits)).min();
        best.map(|rank| self.stage(rank.4))
    }

    fn stage(&self, place: u32) -> usize {
        self.places.at[place as usize] as usize
    }

    /// Of the first band of a line those of the model that the worker holds, if there are any; of the first half of these those that read
    /// what it has just made; the first of these.
    fn best_of(&self, line: &Line, graph: &Graph, resident: &Resident, fits: impl Fn(usize) -> bool) -> Option<Rank> {
        let places = &self.places;
        let &first = line.all.first()?;
        let held = resident.dense.and_then(|dense| line.of_model.get(&dense)?.first());
        let held = held.filter(|&&place| Places::together(&places.bands, first, place));
        let set = if held.is_some() { resident.dense.and_then(|dense| line.of_model.get(&dense)) } else { None };
        let (set, first) = (set.unwrap_or(&line.all), *held.unwrap_or(&first));
        // A worker asks once after each stage, so over a sweep this looks at every dependence about once.
        let read_it = resident.last.into_iter().flat_map(|last| &graph.stages[last].dependents);
        let read_it = read_it
            .map(|&stage| places.of[stage])
            .filter(|place| Places::together(&places.halves, first, *place) && set.contains(place));
        let read_it = read_it.min();
        let best = read_it.unwrap_or(first);
        let suits = |place: &u32| fits(self.stage(*place));
        let place =
            if suits(&best) { best } else { *set.iter().chain(&line.all).take(LOOKED).find(|place| suits(place))? };
        let part = |firsts: &[u32]| firsts.partition_point(|&first| first <= place);
        Some((part(&places.bands), held.is_none(), part(&places.halves), read_it != Some(place), place))
    }
}
