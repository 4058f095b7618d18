//! The stages that can be started, in line, and the best of them for a worker.

use std::collections::{BTreeSet, HashMap};

use super::{Resident, dense_of, order::Places};
use crate::Graph;

/// Ready stages by their places.
#[derive(Debug)]
pub(super) struct Ready {
    places: Places,
    all: BTreeSet<u32>,
    /// The same by dense model.
    of_model: HashMap<usize, BTreeSet<u32>>,
}

impl Ready {
    pub fn new(places: Places) -> Self {
        Self { places, all: BTreeSet::new(), of_model: HashMap::new() }
    }

    pub fn insert(&mut self, graph: &Graph, position: usize) {
        let place = self.places.of[position];
        self.all.insert(place);
        if let Some(dense) = dense_of(graph, position) {
            self.of_model.entry(dense).or_default().insert(place);
        }
    }

    pub fn remove(&mut self, graph: &Graph, position: usize) {
        let place = self.places.of[position];
        self.all.remove(&place);
        if let Some(model) = dense_of(graph, position).and_then(|dense| self.of_model.get_mut(&dense)) {
            model.remove(&place);
        }
    }

    /// The next stage for a worker: of the first band those of the model it holds, if there are any; of the first half of these those that
    /// read what it has just made; the first of these.
    pub fn best(&self, graph: &Graph, resident: &Resident) -> Option<usize> {
        let places = &self.places;
        let &first = self.all.first()?;
        let held = resident.dense.and_then(|dense| self.of_model.get(&dense)?.first());
        let held = held.filter(|&&place| Places::together(&places.bands, first, place));
        let set = if held.is_some() { resident.dense.and_then(|dense| self.of_model.get(&dense)) } else { None };
        let (set, first) = (set.unwrap_or(&self.all), *held.unwrap_or(&first));
        // A worker asks once after each stage, so over a sweep this looks at every dependence about once.
        let read_it = resident.last.into_iter().flat_map(|last| &graph.stages[last].dependents);
        let read_it = read_it
            .map(|&stage| places.of[stage])
            .filter(|place| Places::together(&places.halves, first, *place) && set.contains(place));
        Some(places.at[read_it.min().unwrap_or(first) as usize] as usize)
    }
}
