//! The certificate of a pruned tower: what the request promised, recounted on the masked weights.

use ressa_experiment::record::Certificate;
use ressa_models::{
    Cuts, MaskSet, VisionLanguage,
    certify::{self, Claim},
};

use ressa_runtime::count_nonzero;

use crate::{
    allocation::Counts,
    error::PruneError,
    request::PruneRequest,
    select::{Selection, pruned_count},
};

/// Recounts a tower: zeros and N:M groups on the weights with `masks` applied, and the exact numbers that `request` asked for.
///
/// Works on what was just computed and on what was read back from disk. The model's own masks are not looked at, its weights are: those that a
/// method changed must be in it. Of a method that prunes by threshold no number is expected. What `before` had removed must be removed still; there, a layer
/// may have lost more than is asked of it.
pub fn certify_tower(
    model: &dyn VisionLanguage,
    request: &PruneRequest,
    masks: &MaskSet,
    before: &MaskSet,
) -> Result<Certificate, PruneError> {
    certify(model, request, None, None, (masks, before))
}

/// As [`certify_tower`], of a model of which structured removal has left `cuts`: numbers and patterns are those of what is left.
///
/// # Errors
/// As [`PruneRequest::selection`].
pub fn certify_tower_within(
    model: &dyn VisionLanguage,
    request: &PruneRequest,
    cuts: &Cuts,
    masks: &MaskSet,
    before: &MaskSet,
) -> Result<Certificate, PruneError> {
    certify(model, request, None, Some(cuts), (masks, before))
}

/// As [`certify_tower`], for what [`crate::prune_tower_divided`] promised: every layer its own number.
pub fn certify_tower_divided(
    model: &dyn VisionLanguage,
    request: &PruneRequest,
    counts: &Counts,
    masks: &MaskSet,
    before: &MaskSet,
) -> Result<Certificate, PruneError> {
    certify(model, request, Some(counts), None, (masks, before))
}

pub(crate) fn certify(
    model: &dyn VisionLanguage,
    request: &PruneRequest,
    counts: Option<&Counts>,
    cuts: Option<&Cuts>,
    (masks, before): (&MaskSet, &MaskSet),
) -> Result<Certificate, PruneError> {
    let selection = request.selection()?;
    let mut certificate = Certificate::default();
    let (mut pruned, mut total) = (0, 0);
    // Whether an earlier step pruned this tower: then a layer may have lost more than is asked of it.
    let mut is_later = false;
    for (id, linear) in model.linears().into_iter().filter(|(id, _)| id.tower == request.tower) {
        let Some(keep) = masks.get(&id.name) else {
            certificate.violations.push(format!("`{}`: has no mask", id.name));
            continue;
        };
        let (rows, columns) = linear.shape();
        if keep.size() != [rows, columns] {
            certificate.violations.push(format!("`{}`: the mask has another shape than the weight", id.name));
            continue;
        }
        let cut = cuts.and_then(|cuts| cuts.layer(&id.name));
        let (rows_left, columns_left) = cut.map_or((rows, columns), |cut| cut.size((rows, columns)));
        // What was removed as a whole is beside what was asked for.
        let removed = rows * columns - rows_left * columns_left;
        total += rows_left * columns_left;
        let lost = rows * columns - keep.kept() as i64;
        pruned += lost - removed;
        let asked = match request.is_exact() {
            true => request.of_layer(&id.name, (rows_left, columns_left), counts)?.pruned_in(rows_left, columns_left),
            false => None,
        };
        let asked = asked.map(|asked| asked + removed);
        let earlier = before.get(&id.name);
        is_later |= earlier.is_some();
        if let Some(earlier) = earlier {
            if let Some(asked) = asked.filter(|asked| lost < *asked) {
                let message = format!("`{}`: the mask prunes {lost} weights, {asked} were asked for", id.name);
                certificate.violations.push(message);
            }
            let back = count_nonzero(&keep.keep().logical_and(&earlier.to_device(keep.device())?.remove()));
            if back > 0 {
                let message = format!("`{}`: {back} weights are kept that an earlier step had pruned", id.name);
                certificate.violations.push(message);
            }
        }
        let found = certify::certify([Claim {
            layer: id,
            weight: linear.weight(),
            masked: true,
            keep: Some(keep),
            pattern: Some(selection.pattern()),
            cut,
            // Where nothing but whole groups was gone, the number is exact.
            pruned: asked.filter(|_| earlier.is_none_or(|earlier| earlier.numel() - earlier.kept() == removed as u64)),
            sealed: true,
        }]);
        certificate.tensors.extend(found.tensors);
        certificate.violations.extend(found.violations);
    }
    if let Selection::Unstructured { sparsity, .. } = selection
        && counts.is_none()
        && selection.pruned_in(1, 1).is_none()
        && (pruned < pruned_count(total, sparsity) || (!is_later && pruned > pruned_count(total, sparsity)))
    {
        let expected = pruned_count(total, sparsity);
        let tower = request.tower;
        certificate.violations.push(format!("tower `{tower}`: {pruned} weights are pruned, {expected} were asked for"));
    }
    Ok(certificate)
}
