//! Which weights get an update, and what it starts from.

use std::collections::BTreeSet;

use rand::Rng;
use ressa_experiment::{
    Tower,
    config::{TowerAdapter, TrainedBiases},
    stage::AdaptTraining,
};
use ressa_models::{Full, LayerId, Linear, Lora, LoraParts, SparseLora, Update, UpdateSet, VisionLanguage, Weight};
use ressa_runtime::stream;
use tch::{Kind, Tensor};

use crate::RestoreError;

/// Fresh updates for every tuned tower. Low-rank: `a` uniform in `±1/sqrt(in)` (Kaiming-uniform with slope `sqrt(5)`, as the reference), `b` zero,
/// so the model starts as it is. Each layer draws from its own stream, named by its module path.
///
/// Biases, norms and learned queries that the settings name train element by element, from no change; matrices too where `full` says so.
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
        let Some(wanted) = settings.tower(tower).filter(|t| t.tune && (t.rank > 0 || t.full)) else {
            continue;
        };
        check_targets(model, tower, &wanted.targets)?;
        let prunable = model.linears();
        let of_tower =
            prunable.iter().filter(|(id, _)| id.tower == tower).map(|(id, linear)| (*linear, id.role.as_str()));
        let between = connectors(model, tower).into_iter();
        for (linear, role) in of_tower.chain(between.filter(|_| !wanted.targets.is_empty())) {
            if wanted.targets.is_empty() || wanted.targets.iter().any(|target| names(target, linear, role)) {
                let adapter = if wanted.full {
                    unchanged(linear.matrix())
                } else {
                    let masked = masked && linear.matrix().keep().is_some();
                    fresh(linear, linear.name(), i64::from(wanted.rank), wanted.scale, masked, seed)
                };
                adapters.insert(linear.name(), adapter);
            }
        }
        if let Some(queries) = model.queries().filter(|_| tower == Tower::Connector && wanted.queries) {
            adapters.insert(queries.key(), unchanged(queries));
        }
        for weight in element_wise(model, tower, wanted, &adapters)? {
            adapters.insert(weight.key(), unchanged(weight));
        }
    }
    if adapters.is_empty() {
        return Err(RestoreError::NothingToTrain { roles: roles(model, None) });
    }
    Ok(adapters)
}

/// Biases and norms of a tower that train. `adapters` holds the tower's low-rank updates.
fn element_wise<'m>(
    model: &'m dyn VisionLanguage,
    tower: Tower,
    wanted: &TowerAdapter,
    adapters: &UpdateSet,
) -> Result<Vec<&'m Weight>, RestoreError> {
    let linears = model.linears().into_iter().filter(|(id, _)| id.tower == tower).map(|(_, linear)| linear);
    let connected = connectors(model, tower).into_iter().map(|(linear, _)| linear);
    let updated = |linear: &&Linear| adapters.get(linear.name()).is_some();
    let linears: Vec<&Linear> = match wanted.bias {
        TrainedBiases::None => Vec::new(),
        TrainedBiases::LoraOnly => linears.chain(connected).filter(updated).collect(),
        TrainedBiases::All => linears.chain(connected.filter(updated)).collect(),
    };
    let is_bias = |weight: &&Weight| weight.name().ends_with(".bias");
    let all = wanted.bias == TrainedBiases::All;
    let of_linears = linears.into_iter().flat_map(Linear::weights).filter(is_bias);
    let norms = model.norms(tower).into_iter().filter(|weight| wanted.norms || all && is_bias(weight));
    let found: Vec<&Weight> = of_linears.chain(norms).collect();
    if wanted.bias != TrainedBiases::None && !found.iter().any(is_bias) {
        return Err(RestoreError::NoBias { tower });
    }
    Ok(found)
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
        b: Tensor::zeros([outputs, rank], (Kind::Float, device)),
        scale,
    };
    if masked { Box::new(SparseLora(parts)) } else { Box::new(Lora(parts)) }
}

/// An update of every element, from no change.
fn unchanged(weight: &Weight) -> Box<dyn Update> {
    Box::new(Full { delta: weight.base().zeros_like().to_kind(Kind::Float) })
}

/// Whether a target means a linear: its role, or a module on its path.
fn names(target: &str, linear: &Linear, role: &str) -> bool {
    target == role || linear.name().split('.').any(|module| module == target)
}

/// Linears between the towers, with their roles: they follow the interface, and are tuned where a target names them.
fn connectors(model: &dyn VisionLanguage, tower: Tower) -> Vec<(&Linear, &str)> {
    let all = if tower == Tower::Connector { model.connectors() } else { Vec::new() };
    all.into_iter().map(|linear| (linear, linear.name().rsplit('.').next().unwrap_or_default())).collect()
}

/// A target that fits no layer is a mistake in the experiment, not an empty set.
fn check_targets(model: &dyn VisionLanguage, tower: Tower, targets: &[String]) -> Result<(), RestoreError> {
    for target in targets {
        let between = || connectors(model, tower).iter().any(|(linear, role)| names(target, linear, role));
        let mine = |(id, linear): &(&LayerId, &Linear)| id.tower == tower && names(target, linear, &id.role);
        if !model.linears().iter().any(mine) && !between() {
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
    roles.extend(connectors(model, tower.unwrap_or(Tower::Connector)).into_iter().map(|(_, role)| role));
    roles.iter().map(|role| format!("`{role}`")).collect::<Vec<_>>().join(", ")
}
