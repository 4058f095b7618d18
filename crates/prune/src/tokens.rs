//! What each token counts in the statistics: weights by kind, and ATV's choice of visual tokens.
//!
//! Weights compare the kinds of token that a layer sees. A layer that sees one kind only, as in the image encoder or in T5's decoder, or none that counts,
//! counts every token once: without statistics, ties would decide what goes.
//!
//! ATV (arXiv 2603.16001, `qwen/activation_aware_pruner.py` in LezJ/ATV-Pruning): the block is run once on all samples; a visual token's change is one
//! minus the cosine of what enters and what leaves; of each sample `min(1, alpha * mean change) * text tokens` visual tokens count, rounded to the
//! nearest number, those that change most. Differs: where a block's tokens have no text or no image, its visual tokens all count, so
//! image encoders can be calibrated too; what T5's decoder reads of the encoder counts as in the last encoder block whose output is comparable.

use std::collections::HashMap;

use ressa_experiment::config::{TokenConfig, TokenSelection};
use ressa_models::{Flow, TokenKind, VisionLanguage};
use tch::{Device, Kind, Tensor, no_grad};

use crate::walk::{Place, layers_of};

/// The visual tokens of a sample that count, in their order; `None` while all do.
pub type Visible = Option<Vec<bool>>;

/// The rule of a calibration.
#[derive(Clone, Copy, Debug, Default)]
pub struct TokenWeights {
    tokens: TokenConfig,
}

impl TokenWeights {
    /// The rule that experiments name.
    pub fn new(tokens: TokenConfig) -> Self {
        Self { tokens }
    }

    /// Whether every token counts one.
    pub fn are_one(&self) -> bool {
        self.tokens.canonical().is_default()
    }

    fn weight(&self, kind: TokenKind) -> f64 {
        match kind {
            TokenKind::Text => self.tokens.text,
            TokenKind::Query => self.tokens.query,
            TokenKind::Visual => self.tokens.visual,
        }
    }

    /// Chooses the visual tokens that count in a block, of every sample. `flow` gives the activations of one at the block's entry.
    ///
    /// # Errors
    /// Those of `flow`.
    pub fn look<E>(
        &self,
        model: &dyn VisionLanguage,
        place: Place,
        samples: usize,
        flow: &mut dyn FnMut(usize) -> Result<Flow, E>,
        visible: &mut Vec<Visible>,
    ) -> Result<(), E> {
        if self.tokens.select != TokenSelection::Atv {
            return Ok(());
        }
        visible.resize_with(samples, || None);
        let mut found: Vec<Option<(Vec<f32>, usize)>> = Vec::with_capacity(samples);
        for at in 0..samples {
            let flow = flow(at)?;
            found.push(no_grad(|| changes(model, place, &flow)));
        }
        let seen = || found.iter().flatten().flat_map(|(changes, _)| changes).map(|&change| f64::from(change));
        let count = seen().count();
        if count == 0 {
            return Ok(());
        }
        let share = (self.tokens.alpha * seen().sum::<f64>() / count as f64).min(1.0);
        for (visible, found) in visible.iter_mut().zip(&found) {
            let Some((changes, texts)) = found else { continue };
            let most = ((share * *texts as f64).round_ties_even() as usize).min(changes.len());
            let mut order: Vec<usize> = (0..changes.len()).collect();
            order.sort_by(|&a, &b| changes[b].total_cmp(&changes[a]));
            let mut chosen = vec![false; changes.len()];
            order[..most].iter().for_each(|&token| chosen[token] = true);
            *visible = Some(chosen);
        }
        Ok(())
    }

    /// What the tokens count that each layer of a block reads, f32 `[tokens]`, by module path.
    pub fn of_block(
        &self,
        model: &dyn VisionLanguage,
        place: Place,
        flow: &Flow,
        visible: Option<&Visible>,
    ) -> HashMap<String, Tensor> {
        let layers = layers_of(model, place).map(|(id, _)| id);
        let weights = |kinds: &[TokenKind]| {
            let mut image = 0;
            let alone =
                kinds.iter().all(|kind| *kind == kinds[0]) || kinds.iter().all(|kind| self.weight(*kind) == 0.0);
            let weight = |kind: &TokenKind| {
                let weight = if alone { 1.0 } else { self.weight(*kind) as f32 };
                if *kind != TokenKind::Visual {
                    return weight;
                }
                let chosen = visible.and_then(Option::as_ref).is_none_or(|v| v.get(image).copied().unwrap_or(true));
                image += 1;
                if chosen { weight } else { 0.0 }
            };
            Tensor::from_slice(&kinds.iter().map(weight).collect::<Vec<f32>>())
        };
        layers.map(|id| (id.name.clone(), weights(&model.layer_tokens(id, flow)))).collect()
    }
}

/// How much a block changes each visual token of a sample, and how many tokens of text there are; `None` where there are not both, or where what
/// leaves the block are other tokens than what entered it.
fn changes(model: &dyn VisionLanguage, place: Place, flow: &Flow) -> Option<(Vec<f32>, usize)> {
    let Place { tower, block } = place;
    let kinds = model.token_kinds(tower, block, flow);
    let at = |wanted| kinds.iter().enumerate().filter(move |(_, kind)| **kind == wanted).map(|(at, _)| at as i64);
    let (images, texts) = (at(TokenKind::Visual).collect::<Vec<i64>>(), at(TokenKind::Text).count());
    if images.is_empty() || texts == 0 {
        return None;
    }
    let after = model.run_block(tower, block, flow);
    let last = block + 1 == model.blocks(tower);
    if !last && model.token_kinds(tower, block + 1, &after) != kinds {
        return None;
    }
    let images = Tensor::from_slice(&images).to_device(flow.hidden.device());
    let of_images = |flow: &Flow| flow.hidden.select(0, 0).index_select(0, &images).to_kind(Kind::Float);
    let similarity = Tensor::cosine_similarity(&of_images(flow), &of_images(&after), 1, 1e-8);
    let changes = (1.0f64 - similarity).to_device(Device::Cpu);
    Vec::<f32>::try_from(changes).ok().map(|changes| (changes, texts))
}
