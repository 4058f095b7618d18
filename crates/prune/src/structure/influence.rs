//! How much blocks change what goes through them.
//!
//! - Formula: 1 minus the cosine of a token's hidden state before and behind a block, averaged over tokens
//! - Paper: Men et al., "ShortGPT: Layers in large language models are more redundant than you expect", arXiv 2403.03853, block influence
//! - Differs: any tower; T5's stacks are compared before their last norms

use ressa_experiment::{Tower, config::TokenConfig};
use ressa_models::{Sample, VisionLanguage};
use tch::{Kind, Tensor};

use crate::{
    error::PruneError,
    statistics::Needs,
    tower::begin,
    walk::{Flows, Look, Onward, Place, Shown},
};

/// The influence of each block of a tower, in the order of execution.
pub(super) fn influences(
    model: &dyn VisionLanguage,
    tower: Tower,
    samples: &[Sample],
    progress: &mut dyn FnMut(f64),
) -> Result<Vec<f64>, PruneError> {
    let look = Look { needs: Needs::WEIGHT, tokens: TokenConfig::default() };
    let mut walk = begin(Shown(model), tower, look, samples)?;
    let blocks = model.blocks(tower);
    let mut influences = Vec::with_capacity(blocks);
    for block in 0..blocks {
        let (mut change, mut tokens) = (0.0, 0.0);
        for at in 0..walk.flows.len() {
            let flow = walk.flows.get(at)?;
            let states = [&flow.hidden, &model.residual(tower, block, &flow)].map(|states| states.to_kind(Kind::Float));
            let cosines = Tensor::cosine_similarity(&states[0], &states[1], -1, 1e-8);
            tokens += cosines.numel() as f64;
            change += cosines.numel() as f64 - cosines.sum(Kind::Double).double_value(&[]);
        }
        influences.push(change / f64::max(tokens, 1.0));
        walk.block(Place { tower, block }, None, Onward::Before, &mut |_, _| Ok(()))?;
        progress((block + 1) as f64 / blocks as f64);
    }
    Ok(influences)
}
