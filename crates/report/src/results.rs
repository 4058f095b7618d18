//! What published stages found: from the log where nobody touched the output since it was proven, else from its manifest.

use std::{collections::BTreeMap, fs, sync::Arc};

use ressa_experiment::{
    StageKey,
    record::{Certificate, ExternalScores, Score, TaskScore},
};
use ressa_runlog::{Index, Published};
use ressa_store::{Entry, Environment, Store, StoreError};
use serde::{Deserialize, de::DeserializeOwned};

/// File in which an evaluation stores its predictions.
pub(crate) const PREDICTIONS: &str = "predictions.jsonl";

/// What a stage found.
#[derive(Clone, Debug)]
pub(crate) struct Found<T> {
    /// Its result.
    pub result: T,
    /// What it ran on.
    pub environment: Arc<Environment>,
}

/// The scores of an evaluation.
#[derive(Clone, Debug)]
pub(crate) struct Scored {
    /// Its short key, as in the sources of measurements.
    pub source: Arc<str>,
    /// Its own.
    pub score: TaskScore,
    /// Parts that other programs found for its predictions.
    pub external: BTreeMap<String, Score>,
    /// Its predictions.
    pub predictions: Predictions,
}

impl Scored {
    /// A part of the score.
    pub fn part(&self, name: &str) -> Option<&Score> {
        self.external.get(name).or_else(|| self.score.parts.get(name))
    }
}

/// What a stage took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spent {
    /// Wall seconds.
    pub seconds: f64,
    /// Parameters that it trained, those at pruned positions among them, where its result says so.
    pub parameters: Option<f64>,
}

/// The file of an evaluation's predictions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Predictions {
    /// None was published.
    Absent,
    /// One was published; nobody compared it with what is there.
    Unproven,
    /// What is there is what was published.
    Untouched,
}

/// Results of a store, which several threads may ask for.
pub(crate) struct Results<'a> {
    store: &'a Store,
    index: &'a Index,
    /// Whether other programs' scores are kept.
    has_external: bool,
}

/// What the result of a training says, and that of no other stage.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Trained {
    parameters: Option<f64>,
}

impl<'a> Results<'a> {
    /// The results of a store whose log says `index`.
    pub fn new(store: &'a Store, index: &'a Index) -> Self {
        let folder = ExternalScores::path(store.root(), "").parent().map(fs::exists);
        // A folder that cannot be looked at may hold some: each stage is asked then.
        let has_external = folder.is_none_or(|found| found.unwrap_or(true));
        Self { store, index, has_external }
    }

    /// The scores of an evaluation; `None` where they are not there.
    ///
    /// # Errors
    /// A manifest that cannot be read for another reason than damage, or that holds no score.
    pub fn score(&self, key: &StageKey) -> Result<Option<Found<Scored>>, StoreError> {
        let name = key.hex();
        // Scores of other programs name predictions by a digest, which only the manifest has.
        let has_external = self.has_external && ExternalScores::path(self.store.root(), &name).exists();
        if !has_external && let Some((known, score)) = self.logged(key) {
            let is_stored = known.files.iter().any(|file| file == PREDICTIONS);
            let predictions = if is_stored { Predictions::Untouched } else { Predictions::Absent };
            let result = Scored { source: key.short().as_str().into(), score, external: BTreeMap::new(), predictions };
            return Ok(Some(Found { result, environment: Arc::clone(&known.environment) }));
        }
        let Some(entry) = self.entry(key)? else { return Ok(None) };
        let file = entry.manifest.files.get(PREDICTIONS);
        let kept = file.and_then(|file| ExternalScores::read(self.store.root(), &name, &file.blake3));
        let result = Scored {
            source: key.short().as_str().into(),
            score: entry.result()?,
            external: kept.map(|kept| kept.parts).unwrap_or_default(),
            predictions: file.map_or(Predictions::Absent, |_| Predictions::Unproven),
        };
        Ok(Some(Found { result, environment: Arc::new(entry.manifest.environment) }))
    }

    /// What a stage that prunes or merges certified; `None` where it is not there.
    ///
    /// # Errors
    /// As [`Results::score`].
    pub fn certificate(&self, key: &StageKey) -> Result<Option<Found<Certificate>>, StoreError> {
        if let Some((known, result)) = self.logged(key) {
            return Ok(Some(Found { result, environment: Arc::clone(&known.environment) }));
        }
        let Some(entry) = self.entry(key)? else { return Ok(None) };
        let result = entry.result()?;
        Ok(Some(Found { result, environment: Arc::new(entry.manifest.environment) }))
    }

    /// What a stage took; `None` where it is not there.
    ///
    /// # Errors
    /// As [`Results::score`].
    pub fn spent(&self, key: &StageKey) -> Result<Option<Found<Spent>>, StoreError> {
        let of = |seconds, Trained { parameters }| Spent { seconds, parameters };
        if let Some((known, result)) = self.logged::<Trained>(key) {
            let environment = Arc::clone(&known.environment);
            return Ok(Some(Found { result: of(known.seconds, result), environment }));
        }
        let Some(entry) = self.entry(key)? else { return Ok(None) };
        let result = of(entry.manifest.seconds, entry.result().unwrap_or_default());
        Ok(Some(Found { result, environment: Arc::new(entry.manifest.environment) }))
    }

    /// What the log says of an output that is as it was proven, and its result.
    fn logged<T: DeserializeOwned>(&self, key: &StageKey) -> Option<(&Published, T)> {
        let known = self.index.published(key)?;
        known.is_untouched(&self.store.folder(&key.hex())).then_some(known)?.result().map(|result| (known, result))
    }

    /// A stage whose manifest is damaged counts as not there: the next sweep makes it again.
    fn entry(&self, key: &StageKey) -> Result<Option<Entry>, StoreError> {
        match self.store.entry(&key.hex()) {
            Err(e) if e.is_damage() => Ok(None),
            other => other,
        }
    }
}
