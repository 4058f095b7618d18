//! What an interrupted training goes on from: parameters, optimiser, position. Random streams need no saving: they are functions of
//! the step.

use std::path::{Path, PathBuf};

use ressa_runtime::optim::{AdamW, AdamWState};
use tch::Tensor;

use crate::{
    TrainError,
    parameters::{Parameters, TensorMap},
    slots::SlotParts,
};

/// Where a training stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Stage, 0 to 3.
    pub stage: usize,
    /// Steps done in it.
    pub step: u32,
}

/// The checkpoint file of a training.
pub struct Checkpoint {
    path: PathBuf,
}

/// A checkpoint read back.
pub struct Saved {
    /// Where it stands.
    pub position: Position,
    /// State of the stage's optimiser.
    pub optimiser: AdamWState,
    /// The frozen slots, from the third stage on.
    pub target: Option<SlotParts>,
}

impl Checkpoint {
    /// The checkpoint in a folder.
    pub fn in_folder(folder: &Path) -> Self {
        Self { path: folder.join("training.safetensors") }
    }

    /// Replaces the checkpoint of before.
    pub fn save(
        &self,
        position: Position,
        parameters: &Parameters,
        optimiser: &AdamW,
        target: Option<&SlotParts>,
    ) -> Result<(), TrainError> {
        let state = optimiser.state();
        let place = Tensor::from_slice(&[position.stage as i64, i64::from(position.step), state.steps as i64]);
        let mut tensors: Vec<(String, Tensor)> =
            parameters.tensors().iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect();
        tensors.push(("training.position".to_owned(), place));
        tensors.push(("training.first".to_owned(), state.first));
        tensors.push(("training.second".to_owned(), state.second));
        if let Some(target) = target {
            tensors.push(("training.target.words".to_owned(), target.words.shallow_clone()));
            tensors.push(("training.target.place".to_owned(), target.place.shallow_clone()));
            tensors.push(("training.target.empty".to_owned(), target.empty.shallow_clone()));
        }
        Ok(ressa_runtime::replace_tensors(&self.path, &tensors)?)
    }

    /// Reads the checkpoint back into `parameters`; `None` when there is none.
    pub fn load(&self, parameters: &mut Parameters) -> Result<Option<Saved>, TrainError> {
        if !self.path.exists() {
            return Ok(None);
        }
        let tensors = Tensor::read_safetensors(&self.path).map_err(|e| self.error(ressa_runtime::tch_error(&e)))?;
        let tensors: TensorMap = tensors.into_iter().collect();
        let get = |name: &str| {
            tensors.get(name).map(Tensor::shallow_clone).ok_or_else(|| self.error(format!("it has no tensor `{name}`")))
        };
        let place: Vec<i64> =
            Vec::try_from(&get("training.position")?).map_err(|e: tch::TchError| self.error(e.to_string()))?;
        let [stage, step, steps] = place[..] else {
            return Err(self.error("its position is not three numbers".to_owned()));
        };
        let target = match tensors.contains_key("training.target.words") {
            true => Some(SlotParts {
                words: get("training.target.words")?,
                place: get("training.target.place")?,
                empty: get("training.target.empty")?,
            }),
            false => None,
        };
        let optimiser =
            AdamWState { first: get("training.first")?, second: get("training.second")?, steps: steps as u64 };
        parameters.restore(&tensors).map_err(|what| self.error(what))?;
        Ok(Some(Saved { position: Position { stage: stage as usize, step: step as u32 }, optimiser, target }))
    }

    fn error(&self, what: String) -> TrainError {
        TrainError::Checkpoint { path: self.path.clone(), what }
    }
}
