//! Retrieval with a BLIP-2 image-text matching model: contrastive similarities, the best of which its matching head looks at again.
//!
//! As LAVIS' `compute_sim_matrix`: for each image the best texts, and for each text the best images, are scored by the matching head's logit
//! plus the contrastive similarity; what is not among the best comes after them. Features are computed twice rather than kept: those of
//! a thousand images of the published model are four gigabytes.

use ressa_models::{TextBatch, VisionLanguage};
use tch::{Kind, Tensor};

use crate::{
    EvalError, Prediction, Prepared,
    predict::{Similarities, encode, ranks, similarities},
};

/// Score of a pair that the matching head does not look at.
const PASSED_OVER: f32 = -100.0;

/// How much is looked at again, and at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MatchOptions {
    /// Best contrastive matches that the matching head looks at; 0 leaves the contrastive ranks.
    pub rerank: usize,
    /// Most images or pairs in one forward pass. Changes memory and time, not results.
    pub rows: usize,
}

/// Ranks of a retrieval benchmark, text for image and image for text. `prepared` comes from [`Prepared::for_matching`].
///
/// `progress` is told the share done, 0 to 1.
///
/// # Errors
/// A model without contrastive or matching head, or a failed tensor operation.
pub fn match_both_ways(
    model: &dyn VisionLanguage,
    prepared: &Prepared,
    options: MatchOptions,
    progress: &mut dyn FnMut(f64),
) -> Result<Vec<Prediction>, EvalError> {
    /// Of the time, where pairs are looked at.
    const CONTRASTIVE_SHARE: f64 = 0.1;
    tch::no_grad(|| {
        let share = if options.rerank == 0 { 1.0 } else { CONTRASTIVE_SHARE };
        let Similarities { values, order } =
            similarities(model, prepared, options.rows, &mut |done| progress(done * share))?;
        if options.rerank == 0 {
            return Ok(ranks(prepared, &order, &values, &values));
        }
        let texts = order.len();
        let (mut of_texts, mut of_images) = (vec![PASSED_OVER; values.len()], vec![PASSED_OVER; values.len()]);
        let mut chosen = vec![(false, false); values.len()];
        for image in 0..prepared.images {
            for text in best(texts, options.rerank, |text| values[image * texts + text]) {
                chosen[image * texts + text].0 = true;
            }
        }
        for text in 0..texts {
            for image in best(prepared.images, options.rerank, |image| values[image * texts + text]) {
                chosen[image * texts + text].1 = true;
            }
        }

        let captions = captions(prepared, &order);
        let mut first = 0;
        for block in &prepared.blocks {
            let features = encode(model, block, prepared, options.rows)?;
            for row in 0..features.size()[0] {
                let image = first + row as usize;
                let of_image = features.narrow(0, row, 1);
                let pairs = &chosen[image * texts..][..texts];
                let wanted: Vec<usize> = (0..texts).filter(|&text| pairs[text].0 || pairs[text].1).collect();
                for wanted in wanted.chunks(options.rows.max(1)) {
                    let scores = scores(model, &of_image, &captions, wanted)?;
                    for (&text, score) in wanted.iter().zip(scores) {
                        let at = image * texts + text;
                        if chosen[at].0 {
                            of_texts[at] = score + values[at];
                        }
                        if chosen[at].1 {
                            of_images[at] = score + values[at];
                        }
                    }
                }
                progress(share + (1.0 - share) * (image + 1) as f64 / prepared.images as f64);
            }
            first += features.size()[0] as usize;
        }
        Ok(ranks(prepared, &order, &of_texts, &of_images))
    })
}

/// The `most` positions of the highest values, lower positions first among equals.
fn best(count: usize, most: usize, value: impl Fn(usize) -> f32) -> Vec<usize> {
    let mut positions: Vec<usize> = (0..count).collect();
    positions.sort_by(|&a, &b| value(b).total_cmp(&value(a)));
    positions.truncate(most);
    positions
}

/// The texts of all items, one batch of one row each, in the order of the similarities' columns.
fn captions(prepared: &Prepared, order: &[usize]) -> Vec<(Tensor, Tensor)> {
    let batches = prepared.blocks.iter().flat_map(|block| &block.batches);
    let rows = batches.flat_map(|batch| {
        let TextBatch { ids, mask, .. } = &batch.prompts.qformer;
        (0..batch.items.len() as i64).map(move |row| (ids.get(row), mask.get(row)))
    });
    let rows: Vec<(Tensor, Tensor)> = rows.collect();
    debug_assert_eq!(rows.len(), order.len());
    rows
}

/// The matching head's logits of one image and some texts.
fn scores(
    model: &dyn VisionLanguage,
    features: &Tensor,
    captions: &[(Tensor, Tensor)],
    wanted: &[usize],
) -> Result<Vec<f32>, EvalError> {
    let pad = |parts: Vec<&Tensor>| {
        let width = parts.iter().map(|part| part.size()[0]).max().unwrap_or(0);
        let padded: Vec<Tensor> =
            parts.into_iter().map(|part| part.constant_pad_nd([0, width - part.size()[0]])).collect();
        Tensor::stack(&padded, 0)
    };
    let texts = TextBatch::new(
        pad(wanted.iter().map(|&text| &captions[text].0).collect()),
        pad(wanted.iter().map(|&text| &captions[text].1).collect()).to_kind(Kind::Bool),
    );
    let images = Tensor::zeros([wanted.len() as i64], (Kind::Int64, features.device()));
    let logits = model.matching_scores(features, &images, &texts).ok_or(EvalError::NoMatchingHead)?;
    Ok(Vec::try_from(logits.to_device(tch::Device::Cpu).to_kind(Kind::Float).contiguous().view(-1))?)
}
