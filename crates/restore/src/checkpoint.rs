//! The state of an unfinished training on disk: one file, replaced atomically.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    time::{Duration, Instant},
};

use ressa_runtime::optim::AdamWState;
use tch::Tensor;

use crate::{RestoreError, step::StepLoss};

/// Where an unfinished training is kept, and when it is written.
#[derive(Clone, Debug)]
pub struct Checkpoints {
    /// An existing folder of this training alone.
    pub folder: PathBuf,
    /// When it is written.
    pub every: Interval,
}

/// Time between two checkpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interval {
    /// So many steps; at least 1.
    Steps(u32),
    /// At least this time, and at least twenty times as long as writing took.
    Time(Duration),
}

/// Writes checkpoints when they are due.
pub(crate) struct Clock<'a> {
    checkpoints: &'a Checkpoints,
    last: Instant,
    wait: Duration,
}

impl Clock<'_> {
    /// Whether a checkpoint is to be written after so many steps.
    pub fn is_due(&self, steps: u32) -> bool {
        match self.checkpoints.every {
            Interval::Steps(every) => steps.is_multiple_of(every.max(1)),
            Interval::Time(_) => self.last.elapsed() >= self.wait,
        }
    }

    /// Replaces the checkpoint.
    pub fn write(&mut self, identity: &str, saved: &Saved) -> Result<(), RestoreError> {
        /// Writing takes at most a twentieth of the time.
        const SHARE: u32 = 20;
        let start = Instant::now();
        self.checkpoints.write(identity, saved)?;
        self.last = Instant::now();
        self.wait = self.wait.max((self.last - start) * SHARE);
        Ok(())
    }
}

/// What is on disk.
pub(crate) struct Saved {
    /// Everything that trains, flat, in parameter order.
    pub parameters: Tensor,
    /// Optimiser.
    pub optimiser: AdamWState,
    /// Losses of the steps done, one per step.
    pub losses: Vec<StepLoss>,
    /// What else the training needs, by name.
    pub more: BTreeMap<String, Tensor>,
}

impl Checkpoints {
    pub(crate) fn clock(&self) -> Clock<'_> {
        let wait = match self.every {
            Interval::Steps(_) => Duration::ZERO,
            Interval::Time(wait) => wait,
        };
        Clock { checkpoints: self, last: Instant::now(), wait }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.join("training.safetensors")
    }

    /// Replaces the checkpoint. `identity` tells this training from others.
    pub(crate) fn write(&self, identity: &str, saved: &Saved) -> Result<(), RestoreError> {
        let rows: Vec<f64> = saved.losses.iter().flat_map(|loss| loss.to_row()).collect();
        let own = [
            ("identity".to_owned(), Tensor::from_slice(identity.as_bytes())),
            ("losses".to_owned(), Tensor::from_slice(&rows)),
            ("optimiser.steps".to_owned(), Tensor::from_slice(&[saved.optimiser.steps as i64])),
            ("parameters".to_owned(), saved.parameters.shallow_clone()),
            ("optimiser.first".to_owned(), saved.optimiser.first.shallow_clone()),
            ("optimiser.second".to_owned(), saved.optimiser.second.shallow_clone()),
        ];
        let more = saved.more.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone()));
        let tensors: Vec<(String, Tensor)> = own.into_iter().chain(more).collect();
        Ok(ressa_runtime::replace_tensors(&self.path(), &tensors)?)
    }

    /// The checkpoint, if there is one. One of another training is an error.
    pub(crate) fn read(&self, identity: &str) -> Result<Option<Saved>, RestoreError> {
        let path = self.path();
        if !path.exists() {
            return Ok(None);
        }
        let failed = |reason: String| RestoreError::Checkpoint { path: path.clone(), reason };
        let tensors = Tensor::read_safetensors(&path)
            .map_err(|e| failed(format!("{}; delete it to start again", ressa_runtime::tch_error(&e))))?;
        let tensors: BTreeMap<String, Tensor> = tensors.into_iter().collect();
        let incomplete = || failed("it is incomplete; delete it to start again".to_owned());
        let take = |name: &str| tensors.get(name).map(Tensor::shallow_clone).ok_or_else(incomplete);
        if Vec::<u8>::try_from(take("identity")?).ok().as_deref() != Some(identity.as_bytes()) {
            return Err(failed("it belongs to another training; delete it to start again".to_owned()));
        }
        let rows = Vec::<f64>::try_from(take("losses")?).map_err(|_| incomplete())?;
        Ok(Some(Saved {
            parameters: take("parameters")?,
            optimiser: AdamWState {
                first: take("optimiser.first")?,
                second: take("optimiser.second")?,
                steps: u64::try_from(take("optimiser.steps")?.int64_value(&[0])).map_err(|_| incomplete())?,
            },
            losses: StepLoss::from_rows(&rows),
            more: tensors,
        }))
    }
}
