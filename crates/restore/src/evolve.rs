//! Masks that change while a training runs: every so often kept weights are exchanged for pruned ones, within the budget of each layer.
//!
//! Before such a step, the gradient of the step's batch is taken with respect to all effective weights (a few layers at a time, so that of these memory does
//! not grow with the model; what was decided takes two bytes a weight until then), every layer decides, and then all masks change together. What grows starts
//! at zero: its stored value becomes what a low-rank update would add there, negated, in the type of the weight; an update of single elements starts again
//! there, its optimiser too. So the stored weights of a layer change with its mask, and both are part of what a training publishes.

use std::collections::BTreeMap;

use rand::Rng;
use ressa_experiment::{
    Pattern,
    evolve::{Drop, EvolveConfig, Growth, WEIGHTS_AT_ONCE},
    stage::AdaptTraining,
};
use ressa_models::{
    Cuts, Full, KeepMask, LayerCut, MaskSet, ModelError, Update, UpdateSet, VisionLanguage, Weight, WeightSet,
};
use ressa_runtime::{count_nonzero, optim::FlatAdamW, stream};
use tch::{Kind, Tensor, no_grad};

use crate::{
    RestoreError,
    batch::TrainingBatch,
    exchange::{Exchange, Groups, exchange},
    penalty::by_key,
    stepper::Stepper,
    teacher::Teacher,
};

/// What masks that change are held to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Budgets<'a> {
    /// Pattern of each pruned layer, in what is left of it.
    pub patterns: Option<&'a BTreeMap<String, Pattern>>,
    /// What structured removal has left: nothing else grows.
    pub cuts: Option<&'a Cuts>,
}

/// What became of masks during a training.
#[derive(Debug, Default)]
pub struct Evolution {
    /// The new masks of the layers whose masks could change.
    pub masks: MaskSet,
    /// The stored weights that belong to them, zero where pruned: the ones before, and what has grown at its beginning.
    pub weights: WeightSet,
    /// How often weights were exchanged.
    pub exchanges: u32,
    /// Weights that were exchanged, over all exchanges.
    pub exchanged: u64,
    /// Share of the weights kept at the end that have grown on the way.
    pub grown: f64,
}

/// Changes the masks of a student.
pub(crate) struct Evolver {
    config: EvolveConfig,
    steps: u32,
    align: u32,
    seed: u64,
    layers: BTreeMap<String, Layer>,
    exchanged: u64,
}

/// A layer whose mask changes.
struct Layer {
    groups: Groups,
    cut: LayerCut,
    /// Kept weights whose stored value is not the one of the beginning, bool `[out, in]`.
    grown: Tensor,
    /// The number of its parameter, where its elements train one by one.
    delta: Option<usize>,
    numel: u64,
}

impl Evolver {
    /// For a student with masks and updates; nothing where masks stay as they are. `names` are those of the weights of all parameters.
    pub fn of(
        student: &dyn VisionLanguage,
        settings: &AdaptTraining,
        budgets: Budgets<'_>,
        names: &[String],
        seed: u64,
    ) -> Option<Self> {
        let AdaptTraining { evolve: config, steps, align, .. } = *settings;
        if !config.is_on() {
            return None;
        }
        let mut layers = BTreeMap::new();
        for (id, linear) in student.linears() {
            let matrix = linear.matrix();
            let (Some(keep), Some(update)) = (matrix.keep(), matrix.update()) else { continue };
            let cut = budgets.cuts.and_then(|cuts| cuts.layer(&id.name)).cloned().unwrap_or_default();
            let (rows, columns) = cut.size(linear.shape());
            if rows == 0 || columns == 0 {
                // Removed as a whole: there is nothing to exchange.
                continue;
            }
            let groups = match budgets.patterns.and_then(|patterns| patterns.get(&id.name)) {
                Some(Pattern::NOfM { of, .. }) if columns % i64::from(*of) == 0 => Groups::Cells(i64::from(*of)),
                // Its groups are no groups of this layer.
                Some(Pattern::NOfM { .. }) => continue,
                Some(Pattern::Unstructured) | None if has_equal_rows(&cut.of(&keep.keep())) => Groups::Rows,
                Some(Pattern::Unstructured) | None => Groups::Matrix,
            };
            let is_full = update.kind() == Full::KIND;
            let delta = names.iter().position(|name| is_full && name == matrix.key());
            let grown = keep.keep().zeros_like();
            layers.insert(matrix.key().to_owned(), Layer { groups, cut, grown, delta, numel: keep.numel() });
        }
        Some(Self { config, steps, align, seed, layers, exchanged: 0 })
    }

    /// The share of the kept weights that is exchanged before a step; nothing where none are.
    pub fn share_at(&self, step: u32) -> Option<f64> {
        self.config.share_at(step, self.steps, self.align)
    }

    /// Exchanges a share of the weights before a step, by its batch.
    ///
    /// # Errors
    /// As a step.
    pub fn exchange(
        &mut self,
        stepper: &mut Stepper<'_>,
        optimiser: &mut FlatAdamW,
        (step, share): (u32, f64),
        batch: &TrainingBatch,
        mut teacher: Option<&mut Teacher<'_>>,
    ) -> Result<(), RestoreError> {
        let mut decided: BTreeMap<String, Exchange> = BTreeMap::new();
        for piece in self.pieces() {
            let found = match self.config.needs_gradient() {
                true => {
                    let found = stepper.dense_gradients(step, batch, teacher.as_deref_mut(), &piece)?;
                    found.into_iter().map(Some).collect()
                }
                false => piece.iter().map(|_| None).collect::<Vec<_>>(),
            };
            let weights = by_key(stepper.student);
            for (name, gradient) in piece.into_iter().zip(found) {
                let exchange = no_grad(|| self.decide(&weights, &name, gradient, (step, share)));
                if let Some(exchange) = exchange {
                    decided.insert(name, exchange);
                }
            }
        }
        no_grad(|| self.apply(stepper.student, optimiser, &decided))
    }

    /// Layers some at a time.
    fn pieces(&self) -> Vec<Vec<String>> {
        let (mut pieces, mut held): (Vec<Vec<String>>, u64) = (Vec::new(), 0);
        for (name, layer) in &self.layers {
            match pieces.last_mut().filter(|_| held + layer.numel <= WEIGHTS_AT_ONCE) {
                Some(piece) => piece.push(name.clone()),
                None => {
                    pieces.push(vec![name.clone()]);
                    held = 0;
                }
            }
            held += layer.numel;
        }
        pieces
    }

    fn decide(
        &self,
        weights: &BTreeMap<&str, &Weight>,
        name: &str,
        gradient: Option<Tensor>,
        (step, share): (u32, f64),
    ) -> Option<Exchange> {
        let layer = self.layers.get(name)?;
        let weight = weights.get(name)?;
        let keep = weight.keep()?.keep();
        let effective = weight.effective(Kind::Float);
        let importance = match (self.config.drop, &gradient) {
            (Drop::Sensitivity, Some(gradient)) => (effective * gradient).abs(),
            _ => effective.abs(),
        };
        let promise = match (self.config.grow, gradient) {
            (Growth::Gradient, Some(gradient)) => gradient.abs(),
            _ => random(&importance, self.seed, &format!("growth {step} {name}")),
        };
        let left = |matrix: &Tensor| layer.cut.of(matrix);
        let Exchange { dropped, grown } =
            exchange(&left(&keep), &left(&importance), &left(&promise), share, layer.groups);
        let size = keep.size();
        let whole = |flags: &Tensor| layer.cut.spread(flags, (size[0], size[1]));
        Some(Exchange { dropped: whole(&dropped), grown: whole(&grown) })
    }

    fn apply(
        &mut self,
        student: &mut dyn VisionLanguage,
        optimiser: &mut FlatAdamW,
        decided: &BTreeMap<String, Exchange>,
    ) -> Result<(), RestoreError> {
        for weight in student.weights_mut() {
            let found = decided.get(weight.key()).zip(self.layers.get_mut(weight.key()));
            let Some((Exchange { dropped, grown }, layer)) = found else { continue };
            let changed = dropped.logical_or(grown);
            let start = match (layer.delta, weight.update()) {
                (None, Some(update)) => {
                    let added = update.form(&weight.base().zeros_like(), None, Kind::Float);
                    added.neg().to_kind(weight.base().kind())
                }
                _ => weight.base().zeros_like(),
            };
            let base = start.where_self(grown, &weight.base().masked_fill(dropped, 0.0));
            if let Some(at) = layer.delta {
                optimiser.reset(at, &changed);
            }
            layer.grown = layer.grown.logical_and(&dropped.logical_not()).logical_or(grown);
            self.exchanged += count_nonzero(grown);
            let Some(keep) = weight.keep().map(KeepMask::keep) else { continue };
            weight.set_base(base)?;
            weight.set_keep(Some(&keep.logical_xor(&changed)))?;
        }
        Ok(())
    }

    /// What a resumed training needs, by name: of each layer its mask, what has grown, and the stored values there.
    pub fn saved(&self, student: &dyn VisionLanguage) -> Result<Vec<(String, Tensor)>, RestoreError> {
        let mut tensors = vec![(EXCHANGED.to_owned(), Tensor::from_slice(&[self.exchanged as i64]))];
        for weight in student.weights() {
            if let (Some(layer), Some(keep)) = (self.layers.get(weight.key()), weight.keep()) {
                let name = weight.key();
                tensors.push((format!("{MASK}{name}"), keep.bits().shallow_clone()));
                tensors.push((format!("{GROWN}{name}"), KeepMask::pack(name, &layer.grown)?.bits().shallow_clone()));
                tensors.push((format!("{VALUES}{name}"), weight.base().masked_select(&layer.grown)));
            }
        }
        Ok(tensors)
    }

    /// Continues from what [`Evolver::saved`] gave.
    ///
    /// # Errors
    /// What is missing or does not fit, by name.
    pub fn resume(
        &mut self,
        student: &mut dyn VisionLanguage,
        saved: &BTreeMap<String, Tensor>,
    ) -> Result<(), ModelError> {
        let missing = |name: &str| ModelError::Config(format!("the checkpoint has no `{name}`"));
        let take = |name: String| saved.get(&name).ok_or_else(|| missing(&name));
        self.exchanged = take(EXCHANGED.to_owned())?.f_int64_value(&[0])?.cast_unsigned();
        for weight in student.weights_mut() {
            let Some(layer) = self.layers.get_mut(weight.key()) else { continue };
            let (name, device) = (weight.key().to_owned(), weight.device());
            let size = weight.base().size();
            let mask = |kind: &str| {
                let bits = take(format!("{kind}{name}"))?.f_to_device(device)?;
                KeepMask::from_bits(&name, bits, [size[0], size[1]])
            };
            let (keep, grown) = (mask(MASK)?, mask(GROWN)?.keep());
            let values = take(format!("{VALUES}{name}"))?.f_to_device(device)?;
            let wanted = vec![count_nonzero(&grown).cast_signed()];
            if values.size() != wanted {
                return Err(ModelError::Shape { name: format!("{VALUES}{name}"), found: values.size(), wanted });
            }
            // Another device may keep the weights in another type.
            let values = values.f_to_kind(weight.base().kind())?;
            weight.set_base(weight.base().f_masked_scatter(&grown, &values)?)?;
            weight.set_packed(Some(keep))?;
            layer.grown = grown;
        }
        Ok(())
    }

    /// What became of the masks.
    pub fn finish(self, student: &dyn VisionLanguage) -> Evolution {
        let mut evolution = Evolution {
            exchanges: self.config.exchanges(self.steps, self.align),
            exchanged: self.exchanged,
            ..Evolution::default()
        };
        let (mut grown, mut kept) = (0, 0);
        for weight in student.weights() {
            if let (Some(layer), Some(keep)) = (self.layers.get(weight.key()), weight.keep()) {
                evolution.masks.insert(weight.key(), keep.keep());
                evolution.weights.insert(weight.key(), weight.base().masked_fill(&keep.remove(), 0.0));
                grown += count_nonzero(&layer.grown);
                kept += keep.kept();
            }
        }
        evolution.grown = if kept == 0 { 0.0 } else { grown as f64 / kept as f64 };
        evolution
    }
}

/// Entries of a checkpoint.
const EXCHANGED: &str = "evolution.exchanged";
const MASK: &str = "evolution.mask.";
const GROWN: &str = "evolution.grown.";
const VALUES: &str = "evolution.values.";

/// How masks have left the budgets of the masks that they came from; nothing where they have not. A layer keeps its number of weights, and where all of its rows kept
/// the same number (but for one), each row; nothing grows in what was removed as a whole.
pub fn departures(before: &MaskSet, after: &MaskSet, cuts: &Cuts) -> Vec<String> {
    let mut found = Vec::new();
    for (layer, was) in before.iter() {
        let Some(is) = after.get(layer).filter(|is| !is.equal(was)) else { continue };
        if was.size() != is.size() {
            found.push(format!("`{layer}`: the mask has another shape than before"));
            continue;
        }
        if was.kept() != is.kept() {
            found.push(format!("`{layer}`: the mask keeps {} weights, {} before", is.kept(), was.kept()));
            continue;
        }
        let cut = cuts.layer(layer).cloned().unwrap_or_default();
        let [rows, columns] = was.size();
        let outside = is.keep().logical_and(&cut.keep((rows, columns), is.device()).logical_not());
        if count_nonzero(&outside) > 0 {
            found.push(format!("`{layer}`: weights have grown in what was removed as a whole"));
        }
        let (was, is) = (cut.of(&was.keep()), cut.of(&is.keep()));
        if has_equal_rows(&was) && !kept_by_row(&was).equal(&kept_by_row(&is)) {
            found.push(format!("`{layer}`: rows keep other numbers of weights than before"));
        }
    }
    found
}

fn kept_by_row(keep: &Tensor) -> Tensor {
    keep.sum_dim_intlist([-1i64].as_slice(), false, Kind::Int64)
}

/// Whether rows keep the same number of weights, or, where it does not divide, one more or less.
fn has_equal_rows(keep: &Tensor) -> bool {
    let kept = kept_by_row(keep);
    kept.numel() > 0 && (kept.max() - kept.min()).int64_value(&[]) <= 1
}

/// Numbers in random order, f32, of the shape of `like`.
fn random(like: &Tensor, seed: u64, label: &str) -> Tensor {
    let mut stream = stream(seed, label);
    let values: Vec<f32> = (0..like.numel()).map(|_| (stream.next_u32() >> 8) as f32).collect();
    Tensor::from_slice(&values).view_as(like).to_device(like.device())
}

/// Names of a set's updates, one for each parameter.
pub(crate) fn names(updates: &UpdateSet) -> Vec<String> {
    let named = |(name, update): (&str, &dyn Update)| vec![name.to_owned(); update.parameters().len()];
    updates.iter().flat_map(named).collect()
}
