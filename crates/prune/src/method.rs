//! From what an experiment names to the method that does it.

use ressa_experiment::config::{self, InitialMetric, MethodConfig, Metric};

use crate::{
    metric::{Magnitude, PruningMetric, Ria, SignedMagnitude, Wanda, metric},
    select::Rounding,
    solver::{Alps, ByThreshold, Damping, Dsnot, Initial, LayerSolver, Order, Ranked, SignRule, SparseGpt, Threshold},
};

/// The metric of a method that ranks all weights; `None` for others.
pub(crate) fn ranking(name: Metric, method: &MethodConfig, seed: u64) -> Option<Box<dyn PruningMetric>> {
    match name {
        Metric::Magnitude if method.magnitude.signed => Some(Box::new(SignedMagnitude)),
        _ => metric(name, seed),
    }
}

/// The solver of a method; `None` for [`Metric::None`].
pub fn solver(name: Metric, method: &MethodConfig, seed: u64) -> Option<Box<dyn LayerSolver>> {
    match name {
        Metric::SparseGpt => Some(Box::new(sparsegpt(method))),
        Metric::Dsnot => Some(Box::new(dsnot(method))),
        Metric::Alps => Some(Box::new(alps(method))),
        _ => {
            let metric = ranking(name, method, seed)?;
            Some(match method.threshold {
                config::Threshold::Exact => Box::new(Ranked(metric)),
                config::Threshold::Strict => Box::new(ByThreshold { metric, inclusive: false }),
                config::Threshold::Inclusive => Box::new(ByThreshold { metric, inclusive: true }),
            })
        }
    }
}

/// How sparsities become numbers of weights.
pub(crate) fn rounding(method: &MethodConfig) -> Rounding {
    match method.rounding {
        config::Rounding::Decimal => Rounding::Decimal,
        config::Rounding::Truncated => Rounding::Binary,
        config::Rounding::Nearest => Rounding::Nearest,
    }
}

fn sparsegpt(method: &MethodConfig) -> SparseGpt {
    SparseGpt {
        damping: match method.sparsegpt.damping {
            config::Damping::Always => Damping::Always,
            config::Damping::OnFailure => Damping::OnFailure,
        },
        damping_ratio: method.sparsegpt.damping_share,
        block: i64::from(method.sparsegpt.block),
        threshold: match method.sparsegpt.threshold {
            config::BlockThreshold::Exact => Threshold::Exact,
            config::BlockThreshold::Inclusive => Threshold::Inclusive,
        },
        order: match method.sparsegpt.order {
            config::ColumnOrder::Natural => Order::Natural,
            config::ColumnOrder::Loss => Order::Loss,
        },
    }
}

fn alps(method: &MethodConfig) -> Alps {
    let config::AlpsConfig { damping_share, penalty, iterations, steps } = method.alps;
    Alps { damping_ratio: damping_share, penalty, iterations: iterations as usize, steps: steps as usize }
}

fn dsnot(method: &MethodConfig) -> Dsnot {
    Dsnot {
        initial: match method.dsnot.initial {
            InitialMetric::Magnitude => Initial::Metric(Box::new(Magnitude)),
            InitialMetric::Wanda => Initial::Metric(Box::new(Wanda)),
            InitialMetric::Ria => Initial::Metric(Box::new(Ria::default())),
            InitialMetric::SparseGpt => Initial::Saliency(SparseGpt::default()),
        },
        max_cycles: method.dsnot.cycles as usize,
        threshold: method.dsnot.threshold,
        variance_power: method.dsnot.variance_power,
        sign: match method.dsnot.sign {
            config::SignRule::Published => SignRule::Published,
            config::SignRule::Always => SignRule::Always,
        },
    }
}
