//! Settings of masks that change while a restoration trains.

use serde::{Deserialize, Serialize};

use crate::method::is_default;

/// Weights whose dense gradients an exchange holds at once.
pub const WEIGHTS_AT_ONCE: u64 = 1 << 28;

/// Every so often the least important kept weights of a layer are dropped and as many pruned ones grown, at zero. The number kept in a layer, in each row of
/// a mask with equal rows and in each group of an N:M pattern stays what it was.
///
/// Papers: Mocanu et al., "SET", Nature Communications 2018 (random growth); Evci et al., "RigL", arXiv 1911.11134 (growth by gradient, the cosine); Xiao et
/// al., "SEFT", arXiv 2505.24037 (the same while a pruned language model is tuned, dropping by sensitivity).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct EvolveConfig {
    /// Steps between two exchanges; 0 leaves masks as they are.
    pub every: u32,
    /// Share of the kept weights that would be exchanged at the first step; it falls to 0 along a half cosine, and in each row is rounded down.
    pub share: f64,
    /// Share of the steps at which it has become 0; behind, masks stay as they are.
    pub until: f64,
    /// What makes a kept weight important.
    #[serde(skip_serializing_if = "is_default")]
    pub drop: Drop,
    /// Which pruned weights grow.
    #[serde(skip_serializing_if = "is_default")]
    pub grow: Growth,
}

impl Default for EvolveConfig {
    /// The numbers of RigL.
    fn default() -> Self {
        let (drop, grow) = Default::default();
        Self { every: 0, share: 0.3, until: 0.75, drop, grow }
    }
}

/// The importance by which kept weights are dropped, the smallest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Drop {
    /// `|w|` of the effective weight.
    #[default]
    Magnitude,
    /// `|w g|`, with the gradient of the batch at hand.
    Sensitivity,
}

/// The order in which pruned weights grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Growth {
    /// The largest `|g|` of the batch at hand first.
    #[default]
    Gradient,
    /// At random.
    Random,
}

impl EvolveConfig {
    /// Whether masks change at all.
    pub fn is_on(&self) -> bool {
        self.every > 0
    }

    /// Whether it looks at gradients of pruned or kept weights.
    pub fn needs_gradient(&self) -> bool {
        self.drop == Drop::Sensitivity || self.grow == Growth::Gradient
    }

    /// The share of the kept weights that is exchanged before a step of so many, counted from 0; nothing where masks stay as they are. `align` steps at the
    /// beginning run without the language model, and exchange nothing.
    pub fn share_at(&self, step: u32, steps: u32, align: u32) -> Option<f64> {
        let end = self.until * f64::from(steps);
        let is_time = self.is_on() && step > 0 && step.is_multiple_of(self.every) && step >= align;
        let share = || self.share / 2.0 * (1.0 + (std::f64::consts::PI * f64::from(step) / end).cos());
        (is_time && f64::from(step) < end).then(share)
    }

    /// Exchanges in so many steps.
    pub fn exchanges(&self, steps: u32, align: u32) -> u32 {
        (0..steps).filter(|&step| self.share_at(step, steps, align).is_some()).count() as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_fall_along_a_half_cosine() {
        let config = EvolveConfig { every: 10, ..EvolveConfig::default() };
        let shares: Vec<(u32, f64)> = (0..80).filter_map(|step| Some((step, config.share_at(step, 80, 0)?))).collect();
        let steps: Vec<u32> = shares.iter().map(|(step, _)| *step).collect();
        assert_eq!(steps, [10, 20, 30, 40, 50]);
        // Half of the way to step 60.
        assert!((shares[2].1 - 0.15).abs() < 1e-12 && shares.windows(2).all(|pair| pair[0].1 > pair[1].1));
        assert_eq!((config.exchanges(80, 0), config.exchanges(80, 25)), (5, 3));
        assert_eq!(EvolveConfig::default().exchanges(80, 0), 0);
    }
}
