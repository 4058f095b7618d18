//! Refinement of a tower that was pruned: its layers, those with the same input together, and what is recounted of them.

use std::collections::BTreeMap;

use ressa_experiment::{Pattern, Tower, record::Certificate};
use ressa_models::{
    Cuts, KeepMask, LayerCut, LayerId, Linear, MaskSet, VisionLanguage, WeightSet,
    certify::{self, Claim},
};
use tch::{Tensor, no_grad};

use super::{Change, PrunedLayer, Refinement};
use crate::{
    error::PruneError,
    statistics::BlockStatistics,
    tower::{TowerInputs, collect},
    walk::{Look, Place, layers_of},
};

/// A tower to refine.
#[derive(Clone, Copy)]
pub struct RefineRequest<'a> {
    /// The tower.
    pub tower: Tower,
    /// How.
    pub method: &'a dyn Refinement,
    /// The pattern that its masks have and are to have.
    pub pattern: Pattern,
    /// What counts as a token where statistics are collected on the way.
    pub look: Look,
    /// Whether pruning gave a layer, by its module path, other weights than those it chose from.
    pub changed: &'a dyn Fn(&str) -> bool,
    /// What of a layer, by its module path, earlier steps removed for good, bool `[out, in]`; `None` where they removed nothing.
    pub gone: &'a dyn Fn(&str) -> Option<Tensor>,
    /// What structured removal has left of the model.
    pub cuts: &'a Cuts,
}

/// A refined tower.
#[derive(Debug, Default)]
pub struct TowerRefinement {
    /// Keep masks of the tower's layers.
    pub masks: MaskSet,
    /// Weights of layers whose kept weights are not those that pruning chose from, whole, zero where they are pruned.
    pub weights: WeightSet,
    /// Relative reconstruction error of each layer, before and after.
    pub errors: BTreeMap<String, Change>,
}

/// Refines the masked layers of a tower of `model`, which carries the masks and the weights that pruning left; `unpruned` has the weights that pruning chose from. Both
/// are left as they are. `progress` gets the share done.
///
/// # Errors
/// Neither samples nor statistics; activations or weights that are not finite.
pub fn refine_tower(
    model: &dyn VisionLanguage,
    unpruned: &dyn VisionLanguage,
    request: RefineRequest<'_>,
    inputs: TowerInputs<'_>,
    progress: &mut dyn FnMut(f64),
) -> Result<TowerRefinement, PruneError> {
    let RefineRequest { tower, look, .. } = request;
    let blocks = model.blocks(tower);
    let mut found = TowerRefinement::default();
    no_grad(|| match inputs.statistics {
        Some(stored) => (0..blocks).try_for_each(|block| {
            refine_block((model, unpruned), request, block, stored(block)?, &mut found)?;
            progress((block + 1) as f64 / blocks as f64);
            Ok(())
        }),
        None => collect(model, tower, look, inputs.samples, &mut |block, statistics| {
            refine_block((model, unpruned), request, block, statistics, &mut found)?;
            progress((block + 1) as f64 / blocks as f64);
            Ok(())
        }),
    })?;
    Ok(found)
}

/// A layer as its refinement sees it.
struct Member<'a> {
    id: &'a LayerId,
    dense: Tensor,
    weight: Option<Tensor>,
    keep: Tensor,
    gone: Option<Tensor>,
    /// What is left of the layer, which is all that the others are of.
    cut: Option<&'a LayerCut>,
    shape: (i64, i64),
}

fn refine_block(
    (model, unpruned): (&dyn VisionLanguage, &dyn VisionLanguage),
    request: RefineRequest<'_>,
    block: usize,
    statistics: BlockStatistics,
    found: &mut TowerRefinement,
) -> Result<(), PruneError> {
    let place = Place { tower: request.tower, block };
    let before: BTreeMap<&str, &Linear> =
        layers_of(unpruned, place).map(|(id, linear)| (id.name.as_str(), linear)).collect();
    let layers: BTreeMap<&str, (&LayerId, &Linear)> =
        layers_of(model, place).map(|(id, linear)| (id.name.as_str(), (id, linear))).collect();
    for (names, statistics) in statistics.into_groups() {
        let mut members = Vec::new();
        for name in &names {
            let Some((&(id, linear), dense)) = layers.get(name.as_str()).zip(before.get(name.as_str())) else {
                continue;
            };
            let Some(keep) = linear.matrix().keep() else { continue };
            let (cut, shape) = (request.cuts.layer(name), linear.shape());
            let (rows, columns) = cut.map_or(shape, |cut| cut.size(shape));
            if rows * columns == 0 {
                found.masks.insert(id.name.clone(), keep.keep());
                continue;
            }
            let rest = |whole: Tensor| cut.map_or_else(|| whole.shallow_clone(), |cut| cut.of(&whole));
            let weight = (request.changed)(name).then(|| rest(linear.weight().shallow_clone()));
            let (dense, keep, gone) = (rest(dense.weight().shallow_clone()), rest(keep.keep()), (request.gone)(name));
            members.push(Member { id, dense, weight, keep, gone: gone.map(rest), cut, shape });
        }
        if members.is_empty() {
            continue;
        }
        let columns = members.first().and_then(|member| member.cut?.columns.as_ref());
        let alone = columns.map(|columns| statistics.columns_alone(columns));
        let statistics = alone.as_ref().unwrap_or(&statistics);
        let pruned: Vec<PrunedLayer<'_>> = members
            .iter()
            .map(|Member { id, dense, weight, keep, gone, .. }| PrunedLayer {
                name: &id.name,
                dense,
                weight: weight.as_ref(),
                keep,
                pattern: request.pattern,
                gone: gone.as_ref(),
            })
            .collect();
        let refined = request.method.refine(&pruned, Some(statistics))?;
        drop(pruned);
        for (Member { id, cut, shape, .. }, refined) in members.into_iter().zip(refined) {
            let whole = |rest: Tensor| cut.map_or_else(|| rest.shallow_clone(), |cut| cut.spread(&rest, shape));
            found.masks.insert(id.name.clone(), whole(refined.keep));
            found.errors.insert(id.name.clone(), refined.error);
            if let Some(weight) = refined.weight {
                found.weights.insert(id.name.clone(), whole(weight));
            }
        }
    }
    Ok(())
}

/// Recounts a refined tower: every layer has lost as many weights as before, what `model` holds under `masks` follows the pattern, and no error rose. The model's own
/// masks are not looked at, its weights are.
pub fn certify_refined(
    model: &dyn VisionLanguage,
    (tower, pattern): (Tower, Pattern),
    masks: &MaskSet,
    before: &MaskSet,
    errors: &BTreeMap<String, Change>,
    cuts: &Cuts,
) -> Certificate {
    let mut certificate = Certificate::default();
    for (id, linear) in model.linears().into_iter().filter(|(id, _)| id.tower == tower) {
        let (Some(keep), Some(earlier)) = (masks.get(&id.name), before.get(&id.name)) else {
            certificate.violations.push(format!("`{}`: has no mask", id.name));
            continue;
        };
        let gone = |mask: &KeepMask| (mask.numel() - mask.kept()) as i64;
        let found = certify::certify([Claim {
            layer: id,
            weight: linear.weight(),
            masked: true,
            keep: Some(keep),
            pattern: Some(pattern),
            cut: cuts.layer(&id.name),
            pruned: Some(gone(earlier)),
            sealed: true,
        }]);
        certificate.tensors.extend(found.tensors);
        certificate.violations.extend(found.violations);
    }
    for (layer, Change { before, after }) in errors.iter().filter(|(_, error)| error.has_risen()) {
        certificate.violations.push(format!("`{layer}`: its error rose from {before:.3e} to {after:.3e}"));
    }
    certificate
}
