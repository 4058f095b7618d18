//! Prompts and forced answers as tensors: targets for every language model, one sequence per row for those that read one.

use tch::{Device, Tensor};

use crate::{
    AnswerBatch, TextBatch,
    config::SpecialTokens,
    generate::{self, PromptPrefix},
};

/// Answers with their end token, padded on the right.
pub(crate) struct Answers {
    pub targets: Tensor,
    pub mask: Tensor,
}

impl Answers {
    pub fn new(answers: &AnswerBatch<'_>, special: &SpecialTokens, device: Device) -> Self {
        let end = special.eos.first().map(|&id| id as u32);
        let rows: Vec<Vec<u32>> =
            answers.rows.iter().map(|answer| answer.iter().copied().chain(end).collect()).collect();
        let TextBatch { ids, mask, .. } = TextBatch::pad_to(answers.width, &rows, special.pad as u32, device);
        Self { targets: ids, mask }
    }

    /// The targets moved right by one, behind the start token: what a decoder reads.
    pub fn inputs(&self, start: i64) -> Tensor {
        let tokens = self.targets.size()[1];
        let start = Tensor::full([self.targets.size()[0], 1], start, (tch::Kind::Int64, self.targets.device()));
        Tensor::cat(&[start, self.targets.narrow(1, 0, tokens - 1)], 1)
    }
}

/// Instructions and answers as one sequence per row without padding between.
pub(crate) struct Packed {
    /// i64 `[rows, tokens]`, padded on the right.
    pub ids: Tensor,
    /// Positions, counted with the image's, whose outputs predict each answer token and the end: i64 `[rows, longest answer + 1]`.
    pub predictors: Tensor,
}

impl Packed {
    pub fn new(
        prefix: Option<&Tensor>,
        prompt: &TextBatch,
        answers: &AnswerBatch<'_>,
        special: &SpecialTokens,
        device: Device,
    ) -> Self {
        let before = prefix.map_or(0, |prefix| prefix.size()[1]) as usize;
        let (prompts, pad) = (prompt.on_host(), special.pad as u32);
        let AnswerBatch { rows: answers, width } = *answers;
        let longest = answers.iter().map(Vec::len).max().unwrap_or(0).max(width.saturating_sub(1));
        let mut rows = Vec::with_capacity(answers.len());
        let mut predictors = Vec::with_capacity(answers.len() * (longest + 1));
        for (row, answer) in answers.iter().enumerate() {
            // Something must stand before the first answer token: without image and instruction, one pad token.
            let blank = usize::from(before == 0 && prompts[row].is_empty());
            let length = prompts[row].len() + blank;
            let prompt = prompts[row].iter().copied().chain(std::iter::repeat_n(pad, blank));
            rows.push(prompt.chain(answer.iter().copied()).collect::<Vec<u32>>());
            let last = before + length + answer.len() - 1;
            predictors.extend((0..=longest).map(|t| (before + length - 1 + t).min(last) as i64));
        }
        let TextBatch { ids, .. } = TextBatch::pad(&rows, pad, device);
        let predictors =
            Tensor::from_slice(&predictors).view([answers.len() as i64, longest as i64 + 1]).to_device(device);
        Self { ids, predictors }
    }

    /// What stands before each row's answer, of `lengths` real positions of which `images` are before its text; `before` are their ids,
    /// as far as they have some.
    pub fn before(&self, images: usize, lengths: &Tensor, before: &[i64]) -> Vec<PromptPrefix> {
        let width = self.ids.size()[1] as usize;
        let ids = generate::ids(&self.ids);
        let lengths = generate::ids(lengths);
        let row = |(row, length): (usize, &i64)| {
            let length = *length as usize;
            let words = &ids[row * width..row * width + (length - images)];
            let before = if images > 0 { before } else { &[] };
            PromptPrefix { length, ids: before.iter().chain(words).copied().collect() }
        };
        lengths.iter().enumerate().map(row).collect()
    }
}
