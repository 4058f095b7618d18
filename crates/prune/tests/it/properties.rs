//! What must hold for every importance, shape and budget.

use proptest::prelude::*;
use ressa_experiment::config::Group;
use ressa_prune::{
    metric::{PruningMetric, Random, Wanda},
    select::{Selection, keep_across, pruned_count},
    statistics::{ColumnStatistics, Needs},
};
use tch::{Device, Kind, Tensor};

/// Importances with many ties: small integers.
fn importance() -> impl Strategy<Value = Tensor> {
    (1i64..9, 1i64..7).prop_flat_map(|(rows, groups)| {
        let columns = groups * 8;
        proptest::collection::vec(0u8..12, (rows * columns) as usize)
            .prop_map(move |values| Tensor::from_slice(&values).to_kind(Kind::Float).view([rows, columns]))
    })
}

fn pruned(keep: &Tensor) -> i64 {
    keep.logical_not().sum(Kind::Int64).int64_value(&[])
}

fn is_subset(inner: &Tensor, outer: &Tensor) -> bool {
    pruned(&inner.logical_not().logical_or(outer)) == 0
}

fn all_equal(left: &Tensor, right: i64) -> bool {
    left.eq(right).all().int64_value(&[]) == 1
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn counts_are_exact(importance in importance(), sparsity in 0.0f64..0.99) {
        let size = importance.size();
        let row = Selection::Unstructured { sparsity, group: Group::Row }.keep(&importance);
        let per_row = row.logical_not().sum_dim_intlist([1i64].as_slice(), false, Kind::Int64);
        prop_assert!(all_equal(&per_row, pruned_count(size[1], sparsity)));
        let matrix = Selection::Unstructured { sparsity, group: Group::Matrix }.keep(&importance);
        prop_assert_eq!(pruned(&matrix), pruned_count(size[0] * size[1], sparsity));
        let tower = keep_across(&[importance.shallow_clone(), importance.transpose(0, 1).contiguous()], sparsity);
        prop_assert_eq!(tower.iter().map(pruned).sum::<i64>(), pruned_count(2 * size[0] * size[1], sparsity));
    }

    #[test]
    fn every_group_keeps_n_of_m(importance in importance(), of in prop_oneof![Just(2i64), Just(4), Just(8)], keep in 1i64..8) {
        prop_assume!(keep < of);
        let mask = Selection::NOfM { keep, of }.keep(&importance);
        let kept = mask.reshape([-1, of]).sum_dim_intlist([1i64].as_slice(), false, Kind::Int64);
        prop_assert!(all_equal(&kept, keep));
    }

    #[test]
    fn keep_sets_nest_and_pruned_is_never_more_important(importance in importance(), low in 0.0f64..0.95, more in 0.0f64..0.5) {
        let high = (low + more).min(0.98);
        for group in [Group::Row, Group::Matrix] {
            let dense = Selection::Unstructured { sparsity: low, group }.keep(&importance);
            let sparse = Selection::Unstructured { sparsity: high, group }.keep(&importance);
            prop_assert!(is_subset(&sparse, &dense));
        }
        let matrix = Selection::Unstructured { sparsity: high, group: Group::Matrix }.keep(&importance);
        if pruned(&matrix) > 0 {
            let gone = importance.masked_select(&matrix.logical_not()).max().double_value(&[]);
            prop_assert!(gone <= importance.masked_select(&matrix).min().double_value(&[]));
        }
    }

    #[test]
    fn pruning_twice_is_the_identity(importance in importance(), sparsity in 0.0f64..0.99) {
        for selection in [
            Selection::Unstructured { sparsity, group: Group::Row },
            Selection::Unstructured { sparsity, group: Group::Matrix },
            Selection::NOfM { keep: 2, of: 4 },
        ] {
            let once = selection.keep(&importance);
            let twice = selection.keep(&importance.masked_fill(&once.logical_not(), 0.0));
            prop_assert!(once.equal(&twice));
        }
    }

    /// A sample is one contribution however its tokens are shaped.
    #[test]
    fn statistics_do_not_depend_on_the_shape_of_a_sample(values in proptest::collection::vec(-4i8..4, 48)) {
        let weight = Tensor::ones([3, 4], (Kind::Float, Device::Cpu));
        let input = Tensor::from_slice(&values).to_kind(Kind::Float);
        let importance = |shape: &[i64]| {
            let mut statistics = ColumnStatistics::new(4, Needs::NORMS, Device::Cpu);
            statistics.add_sample(&input.view(shape));
            Wanda.importance("layer", &weight, Some(&statistics))
        };
        prop_assert!(importance(&[12, 4]).equal(&importance(&[2, 3, 2, 4])));
    }
}

#[test]
fn random_importance_knows_only_seed_and_layer() {
    let weight = Tensor::zeros([4, 16], (Kind::Float, Device::Cpu));
    let draw = |seed, layer| Random { seed }.importance(layer, &weight, None);
    assert!(draw(1, "a").equal(&draw(1, "a")));
    assert!(!draw(1, "a").equal(&draw(1, "b")) && !draw(1, "a").equal(&draw(2, "a")));
}
