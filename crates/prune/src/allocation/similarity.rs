//! What blocks have in common, what LoSA divides a budget by: a block whose input is like that of many others can give more of its weights.
//!
//! - Formula: `exp(-q_i)`, `q_i` a block's share of all similarities: the linear centred kernel alignment (CKA) of its input with that of every other
//!   block of the tower, summed, over the sum of that for all blocks. A sample is a vector of all its tokens. The budget then minimises the sum of
//!   these over what is removed, every block being within a margin of the mean: a linear programme, solved by [`super::solver::Rule::Extreme`]
//! - Needs: inputs of the blocks, one sample at a time
//! - Paper: Huang et al., "Dynamic low-rank sparse adaptation for large language models (LoSA)", arXiv 2502.14816, section 3.2
//! - Reference: `lib/prune.py` and `CKA/cka.py` in wzhuang-xmu/LoSA
//! - Differs: samples are as long as the shortest of them, since instructions and answers have lengths of their own; Gram matrices in f64; a budget
//!   is met in weights, the reference meets the mean over blocks. Inputs that do not differ between samples have nothing in common with others
//!   (the reference divides by zero).

use ressa_experiment::{Tower, allocation::Sensitivities};
use ressa_models::{Sample, VisionLanguage};
use tch::{Device, Kind, Tensor};

use super::alone::alone;
use crate::error::PruneError;

/// Tokens whose products are made at once.
const PIECE: i64 = 64;

/// What each layer's block does not have in common with other blocks. `model` carries no masks.
pub(super) fn differences(
    model: &dyn VisionLanguage,
    tower: Tower,
    samples: &[Sample],
    progress: &mut dyn FnMut(f64),
) -> Result<Sensitivities, PruneError> {
    let mut grams: Vec<Tensor> = Vec::new();
    let mut inputs: (usize, Vec<Tensor>) = (0, Vec::new());
    alone(model, tower, samples, progress, &mut |block, flow| {
        if block != inputs.0 {
            grams.push(centred_gram(&std::mem::take(&mut inputs.1)));
            inputs.0 = block;
        }
        inputs.1.push(flow.hidden.select(0, 0));
    })?;
    grams.push(centred_gram(&inputs.1));
    let scores = scores(&grams);
    let of_tower = model.linears().into_iter().filter(|(id, _)| id.tower == tower);
    Ok(of_tower.map(|(id, _)| (id.name.clone(), scores.get(id.block).copied().unwrap_or(1.0))).collect())
}

/// Products of the samples of a block `[tokens, features]` with each other, centred, f64 `[samples, samples]`.
fn centred_gram(inputs: &[Tensor]) -> Tensor {
    let shortest = inputs.iter().map(|input| input.size()[0]).min().unwrap_or(0);
    let count = inputs.len() as i64;
    let mut gram = Tensor::zeros([count, count], (Kind::Double, Device::Cpu));
    for from in (0..shortest).step_by(PIECE as usize) {
        let piece = |input: &Tensor| input.narrow(0, from, PIECE.min(shortest - from)).reshape([-1]);
        let rows = Tensor::stack(&inputs.iter().map(piece).collect::<Vec<_>>(), 0).to_kind(Kind::Double);
        gram += rows.matmul(&rows.transpose(0, 1)).to_device(Device::Cpu);
    }
    let of_rows = gram.mean_dim(1, true, Kind::Double);
    let of_columns = gram.mean_dim(0, true, Kind::Double);
    let all = gram.mean(Kind::Double);
    gram - of_rows - of_columns + all
}

/// `exp(-q)` of every block.
fn scores(grams: &[Tensor]) -> Vec<f64> {
    let norms: Vec<f64> = grams.iter().map(|gram| gram.square().sum(Kind::Double).double_value(&[]).sqrt()).collect();
    let alignment = |a: usize, b: usize| {
        let norm = norms[a] * norms[b];
        let product = || (&grams[a] * &grams[b]).sum(Kind::Double).double_value(&[]);
        if norm > 0.0 { product() / norm } else { 0.0 }
    };
    let others = |a: usize| (0..grams.len()).filter(|&b| b != a).map(|b| alignment(a, b)).sum::<f64>();
    let sums: Vec<f64> = (0..grams.len()).map(others).collect();
    let all: f64 = sums.iter().sum();
    sums.iter().map(|sum| if all > 0.0 { (-sum / all).exp() } else { 1.0 }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_that_are_alike_count_least() {
        // Samples along one axis; along the same axis, turned and scaled, which CKA does not see; and along another pattern.
        let block =
            |values: [[f32; 2]; 3]| centred_gram(&values.map(|sample| Tensor::from_slice(&sample).view([1, 2])));
        let first = block([[1.0, 0.0], [2.0, 0.0], [4.0, 0.0]]);
        let same = block([[0.0, 3.0], [0.0, 6.0], [0.0, 12.0]]);
        let other = block([[1.0, 0.0], [-2.0, 0.0], [1.0, 0.0]]);
        let found = scores(&[first.shallow_clone(), same, other]);
        assert!((found[0] - found[1]).abs() < 1e-12 && found[0] < found[2], "{found:?}");
        // By hand: centred, the samples are (-4, -1, 5) / 3 and (1, -2, 1): the alignment is the squared cosine, (3 / sqrt(42 * 6))^2 = 1 / 28.
        let (alike, unlike): (f64, f64) = (1.0 + 1.0 / 28.0, 2.0 / 28.0);
        let all = 2.0 * alike + unlike;
        assert!((found[0] - (-alike / all).exp()).abs() < 1e-9 && (found[2] - (-unlike / all).exp()).abs() < 1e-9);
        // Samples that do not differ have nothing in common with others.
        let constant = block([[1.0, 1.0]; 3]);
        assert_eq!(scores(&[first, constant]), [1.0, 1.0]);
    }

    #[test]
    fn samples_are_as_long_as_the_shortest() {
        let long = Tensor::from_slice(&[1.0f32, 2.0, 9.0]).view([3, 1]);
        let short = Tensor::from_slice(&[3.0f32, 4.0]).view([2, 1]);
        let whole = centred_gram(&[long.shallow_clone(), short.shallow_clone()]);
        assert!(whole.equal(&centred_gram(&[long.narrow(0, 0, 2), short])));
    }
}
