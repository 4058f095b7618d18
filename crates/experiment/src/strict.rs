//! Strict YAML files that are no experiments, such as the profiles of clusters: read, checked and pointed at as experiments are.

use std::path::Path;

use serde::de::DeserializeOwned;

use crate::{
    error::{ErrorKind, ExperimentError},
    shape::{Names, unknown_key},
    source::Source,
    yaml::{self, Node, Tree},
};
pub use crate::{
    shape::{Bounds, Field, Need, Shape},
    source::Sort,
};

/// A file whose keys and values have the shapes that were asked for.
#[derive(Clone, Debug)]
pub struct StrictFile {
    tree: Node,
}

impl StrictFile {
    /// Reads a file; `shown` is the path as people wrote it.
    ///
    /// # Errors
    /// The first mistake, with its place.
    pub fn read(path: &Path, shown: &str, sort: Sort, fields: &[Field]) -> Result<Self, ExperimentError> {
        Self::check(&Source::read_as(sort, path, shown)?, fields)
    }

    /// The same of a text that is at hand.
    ///
    /// # Errors
    /// The first mistake, with its place.
    pub fn parse(text: &str, shown: &str, sort: Sort, fields: &[Field]) -> Result<Self, ExperimentError> {
        Self::check(&Source::named(sort, text.into(), shown), fields)
    }

    fn check(source: &std::sync::Arc<Source>, fields: &[Field]) -> Result<Self, ExperimentError> {
        let tree = yaml::parse(source)?;
        let name = source.sort.name;
        let entries = tree.map(name)?;
        for (key, value) in entries {
            let Some(field) = fields.iter().find(|field| field.key == key.text) else {
                return Err(unknown_key(key, name, fields.iter().map(|field| field.key)));
            };
            field.shape.check(field.key, value, &Names::default())?;
        }
        let is_missing =
            |field: &&Field| field.need == Need::Must && !entries.iter().any(|(key, _)| key.text == field.key);
        match fields.iter().find(is_missing) {
            None => Ok(Self { tree }),
            Some(missing) => Err(tree
                .at
                .error(ErrorKind::MissingKey, format!("{name} needs `{}`", missing.key))
                .label(format!("`{}` is missing", missing.key))
                .help(format!("{}: {}", missing.key, missing.doc))),
        }
    }

    /// The values.
    ///
    /// # Errors
    /// A value that `T` does not take, which a shape should have refused.
    pub fn values<T: DeserializeOwned>(&self) -> Result<T, ExperimentError> {
        serde_yaml::from_value(self.tree.value())
            .map_err(|error| self.tree.at.error(ErrorKind::WrongType, format!("cannot be read: {error}")))
    }

    /// The keys of the mapping at a path, in the order of the file; none where there is no mapping.
    pub fn keys(&self, path: &[&str]) -> Vec<&str> {
        match self.find(path).map(|node| &node.tree) {
            Some(Tree::Map(entries)) => entries.iter().map(|(key, _)| key.text.as_str()).collect(),
            _ => Vec::new(),
        }
    }

    /// An error that points at the value of a path of keys, or of as much of it as there is.
    pub fn mistake(&self, path: &[&str], message: String, label: &str, help: String) -> ExperimentError {
        let nearest = (0..=path.len()).rev().find_map(|length| self.find(&path[..length]));
        nearest.unwrap_or(&self.tree).at.error(ErrorKind::BadValue, message).label(label).help(help)
    }

    fn find(&self, path: &[&str]) -> Option<&Node> {
        path.iter().try_fold(&self.tree, |node, part| match &node.tree {
            Tree::Map(entries) => entries.iter().find(|(key, _)| key.text == *part).map(|(_, value)| value),
            _ => None,
        })
    }
}
