//! Which weights get an update, and what it starts from.

use std::collections::BTreeSet;

use rand::Rng;
use ressa_experiment::{
    Tower,
    config::{MatrixUpdate, TowerAdapter, TrainedBiases},
    reconstruct::{Trained, WindowTraining},
    stage::AdaptTraining,
};
use ressa_models::{
    Full, LayerId, Linear, Lora, LoraParts, ScaleLora, SparseLora, Spp, SppLora, Update, UpdateSet, VisionLanguage,
    Weight,
};
use ressa_runtime::stream;
use tch::{Kind, Tensor};

use crate::RestoreError;

/// Fresh updates for every tuned tower. Low-rank: `a` uniform in `±1/sqrt(in)` (Kaiming-uniform with slope `sqrt(5)`, as the reference), `b` zero; where
/// the product scales the weights, all of both `1/sqrt(rank)`; so the model starts as it is. Each layer draws from its own stream, named by its module path.
///
/// Biases, norms and learned queries that the settings name train element by element, from no change; matrices too where `full` says so. With rank 0
/// matrices stay as they are.
///
/// `masked` asks for updates that keep masks. Where they are sums, a layer without a mask gets a plain adapter either way (the Q-Former, when it is not pruned).
pub fn initialise(
    model: &dyn VisionLanguage,
    settings: &AdaptTraining,
    masked: bool,
    seed: u64,
) -> Result<UpdateSet, RestoreError> {
    let mut adapters = UpdateSet::new();
    for tower in Tower::ALL {
        let Some(wanted) = settings.tower(tower).filter(|t| t.tune && t.trains()) else {
            continue;
        };
        check_targets(model, tower, &wanted.targets)?;
        let prunable = model.linears();
        let of_tower =
            prunable.iter().filter(|(id, _)| id.tower == tower).map(|(id, linear)| (*linear, id.role.as_str()));
        let between = connectors(model, tower).into_iter();
        for (linear, role) in of_tower.chain(between.filter(|_| !wanted.targets.is_empty())) {
            if wanted.targets.is_empty() || wanted.targets.iter().any(|target| names(target, linear, role)) {
                let masked = masked && linear.matrix().keep().is_some();
                let adapter = match wanted {
                    TowerAdapter { full: true, .. } => unchanged(linear.matrix()),
                    TowerAdapter { rank: 0, .. } => continue,
                    TowerAdapter { rank, scale, .. } => {
                        fresh(linear.matrix(), (*rank, *scale), (settings.update, masked), seed)
                    }
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
    // Without matrices that train, no bias is one of theirs.
    let wants_biases = all || wanted.bias == TrainedBiases::LoraOnly && wanted.trains_matrices();
    if wants_biases && !found.iter().any(is_bias) {
        return Err(RestoreError::NoBias { tower });
    }
    Ok(found)
}

/// What trains on a weight in a local reconstruction: on a matrix what the settings name, which keeps its mask; all of a bias or a norm.
pub fn in_window(weight: &Weight, training: &WindowTraining, seed: u64) -> Option<Box<dyn Update>> {
    let is_matrix = weight.base().dim() == 2;
    match (training.train, training.train.update()) {
        (Trained::None, _) => None,
        (Trained::Norms, _) if is_matrix => None,
        (_, Some(update)) if is_matrix => {
            let (rank, scale) = (training.rank.unwrap_or(1), training.scale.unwrap_or(1.0));
            Some(fresh(weight, (rank, scale), (update, weight.keep().is_some()), seed))
        }
        _ => Some(unchanged(weight)),
    }
}

fn fresh(
    matrix: &Weight,
    (rank, scale): (u32, f64),
    (update, masked): (MatrixUpdate, bool),
    seed: u64,
) -> Box<dyn Update> {
    let (size, device) = (matrix.base().size(), matrix.device());
    let (outputs, inputs) = (size[0], size[1]);
    let filled = |shape: [i64; 2], value: f64| Tensor::full(shape, value, (Kind::Float, device));
    let uniform = |rows: i64| {
        let mut stream = stream(seed, matrix.key());
        let bound = 1.0 / (inputs as f32).sqrt();
        let unit = |bits: u32| (bits >> 8) as f32 / (1u32 << 24) as f32;
        let values: Vec<f32> = (0..rows * inputs).map(|_| (2.0 * unit(stream.next_u32()) - 1.0) * bound).collect();
        Tensor::from_slice(&values).view([rows, inputs]).to_device(device)
    };
    let rank = i64::from(rank);
    let from_zero = || LoraParts { a: uniform(rank), b: filled([outputs, rank], 0.0), scale };
    match update {
        MatrixUpdate::Sum if masked => Box::new(SparseLora(from_zero())),
        MatrixUpdate::Sum => Box::new(Lora(from_zero())),
        MatrixUpdate::SppLora => Box::new(SppLora(from_zero())),
        MatrixUpdate::Spp => Box::new(Spp { a: uniform(rank.min(outputs)), b: filled([outputs, 1], 0.0), scale }),
        MatrixUpdate::Scale => {
            let root = 1.0 / (rank as f64).sqrt();
            Box::new(ScaleLora(LoraParts {
                a: filled([rank, inputs], root),
                b: filled([outputs, rank], root),
                scale: 1.0,
            }))
        }
    }
}

/// An update of every element, from no change.
fn unchanged(weight: &Weight) -> Box<dyn Update> {
    Box::new(Full { delta: weight.base().zeros_like().to_kind(Kind::Float) })
}

/// Whether a target means a linear: its role, or a module on its path.
fn names(target: &str, linear: &Linear, role: &str) -> bool {
    target == role || linear.name().split('.').any(|module| module == target)
}

/// Linears between the towers, with their roles: they follow the connector, and are tuned where a target names them.
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
