//! Distillation of hidden states: which of them are compared, on which tokens, and through what.

use std::collections::BTreeMap;

use rand::Rng;
use ressa_experiment::config::{DistillConfig, HiddenConfig};
use ressa_models::{Entry, Flow, Forced, Targets, TokenKind, Tower, VisionLanguage};
use ressa_runtime::stream;
use tch::{Device, Kind, Tensor};

use crate::{RestoreError, loss, micro::Exchange};

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

    /// What a teacher says of an exchange, with its states in the order of the student's blocks.
    pub fn ask(
        &self,
        teacher: &dyn VisionLanguage,
        features: &Tensor,
        exchange: &Exchange,
    ) -> Option<(Forced, Vec<Tensor>)> {
        let Traced { forced, states, .. } = forced_traced(teacher, features, exchange, &self.of_teacher())?;
        Some((forced, self.pairs.values().map(|pair| states[&pair.teacher].shallow_clone()).collect()))
    }

    /// The teacher's blocks, in the order of the student's.
    fn of_teacher(&self) -> Vec<usize> {
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
        let depth = block - from + 1;
        Some(start + ((2 * depth * many + own) / (2 * own)).clamp(1, many) - 1)
    }
}

/// What left a block: what enters the next one, or, of an encoder's last, its output.
pub(crate) fn after<'f>(model: &dyn VisionLanguage, block: usize, next: &'f Flow) -> &'f Tensor {
    match model.answers_from() {
        Some(first) if block + 1 == first => next.carried().unwrap_or(&next.hidden),
        _ => &next.hidden,
    }
}

/// Teacher-forced outputs with what left some of the language model's blocks.
pub(crate) struct Traced {
    pub forced: Forced,
    /// By block.
    pub states: BTreeMap<usize, Tensor>,
    /// What entered the first block.
    pub entry: Flow,
}

/// Teacher-forced outputs of an exchange with what left some blocks; `None` where there is none.
pub(crate) fn forced_traced(
    model: &dyn VisionLanguage,
    features: &Tensor,
    exchange: &Exchange,
    blocks: &[usize],
) -> Option<Traced> {
    if exchange.answers.is_empty() {
        return None;
    }
    let (prompts, answers) = (&exchange.prompts, exchange.answers());
    let prefix = model.visual_prefix(features, prompts);
    let entry = model.enter_from(Entry::Prefix { prefix: &prefix, prompt: &prompts.language, answers });
    let mut flow = entry.shallow_clone();
    let mut states = BTreeMap::new();
    for block in 0..model.blocks(Tower::Language) {
        flow = model.run_block(Tower::Language, block, &flow);
        if blocks.contains(&block) {
            states.insert(block, after(model, block, &flow).shallow_clone());
        }
    }
    let Targets { ids, mask } = model.targets(&exchange.answers());
    let logits = model.leave(Tower::Language, &flow);
    Some(Traced { forced: Forced { logits, targets: ids, mask }, states, entry })
}

/// The weight of each token of what leaves a block, `[rows, tokens]`; 0 where it is padding. `entry` is what entered the language model.
pub(crate) fn token_weights(
    model: &dyn VisionLanguage,
    block: usize,
    entry: &Flow,
    exchange: &Exchange,
    hidden: &HiddenConfig,
    tokens: i64,
) -> Tensor {
    let device = entry.hidden.device();
    let places = |many: i64| Tensor::arange(many, (Kind::Int64, device)).unsqueeze(0);
    let column = |numbers: Vec<i64>| Tensor::from_slice(&numbers).to_device(device).unsqueeze(1);
    let lengths = |more: usize| column(exchange.answers.iter().map(|answer| (answer.len() + more) as i64).collect());
    let number = |truth: Tensor, weight: f64| truth.to_kind(Kind::Float) * weight;
    if model.answers_from().is_some_and(|first| block >= first) {
        // A start token stands before the answer, whose last token predicts the end.
        return number(places(tokens).less_tensor(&lengths(1)), hidden.answer);
    }
    let prompt = &exchange.prompts.language;
    let own = prompt.mask.sum_dim_intlist([1i64].as_slice(), true, Kind::Int64);
    let before = entry.hidden.size()[1] - behind(model, exchange);
    let kinds = model.token_kinds(Tower::Language, 0, entry);
    let first: Vec<f32> = kinds[..before as usize]
        .iter()
        .map(|kind| if *kind == TokenKind::Visual { hidden.image as f32 } else { hidden.text as f32 })
        .collect();
    let first = Tensor::from_slice(&first).to_device(device).unsqueeze(0).expand([own.size()[0], before], false);
    let place = places(tokens - before);
    let is_prompt = place.less_tensor(&own);
    let mut rest = number(is_prompt.shallow_clone(), hidden.text);
    if model.answers_from().is_none() {
        let is_answer = place.less_tensor(&(&own + lengths(0))).logical_and(&is_prompt.logical_not());
        rest += number(is_answer, hidden.answer);
    }
    Tensor::cat(&[first, rest], 1)
}

/// Tokens of a row's own text in what enters the language model, padding included.
fn behind(model: &dyn VisionLanguage, exchange: &Exchange) -> i64 {
    let prompt = &exchange.prompts.language;
    if model.answers_from().is_some() {
        return prompt.ids.size()[1];
    }
    let own = Vec::<i64>::try_from(prompt.mask.sum_dim_intlist([1i64].as_slice(), false, Kind::Int64));
    let rows = own.unwrap_or_default();
    let longest = rows.iter().zip(&exchange.answers).map(|(own, answer)| own + answer.len() as i64).max();
    longest.unwrap_or_default().max(1)
}
