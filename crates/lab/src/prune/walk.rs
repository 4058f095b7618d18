//! The way through the model: towers from the image to the answer, blocks outside, samples inside. A block's weights are looked at, pruned,
//! written and given back before the next one's turn.

use std::{collections::HashMap, time::Instant};

use ressa_checkpoint::Rewrite;
use ressa_data::Processor;
use ressa_experiment::{Tower, config::TokenConfig};
use ressa_models::{Blip2, Flow, LayerId, ModelError, Pages, VisionLanguage};
use ressa_prune::{
    PruneError, PruneRequest, TokenWeights,
    allocation::{Counts, outliers_of},
    block::{BlockObserver, layers_of},
    select::Selection,
    solver::LayerProblem,
    statistics::{ColumnStatistics, Needs},
};
use ressa_runtime::{Device, count_nonzero, is_finite, memory};
use tch::Tensor;

use super::{
    asked::Asked,
    flows::{Flows, NextFlows, sweep},
    masks::{MaskHash, layer_digest},
    notes::Notes,
    samples::Samples,
};
use crate::{LabError, loaded::Reader};

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
pub(super) fn steps(model: &dyn VisionLanguage, asked: &Asked) -> Result<Vec<Step>, LabError> {
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
pub(super) struct Walk<'a> {
    pub model: Blip2,
    /// Opens images, where there are samples.
    pub processor: Option<Processor>,
    pub pages: Pages,
    pub rewrite: &'a Rewrite,
    pub asked: &'a Asked,
    /// Weights that each layer loses where budgets are divided, as soon as that is known.
    pub counts: Option<Counts>,
    /// `None` where only weights are looked at.
    pub samples: Option<Samples>,
    /// Whether activations are held in memory.
    pub keep: bool,
    /// Most bytes that may be resident.
    pub limit: Option<u64>,
    pub notes: Notes,
}

impl Walk<'_> {
    /// Does what is left of the steps; `progress` gets the share done and what is going on.
    pub fn run(&mut self, steps: &[Step], progress: &mut dyn FnMut(f64, &str)) -> Result<(), LabError> {
        let home = self.rewrite.notes().to_owned();
        sweep(&home, self.notes.flows)?;
        let mut flows = self.notes.flows.map(|place| Flows::open(&home, place, self.keep)).transpose()?;
        for at in self.notes.done..steps.len() {
            let start = Instant::now();
            let step = steps[at];
            progress(at as f64 / steps.len() as f64, &describe(step));
            if let Some(Step::Block(_, tower, block)) = steps.get(at + 1) {
                layers_of(&self.model, *tower, *block).for_each(|(_, linear)| self.pages.prefetch(linear.weight()));
            }
            let reads = |step: &&Step| match step {
                Step::Enter(_, tower) => *tower != Tower::Vision,
                Step::Block(pass, ..) => *pass == Pass::Measure || self.asked.calibrates(),
            };
            let next =
                steps.get(at + 1).filter(reads).map(|_| NextFlows::begin(&home, at + 1, self.keep)).transpose()?;
            flows = match step {
                Step::Enter(pass, tower) => self.enter(pass, tower, flows, next)?,
                Step::Block(pass, tower, block) => self.block(pass, tower, block, flows, next)?,
            };
            memory::trim();
            self.rewrite.flush()?;
            self.notes.flows = flows.as_ref().map(Flows::place);
            self.notes.done = at + 1;
            self.notes.seconds += start.elapsed().as_secs_f64();
            self.notes.peak = self.notes.peak.max(ressa_runtime::peak_memory_bytes());
            self.notes.save(&home)?;
            sweep(&home, self.notes.flows)?;
            self.check_limit()?;
        }
        Ok(())
    }

    /// Ends the work when it holds more than it may, whatever was estimated.
    fn check_limit(&self) -> Result<(), LabError> {
        let (peak, mebibytes) = (ressa_runtime::peak_memory_bytes(), |bytes: u64| bytes.div_ceil(1 << 20));
        match self.limit.filter(|&limit| peak > limit) {
            None => Ok(()),
            Some(limit) => Err(LabError::Unsupported(format!(
                "the memory limit of `{}` MiB is too low: {} MiB were resident; raise it and go on, what is done is kept",
                mebibytes(limit),
                mebibytes(peak)
            ))),
        }
    }

    fn enter(
        &mut self,
        pass: Pass,
        tower: Tower,
        before: Option<Flows>,
        next: Option<NextFlows>,
    ) -> Result<Option<Flows>, LabError> {
        let (Some(samples), Some(processor), Some(mut next)) = (&self.samples, &self.processor, next) else {
            return Ok(None);
        };
        let reader = Reader { processor, device: Device::Cpu };
        let (images, texts) = match pass {
            Pass::Measure => samples.first(self.asked.measured()),
            Pass::Prune => samples.first(None),
        };
        self.notes.visible.clear();
        let model = &self.model;
        let lost = || LabError::Unsupported(format!("tower `{tower}` cannot be entered without the one before it"));
        if tower == Tower::Vision {
            for image in images {
                next.push(None, &model.enter_vision(&reader.pixels(image)?))?;
            }
        } else {
            let before = before.as_ref().ok_or_else(lost)?;
            for (at, text) in texts.iter().enumerate() {
                let flow = if tower == Tower::Qformer {
                    let features = model.finish(Tower::Vision, &before.get(text.image)?);
                    model.enter_qformer(&features, &text.prompts)
                } else {
                    let prefix = model.finish(Tower::Qformer, &before.get(at)?);
                    model.enter_language(&prefix, &text.prompts, &text.answer)
                };
                next.push(None, &flow)?;
            }
            self.notes.read += before.bytes();
        }
        // What was touched on the way: the projection, rows of the tables of words.
        self.pages.release_all();
        let (flows, written) = next.finish(None)?;
        self.notes.written += written;
        Ok(Some(flows))
    }

    fn block(
        &mut self,
        pass: Pass,
        tower: Tower,
        block: usize,
        flows: Option<Flows>,
        mut next: Option<NextFlows>,
    ) -> Result<Option<Flows>, LabError> {
        let request = self.asked.towers.get(&tower).copied();
        let layers = || layers_of(&self.model, tower, block);
        let originals: Vec<(String, Tensor)> =
            layers().map(|(id, linear)| (id.name.clone(), linear.weight().shallow_clone())).collect();
        let propagates = pass == Pass::Prune && request.is_some() && self.asked.propagates() && next.is_some();
        // Measurements are of every token, as in an experiment.
        let (needs, tokens) = match (pass, request) {
            (Pass::Prune, Some(request)) => (self.asked.solver.needs(), request.tokens),
            _ => (Needs::NORMS, TokenConfig::default()),
        };
        let mut statistics = None;
        if let Some(flows) = &flows {
            if request.is_some() {
                let (model, visible) = (&self.model, &mut self.notes.visible);
                let mut flow = |at: usize| flows.get(at);
                TokenWeights::new(tokens).look(model, tower, block, flows.len(), &mut flow, visible)?;
            }
            let observer = |_| BlockObserver::new(&self.model, tower, block, needs).weighing(tokens);
            let mut observer = request.map(observer);
            for at in 0..flows.len() {
                let flow = flows.get(at)?;
                let out = match &mut observer {
                    Some(observer) => observer.run(&flow, self.notes.visible.get(at)),
                    None => self.model.run_block(tower, block, &flow),
                };
                if let Some(next) = next.as_mut().filter(|_| !propagates) {
                    next.push(Some(&flow), &out)?;
                }
            }
            self.notes.read += flows.bytes();
            statistics = observer.map(BlockObserver::finish).transpose()?;
        }
        match (pass, request) {
            (_, None) => {}
            (Pass::Measure, Some(_)) => {
                let layers: Vec<_> = layers().collect();
                if let (Some((group, m)), Some(statistics)) = (self.asked.measures()?, &statistics) {
                    self.notes.sensitivities.extend(outliers_of(&layers, statistics, group, m)?);
                }
            }
            (Pass::Prune, Some(request)) => {
                let groups = match statistics {
                    Some(found) => found.into_groups().into_iter().map(|(layers, s)| (layers, Some(s))).collect(),
                    None => originals.iter().map(|(name, _)| (vec![name.clone()], None)).collect(),
                };
                self.prune(&request, block, groups, propagates)?;
            }
        }
        if let (true, Some(flows), Some(next)) = (propagates, &flows, &mut next) {
            for at in 0..flows.len() {
                let flow: Flow = flows.get(at)?;
                next.push(Some(&flow), &self.model.run_block(tower, block, &flow))?;
            }
            self.notes.read += flows.bytes();
        }
        self.restore(originals)?;
        match next {
            Some(next) => {
                let (flows, written) = next.finish(flows)?;
                self.notes.written += written;
                Ok(Some(flows))
            }
            None => Ok(None),
        }
    }

    /// Prunes the groups of a block and writes what comes out. With `propagates` the block goes on with it.
    fn prune(
        &mut self,
        request: &PruneRequest,
        block: usize,
        groups: Vec<(Vec<String>, Option<ColumnStatistics>)>,
        propagates: bool,
    ) -> Result<(), LabError> {
        let tower = request.tower;
        if self.counts.is_none() {
            self.counts = self.asked.counts(&self.model, &self.notes.sensitivities)?;
        }
        let mut digests = HashMap::new();
        for (names, statistics) in groups {
            let weights: Vec<(String, Tensor)> = layers_of(&self.model, tower, block)
                .filter(|(id, _)| names.contains(&id.name))
                .map(|(id, linear)| (id.name.clone(), linear.weight().shallow_clone()))
                .collect();
            let selection = |(name, weight): &(String, Tensor)| {
                Ok(request.of_layer(name, weight.size2().map_err(torch)?, self.counts.as_ref())?)
            };
            let selections = weights.iter().map(selection).collect::<Result<Vec<Selection>, LabError>>()?;
            let problems: Vec<LayerProblem<'_>> = weights
                .iter()
                .zip(&selections)
                .map(|((name, weight), &selection)| LayerProblem { name, weight, selection })
                .collect();
            let solutions = self.asked.solver.solve(&problems, statistics.as_ref())?;
            drop(statistics);
            for (((name, weight), &selection), solution) in weights.iter().zip(&selections).zip(solutions) {
                let keep = solution.keep;
                let sparse = match solution.weight {
                    Some(sparse) => sparse,
                    None => weight.f_masked_fill(&keep.f_logical_not().map_err(torch)?, 0.0).map_err(torch)?,
                };
                drop(solution.importance);
                self.pages.release(weight);
                if request.is_exact() {
                    promise(name, &keep, selection)?;
                }
                digests.insert(name.clone(), layer_digest(name, &keep)?);
                drop(keep);
                self.write(name, &sparse)?;
                if propagates {
                    self.replace(name, sparse)?;
                }
            }
        }
        let mut masks = MaskHash::from_hex(&self.notes.masks).unwrap_or_default();
        for (id, _) in layers_of(&self.model, tower, block) {
            let unsolved = || LabError::Unsupported(format!("`{}` was left out", id.name));
            masks.add_digest(digests.get(&id.name).ok_or_else(unsolved)?);
        }
        self.notes.masks = masks.hex();
        Ok(())
    }

    fn write(&mut self, layer: &str, weight: &Tensor) -> Result<(), LabError> {
        let name = format!("{layer}.weight");
        if !is_finite(weight) {
            return Err(PruneError::NotFiniteWeight { layer: layer.to_owned() }.into());
        }
        let plain = weight.f_contiguous().map_err(torch)?;
        let mut bytes = vec![0; plain.numel() * plain.kind().elt_size_in_bytes()];
        plain.f_copy_data_u8(&mut bytes, plain.numel()).map_err(torch)?;
        let digest = self.rewrite.put(&name, &bytes)?;
        self.notes.written += bytes.len() as u64;
        self.notes.tensors.insert(name, digest);
        Ok(())
    }

    fn replace(&mut self, layer: &str, weight: Tensor) -> Result<(), LabError> {
        let is_it = |id: &LayerId| id.name == layer;
        if let Some((_, linear)) = self.model.linears_mut().into_iter().find(|(id, _)| is_it(id)) {
            linear.set_weight(weight)?;
        }
        Ok(())
    }

    /// Puts the mapped weights of a block back in their places and gives their pages back.
    fn restore(&mut self, originals: Vec<(String, Tensor)>) -> Result<(), LabError> {
        let originals: HashMap<String, Tensor> = originals.into_iter().collect();
        for (id, linear) in self.model.linears_mut() {
            if let Some(weight) = originals.get(&id.name) {
                self.notes.read += (weight.numel() * weight.kind().elt_size_in_bytes()) as u64;
                self.pages.release(weight);
                linear.set_weight(weight.shallow_clone())?;
            }
        }
        Ok(())
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

/// Whether a mask prunes what was asked for, to one weight.
fn promise(layer: &str, keep: &Tensor, selection: Selection) -> Result<(), LabError> {
    let (rows, columns) = keep.size2().map_err(torch)?;
    let pruned = rows * columns - count_nonzero(keep) as i64;
    match selection.pruned_in(rows, columns) {
        Some(expected) if expected != pruned => Err(LabError::Unsupported(format!(
            "`{layer}`: the mask prunes {pruned} weights, {expected} were asked for; please report this"
        ))),
        _ => Ok(()),
    }
}

fn torch(error: tch::TchError) -> LabError {
    ModelError::from(error).into()
}
