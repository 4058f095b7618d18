//! What is asked of a model: of each tower, and how the budgets are divided among its layers.

use std::collections::BTreeMap;

use ressa_experiment::{
    Pattern, Tower,
    allocation::{AllocationConfig, AllocationGroup, AllocationMethod, Measurement, Sensitivities},
    config::{Group, Metric, Propagate, PruneConfig},
    job::Prune,
};
use ressa_models::VisionLanguage;
use ressa_prune::{
    PruneError, PruneRequest,
    allocation::{AllocationError, Counts, divide, places},
    method::solver,
    solver::LayerSolver,
};

use crate::LabError;

/// A job, understood.
pub(super) struct PruneSettings {
    /// The settings with what they cannot see made neutral.
    pub prune: PruneConfig,
    /// The towers that are pruned.
    pub towers: BTreeMap<Tower, PruneRequest>,
    /// The method.
    pub solver: Box<dyn LayerSolver>,
}

impl PruneSettings {
    /// What a job asks for.
    ///
    /// # Errors
    /// Settings that cannot be met, or not a block at a time.
    pub fn new(job: &Prune) -> Result<Self, LabError> {
        let written = &job.prune;
        for tower in Tower::ALL {
            let share = written.tower(tower).sparsity;
            if !(0.0..1.0).contains(&share) {
                return Err(PruneError::Sparsity { tower, sparsity: Some(share) }.into());
            }
        }
        if let Some(contradiction) = written.contradiction() {
            return Err(LabError::Unsupported(contradiction));
        }
        let divided = written.allocation.method != AllocationMethod::Uniform;
        if divided && written.pattern != Pattern::Unstructured {
            return Err(PruneError::from(AllocationError::Pattern { pattern: written.pattern }).into());
        }
        let prune = written.canonical();
        let mut towers = BTreeMap::new();
        for tower in Tower::ALL {
            let budget = prune.tower(tower);
            if budget.sparsity <= 0.0 {
                continue;
            }
            if budget.group == Some(Group::Tower) {
                let message =
                    "matrices of a whole tower are not compared block by block: choose group `row` or `matrix`";
                return Err(LabError::Unsupported(message.to_owned()));
            }
            let request = PruneRequest {
                tower,
                metric: prune.metric,
                method: prune.method(),
                pattern: prune.pattern,
                sparsity: (prune.pattern == Pattern::Unstructured).then_some(budget.sparsity),
                group: budget.group,
                propagate: prune.calibration.propagate,
                tokens: prune.calibration_of(tower).tokens,
                seed: job.seed,
            };
            towers.insert(tower, request);
        }
        if towers.is_empty() && written.metric != Metric::None {
            return Err(LabError::Unsupported("no tower is to be pruned: give one a sparsity above 0".to_owned()));
        }
        let solver = solver(prune.metric, &prune.method(), job.seed).ok_or(PruneError::NoMetric)?;
        let asked = Self { prune, towers, solver };
        asked.measures()?;
        Ok(asked)
    }

    /// Whether a tower is pruned.
    pub fn prunes(&self, tower: Tower) -> bool {
        self.towers.contains_key(&tower)
    }

    /// Whether the method looks at activations.
    pub fn calibrates(&self) -> bool {
        self.prune.metric.needs_calibration()
    }

    /// Whether pruned blocks hand on what they make of the activations.
    pub fn propagates(&self) -> bool {
        self.calibrates() && self.prune.calibration.propagate == Propagate::Pruned
    }

    /// Group and factor of the outliers that are counted before budgets are divided; `None` where nothing is measured.
    ///
    /// # Errors
    /// A measurement that is not made a block at a time.
    pub fn measures(&self) -> Result<Option<(AllocationGroup, f64)>, LabError> {
        let unsupported = |what: &str| {
            Err(LabError::Unsupported(format!(
                "{what} is not measured block by block: divide the budget by `owl` or a table, or run an experiment with \
                 `prune.allocation`"
            )))
        };
        // No tower's own settings matter to what is measured here.
        match self.prune.allocation.measurement(&self.prune, Tower::Language) {
            None => Ok(None),
            Some(Measurement::Outliers { group: AllocationGroup::Tower, .. }) => {
                unsupported("the mean over a whole tower (`prune.allocation.group: tower`)")
            }
            Some(Measurement::Outliers { group, m }) => Ok(Some((group, m))),
            Some(Measurement::Gradient { .. } | Measurement::Perturbation { .. }) => {
                unsupported("how the loss of the whole model depends on its layers (`ecoflap`)")
            }
            Some(Measurement::Density) => unsupported("how unlike each other a layer's outputs are (`tamp`)"),
            Some(Measurement::Similarity) => unsupported("what blocks have in common (`losa`)"),
            Some(Measurement::Search { .. }) => unsupported("what the whole model answers (`evopress`)"),
        }
    }

    /// How many of the samples are measured on; `None` is all.
    pub fn measured(&self) -> Option<usize> {
        self.rule().samples.map(|samples| samples as usize)
    }

    fn rule(&self) -> &AllocationConfig {
        &self.prune.allocation
    }

    /// Weights that each layer loses where budgets are divided, from what was measured.
    ///
    /// # Errors
    /// A division that cannot be met.
    pub fn counts(&self, model: &dyn VisionLanguage, found: &Sensitivities) -> Result<Option<Counts>, LabError> {
        if self.rule().is_default() {
            return Ok(None);
        }
        let budgets = self.towers.keys().map(|&tower| (tower, self.prune.tower(tower).sparsity)).collect();
        let places = places(model, Tower::ALL);
        Ok(Some(divide(&places, self.rule(), &budgets, found).map_err(PruneError::from)?))
    }
}
