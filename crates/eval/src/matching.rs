//! Retrieval with a BLIP-2 image-text matching model: contrastive similarities, the best of which its matching head looks at again.
//!
//! As LAVIS' `compute_sim_matrix`: for each image the best texts, and for each text the best images, are scored by the matching head's logit
//! plus the contrastive similarity; what is not among the best comes after them.

use ressa_models::Retrieve;
use tch::{Kind, Tensor};

use crate::{
    Batching, EvalError, Prediction, Prepared,
    encoder::Encoder,
    predict::{Similarities, ranks, similarities},
};

/// Score of a pair that the matching head does not look at.
const PASSED_OVER: f32 = -100.0;
/// Features up to this many bytes stay on the device between the two passes; more are computed again. Those of a thousand images of the
/// published model are two gigabytes in half precision.
const KEPT: usize = 4 << 30;

/// How much is looked at again, and at once.
#[derive(Clone, Debug)]
pub struct MatchOptions {
    /// Best contrastive matches that the matching head looks at; 0 leaves the contrastive ranks.
    pub rerank: usize,
    /// How much is computed at once.
    pub batching: Batching,
}

/// Ranks of a retrieval benchmark, text for image and image for text. `prepared` comes from [`Prepared::for_matching`].
///
/// `progress` is told the share done, 0 to 1.
///
/// # Errors
/// A model without contrastive or matching head, or a failed tensor operation.
pub fn match_both_ways(
    model: &dyn Retrieve,
    prepared: &Prepared,
    options: &MatchOptions,
    progress: &mut dyn FnMut(f64),
) -> Result<Vec<Prediction>, EvalError> {
    /// Of the time, where pairs are looked at.
    const CONTRASTIVE_SHARE: f64 = 0.1;
    tch::no_grad(|| {
        let batching = &options.batching;
        let share = if options.rerank == 0 { 1.0 } else { CONTRASTIVE_SHARE };
        let mut kept = Kept { features: Vec::new(), left: if options.rerank == 0 { 0 } else { KEPT } };
        let Similarities { values, order } =
            similarities(model, prepared, batching, &mut |features| kept.add(features), &mut |done| {
                progress(done * share);
            })?;
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

        let blocks = prepared.blocks(batching);
        let mut encoder = Encoder::new(prepared, &blocks, batching);
        for (number, block) in blocks.iter().enumerate() {
            let features = match kept.take(number) {
                Some(features) => features,
                None => encoder.features(model, number)?,
            };
            for (row, image) in block.images.clone().enumerate() {
                let of_image = features.narrow(0, row as i64, 1);
                let pairs = &chosen[image * texts..][..texts];
                let wanted: Vec<usize> = (0..texts).filter(|&text| pairs[text].0 || pairs[text].1).collect();
                for wanted in wanted.chunks(batching.rows.max(1)) {
                    let items: Vec<usize> = wanted.iter().map(|&text| order[text]).collect();
                    for (&text, score) in wanted.iter().zip(scores(model, &of_image, prepared, &items)?) {
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
        }
        Ok(ranks(prepared, &order, &of_texts, &of_images))
    })
}

/// Features of the first blocks, as far as they fit.
struct Kept {
    features: Vec<Option<Tensor>>,
    /// Bytes that are left for more.
    left: usize,
}

impl Kept {
    fn add(&mut self, features: &Tensor) {
        let bytes = features.numel() * features.kind().elt_size_in_bytes();
        // A gap would make the encoder load out of order.
        self.left = self.left.saturating_sub(bytes);
        if self.left > 0 {
            self.features.push(Some(features.shallow_clone()));
        }
    }

    fn take(&mut self, block: usize) -> Option<Tensor> {
        self.features.get_mut(block)?.take()
    }
}

/// The `most` positions of the highest values, lower positions first among equals.
fn best(count: usize, most: usize, value: impl Fn(usize) -> f32) -> Vec<usize> {
    let mut positions: Vec<usize> = (0..count).collect();
    positions.sort_by(|&a, &b| value(b).total_cmp(&value(a)));
    positions.truncate(most);
    positions
}

/// The matching head's logits of one image and the captions of some items.
fn scores(
    model: &dyn Retrieve,
    features: &Tensor,
    prepared: &Prepared,
    items: &[usize],
) -> Result<Vec<f32>, EvalError> {
    let images = Tensor::zeros([items.len() as i64], (Kind::Int64, features.device()));
    let logits =
        model.matching_scores(features, &images, &prepared.captions(items)).ok_or(EvalError::NoMatchingHead)?;
    Ok(Vec::try_from(logits.to_device(tch::Device::Cpu).to_kind(Kind::Float).contiguous().view(-1))?)
}
