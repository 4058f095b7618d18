//! Parts of a batch that are computed one after the other, with the losses of the whole.
//!
//! Every loss is a mean or a sum over tokens or rows, so the whole batch's is a weighted sum of its parts'. Parts keep the padding of the
//! whole batch, because the reference's sum over positions counts padding.

use ressa_models::{AnswerBatch, Prompts};
use tch::Tensor;

use crate::batch::TrainingBatch;

/// Instructions and replies of one kind: a part of the batch's, or all of them.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub prompts: Prompts,
    pub answers: Vec<Vec<u32>>,
    /// First of these rows in the batch.
    pub first: i64,
    /// Tokens that the whole batch's replies are padded to, their end included.
    width: usize,
    /// Share of the whole batch's target tokens.
    pub tokens: f64,
    /// Share of the whole batch's rows.
    pub rows: f64,
}

impl Exchange {
    /// Rows about `count` of the batch's `images` from image `from` on.
    fn part(prompts: &Prompts, answers: &[Vec<u32>], images: i64, from: i64, count: i64) -> Self {
        let each = answers.len() as i64 / images.max(1);
        let (first, rows) = (from * each, count * each);
        let part = &answers[first as usize..(first + rows) as usize];
        // Every reply has an end token beside its own.
        let tokens = |answers: &[Vec<u32>]| answers.iter().map(|answer| answer.len() + 1).sum::<usize>() as f64;
        let share = |part: f64, whole: f64| if whole == 0.0 { 0.0 } else { part / whole };
        let image = prompts.image.narrow(0, first, rows);
        Self {
            prompts: Prompts {
                image: if from == 0 { image } else { image - from },
                qformer: prompts.qformer.narrow(first, rows),
                language: prompts.language.narrow(first, rows),
            },
            answers: part.to_vec(),
            first,
            width: answers.iter().map(|answer| answer.len() + 1).max().unwrap_or(0),
            tokens: share(tokens(part), tokens(answers)),
            rows: share(rows as f64, answers.len() as f64),
        }
    }

    /// The replies with the padding of the whole batch.
    pub fn answers(&self) -> AnswerBatch<'_> {
        AnswerBatch { rows: &self.answers, width: self.width }
    }
}

/// A part of a batch: some of its images with all that is asked and said about them.
#[derive(Debug)]
pub(crate) struct MicroBatch {
    /// Pixels or features, see [`TrainingBatch::pixels`].
    pub pixels: Tensor,
    /// First image within the batch.
    pub from: i64,
    /// Share of the whole batch's images.
    pub images: f64,
    pub questions: Exchange,
    pub captions: Exchange,
}

/// Cuts a batch into parts of at most `size` images.
pub(crate) fn cut(batch: &TrainingBatch, size: i64) -> Vec<MicroBatch> {
    let images = batch.pixels.size()[0];
    let size = size.clamp(1, images.max(1));
    let part = |from: i64| {
        let count = size.min(images - from);
        MicroBatch {
            pixels: batch.pixels.narrow(0, from, count),
            from,
            images: count as f64 / images as f64,
            questions: Exchange::part(&batch.questions, &batch.answers, images, from, count),
            captions: Exchange::part(&batch.captions, &batch.caption_answers, images, from, count),
        }
    };
    (0..images).step_by(size as usize).map(part).collect()
}
