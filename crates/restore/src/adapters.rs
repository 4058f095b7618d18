//! Which layers get an adapter, and what it starts from.

use std::collections::BTreeSet;

use rand::Rng;
use ressa_experiment::{Tower, stage::AdaptTraining};
use ressa_models::{Adapter, AdapterSet, Linear, VisionLanguage};
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
) -> Result<AdapterSet, RestoreError> {
    let mut adapters = AdapterSet::new();
    for tower in Tower::ALL {
        let Some(wanted) = settings.tower(tower).filter(|t| t.tune && t.rank > 0) else {
            continue;
        };
        check_targets(model, tower, &wanted.targets)?;
        for (id, linear) in model.linears().into_iter().filter(|(id, _)| id.tower == tower) {
            if wanted.targets.is_empty() || wanted.targets.contains(&id.role) {
                let masked = masked && linear.mask().is_some();
                let adapter = fresh(linear, &id.name, i64::from(wanted.rank), wanted.scale, masked, seed);
                adapters.insert(id.name.clone(), adapter);
            }
        }
    }
    if adapters.is_empty() {
        return Err(RestoreError::NothingToTrain { roles: roles(model, None) });
    }
    Ok(adapters)
}

fn fresh(linear: &Linear, name: &str, rank: i64, scale: f64, masked: bool, seed: u64) -> Adapter {
    let (outputs, inputs) = linear.shape();
    let mut stream = stream(seed, name);
    let bound = 1.0 / (inputs as f32).sqrt();
    let unit = |bits: u32| (bits >> 8) as f32 / (1u32 << 24) as f32;
    let values: Vec<f32> = (0..rank * inputs).map(|_| (2.0 * unit(stream.next_u32()) - 1.0) * bound).collect();
    let device = linear.weight().device();
    Adapter {
        a: Tensor::from_slice(&values).view([rank, inputs]).to_device(device),
        b: Tensor::zeros([outputs, rank], (tch::Kind::Float, device)),
        scale,
        masked,
    }
}

/// A target that fits no layer is a mistake in the experiment, not an empty set.
fn check_targets(model: &dyn VisionLanguage, tower: Tower, targets: &[String]) -> Result<(), RestoreError> {
    for target in targets {
        if !model.linears().iter().any(|(id, _)| id.tower == tower && id.role == *target) {
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
    let roles: BTreeSet<&str> = of_tower.map(|(id, _)| id.role.as_str()).collect();
    roles.iter().map(|role| format!("`{role}`")).collect::<Vec<_>>().join(", ")
}
