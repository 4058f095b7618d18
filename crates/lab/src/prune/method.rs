//! What is asked of each tower, and the method that does it.

use ressa_experiment::{
    Pattern, Tower,
    job::{Prune, PruneMethod},
};
use ressa_prune::{
    metric::{Magnitude, Random, Ria, Wanda},
    select::Selection,
    solver::{Dsnot, LayerSolver, Ranked, SparseGpt},
};

use crate::LabError;

/// The method of a job with its published settings.
pub(super) fn solver(job: &Prune) -> Box<dyn LayerSolver> {
    match job.method {
        PruneMethod::Random => Box::new(Ranked(Box::new(Random { seed: job.seed }))),
        PruneMethod::Magnitude => Box::new(Ranked(Box::new(Magnitude))),
        PruneMethod::Wanda => Box::new(Ranked(Box::new(Wanda))),
        PruneMethod::Ria => Box::new(Ranked(Box::<Ria>::default())),
        PruneMethod::Sparsegpt => Box::new(SparseGpt::default()),
        PruneMethod::Dsnot => Box::new(Dsnot::default()),
    }
}

/// The share of a tower that goes.
pub(super) fn share(job: &Prune, tower: Tower) -> f64 {
    match tower {
        Tower::Vision => job.vision,
        Tower::Qformer => job.qformer,
        Tower::Language => job.language,
    }
}

/// What goes from the matrices of a tower; `None` where it stays dense.
///
/// # Errors
/// A share that is no fraction below 1, or one that is not what an N:M pattern removes.
pub(super) fn selection(job: &Prune, tower: Tower) -> Result<Option<Selection>, LabError> {
    let share = share(job, tower);
    if !(0.0..1.0).contains(&share) {
        let message = format!("sparsity `{share}` of tower `{tower}` is not usable: give a fraction from 0 to below 1");
        return Err(LabError::Unsupported(message));
    }
    if share == 0.0 {
        return Ok(None);
    }
    match job.pattern {
        Pattern::NOfM { keep, of } => {
            let implied = 1.0 - f64::from(keep) / f64::from(of);
            if (share - implied).abs() > 1e-6 {
                let message = format!(
                    "pattern `{}` removes {implied} of tower `{tower}`, not `{share}`: give {implied}, or 0 to leave it dense",
                    job.pattern
                );
                return Err(LabError::Unsupported(message));
            }
            Ok(Some(Selection::NOfM { keep: i64::from(keep), of: i64::from(of) }))
        }
        Pattern::Unstructured => {
            let group = job.group.unwrap_or(job.method.published_group());
            Ok(Some(Selection::Unstructured { sparsity: share, group }))
        }
    }
}
