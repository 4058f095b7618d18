//! Which layers get an adapter, and what it starts from.

use std::collections::BTreeSet;

use rand::Rng;
use ressa_experiment::{Tower, stage::AdaptTraining};
use ressa_models::{Linear, Lora, LoraParts, SparseLora, Update, UpdateSet, VisionLanguage};
use ressa_runtime::stream;
use tch::Tensor;

use crate::RestoreError;

/// Fresh adapters for every tuned tower: `a` uniform in `±1/sqrt(in)` (Kaiming-uniform with slope `sqrt(5)`, as the reference), `b` zero,
/// so the model starts as it is. Each layer draws from its own stream, named by its module path.
///
/// `masked` asks for SparseLoRA. A layer without a keep mask gets a plain adapter either way (the Q-Former, when it is not pruned).
pub fn initialise(
    model: &dyn VisionLanguage,
    settings: &AdaptTraining,
    masked: bool,
    seed: u64,
) -> Result<UpdateSet, RestoreError> {
    let mut adapters = UpdateSet::new();
    for tower in Tower::ALL {
        let Some(wanted) = settings.tower(tower).filter(|t| t.tune && t.rank > 0) else {
            continue;
        };
        check_targets(model, tower, &wanted.targets)?;
        let prunable = model.linears();
        let of_tower =
            prunable.iter().filter(|(id, _)| id.tower == tower).map(|(id, linear)| (*linear, id.role.as_str()));
        let between = connectors(model, tower).into_iter();
        for (linear, role) in of_tower.chain(between.filter(|_| !wanted.targets.is_empty())) {
            if wanted.targets.is_empty() || wanted.targets.iter().any(|target| target == role) {
                let masked = masked && linear.matrix().keep().is_some();
                let adapter = fresh(linear, linear.name(), i64::from(wanted.rank), wanted.scale, masked, seed);
                adapters.insert(linear.name(), adapter);
            }
        }
    }
    if adapters.is_empty() {
        return Err(RestoreError::NothingToTrain { roles: roles(model, None) });
    }
    Ok(adapters)
}

fn fresh(linear: &Linear, name: &str, rank: i64, scale: f64, masked: bool, seed: u64) -> Box<dyn Update> {
    let (outputs, inputs) = linear.shape();
    let mut stream = stream(seed, name);
    let bound = 1.0 / (inputs as f32).sqrt();
    let unit = |bits: u32| (bits >> 8) as f32 / (1u32 << 24) as f32;
    let values: Vec<f32> = (0..rank * inputs).map(|_| (2.0 * unit(stream.next_u32()) - 1.0) * bound).collect();
    let device = linear.weight().device();
    let parts = LoraParts {
        a: Tensor::from_slice(&values).view([rank, inputs]).to_device(device),
        b: Tensor::zeros([outputs, rank], (tch::Kind::Float, device)),
        scale,
    };
    if masked { Box::new(SparseLora(parts)) } else { Box::new(Lora(parts)) }
}

/// Linears between the towers, with their roles: they follow the interface, and are tuned where a target names them.
fn connectors(model: &dyn VisionLanguage, tower: Tower) -> Vec<(&Linear, &str)> {
    let all = if tower == Tower::Qformer { model.connectors() } else { Vec::new() };
    all.into_iter().map(|linear| (linear, linear.name().rsplit('.').next().unwrap_or_default())).collect()
}

/// A target that fits no layer is a mistake in the experiment, not an empty set.
fn check_targets(model: &dyn VisionLanguage, tower: Tower, targets: &[String]) -> Result<(), RestoreError> {
    for target in targets {
        let between = || connectors(model, tower).iter().any(|(_, role)| role == target);
        if !model.linears().iter().any(|(id, _)| id.tower == tower && id.role == *target) && !between() {
            return Err(RestoreError::UnknownTarget {
                target: target.clone(),
                tower,
                roles: roles(model, Some(tower)),
            });
        }
    }
    Ok(())
}

fn roles(model: &dyn VisionLanguage, tower: Option<Tower>) -> String {
    let linears = model.linears();
    let of_tower = linears.iter().filter(|(id, _)| tower.is_none_or(|t| id.tower == t));
    let mut roles: BTreeSet<&str> = of_tower.map(|(id, _)| id.role.as_str()).collect();
    roles.extend(connectors(model, tower.unwrap_or(Tower::Qformer)).into_iter().map(|(_, role)| role));
    roles.iter().map(|role| format!("`{role}`")).collect::<Vec<_>>().join(", ")
}
