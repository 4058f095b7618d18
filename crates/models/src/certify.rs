//! Counting what is zero: the one function behind every certificate, after pruning and after merging.

use ressa_experiment::{
    Pattern,
    record::{Certificate, TensorCertificate},
};
use ressa_runtime::{count_nonzero, is_finite};
use tch::{Device, Kind, Tensor};

use crate::{KeepMask, LayerCut, LayerId};

/// What one weight matrix is claimed to be.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// The layer.
    pub layer: &'a LayerId,
    /// The weights as they are written, `[out, in]`.
    pub weight: &'a Tensor,
    /// Whether they are used through the mask, so that what it covers is zero whatever is written.
    pub masked: bool,
    /// Keep mask `[out, in]`; `None` where nothing was pruned. Goes where the weight is.
    pub keep: Option<&'a KeepMask>,
    /// Pattern that the zeros follow, in what is left of the layer.
    pub pattern: Option<Pattern>,
    /// What is left of the layer; `None` where all of it is.
    pub cut: Option<&'a LayerCut>,
    /// Positions that must be pruned, where the number is known.
    pub pruned: Option<i64>,
    /// Whether a value at a pruned position is a violation. A merged dense adapter revives weights openly: they are counted openly.
    pub sealed: bool,
}

/// Recounts every claim on the weights themselves. Runs no gradient.
pub fn certify<'a>(claims: impl IntoIterator<Item = Claim<'a>>) -> Certificate {
    tch::no_grad(|| {
        let mut certificate = Certificate::default();
        for claim in claims {
            let (found, violations) = recount(&claim);
            certificate.violations.extend(violations.into_iter().map(|v| format!("`{}`: {v}", claim.layer.name)));
            certificate.tensors.insert(claim.layer.name.clone(), found);
        }
        certificate
    })
}

fn recount(claim: &Claim<'_>) -> (TensorCertificate, Vec<String>) {
    let weight = claim.weight;
    let total = weight.numel() as u64;
    let keep = claim.keep.map(|keep| keep.keep().to_device(weight.device()));
    let alive = match &keep {
        Some(keep) if claim.masked => weight.to_kind(Kind::Bool).logical_and(keep),
        _ => weight.to_kind(Kind::Bool),
    };
    let found = TensorCertificate {
        tower: claim.layer.tower,
        zeros: total - count_nonzero(&alive),
        total,
        revived: keep.as_ref().map_or(0, |keep| count_nonzero(&alive.gt_tensor(keep))),
        pattern: claim.pattern,
        group_violations: match claim.pattern {
            Some(Pattern::NOfM { keep, of }) => {
                let alive = claim.cut.map_or_else(|| alive.shallow_clone(), |cut| cut.of(&alive));
                crowded_groups(&alive, i64::from(keep), i64::from(of))
            }
            Some(Pattern::Unstructured) | None => 0,
        },
    };
    let mut violations = Vec::new();
    if let Some(expected) = claim.pruned {
        let pruned = claim.keep.map_or(0, |keep| total - keep.kept());
        if i64::try_from(pruned) != Ok(expected) {
            violations.push(format!("the mask prunes {pruned} weights, {expected} were asked for"));
        }
    }
    if claim.sealed && found.revived > 0 {
        violations.push(format!("{} pruned weights hold a value again", found.revived));
    }
    if claim.sealed && found.group_violations > 0 {
        let pattern = claim.pattern.map(|p| p.to_string()).unwrap_or_default();
        violations.push(format!("{} groups keep more than `{pattern}` allows", found.group_violations));
    }
    if !is_finite(weight) {
        violations.push("holds values that are not finite".to_owned());
    }
    (found, violations)
}

/// Groups of `of` consecutive inputs with more than `keep` values; every group of a row whose width `of` does not divide.
fn crowded_groups(alive: &Tensor, keep: i64, of: i64) -> u64 {
    let width = alive.size()[1];
    if width % of != 0 {
        return u64::try_from(alive.size()[0] * (width / of + 1)).unwrap_or_default();
    }
    if alive.device() != Device::Cpu {
        let groups = alive.view([-1, width / of, of]).sum_dim_intlist([-1i64].as_slice(), false, Kind::Int64);
        return count_nonzero(&groups.gt(keep));
    }
    // libtorch's sums over a few members are slow on a CPU.
    let flat = alive.contiguous();
    let mut flags = vec![false; flat.numel()];
    flat.view([-1]).copy_data(&mut flags, flat.numel());
    flags
        .chunks_exact(of as usize)
        .filter(|group| group.iter().map(|&alive| i64::from(alive)).sum::<i64>() > keep)
        .count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tower;

    fn layer() -> LayerId {
        LayerId { tower: Tower::Language, block: 0, role: "wi_0".into(), name: "block.0.wi_0".into() }
    }

    #[test]
    fn a_revived_weight_is_caught() {
        let layer = layer();
        let keep = Tensor::from_slice(&[true, false, true, false, false, true, false, true]).view([2, 4]);
        let weight = Tensor::from_slice(&[1.0f32, 0.0, 2.0, 0.0, 0.0, 3.0, 0.0, 4.0]).view([2, 4]);
        let pattern = Some(Pattern::NOfM { keep: 2, of: 4 });
        let claim = Claim {
            layer: &layer,
            weight: &weight,
            masked: false,
            keep: Some(&KeepMask::pack("block.0.wi_0", &keep).unwrap()),
            pattern,
            cut: None,
            pruned: Some(4),
            sealed: true,
        };
        let sound = certify([claim]);
        assert!(sound.holds(), "{:?}", sound.violations);
        assert_eq!(sound.tower(Tower::Language), (4, 8));

        let revived = Tensor::from_slice(&[1.0f32, 0.5, 2.0, 0.0, 0.0, 3.0, 0.0, 4.0]).view([2, 4]);
        let caught = certify([Claim { weight: &revived, ..claim }]);
        assert_eq!(
            caught.violations,
            [
                "`block.0.wi_0`: 1 pruned weights hold a value again",
                "`block.0.wi_0`: 1 groups keep more than `2:4` allows"
            ]
        );
        let open = certify([Claim { weight: &revived, sealed: false, ..claim }]);
        assert!(open.holds());
        assert_eq!((open.tensors["block.0.wi_0"].revived, open.tensors["block.0.wi_0"].zeros), (1, 3));
    }

    #[test]
    fn a_mask_of_the_wrong_size_is_caught() {
        let layer = layer();
        let keep = Tensor::from_slice(&[true, false]).view([1, 2]);
        let weight = Tensor::from_slice(&[0.0f32, 0.0]).view([1, 2]);
        let claim = Claim {
            layer: &layer,
            weight: &weight,
            masked: false,
            keep: Some(&KeepMask::pack("block.0.wi_0", &keep).unwrap()),
            pattern: None,
            cut: None,
            pruned: Some(2),
            sealed: true,
        };
        assert_eq!(certify([claim]).violations, ["`block.0.wi_0`: the mask prunes 1 weights, 2 were asked for"]);
    }
}
