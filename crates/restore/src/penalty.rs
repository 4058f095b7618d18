//! A penalty on groups of weights while a training runs, by a proximal step behind each step of the optimiser.
//!
//! - Formula: `w_g <- w_g max(0, 1 - lr weight sqrt(n_g) / |w_g|)` for all `n_g` weights of a group that no mask prunes: the proximal operator of
//!   `lr weight sqrt(n_g) |w_g|`, group l1/l2
//! - Paper: "Less is More: Towards Parsimonious Multi-Task Models Using Structured Sparsity", arXiv 2308.12114, with groups of channels
//! - Differs: groups are those that the step `structure` removes (heads, channels; of T5's attention the same heads of all blocks of a stack), each with
//!   all of its rows and columns, or rows

use std::collections::BTreeMap;

use ressa_experiment::{
    Tower,
    penalty::{PenalisedGroups, PenaltyConfig},
};
use ressa_models::{Full, Side, Unit, VisionLanguage, Weight};
use ressa_runtime::{count_nonzero, optim::FlatAdamW};
use tch::{Kind, Tensor, no_grad};

/// Groups of a kind that are zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ZeroGroups {
    /// How many.
    pub zero: u64,
    /// Of how many.
    pub of: u64,
}

/// Shrinks groups of a student's weights.
pub(crate) struct Penalty {
    weight: f64,
    sets: Vec<Set>,
}

/// Groups that lie side by side in the same layers.
struct Set {
    tower: Tower,
    kind: &'static str,
    count: i64,
    members: Vec<Member>,
}

/// Where the groups of a set lie in a layer of the student: `parts` times one after the other.
struct Member {
    layer: String,
    /// The number of its parameter.
    delta: usize,
    side: Side,
    parts: i64,
}

impl Penalty {
    /// For a student with updates; nothing where nothing is penalised. `names` are those of the weights of all parameters.
    pub fn of(student: &dyn VisionLanguage, config: PenaltyConfig, names: &[String]) -> Option<Self> {
        if !config.is_on() {
            return None;
        }
        let linears = student.linears();
        // The number of the parameter of a layer that trains element by element.
        let delta = |layer: &str| {
            let (_, linear) = linears.iter().find(|(id, _)| id.name == layer)?;
            let is_full = linear.matrix().update().is_some_and(|update| update.kind() == Full::KIND);
            names.iter().position(|name| is_full && name == linear.matrix().key())
        };
        let mut sets: Vec<Set> = Vec::new();
        for tower in Tower::ALL {
            let declared = match config.groups {
                PenalisedGroups::Structure => declared(student, tower, &delta),
                PenalisedGroups::Rows => Vec::new(),
            };
            if !declared.is_empty() {
                sets.extend(declared);
                continue;
            }
            for (id, linear) in linears.iter().filter(|(id, _)| id.tower == tower) {
                if let Some(delta) = delta(&id.name) {
                    let member = Member { layer: id.name.clone(), delta, side: Side::Rows, parts: 1 };
                    sets.push(Set { tower, kind: "rows", count: linear.shape().0, members: vec![member] });
                }
            }
        }
        Some(Self { weight: config.weight, sets })
    }

    /// Shrinks all groups behind a step that was made with a learning rate.
    pub fn shrink(&self, student: &dyn VisionLanguage, optimiser: &FlatAdamW, learning_rate: f64) {
        let weights = by_key(student);
        no_grad(|| {
            for set in &self.sets {
                let (squares, sizes) = set.measure(&weights, optimiser);
                let length = squares.sqrt();
                let cut = sizes.sqrt() * (learning_rate * self.weight);
                // A group of length 0 stays what it is.
                let factor = (cut / length.clamp_min(f64::from(f32::MIN_POSITIVE))).neg() + 1.0;
                let factor = factor.clamp_min(0.0);
                for member in &set.members {
                    let weight = weights[member.layer.as_str()];
                    let factor = member.spread(&factor, set.count, &weight.base().size());
                    let base = weight.base().to_kind(Kind::Float);
                    let delta = &optimiser.parameters()[member.delta].detach();
                    let moved = (&base + delta) * factor - base;
                    let moved = match weight.keep() {
                        Some(keep) => delta.where_self(&keep.remove(), &moved),
                        None => moved,
                    };
                    // The parameter is a view of the optimiser's, and shares its memory without a gradient.
                    delta.shallow_clone().copy_(&moved);
                }
            }
        });
    }

    /// Groups that are zero, by tower and kind.
    pub fn zeros(
        &self,
        student: &dyn VisionLanguage,
        optimiser: &FlatAdamW,
    ) -> BTreeMap<Tower, BTreeMap<&'static str, ZeroGroups>> {
        let weights = by_key(student);
        let mut found: BTreeMap<Tower, BTreeMap<&'static str, ZeroGroups>> = BTreeMap::new();
        for set in &self.sets {
            let (squares, sizes) = no_grad(|| set.measure(&weights, optimiser));
            let groups = found.entry(set.tower).or_default().entry(set.kind).or_default();
            // What was removed before is no group that training emptied.
            let of = count_nonzero(&sizes);
            groups.zero += of - count_nonzero(&squares);
            groups.of += of;
        }
        found
    }
}

/// Weights of a model by their names.
pub(crate) fn by_key(student: &dyn VisionLanguage) -> BTreeMap<&str, &Weight> {
    student.weights().into_iter().map(|weight| (weight.key(), weight)).collect()
}

/// Heads and channels of a tower, with the layers of theirs that train; those that are tied over the blocks of a stack as one.
fn declared(student: &dyn VisionLanguage, tower: Tower, delta: &dyn Fn(&str) -> Option<usize>) -> Vec<Set> {
    let mut sets: Vec<Set> = Vec::new();
    // Where the set of a stack's tied groups is among them.
    let mut tied: BTreeMap<(String, Unit, i64), usize> = BTreeMap::new();
    for block in 0..student.blocks(tower) {
        let groups = student.groups(tower, block);
        let stack = groups.place.map(|(path, _)| path).unwrap_or_default();
        for set in groups.sets {
            let member = |slice: ressa_models::Slice| {
                let delta = delta(&slice.layer)?;
                Some(Member { layer: slice.layer, delta, side: slice.side, parts: slice.parts })
            };
            let members: Vec<Member> = set.slices.into_iter().filter_map(member).collect();
            if members.is_empty() {
                continue;
            }
            let kind = match set.unit {
                Unit::Heads => "heads",
                Unit::Channels => "channels",
            };
            let known = set.is_tied.then(|| tied.get(&(stack.clone(), set.unit, set.count)).copied()).flatten();
            match known {
                Some(at) => sets[at].members.extend(members),
                None => {
                    if set.is_tied {
                        tied.insert((stack.clone(), set.unit, set.count), sets.len());
                    }
                    sets.push(Set { tower, kind, count: set.count, members });
                }
            }
        }
    }
    sets
}

impl Set {
    /// Sum of squares and number of the weights of each group that no mask prunes, f32 `[count]`.
    fn measure(&self, weights: &BTreeMap<&str, &Weight>, optimiser: &FlatAdamW) -> (Tensor, Tensor) {
        let measured = self.members.iter().map(|member| {
            let weight = weights[member.layer.as_str()];
            let sum = weight.base().to_kind(Kind::Float) + optimiser.parameters()[member.delta].detach();
            let kept = match weight.keep() {
                Some(keep) => keep.keep().to_kind(Kind::Float),
                None => sum.ones_like(),
            };
            [(sum * &kept).square(), kept].map(|values| member.sum(&values, self.count))
        });
        let [squares, sizes] =
            measured.reduce(|[all, sizes], [squares, size]| [all + squares, sizes + size]).expect("a set has members");
        (squares, sizes)
    }
}

impl Member {
    /// Sums over each of `count` groups of a matrix `[out, in]`.
    fn sum(&self, values: &Tensor, count: i64) -> Tensor {
        let across = if self.side == Side::Rows { -1i64 } else { 0 };
        let lines = values.sum_dim_intlist([across].as_slice(), false, Kind::Float);
        lines.view([self.parts, count, -1]).sum_dim_intlist([0i64, 2].as_slice(), false, Kind::Float)
    }

    /// A number of each group, for every element of a matrix of a size: `[out, 1]` or `[1, in]`.
    fn spread(&self, values: &Tensor, count: i64, size: &[i64]) -> Tensor {
        let lines = if self.side == Side::Rows { size[0] } else { size[1] };
        let width = lines / (self.parts * count).max(1);
        let all = values.view([1, count, 1]).expand([self.parts, count, width], false).reshape([lines]);
        if self.side == Side::Rows { all.unsqueeze(1) } else { all.unsqueeze(0) }
    }
}
