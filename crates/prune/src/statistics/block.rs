//! Statistics of the layers of one block, and the file that holds them.

use std::{collections::BTreeMap, path::Path, rc::Rc};

use ressa_models::{TensorMap, weights};
use tch::{Device, Tensor};

use super::{ColumnStatistics, Needs};
use crate::error::PruneError;

/// The header entry of stored statistics: the layers of each group.
const LAYERS: &str = "ressa.statistics";

/// Statistics of one block's layers. Layers that read the same input, such as q, k and v, share theirs.
#[derive(Clone, Debug, Default)]
pub struct BlockStatistics {
    groups: Vec<(Vec<String>, Rc<ColumnStatistics>)>,
}

impl BlockStatistics {
    /// Statistics with the layers that each is of.
    pub(crate) fn new(groups: Vec<(Vec<String>, ColumnStatistics)>) -> Self {
        Self { groups: groups.into_iter().map(|(layers, seen)| (layers, Rc::new(seen))).collect() }
    }

    /// The statistics of a layer, by module path.
    pub fn get(&self, layer: &str) -> Option<&ColumnStatistics> {
        self.groups.iter().find(|(layers, _)| layers.iter().any(|name| name == layer)).map(|(_, seen)| seen.as_ref())
    }

    /// Takes the statistics of other layers in.
    pub fn extend(&mut self, other: BlockStatistics) {
        self.groups.extend(other.groups);
    }

    /// For statistics that are read again and again: what methods make of them alone is kept with them, at the cost of its memory.
    pub fn remember(&mut self) {
        self.groups
            .iter_mut()
            .filter_map(|(_, statistics)| Rc::get_mut(statistics))
            .for_each(ColumnStatistics::remember);
    }

    /// What is collected of every layer.
    pub fn collects(&self) -> Needs {
        self.groups.first().map_or(Needs::WEIGHT, |(_, statistics)| statistics.collects())
    }

    /// Writes the statistics: tensors of [`ColumnStatistics::to_tensors`] behind the group's number, the groups' layers in the header.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), PruneError> {
        let mut tensors = TensorMap::new();
        let mut layers = Vec::new();
        for (group, (names, statistics)) in self.groups.iter().enumerate() {
            layers.push(names);
            tensors.extend(statistics.to_tensors().into_iter().map(|(name, t)| (format!("{group}.{name}"), t)));
        }
        let layers = serde_json::to_string(&layers).map_err(|e| PruneError::Statistics { reason: e.to_string() })?;
        Ok(weights::write(path, &tensors, (LAYERS, layers))?)
    }

    /// Reads what [`BlockStatistics::save`] wrote.
    ///
    /// # Errors
    /// A file of something else; statistics that do not fit together.
    pub fn load(path: &Path, device: Device) -> Result<Self, PruneError> {
        let broken = |reason: String| PruneError::Statistics { reason: format!("`{}`: {reason}", path.display()) };
        let (tensors, layers) = weights::read(path, LAYERS)?;
        let layers = layers.ok_or_else(|| broken("it holds none".to_owned()))?;
        let layers: Vec<Vec<String>> = serde_json::from_str(&layers).map_err(|e| broken(e.to_string()))?;
        let mut of_groups: Vec<BTreeMap<String, Tensor>> = layers.iter().map(|_| BTreeMap::new()).collect();
        for (name, tensor) in tensors {
            let (group, part) = name.split_once('.').unwrap_or((&name, ""));
            let group = group.parse::<usize>().ok().and_then(|group| of_groups.get_mut(group));
            let group = group.ok_or_else(|| broken(format!("`{name}` belongs to no group")))?;
            group.insert(part.to_owned(), tensor);
        }
        let groups = layers.into_iter().zip(of_groups).map(|(layers, tensors)| {
            let statistics = ColumnStatistics::from_tensors(tensors, device)?;
            if layers.is_empty() { Err(broken("a group has no layers".to_owned())) } else { Ok((layers, statistics)) }
        });
        Ok(Self::new(groups.collect::<Result<_, PruneError>>()?))
    }

    /// As [`BlockStatistics::groups`], for those who let go of each as they go along.
    pub fn into_groups(self) -> Vec<(Vec<String>, Rc<ColumnStatistics>)> {
        self.groups
    }

    /// Layers that read the same input, in the order in which they run, with what they see.
    pub fn groups(&self) -> impl Iterator<Item = (&[String], &ColumnStatistics)> {
        self.groups.iter().map(|(layers, statistics)| (layers.as_slice(), statistics.as_ref()))
    }
}
