//! Notes about an unfinished run: what was asked, how far it is, what came out so far.

use std::{collections::BTreeMap, fs, io::Write, path::Path};

use ressa_checkpoint::CheckpointError;
use ressa_experiment::{allocation::Sensitivities, job::Compute};
use ressa_prune::{Visible, statistics::RankDeficit};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::flows::Place;
use crate::LabError;

/// File of the notes.
const NOTES: &str = "progress.json";
/// Largest file that is read; the largest published models need a few hundred kilobytes.
const LIMIT: u64 = 64 << 20;

/// The notes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Notes {
    /// Everything that decides which weights go.
    pub settings: Map<String, Value>,
    /// Steps that are finished.
    pub done: usize,
    /// Hash of the masks so far.
    pub masks: String,
    /// Digests of the tensors that were written.
    pub tensors: BTreeMap<String, String>,
    /// What was measured of layers so far.
    pub sensitivities: Sensitivities,
    /// Layers of which calibration saw too little so far.
    #[serde(default)]
    pub rank: RankDeficit,
    /// Samples that the activations are of.
    pub rows: Vec<Vec<usize>>,
    /// Visual tokens of each sample that count in the statistics, where not all do.
    pub visible: Vec<Visible>,
    /// Activations at the entry of the next step.
    pub flows: Option<Place>,
    /// Bytes of weights and activations that were read.
    pub read: u64,
    /// Bytes of weights and activations that were written.
    pub written: u64,
    /// Seconds of work.
    pub seconds: f64,
    /// Most memory that a process of this work held.
    pub peak: u64,
}

impl Notes {
    /// Notes about nothing done.
    pub fn new(settings: Map<String, Value>) -> Self {
        Self {
            settings,
            done: 0,
            masks: super::MaskHash::default().hex(),
            tensors: BTreeMap::new(),
            sensitivities: Sensitivities::new(),
            rank: RankDeficit::default(),
            rows: Vec::new(),
            visible: Vec::new(),
            flows: None,
            read: 0,
            written: 0,
            seconds: 0.0,
            peak: 0,
        }
    }

    /// The type of the computation in the notes beside an output that is not finished; `None` where there are none.
    pub fn compute(output: &Path) -> Option<Compute> {
        let mut home = output.to_owned().into_os_string();
        home.push(".partial");
        let text = fs::read(Path::new(&home).join(NOTES)).ok().filter(|text| text.len() as u64 <= LIMIT)?;
        let found: Self = serde_json::from_slice(&text).ok()?;
        found.settings.get("dtype")?.as_str()?.parse().ok()
    }

    /// The notes in a folder, if they are about a work with these settings; new ones where there are none.
    ///
    /// # Errors
    /// Notes about other settings, or that cannot be read.
    pub fn resume(folder: &Path, settings: Map<String, Value>) -> Result<Self, LabError> {
        let path = folder.join(NOTES);
        if !path.exists() {
            return Ok(Self::new(settings));
        }
        let length = fs::metadata(&path).map_err(CheckpointError::io("read", &path))?.len();
        if length > LIMIT {
            return Err(LabError::input(&path, "it is too large for notes of an unfinished run"));
        }
        let text = fs::read(&path).map_err(CheckpointError::io("read", &path))?;
        let found: Self = serde_json::from_slice(&text).map_err(|e| {
            LabError::input(&path, format!("it is not as expected ({e}); remove the folder to start again"))
        })?;
        let shown = |value: Option<&Value>| value.map_or_else(|| "the default".to_owned(), |v| format!("`{v}`"));
        let mut names: Vec<&String> = settings.keys().chain(found.settings.keys()).collect();
        names.sort_unstable();
        names.dedup();
        let differ = names.into_iter().filter(|name| settings.get(*name) != found.settings.get(*name));
        let differ: Vec<String> = differ
            .map(|name| format!("`{name}` was {}, is {}", shown(found.settings.get(name)), shown(settings.get(name))))
            .collect();
        if differ.is_empty() {
            return Ok(found);
        }
        let reason = format!(
            "an unfinished run with other settings is there: {}; ask for the same as before, or remove the folder",
            differ.join(", ")
        );
        Err(LabError::input(folder, reason))
    }

    /// Replaces the notes: whatever interrupts it, all of the old ones or all of the new ones are there.
    pub fn save(&self, folder: &Path) -> Result<(), LabError> {
        let (path, fresh) = (folder.join(NOTES), folder.join(format!("{NOTES}.new")));
        let text = serde_json::to_vec(self).map_err(|e| LabError::Unsupported(e.to_string()))?;
        let write = || {
            let mut file = fs::File::create(&fresh)?;
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&fresh, &path)?;
            fs::File::open(folder)?.sync_all()
        };
        Ok(write().map_err(CheckpointError::io("write", &path))?)
    }
}
