//! The heads of retrieval on a Q-Former: both sides into one space, and whether a caption fits an image.
//!
//! Reference: `Blip2ForImageTextRetrieval` in transformers, `modeling_blip_2.py`.

use ressa_checkpoint::names;
use tch::{Kind, Tensor};

use crate::{
    Linear, ModelError, Scope, TextBatch,
    families::{Blip2Config, Family},
    layers::parts,
    qformer::{Images, QFormer},
};

/// `vision_projection` and `text_projection`: both sides into one space. `itm_head`: whether a caption fits an image.
pub(crate) struct Retrieval {
    vision: Linear,
    text: Linear,
    matching: Option<Linear>,
}

impl Retrieval {
    /// An InstructBLIP checkpoint has the two projections if its configuration gives them a width and their tensors are there; a retrieval
    /// checkpoint always has all three.
    pub fn load(scope: &Scope<'_>, c: &Blip2Config) -> Result<Option<Self>, ModelError> {
        let family = c.family()?;
        let there = family == Family::ImageTextRetrieval || scope.contains(names::COMPARES);
        let Some(width) = c.retrieval_width()?.filter(|_| there) else {
            return Ok(None);
        };
        let from = c.qformer_config.hidden_size;
        let matching = match family {
            Family::ImageTextRetrieval => Some(Linear::load(&scope.at("itm_head"), 2, from, true)?),
            Family::InstructBlip | Family::Blip2 => None,
        };
        Ok(Some(Self {
            vision: Linear::load(&scope.at("vision_projection"), width, from, true)?,
            text: Linear::load(&scope.at("text_projection"), width, from, true)?,
            matching,
        }))
    }
}

parts!(Retrieval: vision, text, matching);

impl Retrieval {
    /// Unit-norm embeddings `[images, queries, d]` of image features, computed on in `kind`.
    pub fn images(&self, qformer: &QFormer, features: &Tensor, kind: Kind) -> Tensor {
        let rows = QFormer::each(features.size()[0], features.device());
        let queries = qformer.forward(Images { features, rows: &rows }, None);
        unit(&self.vision.forward(&queries.to_kind(kind)))
    }

    /// Unit-norm embeddings `[texts, d]`; `None` where no text can be read.
    pub fn texts(&self, qformer: &QFormer, texts: &TextBatch, kind: Kind) -> Option<Tensor> {
        Some(unit(&self.text.forward(&qformer.forward_text(texts)?.to_kind(kind))))
    }

    /// The logit for "fits", averaged over the queries, f32 `[rows]`; `None` without a matching head.
    pub fn matching(&self, qformer: &QFormer, images: Images<'_>, captions: &TextBatch, kind: Kind) -> Option<Tensor> {
        const FITS: i64 = 1;
        let head = self.matching.as_ref()?;
        let queries = qformer.forward(images, Some(captions));
        let logits = head.forward(&queries.to_kind(kind)).mean_dim([1i64].as_slice(), false, Kind::Float);
        Some(logits.select(1, FITS))
    }
}

/// Vectors of length 1 along the last dimension.
fn unit(x: &Tensor) -> Tensor {
    /// As the reference's `normalize`.
    const SMALLEST: f64 = 1e-12;
    x / x.norm_scalaropt_dim(2.0, [-1], true).clamp_min(SMALLEST)
}
