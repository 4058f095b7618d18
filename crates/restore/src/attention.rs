//! Distillation of attention: which distributions are compared, and how far they are from each other.
//!
//! Formula: of a compared attention, `1/rows sum_r 1/(heads |r|) sum_h sum_t KL(teacher[r, h, t] || student[r, h, t])`, where `t` runs over the `|r|` queries
//! of row `r` that are no padding and a distribution is over keys; the mean over the attentions of a block and over the blocks of a tower, the sum over
//! towers, and over questions and captions (an image encoder's is of the batch's images).
//!
//! Paper: Wang et al., "MiniLM", arXiv 2002.10957, equation 5, for the last block; Jiao et al., "TinyBERT", arXiv 1909.10351, for every block.
//!
//! Differs: MiniLM also transfers relations between values, and its student has the teacher's heads but not its blocks. TinyBERT compares logits before the
//! softmax by their squared distance. Both have encoders alone; here an encoder-decoder's attention to its encoder's output, and a Q-Former's to
//! the image, are attentions of their blocks.
//!
//! The fused kernel never forms these distributions, and the training's graph must not hold them: they are formed for some rows and heads at a time,
//! differentiated there, and forgotten. What stays are gradients of queries and keys.

use std::collections::BTreeMap;

use ressa_experiment::{
    config::{AttentionBlocks, DistillConfig},
    distill::PROBABILITIES_AT_ONCE,
    stage::AdaptTraining,
};
use ressa_models::{Attended, Tower, VisionLanguage};
use tch::{Kind, Tensor, with_grad};

use crate::{RestoreError, loss::kullback_leibler};

/// The blocks whose attention is compared: of the student, with those of the teacher.
#[derive(Debug, Default)]
pub(crate) struct Maps {
    /// By tower and the student's block.
    pairs: BTreeMap<(Tower, usize), usize>,
}

impl Maps {
    /// What the settings ask for; nothing where they do not.
    ///
    /// # Errors
    /// A tower without attention, or with nothing that trains in or below it; a teacher of other heads.
    pub fn of(
        student: &dyn VisionLanguage,
        teacher: &dyn VisionLanguage,
        settings: &AdaptTraining,
        distill: &DistillConfig,
    ) -> Result<Self, RestoreError> {
        let mut pairs = BTreeMap::new();
        let towers = distill.attention.towers.iter().filter(|_| distill.compares_attention());
        for &tower in towers {
            let trains = |below: &&Tower| **below <= tower && settings.tower(**below).is_some();
            if !Tower::ALL.iter().any(|below| trains(&below)) {
                return Err(RestoreError::UnchangedAttention { tower });
            }
            let has_encoder = |model: &dyn VisionLanguage| model.answers_from().is_some();
            // Whether the image encoder of another folder sees as many patches, nobody knows before it runs.
            let is_other = distill.teacher.is_some() && tower != Tower::Language;
            if is_other || has_encoder(student) != has_encoder(teacher) {
                return Err(RestoreError::OtherReader);
            }
            let (own, other) = (stacks(student, tower), stacks(teacher, tower));
            if own.iter().all(Vec::is_empty) {
                return Err(RestoreError::NoAttention { tower });
            }
            for (own, other) in own.iter().zip(&other) {
                let first = match distill.attention.blocks {
                    AttentionBlocks::All => 0,
                    AttentionBlocks::Last => own.len().saturating_sub(1),
                };
                for (place, &block) in own.iter().enumerate().skip(first) {
                    let Some(&taught) = other.get(same_share(place, own.len(), other.len())) else {
                        return Err(RestoreError::OtherReader);
                    };
                    let heads =
                        [(student, block), (teacher, taught)].map(|(model, at)| model.attention_heads(tower, at));
                    if heads[0] != heads[1] {
                        let [student, teacher] = heads;
                        return Err(RestoreError::OtherHeads { tower, student, teacher });
                    }
                    pairs.insert((tower, block), taught);
                }
            }
        }
        Ok(Self { pairs })
    }

    /// What a teacher has in an exchange, as its connector's and its language model's.
    pub fn split<'m>(&self, taught: &'m [Vec<Attended>]) -> (&'m [Vec<Attended>], &'m [Vec<Attended>]) {
        taught.split_at(self.of_tower(Tower::Connector).count().min(taught.len()))
    }

    /// Whether nothing is compared.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// The student's blocks of a tower.
    pub fn blocks(&self, tower: Tower) -> Vec<usize> {
        self.of_tower(tower).map(|(block, _)| block).collect()
    }

    /// The teacher's blocks of a tower, in the order of the student's.
    pub fn of_teacher(&self, tower: Tower) -> Vec<usize> {
        self.of_tower(tower).map(|(_, taught)| taught).collect()
    }

    fn of_tower(&self, tower: Tower) -> impl Iterator<Item = (usize, usize)> {
        self.pairs.iter().filter(move |((of, _), _)| *of == tower).map(|((_, block), taught)| (*block, *taught))
    }

    /// The loss of one compared block, a scalar: of the student's attentions and the teacher's, with which queries of each attention are no padding.
    pub fn loss(
        &self,
        tower: Tower,
        own: &[Attended],
        taught: &[Attended],
        real: &dyn Fn(i64) -> Option<Tensor>,
    ) -> Tensor {
        let blocks = self.of_tower(tower).count().max(1);
        let distances =
            own.iter().zip(taught).map(|(own, taught)| attention(own, taught, real(own.size()[2]).as_ref()));
        let sum = distances.reduce(|sum, more| sum + more).expect("a compared block has attention");
        sum / (own.len() * blocks) as f64
    }
}

/// Blocks of a tower whose attention can be looked at: of those that read the prompt, and of those that read answers alone.
fn stacks(model: &dyn VisionLanguage, tower: Tower) -> [Vec<usize>; 2] {
    let all = (0..model.blocks(tower)).filter(|&block| !model.attention_heads(tower, block).is_empty());
    let answers = model.answers_from().filter(|_| tower == Tower::Language).unwrap_or(usize::MAX);
    let (first, second) = all.partition(|&block| block < answers);
    [first, second]
}

/// The place among `others` at the same share of the depth as place `own` of `blocks`.
pub(crate) fn same_share(own: usize, blocks: usize, others: usize) -> usize {
    let depth = own + 1;
    ((2 * depth * others + blocks) / (2 * blocks)).clamp(1, others.max(1)) - 1
}

/// Distance of the student's attention from the teacher's, a scalar, f32: see the head of this file. `real` `[rows, queries]` is 1 where a query is no padding,
/// 0 elsewhere; all are real where it is absent. Its gradient goes to the student's queries and keys.
pub(crate) fn attention(student: &Attended, teacher: &Attended, real: Option<&Tensor>) -> Tensor {
    in_pieces(student, teacher, real, PROBABILITIES_AT_ONCE)
}

fn in_pieces(student: &Attended, teacher: &Attended, real: Option<&Tensor>, at_once: i64) -> Tensor {
    let [rows, heads, queries, keys] = student.size();
    let device = student.queries.device();
    let real = match real {
        Some(real) => real.to_kind(Kind::Float),
        None => Tensor::ones([rows, queries], (Kind::Float, device)),
    };
    let each = real.sum_dim_intlist([-1i64].as_slice(), true, Kind::Float).clamp_min(1.0) * (rows * heads) as f64;
    // `[rows, 1, queries]`.
    let weights = (real / each).unsqueeze(1);
    let sides = [&student.queries, &student.keys];
    let differs = sides.iter().any(|side| side.requires_grad());
    let mut gradients =
        sides.map(|side| Tensor::zeros(if differs { side.size() } else { vec![0] }, (Kind::Float, device)));
    let mut value = Tensor::zeros([], (Kind::Float, device));
    for (rows, heads) in pieces([rows, heads], queries * keys, at_once) {
        let taught = tch::no_grad(|| teacher.piece(rows, heads).log_probabilities());
        let own = student.piece(rows, heads);
        let leaf = |side: &Tensor| side.detach().to_kind(Kind::Float).set_requires_grad(differs);
        let own = Attended { queries: leaf(&own.queries), keys: leaf(&own.keys), ..own };
        let distance = with_grad(|| {
            let divergence = kullback_leibler(&taught, &own.log_probabilities());
            (divergence * weights.narrow(0, rows.0, rows.1)).sum(Kind::Float)
        });
        if differs {
            let found = Tensor::run_backward(&[&distance], &[&own.queries, &own.keys], false, false);
            for (gradient, found) in gradients.iter_mut().zip(found) {
                gradient.narrow(0, rows.0, rows.1).narrow(1, heads.0, heads.1).copy_(&found);
            }
        }
        value += distance.detach();
    }
    if !differs {
        return value;
    }
    // A scalar that is the value and has these gradients.
    let pulls = sides
        .into_iter()
        .zip(&gradients)
        .map(|(side, gradient)| with_grad(|| (side.to_kind(Kind::Float) * gradient).sum(Kind::Float)));
    pulls.fold(value, |value, pull| with_grad(|| value + (&pull - pull.detach())))
}

/// First and count of rows, and of heads, of each piece that holds at most so many elements, where one row and head has `each`.
fn pieces([rows, heads]: [i64; 2], each: i64, at_once: i64) -> impl Iterator<Item = ((i64, i64), (i64, i64))> {
    let many = |room: i64, count: i64| (room / each.max(1)).clamp(1, count.max(1));
    let of_heads = many(at_once / rows.max(1), heads);
    let of_rows = if of_heads > 1 || heads == 1 { many(at_once / of_heads, rows) } else { many(at_once, rows) };
    let cut = |count: i64, step: i64| (0..count).step_by(step as usize).map(move |from| (from, step.min(count - from)));
    cut(rows, of_rows).flat_map(move |rows| cut(heads, of_heads).map(move |heads| (rows, heads)))
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    fn wave(shape: [i64; 4], step: f64) -> Tensor {
        (Tensor::arange(shape.iter().product::<i64>(), (Kind::Float, Device::Cpu)) * step).sin().view(shape)
    }

    fn attended(queries: Tensor, keys: Tensor, bias: Option<Tensor>) -> Attended {
        let causal = bias.is_none();
        Attended { queries, keys, scale: 0.5, bias, causal }
    }

    /// Two keys and logits that are logarithms: a teacher that looks at one with 3/4 and a student that does with 1/2 are `3/4 ln 3/2 + 1/4 ln 1/2` apart.
    #[test]
    fn distances_by_hand() {
        let numbers = |values: &[f64], shape: [i64; 4]| Tensor::from_slice(values).view(shape).to_kind(Kind::Float);
        let ones = |many| Tensor::ones([2, 1, many, 1], (Kind::Float, Device::Cpu));
        let of = |logits: Tensor| Attended {
            queries: ones(2),
            keys: ones(2) * 0.0,
            scale: 1.0,
            bias: Some(logits),
            causal: false,
        };
        let (even, uneven) = ([0.0, 0.0], [3f64.ln(), 0.0]);
        let taught = of(numbers(&[uneven, even, uneven, uneven].concat(), [2, 1, 2, 2]));
        let own = of(numbers(&[even, even, even, even].concat(), [2, 1, 2, 2]));
        let apart = 0.75 * 1.5f64.ln() + 0.25 * 0.5f64.ln();
        let value = |real: Option<[f64; 4]>| {
            let real = real.map(|real| Tensor::from_slice(&real).view([2, 2]));
            attention(&own, &taught, real.as_ref()).double_value(&[])
        };
        assert!((value(None) - (0.5 * apart + apart) / 2.0).abs() < 1e-6);
        // The second query of the first row is padding; then all of the second row.
        assert!((value(Some([1.0, 0.0, 1.0, 1.0])) - apart).abs() < 1e-6);
        assert!((value(Some([1.0, 1.0, 0.0, 0.0])) - 0.5 * apart / 2.0).abs() < 1e-6);
        assert_eq!(attention(&taught, &taught, None).double_value(&[]), 0.0);
    }

    /// In pieces of any size, the value and the gradient are those of the formula written out.
    #[test]
    fn pieces_have_the_gradient_of_the_whole() {
        let biases = [None, Some(wave([1, 3, 5, 5], 2.1)), Some(wave([2, 1, 1, 5], 1.1))];
        for bias in biases {
            let shape = [2, 3, 5, 4];
            let taught = attended(wave(shape, 0.7), wave(shape, 1.3), bias.as_ref().map(Tensor::shallow_clone));
            let leaves = || [0.9, 1.7].map(|step| wave(shape, step).set_requires_grad(true));
            let real = Tensor::from_slice(&[1f32, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0]).view([2, 5]);
            let found = |at_once: Option<i64>| {
                let [queries, keys] = leaves();
                let own =
                    attended(queries.shallow_clone(), keys.shallow_clone(), bias.as_ref().map(Tensor::shallow_clone));
                let value = match at_once {
                    Some(at_once) => in_pieces(&own, &taught, Some(&real), at_once),
                    None => {
                        let each = real.sum_dim_intlist([-1i64].as_slice(), true, Kind::Float) * 6.0;
                        let divergence = kullback_leibler(&taught.log_probabilities(), &own.log_probabilities());
                        (divergence * (&real / each).unsqueeze(1)).sum(Kind::Float)
                    }
                };
                let gradients = Tensor::run_backward(&[&value], &[&queries, &keys], false, false);
                (value.double_value(&[]), gradients)
            };
            let (wanted, gradients) = found(None);
            assert!(wanted > 0.0);
            for at_once in [1, 30, 60, 1 << 20] {
                let (value, pieces) = found(Some(at_once));
                assert!((value - wanted).abs() < 1e-6, "{value} {wanted}");
                for (one, other) in gradients.iter().zip(&pieces) {
                    assert!((one - other).abs().max().double_value(&[]) < 1e-6, "{at_once}");
                }
            }
        }
    }

    /// The gradient of queries and keys against differences of the value, in f64 but for the distributions.
    #[test]
    fn gradients_are_slopes() {
        let shape = [1, 2, 4, 3];
        let taught = attended(wave(shape, 0.7), wave(shape, 1.3), None);
        let value = |queries: &Tensor, keys: &Tensor| {
            attention(&attended(queries.shallow_clone(), keys.shallow_clone(), None), &taught, None)
        };
        let leaves = [0.9, 1.7].map(|step| wave(shape, step).set_requires_grad(true));
        let total = value(&leaves[0], &leaves[1]);
        let gradients = Tensor::run_backward(&[&total], &[&leaves[0], &leaves[1]], false, false);
        for (side, gradient) in gradients.iter().enumerate() {
            let direction = wave(shape, 0.37);
            let step = 1e-2;
            let at = |by: f64| {
                let moved = |which: usize| match which == side {
                    true => leaves[which].detach() + &direction * by,
                    false => leaves[which].detach(),
                };
                value(&moved(0), &moved(1)).double_value(&[])
            };
            let slope = (at(step) - at(-step)) / (2.0 * step);
            let wanted = (gradient * &direction).sum(Kind::Double).double_value(&[]);
            assert!((slope - wanted).abs() < 1e-4 + 1e-2 * wanted.abs(), "{slope} {wanted}");
        }
    }

    #[test]
    fn pieces_cover_every_row_and_head_once() {
        for at_once in [1, 10, 25, 60, 1000] {
            let mut seen = vec![0; 12];
            for ((row, rows), (head, heads)) in pieces([3, 4], 10, at_once) {
                assert!(rows * heads * 10 <= at_once.max(10));
                for row in row..row + rows {
                    (head..head + heads).for_each(|head| seen[(row * 4 + head) as usize] += 1);
                }
            }
            assert_eq!(seen, [1; 12], "{at_once}");
        }
    }

    #[test]
    fn blocks_are_matched_at_the_same_share_of_the_depth() {
        let matched = |own: usize, others: usize| (0..own).map(|at| same_share(at, own, others)).collect::<Vec<_>>();
        assert_eq!(matched(4, 4), [0, 1, 2, 3]);
        assert_eq!(matched(2, 4), [1, 3]);
        assert_eq!(matched(4, 2), [0, 0, 1, 1]);
    }
}
