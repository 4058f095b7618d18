//! Removal of heads, channels, blocks and learned queries of a tower as a whole, by groups that the architecture declares.
//!
//! [`remove_groups`] ranks the groups of each layer, and blocks among each other, and answers with what is left ([`TowerCut`]) and with masks: whole rows and
//! columns, and the biases of removed outputs. A masked model computes what a smaller one without them does, so everything that works with masks works
//! here; only queries are left out of the model itself, because a query of zeros is still a token that is looked at. Every layer loses the same number, so that the numbers of a configuration can say what is left.

mod choose;
mod influence;
mod queries;
mod scores;

use std::collections::BTreeMap;

use ressa_experiment::{
    Tower,
    record::Certificate,
    structure::{BlockScore, GroupScore, TowerStructure},
};
use ressa_models::{
    GroupSet, KeepMask, LayerCut, LayerId, Left, Linear, MaskSet, QUERY_TOKENS, Sample, Side, StackCut, TowerCut,
    TowerNumbers, Unit, VisionLanguage,
    certify::{self, Claim},
};
use tch::{Kind, Tensor, no_grad};

use self::{
    choose::{Stack, least, left_of, stacks},
    scores::{Scores, Wanted},
};
use crate::error::PruneError;

/// What is removed of one tower.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StructureRequest {
    /// The tower.
    pub tower: Tower,
    /// How much of it.
    pub target: TowerStructure,
    /// What ranks heads, channels and queries; `None` where all stay.
    pub score: Option<GroupScore>,
    /// What ranks blocks; `None` where all stay.
    pub block_score: Option<BlockScore>,
    /// Replicate seed, for scores that are drawn.
    pub seed: u64,
}

/// A tower from which groups were removed.
#[derive(Debug, Default)]
pub struct TowerRemoval {
    /// What is left.
    pub cut: TowerCut,
    /// Keep masks of layers and biases, those that there were before among them.
    pub masks: MaskSet,
}

/// Chooses what goes of a tower. `model` carries the masks of earlier steps and is left as it was; `before` is what earlier steps have left of the tower, which
/// counts and stays removed. `samples` may be empty for scores that need none. `progress` gets the share done.
///
/// # Errors
/// A target that the tower cannot meet; scores that are not finite.
pub fn remove_groups(
    model: &mut dyn VisionLanguage,
    request: &StructureRequest,
    before: Option<&TowerCut>,
    samples: &[Sample],
    progress: &mut dyn FnMut(f64),
) -> Result<TowerRemoval, PruneError> {
    let StructureRequest { tower, target, .. } = *request;
    no_grad(|| {
        let stacks = stacks(model, tower);
        if stacks.is_empty() {
            return Err(PruneError::NoGroups { tower });
        }
        let mut cut = TowerCut::default();
        if tower == Tower::Connector || target.cuts_queries() {
            queries::keep_queries(model, request, before, samples, &mut cut)?;
        }
        let scores = Scores::measure(model, &Wanted::of(request), samples, progress)?;
        let kept: Vec<Vec<usize>> =
            stacks.iter().map(|stack| kept_blocks(stack, request, &scores, before)).collect::<Result<_, _>>()?;
        for (stack, kept) in stacks.iter().zip(&kept) {
            if kept.len() < stack.blocks.len() {
                let (path, blocks) = (stack.path.clone(), kept.iter().map(|&at| stack.blocks[at].index).collect());
                cut.numbers.stacks.push(StackCut { path, blocks, of: stack.blocks.len() });
            }
        }
        for (unit, target) in [(Unit::Heads, target.heads), (Unit::Channels, target.channels)] {
            let mut numbers = None;
            for (stack, kept) in stacks.iter().zip(&kept) {
                keep_groups(stack, kept, (unit, target), (request, &scores, before), &mut numbers, &mut cut)?;
            }
            let numbers = numbers.filter(|Left { left, of }| left < of);
            match unit {
                Unit::Heads => cut.numbers.heads = numbers,
                Unit::Channels => cut.numbers.channels = numbers,
            }
        }
        for (stack, kept) in stacks.iter().zip(&kept) {
            for layer in (0..stack.blocks.len()).filter(|at| !kept.contains(at)).flat_map(|at| &stack.blocks[at].layers)
            {
                let nothing = Tensor::zeros([0], (Kind::Int64, tch::Device::Cpu));
                cut.layers.insert(layer.clone(), LayerCut { rows: Some(nothing), columns: None });
            }
            // Where they go is said even where the block that they are in goes.
            let tied = stack.blocks.iter().flat_map(|block| &block.sets).find(|set| set.is_tied);
            if let Some(set) = tied.filter(|_| kept.len() < stack.blocks.len()) {
                for table in &stack.tables {
                    let all = || Tensor::arange(set.count, (Kind::Int64, tch::Device::Cpu));
                    cut.tables.entry(table.clone()).or_insert_with(all);
                }
            }
        }
        let masks = masks(model, tower, &cut)?;
        Ok(TowerRemoval { cut, masks })
    })
}

/// Places, within a stack, of the blocks that stay.
fn kept_blocks(
    stack: &Stack,
    request: &StructureRequest,
    scores: &Scores,
    before: Option<&TowerCut>,
) -> Result<Vec<usize>, PruneError> {
    let all = stack.blocks.len();
    let earlier = before.and_then(|cut| cut.numbers.stacks.iter().find(|cut| cut.path == stack.path));
    let is_gone = |index: usize| earlier.is_some_and(|cut| !cut.blocks.contains(&index));
    let gone: Vec<bool> = stack.blocks.iter().map(|block| is_gone(block.index)).collect();
    let left = left_of(request, "blocks", request.target.blocks, all)?;
    let removed = (all - left).max(gone.iter().filter(|gone| **gone).count());
    if removed == 0 {
        return Ok((0..all).collect());
    }
    // Blocks that cannot go are the last to go.
    let candidates = stack.blocks.iter().filter(|block| block.is_removable).count();
    if removed > candidates || removed == all {
        return Err(PruneError::Blocks { stack: stack.path.clone(), removed, candidates });
    }
    let worth = |(at, block): (usize, &choose::Block)| match block.is_removable {
        true => scores.block(at, stack),
        false => Ok(f64::MAX),
    };
    let worth = stack.blocks.iter().enumerate().map(worth).collect::<Result<Vec<f64>, _>>()?;
    Ok(least(&worth, &gone, removed))
}

/// Chooses the groups of a unit that stay in the blocks of a stack that stay, and notes what is left of their layers.
fn keep_groups(
    stack: &Stack,
    kept: &[usize],
    (unit, target): (Unit, f64),
    (request, scores, before): (&StructureRequest, &Scores, Option<&TowerCut>),
    numbers: &mut Option<Left>,
    cut: &mut TowerCut,
) -> Result<(), PruneError> {
    let sets = |at: usize| stack.blocks[at].sets.iter().filter(move |set| set.unit == unit);
    let word = if unit == Unit::Heads { "heads" } else { "channels" };
    let mut tied: Vec<(usize, &GroupSet)> = Vec::new();
    let mut alone: Vec<Vec<(usize, &GroupSet)>> = Vec::new();
    for &at in kept {
        for set in sets(at) {
            if set.is_tied { tied.push((at, set)) } else { alone.push(vec![(at, set)]) }
        }
    }
    alone.extend((!tied.is_empty()).then_some(tied));
    for sets in alone {
        let Some((_, first)) = sets.first() else { continue };
        let count = first.count as usize;
        let gone = gone_groups(first, before);
        let left = left_of(request, word, target, count)?;
        let removed = (count - left).max(gone.iter().filter(|gone| **gone).count());
        let this = Left { left: (count - removed) as u64, of: count as u64 };
        if numbers.get_or_insert(this) != &this {
            let reason = format!("its layers have different numbers of {word}, which one number cannot say");
            return Err(PruneError::Structure { tower: request.tower, reason });
        }
        if removed == 0 {
            continue;
        }
        let mut worth = vec![0.0; count];
        for (at, set) in &sets {
            let of_set = scores.groups(stack.blocks[*at].index, set, &stack.path)?;
            worth.iter_mut().zip(of_set).for_each(|(sum, score)| *sum += score);
        }
        let groups: Vec<i64> = least(&worth, &gone, removed).into_iter().map(|group| group as i64).collect();
        for slice in sets.iter().flat_map(|(_, set)| &set.slices) {
            let positions = Tensor::from_slice(&slice.positions(count as i64, &groups));
            let layer = cut.layers.entry(slice.layer.clone()).or_default();
            *(if slice.side == Side::Rows { &mut layer.rows } else { &mut layer.columns }) = Some(positions);
        }
        if first.is_tied {
            cut.tables.extend(stack.tables.iter().map(|table| (table.clone(), Tensor::from_slice(&groups))));
        }
    }
    Ok(())
}

/// Which groups of a set are gone already.
fn gone_groups(set: &GroupSet, before: Option<&TowerCut>) -> Vec<bool> {
    let read = set.slices.iter().find(|slice| slice.side == Side::Columns);
    let columns = read.and_then(|slice| before?.layers.get(&slice.layer)?.columns.as_ref().map(|left| (slice, left)));
    let left: Vec<i64> = columns.map(|(_, left)| Vec::try_from(left).unwrap_or_default()).unwrap_or_default();
    let is_gone = |group: i64| match columns {
        Some((slice, _)) => {
            slice.positions(set.count, &[group]).iter().any(|position| left.binary_search(position).is_err())
        }
        None => false,
    };
    (0..set.count).map(is_gone).collect()
}

/// Masks of a tower's layers and biases: what is left, of what masks have kept so far.
fn masks(model: &dyn VisionLanguage, tower: Tower, cut: &TowerCut) -> Result<MaskSet, PruneError> {
    let mut masks = MaskSet::new();
    for (id, linear) in of_tower(model, tower) {
        let (cut, earlier) = (cut.layers.get(&id.name), linear.matrix().keep());
        if cut.is_none() && earlier.is_none() {
            continue;
        }
        masks.insert(id.name.clone(), keep(linear, cut, earlier));
        for bias in linear.weights().skip(1) {
            if let Some(keep) = cut.and_then(|cut| bias_keep(bias.base(), cut)) {
                masks.insert(bias.key(), keep);
            }
        }
    }
    Ok(masks)
}

/// What stays of a matrix, bool `[out, in]`.
fn keep(linear: &Linear, cut: Option<&LayerCut>, earlier: Option<&KeepMask>) -> Tensor {
    let device = linear.weight().device();
    let left = cut.map(|cut| cut.keep(linear.shape(), device));
    match (left, earlier.map(KeepMask::keep)) {
        (Some(left), Some(earlier)) => left.logical_and(&earlier.to_device(device)),
        (left, earlier) => {
            let (rows, columns) = linear.shape();
            left.or(earlier).unwrap_or_else(|| Tensor::ones([rows, columns], (Kind::Bool, device)))
        }
    }
}

/// What stays of a bias `[out]`, bool `[1, out]`; `None` where all does.
fn bias_keep(bias: &Tensor, cut: &LayerCut) -> Option<Tensor> {
    let (rows, outputs) = (cut.rows.as_ref()?, bias.size()[0]);
    let column = LayerCut { rows: Some(rows.shallow_clone()), columns: None }.keep((outputs, 1), bias.device());
    Some(column.transpose(0, 1).contiguous())
}

fn of_tower(model: &dyn VisionLanguage, tower: Tower) -> impl Iterator<Item = (&LayerId, &Linear)> {
    model.linears().into_iter().filter(move |(id, _)| id.tower == tower)
}

/// Recounts a tower: `masks` remove exactly what is not left and what earlier masks of `model` remove, biases of removed outputs with them, and every block that is
/// left has the same numbers of groups.
pub fn certify_structure(
    model: &dyn VisionLanguage,
    tower: Tower,
    TowerRemoval { cut, masks }: &TowerRemoval,
) -> Certificate {
    let mut certificate = no_grad(|| recount(model, tower, cut, masks));
    let (found, said) =
        (cut.queries.as_ref().map(Tensor::numel), cut.numbers.queries.map(|queries| queries.left as usize));
    if found != said {
        certificate.violations.push(format!("`{QUERY_TOKENS}`: {found:?} queries are left of {said:?}"));
    }
    for stack in stacks(model, tower) {
        let known = cut.numbers.stacks.iter().find(|known| known.path == stack.path);
        let is_left = |index: usize| known.is_none_or(|known| known.blocks.contains(&index));
        for set in stack.blocks.iter().filter(|block| is_left(block.index)).flat_map(|block| &block.sets) {
            let numbers = if set.unit == Unit::Heads { cut.numbers.heads } else { cut.numbers.channels };
            let left = numbers.map_or(set.count, |numbers| numbers.left as i64);
            for slice in &set.slices {
                let layer = cut.layers.get(&slice.layer);
                let side =
                    layer.and_then(
                        |layer| if slice.side == Side::Rows { layer.rows.as_ref() } else { layer.columns.as_ref() },
                    );
                let found = side.map_or(set.count * slice.width * slice.parts, |side| side.size()[0]);
                if found != left * slice.width * slice.parts {
                    let violation = format!("`{}`: {found} rows or columns are left of {left} groups", slice.layer);
                    certificate.violations.push(violation);
                }
            }
        }
    }
    certificate
}

fn recount(model: &dyn VisionLanguage, tower: Tower, cut: &TowerCut, masks: &MaskSet) -> Certificate {
    let mut certificate = Certificate::default();
    for (id, linear) in of_tower(model, tower) {
        let layer = cut.layers.get(&id.name);
        let mut check = |name: &str, expected: Tensor| {
            let all_kept = || expected.all().int64_value(&[]) == 1;
            let is_same = match masks.get(name) {
                Some(found) => found.keep().to_device(expected.device()).equal(&expected),
                None => all_kept(),
            };
            if !is_same {
                certificate.violations.push(format!("`{name}`: the mask is not that of what is left"));
            }
        };
        check(&id.name, keep(linear, layer, linear.matrix().keep()));
        for bias in linear.weights().skip(1) {
            if let Some(keep) = layer.and_then(|cut| bias_keep(bias.base(), cut)) {
                check(bias.key(), keep);
            }
        }
        let found = certify::certify([Claim {
            layer: id,
            weight: linear.weight(),
            masked: true,
            keep: masks.get(&id.name),
            pattern: None,
            cut: None,
            pruned: None,
            sealed: true,
        }]);
        certificate.tensors.extend(found.tensors);
        certificate.violations.extend(found.violations);
    }
    certificate
}

/// Numbers of groups by what they are called, for a stage's result.
pub fn numbers_in_words(numbers: &TowerNumbers) -> BTreeMap<String, String> {
    let left = |left: &Left| format!("{} of {}", left.left, left.of);
    let units = [("heads", &numbers.heads), ("channels", &numbers.channels), ("queries", &numbers.queries)];
    let units = units.into_iter().filter_map(|(name, numbers)| Some((name.to_owned(), left(numbers.as_ref()?))));
    let stacks = numbers.stacks.iter().map(|StackCut { path, blocks, of }| {
        let kept: Vec<String> = blocks.iter().map(usize::to_string).collect();
        (path.clone(), format!("blocks {} of {of}", kept.join(", ")))
    });
    units.chain(stacks).collect()
}
