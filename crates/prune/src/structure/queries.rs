//! What learned queries of a Q-Former are worth, and which of them stay.
//!
//! - Formulas: `magnitude`: the norm of a query `q_i`; `gradient`: `sum_k |q_ik g_ik|`, `g` the gradient of the answers' loss summed over samples; `wanda`:
//!   `sum_jk |w_jk| norm(x_ik)`, with `x_i` what leaves the Q-Former for the query and `w` the linear that reads it, the projection into the language model
//! - Papers: as for groups (`scores.rs`); Li et al., "BLIP-2", arXiv 2301.12597, for the queries
//! - Differs: the papers rank groups of a matrix; a query is a token, so that all queries are read by the same weights and nothing else is smaller without one

use ressa_experiment::structure::GroupScore;
use ressa_models::{Left, Linear, QUERY_TOKENS, Sample, TowerCut, VisionLanguage};
use ressa_runtime::stream;
use tch::{Kind, Tensor};

use super::{
    StructureRequest,
    choose::{least, left_of},
};
use crate::{allocation::differentiate_queries, error::PruneError};

/// Notes which queries are left of a model from which `before` has been removed already. Targets count from what there was at first.
///
/// # Errors
/// A target that cannot be met; scores that are not finite.
pub(super) fn keep_queries(
    model: &mut dyn VisionLanguage,
    request: &StructureRequest,
    before: Option<&TowerCut>,
    samples: &[Sample],
    cut: &mut TowerCut,
) -> Result<(), PruneError> {
    let target = request.target.queries;
    let Some(left) = model.queries().map(|queries| queries.base().size()[1]) else {
        return match target > 0.0 {
            true => Err(PruneError::NoQueries { tower: request.tower }),
            false => Ok(()),
        };
    };
    let earlier = before.and_then(|cut| cut.queries.as_ref().zip(cut.numbers.queries));
    let (numbers, of) = match earlier {
        Some((kept, Left { of, .. })) => (Vec::<i64>::try_from(kept).unwrap_or_default(), of as usize),
        None => ((0..left).collect(), left as usize),
    };
    let wanted = left_of(request, "queries", target, of)?;
    let kept: Vec<i64> = match numbers.len().saturating_sub(wanted) {
        0 => numbers,
        removed => {
            let worth = worth(model, request, samples)?;
            least(&worth, &vec![false; worth.len()], removed).into_iter().map(|at| numbers[at]).collect()
        }
    };
    if kept.len() < of {
        cut.numbers.queries = Some(Left { left: kept.len() as u64, of: of as u64 });
        cut.queries = Some(Tensor::from_slice(&kept));
    }
    Ok(())
}

/// Worth of each query that the model has.
fn worth(
    model: &mut dyn VisionLanguage,
    request: &StructureRequest,
    samples: &[Sample],
) -> Result<Vec<f64>, PruneError> {
    if request.score.is_some_and(GroupScore::calibrates) && samples.is_empty() {
        return Err(PruneError::needs_samples(request.tower));
    }
    let values = |model: &dyn VisionLanguage| {
        let queries = model.queries().map(|queries| queries.effective(Kind::Double).select(0, 0));
        queries.unwrap_or_else(|| Tensor::zeros([0, 0], (Kind::Double, tch::Device::Cpu)))
    };
    let of_queries = |sums: Tensor| Vec::<f64>::try_from(sums.to_device(tch::Device::Cpu)).unwrap_or_default();
    let worth = match request.score {
        Some(GroupScore::Random) => {
            let mut stream = stream(request.seed, &format!("groups of {QUERY_TOKENS}"));
            (0..values(model).size()[0]).map(|_| f64::from(rand::Rng::next_u32(&mut stream))).collect()
        }
        Some(GroupScore::Magnitude) => of_queries(rows(&values(model).square()).sqrt()),
        Some(GroupScore::Gradient) => {
            let gradient = differentiate_queries(model, samples)?;
            of_queries(rows(&(values(model) * gradient.to_kind(Kind::Double)).abs()))
        }
        Some(GroupScore::Wanda) => of_queries(read(model, samples)),
        None => vec![0.0; values(model).size()[0] as usize],
    };
    if worth.iter().all(|worth| worth.is_finite()) {
        Ok(worth)
    } else {
        Err(PruneError::NotFiniteWeight { layer: QUERY_TOKENS.to_owned() })
    }
}

/// Sums over the second dimension, f64.
fn rows(matrix: &Tensor) -> Tensor {
    matrix.sum_dim_intlist([1i64].as_slice(), false, Kind::Double)
}

/// Weights that read a query's outputs times the norms of these, f64 `[queries]`.
fn read(model: &dyn VisionLanguage, samples: &[Sample]) -> Tensor {
    let mut squares: Option<Tensor> = None;
    for Sample { pixels, prompt, .. } in samples {
        let outputs = model.query_output(&model.encode_images(pixels), prompt).to_kind(Kind::Double);
        let own = outputs.square().sum_dim_intlist([0i64].as_slice(), false, Kind::Double);
        squares = Some(match squares {
            Some(sum) => sum + own,
            None => own,
        });
    }
    let squares = squares.unwrap_or_else(|| Tensor::zeros([0, 0], (Kind::Double, tch::Device::Cpu)));
    // The projection into the language model, or, in a model that has none, that of images.
    let reading = |linear: &&Linear| linear.effective_weight().to_kind(Kind::Double).abs();
    let weights = model.connectors().first().map(reading);
    let weights = weights.map(|weights| weights.sum_dim_intlist([0i64].as_slice(), false, Kind::Double));
    match weights.filter(|weights| squares.size().last() == weights.size().first()) {
        Some(weights) => rows(&(squares.sqrt() * weights)),
        None => rows(&squares).sqrt(),
    }
}
