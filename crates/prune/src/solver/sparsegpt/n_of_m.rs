//! N:M groups by trying every mask.
//!
//! A group of few weights has few masks: six where two of four go. For each mask the errors of what goes are a linear function of the group's weights
//! that no row changes, so all functions are made beforehand, for all groups of a block at once. Choosing is then a product of squares
//! with the masks, the smallest sum, and a lookup.

use tch::{Device, Kind, Tensor};

/// Patterns with more masks than this are not tried: products would become larger than what they save.
const MOST: usize = 80;

/// Every way in which `count` of `of` weights go.
pub(super) struct Masks {
    pub of: i64,
    /// Bool `[masks, of]`. Of equal weights the lower one goes in the earlier mask.
    pub pruned: Tensor,
}

/// What the groups of a block's columns have in common for all rows, f64.
pub(super) struct Tables {
    /// Squared weights `[rows, of]` times this are the sums of the saliencies that a mask prunes: `[walks, groups, of, masks]`.
    pub scores: Tensor,
    /// Weights `[rows, of]` times this are the errors under each mask: `[walks, groups, of, masks * of]`.
    pub errors: Tensor,
}

impl Masks {
    /// `None` where there are too many.
    pub(super) fn all(of: i64, count: i64, device: Device) -> Option<Self> {
        let mut all: Vec<Vec<bool>> = vec![Vec::new()];
        for place in 0..of {
            let mut longer = Vec::new();
            for mask in all {
                let gone = mask.iter().filter(|gone| **gone).count() as i64;
                let with = |more: bool| mask.iter().copied().chain([more]).collect::<Vec<_>>();
                // Masks that prune the lower weight come first.
                if gone < count {
                    longer.push(with(true));
                }
                if count - gone < of - place {
                    longer.push(with(false));
                }
            }
            all = longer;
            if all.len() > MOST {
                return None;
            }
        }
        let pruned = Tensor::from_slice(&all.concat()).view([-1, of]).to_device(device);
        Some(Self { of, pruned })
    }

    pub(super) fn count(&self) -> i64 {
        self.pruned.size()[0]
    }

    /// The tables for `U`, f64 `[walks, width, width]`, of which the corners on the diagonal count.
    pub(super) fn tables(&self, upper: &Tensor) -> Tables {
        let (walks, width, of) = (upper.size()[0], upper.size()[1], self.of);
        let groups = width / of;
        let corners = upper.reshape([walks, groups, of, groups, of]).diagonal(0, 1, 3).permute([0, 3, 1, 2]);
        let pruned = self.pruned.to_kind(Kind::Double);
        let inverse_square = corners.diagonal(0, 2, 3).square().reciprocal();
        let scores = inverse_square.unsqueeze(3) * pruned.transpose(0, 1);
        // With P what goes: errors e = w P (P U P + I - P)^-1.
        let both = pruned.unsqueeze(2) * pruned.unsqueeze(1);
        let kept = self.pruned.logical_not().to_kind(Kind::Double).diag_embed(0, 1, 2);
        let systems = (corners.unsqueeze(2) * both + kept).reshape([-1, of, of]);
        let eye = Tensor::eye(of, (Kind::Double, upper.device())).expand_as(&systems);
        let inverses = systems.linalg_solve_triangular(&eye, true, true, false);
        let errors = inverses.reshape([walks, groups, self.count(), of, of]) * pruned.unsqueeze(2);
        let errors = errors.permute([0, 1, 3, 2, 4]).reshape([walks, groups, of, -1]);
        Tables { scores, errors }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_counted_in_the_order_of_ties() {
        let masks = |of, count| {
            let masks = Masks::all(of, count, Device::Cpu).expect("few");
            Vec::<Vec<bool>>::try_from(masks.pruned).expect("bool")
        };
        assert_eq!(masks(2, 1), [[true, false], [false, true]]);
        assert_eq!(masks(3, 2), [[true, true, false], [true, false, true], [false, true, true]]);
        assert_eq!(masks(4, 2).len(), 6);
        assert_eq!(masks(8, 4).len(), 70);
        assert_eq!(masks(4, 0).len(), 1);
        assert_eq!(masks(4, 4).len(), 1);
        assert!(Masks::all(16, 8, Device::Cpu).is_none());
    }
}
