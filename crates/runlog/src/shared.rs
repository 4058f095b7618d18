//! Values that many records have in common: each is held once.

use std::{collections::HashSet, hash::Hash, sync::Arc};

use ressa_store::Environment;

use crate::{LogPart, Published};

/// One of each text, environment and list of files. Equal values that went through here have equal addresses.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shared {
    texts: HashSet<Arc<str>>,
    environments: HashSet<Arc<Environment>>,
    lists: HashSet<Arc<[String]>>,
}

impl Shared {
    pub fn text(&mut self, text: Arc<str>) -> Arc<str> {
        one(&mut self.texts, text)
    }

    pub fn environment(&mut self, environment: Arc<Environment>) -> Arc<Environment> {
        one(&mut self.environments, environment)
    }

    pub fn list(&mut self, list: Arc<[String]>) -> Arc<[String]> {
        one(&mut self.lists, list)
    }

    pub fn part(&mut self, part: LogPart) -> LogPart {
        LogPart { file: self.text(part.file), ..part }
    }

    pub fn published(&mut self, record: Published) -> Published {
        Published {
            kind: self.text(record.kind),
            detail: self.text(record.detail),
            model: self.text(record.model),
            files: self.list(record.files),
            environment: self.environment(record.environment),
            ..record
        }
    }
}

/// The value of `known` that equals `value`, which is put in where there is none.
fn one<T: ?Sized + Eq + Hash>(known: &mut HashSet<Arc<T>>, value: Arc<T>) -> Arc<T> {
    if let Some(same) = known.get(&value) {
        return Arc::clone(same);
    }
    known.insert(Arc::clone(&value));
    value
}
