//! Distillation of hidden states: which of them are compared, on which tokens, and through what.

use std::collections::BTreeMap;

use rand::Rng;
use ressa_experiment::config::DistillConfig;
use ressa_models::{Tower, VisionLanguage};
use ressa_runtime::stream;
use tch::{Device, Kind, Tensor};

use crate::{RestoreError, attention::same_share, loss};

/// The blocks whose outputs are compared: of the student, with those of the teacher and what brings one width to the other.
#[derive(Debug, Default)]
pub(crate) struct States {
    /// By the student's block.
    pairs: BTreeMap<usize, Pair>,
}

#[derive(Debug)]
struct Pair {
    teacher: usize,
    /// Linear map `[teacher's width, student's width]`, which trains; none where widths are the same.
    map: Option<Tensor>,
}

impl States {
    /// What the settings ask for; nothing where they do not.
    ///
    /// # Errors
    /// A block that the student does not have; a teacher that reads in another way.
    pub fn of(
        student: &dyn VisionLanguage,
        teacher: &dyn VisionLanguage,
        distill: &DistillConfig,
        seed: u64,
    ) -> Result<Self, RestoreError> {
        if !distill.compares_states() {
            return Ok(Self::default());
        }
        let (own, other) = (Stack::of(student), Stack::of(teacher));
        let widths = [student, teacher].map(width);
        let last = own.blocks.saturating_sub(1) as u32;
        let layers = if distill.hidden.layers.is_empty() { vec![last] } else { distill.hidden.layers.clone() };
        let pair = |&layer: &u32| {
            if layer as usize >= own.blocks {
                return Err(RestoreError::NoBlock { layer, blocks: own.blocks });
            }
            let Some(matched) = own.matched(layer as usize, &other) else { return Err(RestoreError::OtherReader) };
            // Words of a T5's encoder and of its decoder are different blocks' business.
            let weights = &distill.hidden;
            let counted = match own.answers {
                Some(first) if layer as usize >= first => weights.answer,
                Some(_) => weights.image + weights.text,
                None => weights.image + weights.text + weights.answer,
            };
            if counted <= 0.0 {
                return Err(RestoreError::NoToken { layer });
            }
            let map = match widths {
                [Some(from), Some(to)] if from == to => None,
                [Some(from), Some(to)] => Some(fresh(layer, [to, from], seed, student)),
                _ => return Err(RestoreError::OtherReader),
            };
            Ok((layer as usize, Pair { teacher: matched, map }))
        };
        Ok(Self { pairs: layers.iter().map(pair).collect::<Result<_, _>>()? })
    }

    /// Whether nothing is compared.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// What trains beside the student, in the order of blocks.
    pub fn parameters(&self) -> Vec<Tensor> {
        self.pairs.values().filter_map(|pair| Some(pair.map.as_ref()?.shallow_clone())).collect()
    }

    /// The same with other parameters, in that order.
    pub fn with(mut self, parameters: &[Tensor]) -> Self {
        let maps = self.pairs.values_mut().filter_map(|pair| pair.map.as_mut());
        for (map, parameter) in maps.zip(parameters) {
            *map = parameter.shallow_clone();
        }
        self
    }

    /// The student's blocks.
    pub fn blocks(&self) -> Vec<usize> {
        self.pairs.keys().copied().collect()
    }

    /// The teacher's blocks, in the order of the student's.
    pub fn of_teacher(&self) -> Vec<usize> {
        self.pairs.values().map(|pair| pair.teacher).collect()
    }

    /// The loss of one compared block, the mean over the rows of an exchange: `state` `[rows, tokens, width]` of the student, `taught` of the teacher,
    /// `tokens` the weight of each `[rows, tokens]`.
    pub fn loss(&self, block: usize, state: &Tensor, taught: &Tensor, tokens: &Tensor) -> Tensor {
        let state = match self.pairs.get(&block).and_then(|pair| pair.map.as_ref()) {
            Some(map) => state.to_kind(Kind::Float).matmul(&map.transpose(0, 1)),
            None => state.to_kind(Kind::Float),
        };
        loss::hidden(&state, taught, tokens) / self.pairs.len().max(1) as f64
    }
}

/// A map that begins as any linear of these sizes.
fn fresh(layer: u32, [to, from]: [i64; 2], seed: u64, model: &dyn VisionLanguage) -> Tensor {
    let mut stream = stream(seed, &format!("distillation map {layer}"));
    let bound = 1.0 / (from as f32).sqrt();
    let unit = |bits: u32| (bits >> 8) as f32 / (1u32 << 24) as f32;
    let values: Vec<f32> = (0..to * from).map(|_| (2.0 * unit(stream.next_u32()) - 1.0) * bound).collect();
    let device = model.weights().first().map_or(Device::Cpu, |weight| weight.base().device());
    Tensor::from_slice(&values).view([to, from]).to_device(device)
}

/// Width of the language model's hidden states: what the first layer of its first block reads. Words may be narrower.
fn width(model: &dyn VisionLanguage) -> Option<i64> {
    let layers = model.linears();
    layers.iter().find(|(id, _)| id.tower == Tower::Language && id.block == 0).map(|(_, linear)| linear.shape().1)
}

/// The blocks of a language model.
struct Stack {
    blocks: usize,
    /// First block that reads answers alone.
    answers: Option<usize>,
}

impl Stack {
    fn of(model: &dyn VisionLanguage) -> Self {
        Self { blocks: model.blocks(Tower::Language), answers: model.answers_from() }
    }

    /// The block of another stack at the same share of the depth, in the part that reads the same tokens; nothing where there is no such part.
    fn matched(&self, block: usize, other: &Self) -> Option<usize> {
        let (from, own, start, many) = match (self.answers, other.answers) {
            (None, None) => (0, self.blocks, 0, other.blocks),
            (Some(own), Some(others)) if block < own => (0, own, 0, others),
            (Some(own), Some(others)) => (own, self.blocks - own, others, other.blocks.checked_sub(others)?),
            _ => return None,
        };
        Some(start + same_share(block - from, own, many))
    }
}
