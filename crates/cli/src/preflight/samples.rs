//! Samples that corpora have, against those that are asked for.

use std::{collections::BTreeMap, path::Path};

use ressa_data::Captions;
use ressa_experiment::{
    Stage,
    config::{CorporaConfig, DataConfig, DataSource},
};

use super::Preflight;

/// How many entries draws have, by what is drawn from; `None` where the corpora cannot be read, which is said elsewhere.
pub(super) type Draws = BTreeMap<String, Option<usize>>;

/// What a stage would draw.
pub(super) fn look(stage: &Stage, root: &Path, draws: &mut Draws, found: &mut Preflight) {
    let (setting, data, config, asked) = match stage {
        Stage::Prune { data: Some(data), calibration: Some(calibration), .. }
        | Stage::Sensitivity { data, calibration, .. }
        | Stage::Statistics { data, calibration, .. } => {
            ("prune.calibration.images", data, &data.calibration, calibration.images)
        }
        Stage::Adapt { data, training, .. } => {
            ("restore.samples", data, &data.restoration, Captions::asked_for(training))
        }
        _ => return,
    };
    if let Some(there) = available(data, config, asked, root, draws)
        && there < asked as usize
    {
        let corpora: Vec<&str> = config.corpora.iter().map(|corpus| corpus.name()).collect();
        let corpora = corpora.join(", ");
        found.note(
            setting,
            format!("only {there} of {asked} samples are there (corpora: {corpora}); all of them are used"),
        );
    }
}

fn available(data: &DataConfig, config: &CorporaConfig, asked: u32, root: &Path, draws: &mut Draws) -> Option<usize> {
    if data.source != DataSource::Folder {
        return None;
    }
    let folder = root.join(data.root.as_ref()?);
    let drawn = format!("{} {:?} {asked}", folder.display(), config.corpora);
    *draws.entry(drawn).or_insert_with(|| Captions::available(config, &folder, asked as usize).ok())
}
