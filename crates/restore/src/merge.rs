//! Merging: adapters become part of the weights, and the result is counted and compared.

use std::collections::BTreeMap;

use ressa_experiment::{Pattern, Tower, config::RestoreMethod, record::Certificate};
use ressa_models::{
    Cuts, Form, MaskSet, Prompts, UpdateSet, VisionLanguage, Weight,
    certify::{Claim, certify},
};
use tch::{Kind, Tensor, no_grad};

use crate::RestoreError;

/// Largest change of a logit, as a share of the largest logit, that merging may cause where it should cause none but rounding: that of f32
/// sums, or of merged weights in the type in which they are stored (half a unit in their last place, through every block).
fn tolerance(model: &dyn VisionLanguage) -> f64 {
    let narrowest = |weight: &Weight| match [weight.base().kind(), weight.kind()] {
        kinds if kinds.contains(&Kind::BFloat16) => 5e-2,
        kinds if kinds.contains(&Kind::Half) => 1e-2,
        _ => 1e-4,
    };
    model.weights().into_iter().map(narrowest).fold(1e-4, f64::max)
}

/// What is merged, and how.
#[derive(Clone, Copy, Debug)]
pub struct MergeRequest<'a> {
    /// The method; [`RestoreMethod::None`] merges masks alone.
    pub method: RestoreMethod,
    /// Keep masks of the pruned towers.
    pub masks: &'a MaskSet,
    /// Trained adapters.
    pub adapters: &'a UpdateSet,
    /// Pattern of each pruned tower, in what is left of it.
    pub patterns: &'a BTreeMap<Tower, Pattern>,
    /// What structured removal has left.
    pub cuts: &'a Cuts,
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
        if exact && (difference.is_nan() || difference > tolerance(dense) * largest.max(1.0)) {
            certificate.violations.push(format!("merging moved an output by {difference:.3e} of {largest:.3e}"));
        }
        Ok(Merged { tensors, certificate, largest_output_difference: difference })
    })
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
    certify(merged.linears().into_iter().map(|(id, linear)| {
        let keep = request.masks.get(&id.name);
        Claim {
            layer: id,
            weight: linear.weight(),
            masked: false,
            keep,
            pattern: keep.and_then(|_| request.patterns.get(&id.tower).copied()),
            cut: request.cuts.layer(&id.name),
            pruned: None,
            sealed,
        }
    }))
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
