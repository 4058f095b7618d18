//! Alignment of a connector with the language model's words, without running the language model.
//!
//! What the language model reads of an image are vectors where words have their embeddings. A connector that knows nothing yet learns what its
//! vectors have to say from the embeddings alone: every word of an answer must be what one of the visual tokens is most like, among the words of
//! the batch. As BLIP-2's first stage, it prepares the connector before the language model joins in.

use ressa_models::VisionLanguage;
use tch::{Kind, Tensor};

use crate::{RestoreError, batch::TrainingBatch, micro::Exchange};

/// Softmax temperature of cosines.
const TEMPERATURE: f64 = 0.07;
/// Keeps the length of a vector from being 0.
const SHORTEST: f64 = 1e-6;

/// The distinct words of a batch's answers, with how often they occur.
pub(crate) struct Words {
    /// Token ids in ascending order.
    ids: Vec<u32>,
    /// Embeddings of unit norm `[words, width]`, f32.
    embeddings: Tensor,
    /// Tokens of all answers to questions, and of all captions.
    tokens: [usize; 2],
}

impl Words {
    /// The words of a batch.
    ///
    /// # Errors
    /// [`RestoreError::NoWords`] for a model without a language model.
    pub fn of(model: &dyn VisionLanguage, batch: &TrainingBatch) -> Result<Self, RestoreError> {
        let both = [&batch.answers, &batch.caption_answers];
        let mut ids: Vec<u32> = both.iter().flat_map(|answers| answers.iter().flatten().copied()).collect();
        ids.sort_unstable();
        ids.dedup();
        let listed: Vec<i64> = ids.iter().map(|&id| i64::from(id)).collect();
        let listed = Tensor::from_slice(&listed).to_device(batch.pixels.device());
        let embeddings = model.word_embeddings(&listed).ok_or(RestoreError::NoWords)?;
        let tokens = both.map(|answers| answers.iter().map(Vec::len).sum());
        Ok(Self { ids, embeddings: unit(&embeddings), tokens })
    }

    /// The loss of an exchange as a share of the whole batch's: the mean over the tokens of its answers of their cross entropy among the words.
    /// `prefix` `[rows, visual tokens, width]`; nothing where there are no tokens.
    pub fn loss(&self, prefix: &Tensor, exchange: &Exchange, captions: bool) -> Option<Tensor> {
        let (mut rows, mut columns) = (Vec::new(), Vec::new());
        for (row, answer) in exchange.answers.iter().enumerate() {
            for token in answer {
                rows.push(row as i64);
                columns.push(self.ids.binary_search(token).ok()? as i64);
            }
        }
        if rows.is_empty() {
            return None;
        }
        let index = |places: &[i64]| Tensor::from_slice(places).to_device(prefix.device());
        let likeness = unit(prefix).matmul(&self.embeddings.transpose(0, 1)) / TEMPERATURE;
        let log_shares = likeness.logsumexp([1i64].as_slice(), false).log_softmax(-1, Kind::Float);
        let picked = log_shares.index(&[Some(index(&rows)), Some(index(&columns))]);
        Some(picked.sum(Kind::Float).neg() / self.tokens[usize::from(captions)] as f64)
    }
}

/// Vectors of length 1 along the last dimension, f32.
fn unit(x: &Tensor) -> Tensor {
    let x = x.to_kind(Kind::Float);
    &x / x.norm_scalaropt_dim(2.0, [-1], true).clamp_min(SHORTEST)
}
