//! The way through a folder: towers from the image to the answer, blocks outside, samples inside. A block's weights are looked at, pruned, written
//! and given back before the next one is brought.

use std::time::{Duration, Instant};

use ressa_checkpoint::Rewrite;
use ressa_experiment::{Tower, config::TokenConfig};
use ressa_models::{LayerId, VisionLanguage};
use ressa_prune::{
    allocation::{Counts, outliers_of},
    statistics::Needs,
    walk::{Blocks, Flows, Look, Onward, Place, Together, Walk, layers_of, solve},
};
use ressa_runtime::{Device, memory};

use super::{
    flows::{Lasting, sweep},
    masks::MaskHash,
    notes::Notes,
    output::Output,
    settings::PruneSettings,
};
use crate::{LabError, calibration::Samples, loaded::Reader};

/// What the model is walked through for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pass {
    /// To measure the dense layers, before budgets are divided.
    Measure,
    /// To prune.
    Prune,
}

/// One step. Whatever interrupts the work, at most one is done again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// From what left the tower before, or from pixels, to what enters this one.
    Enter(Pass, Tower),
    /// All samples through a block, which is measured or pruned on the way if its tower is.
    Block(Pass, Tower, usize),
}

/// The steps of a work. Towers beyond the last pruned one are not run; without calibration only pruned blocks are visited.
///
/// # Errors
/// A measurement that is not made a block at a time.
pub(super) fn steps(model: &dyn VisionLanguage, asked: &PruneSettings) -> Result<Vec<Step>, LabError> {
    let last = Tower::ALL.iter().rposition(|&tower| asked.prunes(tower)).map_or(0, |last| last + 1);
    let measure = asked.measures()?.map(|_| (Pass::Measure, true));
    let mut steps = Vec::new();
    for (pass, runs) in measure.into_iter().chain([(Pass::Prune, asked.calibrates())]) {
        for &tower in Tower::ALL[..last].iter().filter(|&&tower| runs || asked.prunes(tower)) {
            if runs {
                steps.push(Step::Enter(pass, tower));
            }
            steps.extend((0..model.blocks(tower)).map(|block| Step::Block(pass, tower, block)));
        }
    }
    Ok(steps)
}

/// A work under way.
pub(super) struct Work<'a> {
    pub walk: Walk<Output<'a>, Lasting>,
    pub rewrite: &'a Rewrite,
    pub asked: &'a PruneSettings,
    /// Weights that each layer loses where budgets are divided, as soon as that is known.
    pub counts: Option<Counts>,
    /// Samples, and what feeds the network with them; `None` where only weights are looked at.
    pub samples: Option<(&'a Samples, Reader<'a>)>,
    /// Most bytes that may be resident.
    pub limit: Option<u64>,
    /// Work that may be lost when the process is killed.
    pub checkpoint_after: Duration,
    pub notes: Notes,
}

impl Work<'_> {
    /// Does what is left of the steps; `progress` gets the share done and what is going on.
    ///
    /// # Errors
    /// Whatever keeps a step from being done.
    pub fn run(&mut self, steps: &[Step], progress: &mut dyn FnMut(f64, &str)) -> Result<(), LabError> {
        let mut saved = Instant::now();
        for at in self.notes.done..steps.len() {
            let start = Instant::now();
            let step = steps[at];
            progress(at as f64 / steps.len() as f64, &describe(step));
            if let Some(&Step::Block(_, tower, block)) = steps.get(at + 1) {
                self.walk.blocks.expect(Place { tower, block });
            }
            let reads = |step: &Step| match step {
                Step::Enter(_, tower) => *tower != Tower::Vision,
                Step::Block(pass, ..) => *pass == Pass::Measure || self.asked.calibrates(),
            };
            let hands_on = steps.get(at + 1).is_some_and(reads);
            match step {
                Step::Enter(pass, tower) => self.enter(pass, tower)?,
                Step::Block(pass, tower, block) => self.block(pass, Place { tower, block }, hands_on)?,
            }
            if !hands_on {
                self.walk.flows.forget();
            }
            self.notes.done = at + 1;
            self.notes.seconds += start.elapsed().as_secs_f64();
            self.notes.peak = self.notes.peak.max(ressa_runtime::peak_memory_bytes());
            self.note_traffic();
            if saved.elapsed() >= self.checkpoint_after || at + 1 == steps.len() {
                self.save()?;
                saved = Instant::now();
            }
            memory::trim();
            self.check_limit()?;
        }
        Ok(())
    }

    /// Makes everything that is done last.
    fn save(&mut self) -> Result<(), LabError> {
        let home = self.rewrite.notes();
        self.notes.flows = self.walk.flows.store()?;
        self.note_traffic();
        self.rewrite.flush()?;
        self.notes.rows.clone_from(&self.walk.layout().rows);
        self.notes.visible.clone_from(&self.walk.layout().visible);
        self.notes.save(home)?;
        sweep(home, self.notes.flows)
    }

    fn note_traffic(&mut self) {
        let (read, written) = self.walk.flows.traffic();
        let (tensors, bytes) = self.walk.blocks.written();
        self.notes.read += read + std::mem::take(&mut self.walk.blocks.from.read);
        self.notes.written += written + bytes;
        self.notes.tensors.extend(tensors);
    }

    /// Ends the work when it holds more than it may, whatever was estimated.
    fn check_limit(&self) -> Result<(), LabError> {
        let (peak, mebibytes) = (ressa_runtime::peak_memory_bytes(), |bytes: u64| bytes.div_ceil(1 << 20));
        match self.limit.filter(|&limit| peak > limit) {
            None => Ok(()),
            Some(limit) => Err(LabError::Unsupported(format!(
                "the memory limit of `{}` MiB is too low: {} MiB were resident; raise it and start again, what is done is kept",
                mebibytes(limit),
                mebibytes(peak)
            ))),
        }
    }

    /// What the layers of a tower are looked at for.
    fn look(&self, pass: Pass, tower: Tower) -> Option<Look> {
        // Measurements are of every token, as in an experiment.
        self.asked.towers.get(&tower).map(|request| match pass {
            Pass::Prune => Look { needs: self.asked.solver.needs(), tokens: request.tokens },
            Pass::Measure => Look { needs: Needs::NORMS, tokens: TokenConfig::default() },
        })
    }

    fn enter(&mut self, pass: Pass, tower: Tower) -> Result<(), LabError> {
        let Some((samples, reader)) = self.samples else { return Ok(()) };
        let read = match pass {
            Pass::Measure => samples.first(self.asked.measured(), reader),
            Pass::Prune => samples.first(None, reader),
        };
        let unseen = Look { needs: Needs::WEIGHT, tokens: TokenConfig::default() };
        let together = match self.limit {
            Some(_) if self.walk.blocks.device() == Device::Cpu => Together::Alone,
            _ => Together::on(self.walk.blocks.device(), self.look(pass, tower).unwrap_or(unseen)),
        };
        self.walk.enter(tower, &read, together)?;
        // What was touched on the way: the projection, rows of the tables of words.
        self.walk.blocks.from.release_all();
        Ok(())
    }

    fn block(&mut self, pass: Pass, place: Place, hands_on: bool) -> Result<(), LabError> {
        let runs = !self.walk.flows.is_empty();
        let look = self.look(pass, place.tower).filter(|_| runs);
        let Self { walk, asked, counts, notes, .. } = self;
        let request = asked.towers.get(&place.tower);
        let carries = pass == Pass::Prune && request.is_some() && asked.propagates() && hands_on;
        let onward = match (hands_on && runs, carries) {
            (false, _) => Onward::Nowhere,
            (true, false) => Onward::Before,
            (true, true) => Onward::After,
        };
        walk.block(place, look, onward, &mut |output, statistics| match (pass, request) {
            (_, None) => Ok(()),
            (Pass::Measure, Some(_)) => {
                let layers: Vec<_> = layers_of(output.model(), place).collect();
                if let Some((group, m)) = asked.measures()? {
                    notes.sensitivities.extend(outliers_of(&layers, &statistics, group, m)?);
                }
                Ok(())
            }
            (Pass::Prune, Some(request)) => {
                if counts.is_none() {
                    *counts = asked.counts(output.model(), &notes.sensitivities)?;
                }
                output.exact = request.is_exact();
                let of_layer = |id: &LayerId, shape| request.of_layer(&id.name, shape, counts.as_ref());
                notes.rank.extend(solve(output, place, statistics, asked.solver.as_ref(), &of_layer, carries)?);
                let mut masks = MaskHash::from_hex(&notes.masks).unwrap_or_default();
                output.add_masks(place, &mut masks)?;
                notes.masks = masks.hex();
                Ok(())
            }
        })
    }
}

/// What is going on, for people.
fn describe(step: Step) -> String {
    match step {
        Step::Enter(_, tower) => format!("entering {tower}"),
        Step::Block(Pass::Measure, tower, block) => format!("measuring {tower} block {block}"),
        Step::Block(Pass::Prune, tower, block) => format!("{tower} block {block}"),
    }
}
