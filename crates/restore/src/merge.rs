//! Merging: adapters become part of the weights, and the result is counted and compared.

use std::collections::BTreeMap;

use ressa_experiment::{Pattern, config::RestoreMethod, record::Certificate};
use ressa_models::{
    Cuts, Form, MaskSet, Prompts, UpdateSet, VisionLanguage, Weight,
    certify::{Claim, certify},
};
use tch::{Kind, Tensor, no_grad};

use crate::{RestoreError, evolve::departures};

/// Largest change of a logit, as a share of the largest logit, that the rounding of f32 sums may cause.
const TOLERANCE: f64 = 1e-4;

/// What is merged, and how.
#[derive(Clone, Copy, Debug)]
pub struct MergeRequest<'a> {
    /// The method; [`RestoreMethod::None`] merges masks alone.
    pub method: RestoreMethod,
    /// Keep masks of the pruned towers.
    pub masks: &'a MaskSet,
    /// Trained adapters.
    pub adapters: &'a UpdateSet,
    /// Pattern of each pruned layer, in what is left of it.
    pub patterns: &'a BTreeMap<String, Pattern>,
    /// What structured removal has left.
    pub cuts: &'a Cuts,
    /// The masks that the training began with, where it changed them: `masks` have the same budgets.
    pub before: Option<&'a MaskSet>,
}

/// A small batch on which outputs before and after merging are compared.
#[derive(Debug)]
pub struct Probe {
    /// Pixels `[images, 3, height, width]`.
    pub pixels: Tensor,
    /// Instructions about the images.
    pub prompts: Prompts,
    /// Answers without start and end token, one per instruction.
    pub answers: Vec<Vec<u32>>,
}

/// Merged weights with their certificate.
#[derive(Debug)]
pub struct Merged {
    /// Every weight that differs from the dense model's, `[out, in]`, by module path (without `.weight`).
    pub tensors: BTreeMap<String, Tensor>,
    /// Recount of all prunable weights of the model, merged or not. After `lora` revived weights are recorded there, without being violations:
    /// that method gives the sparsity up openly.
    pub certificate: Certificate,
    /// Largest absolute difference of a logit that counts between adapters beside the weights and inside them. For `lora-remasked` this is
    /// what re-applying the mask destroys; for the others, rounding.
    pub largest_output_difference: f64,
}

/// Merges adapters into the weights of `dense`, which is left as it is. The product is formed in f32 and rounded once, into the dtype
/// of the weight; pruned positions are then exactly zero, except for `lora`.
pub fn merge(dense: &dyn VisionLanguage, request: MergeRequest<'_>, probe: &Probe) -> Result<Merged, RestoreError> {
    no_grad(|| {
        let mut adapted = dense.shallow_clone();
        request.masks.apply(adapted.as_mut())?;
        request.adapters.apply(adapted.as_mut())?;
        let tensors = merged_weights(adapted.as_ref(), request)?;
        let mut plain = dense.shallow_clone();
        request.masks.join(plain.as_mut());
        for weight in plain.weights_mut() {
            weight.set_update(None)?;
            weight.set_keep(None)?;
            if let Some(merged) = tensors.get(weight.key()) {
                weight.set_base(merged.shallow_clone())?;
            }
        }
        let mut certificate = certify_merged(plain.as_ref(), request);
        let (difference, largest) = compare(adapted.as_ref(), plain.as_ref(), probe);
        let exact = request.method != RestoreMethod::LoraRemasked;
        let coarsest = adapted.weights().into_iter().map(spacing).fold(0.0, f64::max);
        let is_rounding = match coarsest > 0.0 {
            // Through many blocks, half precision moves outputs by how much depends on the network: weights are compared, one by one.
            true => difference.is_finite(),
            false => difference <= TOLERANCE * largest.max(1.0),
        };
        if exact && !is_rounding {
            certificate.violations.push(format!("merging moved an output by {difference:.3e} of {largest:.3e}"));
        }
        if exact && coarsest > 0.0 {
            for weight in adapted.weights() {
                let Some(merged) = tensors.get(weight.key()) else { continue };
                let excess = beyond_rounding(weight, merged);
                if excess.is_nan() || excess > 1.0 {
                    let name = weight.name();
                    certificate.violations.push(format!(
                        "`{name}`: merging moved a weight {excess:.1} times as far as rounding explains"
                    ));
                }
            }
        }
        Ok(Merged { tensors, certificate, largest_output_difference: difference })
    })
}

/// Relative distance of neighbouring numbers of the coarsest type that a weight meets: in which it is stored, or in which its network computes. 0 for f32.
fn spacing(weight: &Weight) -> f64 {
    let of = |kind: Kind| match kind {
        Kind::BFloat16 => 2.0_f64.powi(-7),
        Kind::Half => 2.0_f64.powi(-10),
        _ => 0.0,
    };
    of(weight.base().kind()).max(of(weight.kind()))
}

/// How far a merged value is from the one that was trained with, in units of what rounding explains: that of the sum and of its parts, relative to each
/// element, and that of an update's product, relative to its largest element.
fn beyond_rounding(weight: &Weight, merged: &Tensor) -> f64 {
    let spacing = spacing(weight);
    let [trained, merged, base] =
        [&weight.effective(weight.kind()), merged, weight.base()].map(|value| value.to_kind(Kind::Float));
    let kept = match weight.keep() {
        Some(keep) => base.masked_fill(&keep.remove(), 0.0),
        None => base,
    };
    let product = (&merged - &kept).abs().max().double_value(&[]);
    let least = 4.0 * spacing * product + f64::from(f32::MIN_POSITIVE);
    let explained = (kept.abs() + merged.abs()) * (2.0 * spacing) + least;
    ((trained - merged).abs() / explained).max().double_value(&[])
}

fn merged_weights(
    adapted: &dyn VisionLanguage,
    request: MergeRequest<'_>,
) -> Result<BTreeMap<String, Tensor>, RestoreError> {
    let mut tensors = BTreeMap::new();
    for weight in adapted.weights().into_iter().filter(|weight| weight.form() != Form::Dense) {
        tensors.insert(weight.key().to_owned(), merged_weight(weight, request.method)?);
    }
    Ok(tensors)
}

/// A weight with its update merged, in the type in which it is stored; pruned positions exactly zero, except for `lora`.
///
/// # Errors
/// When the adapter was trained for another method.
pub fn merged_weight(weight: &Weight, method: RestoreMethod) -> Result<Tensor, RestoreError> {
    if let (Some(update), Some(_)) = (weight.update(), weight.keep())
        && update.respects_mask() != method.trains_masked()
    {
        let (layer, method) = (weight.key().to_owned(), method.name());
        return Err(RestoreError::WrongAdapter { layer, method, masked: update.respects_mask() });
    }
    let value = weight.exact().to_kind(weight.base().kind());
    Ok(match weight.keep() {
        Some(keep) if method != RestoreMethod::Lora => value.masked_fill(&keep.remove().view_as(&value), 0.0),
        _ => value,
    })
}

/// Recounts the weights of a merged model against the masks it must still have. Also for weights read back from disk.
pub fn certify_merged(merged: &dyn VisionLanguage, request: MergeRequest<'_>) -> Certificate {
    let sealed = request.method != RestoreMethod::Lora;
    let mut certificate = certify(merged.linears().into_iter().map(|(id, linear)| {
        let keep = request.masks.get(&id.name);
        Claim {
            layer: id,
            weight: linear.weight(),
            masked: false,
            keep,
            pattern: keep.and_then(|_| request.patterns.get(&id.name).copied()),
            cut: request.cuts.layer(&id.name),
            pruned: None,
            sealed,
        }
    }));
    if let Some(before) = request.before {
        certificate.violations.extend(departures(before, request.masks, request.cuts));
    }
    certificate
}

/// Largest difference of a logit that counts, and the largest such logit.
fn compare(before: &dyn VisionLanguage, after: &dyn VisionLanguage, probe: &Probe) -> (f64, f64) {
    let run = |model: &dyn VisionLanguage| {
        let features = model.encode_images(&probe.pixels);
        let prefix = model.visual_prefix(&features, &probe.prompts);
        model.force(Some(&prefix), &probe.prompts.language, &probe.answers)
    };
    let (before, after) = (run(before), run(after));
    let counts = before.mask.unsqueeze(-1).to_kind(Kind::Float);
    let largest = |tensor: Tensor| (tensor.to_kind(Kind::Float).abs() * &counts).max().double_value(&[]);
    (largest(&after.logits - &before.logits), largest(before.logits.shallow_clone()))
}

#[cfg(test)]
mod tests {
    use ressa_models::{LoraParts, SparseLora};
    use tch::Device;

    use super::*;

    /// In half precision, what is merged is what was trained with up to rounding; an update that was scaled otherwise, or brings back what was pruned,
    /// is not, though it moves no output by much.
    #[test]
    fn half_precision_explains_rounding_and_nothing_else() {
        tch::manual_seed(3);
        for kind in [Kind::BFloat16, Kind::Half] {
            let options = (Kind::Float, Device::Cpu);
            let keep = Tensor::rand([48, 64], options).gt(0.5);
            let (a, b) = (Tensor::randn([4, 64], options) * 0.1, Tensor::randn([48, 4], options) * 0.1);
            let mut weight = Weight::new("layer.weight", (Tensor::randn([48, 64], options) * 0.1).to_kind(kind));
            weight.set_keep(Some(&keep)).expect("fits");
            let parts = LoraParts { a: a.shallow_clone(), b: b.shallow_clone(), scale: 1.0 };
            weight.set_update(Some(Box::new(SparseLora(parts)))).expect("fits");
            let merged = merged_weight(&weight, RestoreMethod::SparseLora).expect("merges");
            assert!(beyond_rounding(&weight, &merged) <= 1.0, "{kind:?}");
            let twice = &merged + (b.matmul(&a) * &keep).to_kind(kind);
            assert!(beyond_rounding(&weight, &twice) > 1.0, "{kind:?}");
            let revived = &merged + (b.matmul(&a) * keep.logical_not()).to_kind(kind);
            assert!(beyond_rounding(&weight, &revived) > 1.0, "{kind:?}");
        }
    }
}
