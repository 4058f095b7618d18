//! Heads, channels and blocks of a small model with random weights.

use ressa_experiment::{
    Pattern, Tower,
    config::{MethodConfig, Metric, Propagate, TokenConfig},
    structure::{BlockScore, GroupScore, TowerStructure},
};
use ressa_models::{Cuts, Infer, MaskSet, Model, Surgery, Unit};
use ressa_prune::{
    PruneError, PruneRequest, TowerInputs, certify_tower_within, prune_tower_with,
    structure::{StructureRequest, TowerRemoval, certify_structure, remove_groups},
};
use tch::{Kind, Tensor};

use crate::tower::{samples, t5, vicuna};

fn request(target: TowerStructure, score: GroupScore, block_score: BlockScore) -> StructureRequest {
    let (score, block_score) = (Some(score), Some(block_score));
    StructureRequest { tower: Tower::Language, target, score, block_score, seed: 4 }
}

fn remove(model: &mut Model, request: &StructureRequest) -> TowerRemoval {
    let found = remove_groups(model, request, None, &samples(), &mut |_| {}).expect("removes");
    let certificate = certify_structure(model, request.tower, &found);
    assert!(certificate.holds(), "{:?}", certificate.violations);
    found
}

fn positions(left: &Tensor) -> Vec<i64> {
    Vec::try_from(left).unwrap()
}

/// Changes the weights of the language model's linears whose module paths end so.
fn change(model: &mut Model, ending: &str, new: impl Fn(&Tensor) -> Tensor) {
    let mut changed = 0;
    for (id, linear) in model.linears_mut() {
        if id.tower == Tower::Language && id.name.ends_with(ending) {
            let weight = new(linear.weight());
            linear.set_weight(weight).unwrap();
            changed += 1;
        }
    }
    assert!(changed > 0, "{ending}");
}

/// What nothing reads changes neither the loss nor what a layer puts out.
#[test]
fn channels_that_nothing_reads_go_first() {
    for score in [GroupScore::Wanda, GroupScore::Gradient] {
        for (mut model, ending) in [(t5(), ".wo"), (vicuna(), ".down_proj")] {
            let unread = Tensor::from_slice(&[2i64, 5]);
            change(&mut model, ending, |weight| weight.index_fill(1, &unread, 0.0));
            let before: Vec<Tensor> =
                model.linears().iter().map(|(_, linear)| linear.weight().shallow_clone()).collect();
            let channels =
                model.groups(Tower::Language, 0).sets.into_iter().find(|set| set.unit == Unit::Channels).unwrap();
            let target = TowerStructure { channels: (channels.count - 2) as f64, ..TowerStructure::default() };
            let found = remove(&mut model, &request(target, score, BlockScore::Random));
            let expected: Vec<i64> = (0..channels.count).filter(|channel| ![2, 5].contains(channel)).collect();
            let cut = found.cut.layers.iter().filter(|(layer, _)| layer.ends_with(ending));
            let found: Vec<Vec<i64>> = cut.map(|(_, cut)| positions(cut.columns.as_ref().unwrap())).collect();
            assert!(!found.is_empty() && found.iter().all(|left| *left == expected), "{score:?}: {found:?}");
            let after = model.linears();
            assert!(
                after.iter().zip(&before).all(|((_, linear), weight)| linear.weight().equal(weight)),
                "left as it was"
            );
        }
    }
}

/// A head whose outputs nothing reads is worth nothing; T5's heads are worth the sum over a stack.
#[test]
fn heads_go_with_their_queries_and_through_a_whole_stack() {
    let mut model = vicuna();
    let heads = model.groups(Tower::Language, 0).sets.into_iter().find(|set| set.unit == Unit::Heads).unwrap();
    let width = heads.slices.iter().find(|slice| slice.layer.ends_with("o_proj")).unwrap().width;
    let unread = Tensor::arange_start(width, 2 * width, (Kind::Int64, tch::Device::Cpu));
    change(&mut model, ".o_proj", |weight| weight.index_fill(1, &unread, 0.0));
    let target = TowerStructure { heads: (heads.count - 1) as f64, ..TowerStructure::default() };
    let found = remove(&mut model, &request(target, GroupScore::Gradient, BlockScore::Random));
    for (layer, cut) in &found.cut.layers {
        let (side, width) = match layer.rsplit('.').next().unwrap() {
            "o_proj" => (cut.columns.as_ref(), width),
            _ => (
                cut.rows.as_ref(),
                heads
                    .slices
                    .iter()
                    .find(|slice| layer.ends_with(slice.layer.rsplit('.').next().unwrap()))
                    .unwrap()
                    .width,
            ),
        };
        let expected: Vec<i64> = (0..heads.count * width).filter(|at| at / width != 1).collect();
        assert_eq!(positions(side.unwrap()), expected, "{layer}");
    }

    let mut model = t5();
    let found = remove(&mut model, &request(target, GroupScore::Magnitude, BlockScore::Random));
    for stack in ["encoder", "decoder"] {
        let of_stack = found
            .cut
            .layers
            .iter()
            .filter(|(layer, _)| layer.contains(&format!("{stack}.block")) && layer.ends_with("SelfAttention.o"));
        let left: Vec<Vec<i64>> = of_stack.map(|(_, cut)| positions(cut.columns.as_ref().unwrap())).collect();
        assert!(left.len() > 1 && left.windows(2).all(|pair| pair[0] == pair[1]), "{stack}: {left:?}");
    }
    assert_eq!(found.cut.tables.len(), 2);
}

/// A block that adds nothing changes nothing.
#[test]
fn blocks_that_add_nothing_go_first() {
    for score in [BlockScore::Influence, BlockScore::Gradient] {
        for (mut model, path, endings) in [
            (t5(), "language_model.encoder.block", ["1.layer.0.SelfAttention.o", "1.layer.1.DenseReluDense.wo"]),
            (vicuna(), "language_model.model.layers", ["1.self_attn.o_proj", "1.mlp.down_proj"]),
        ] {
            for ending in endings {
                change(&mut model, &format!("{path}.{ending}"), |weight| weight.zeros_like());
            }
            let target = TowerStructure { blocks: 0.5, ..TowerStructure::default() };
            let found = remove(&mut model, &request(target, GroupScore::Random, score));
            let stack = found.cut.numbers.stacks.iter().find(|stack| stack.path == path).unwrap();
            assert!(!stack.blocks.contains(&1), "{score:?}: {stack:?}");
            let rows = |layer: &str| found.cut.layers[layer].rows.as_ref().map(|rows| rows.size()[0]);
            assert_eq!(rows(&format!("{path}.{}", endings[0])), Some(0));
        }
    }
}

/// What is asked of what is left: numbers and patterns of smaller layers, whatever was removed.
#[test]
fn later_prunings_count_from_what_is_left() {
    let target = TowerStructure { heads: 0.4, channels: 12.0, blocks: 0.5, ..TowerStructure::default() };
    for (metric, pattern) in [
        (Metric::Wanda, Pattern::NOfM { keep: 2, of: 4 }),
        (Metric::SparseGpt, Pattern::NOfM { keep: 2, of: 4 }),
        (Metric::Magnitude, Pattern::Unstructured),
        (Metric::Dsnot, Pattern::Unstructured),
    ] {
        let mut model = vicuna();
        let TowerRemoval { cut, masks } =
            remove(&mut model, &request(target, GroupScore::Magnitude, BlockScore::Influence));
        masks.apply(&mut model).unwrap();
        let mut cuts = Cuts::default();
        cuts.insert(Tower::Language, cut);
        let request = PruneRequest {
            tower: Tower::Language,
            metric,
            pattern,
            sparsity: (pattern == Pattern::Unstructured).then_some(0.5),
            group: None,
            method: MethodConfig::default(),
            tokens: TokenConfig::default(),
            propagate: Propagate::Pruned,
            seed: 3,
        };
        let samples = samples();
        let inputs = || TowerInputs { samples: &samples, cuts: Some(&cuts), ..TowerInputs::default() };
        let pruned = prune_tower_with(&mut model, &request, inputs(), &mut |_| {}).expect("prunes");
        assert!(pruned.certificate.holds(), "{metric:?}: {:?}", pruned.certificate.violations);
        for (id, linear) in model.linears().into_iter().filter(|(id, _)| id.tower == Tower::Language) {
            let keep = pruned.masks.get(&id.name).unwrap().keep();
            let Some(cut) = cuts.layer(&id.name) else { continue };
            assert!(
                !bool::try_from(keep.logical_and(&masks.get(&id.name).unwrap().remove()).any()).unwrap(),
                "{}",
                id.name
            );
            let (rows, columns) = cut.size(linear.shape());
            if rows * columns == 0 {
                continue;
            }
            let left = cut.of(&keep);
            assert_eq!(
                left.sum(Kind::Int64).int64_value(&[]),
                rows * columns - rows * columns / 2,
                "{metric:?} {}",
                id.name
            );
            if pattern != Pattern::Unstructured {
                let groups = left.view([-1, 4]).sum_dim_intlist([1i64].as_slice(), false, Kind::Int64);
                assert!(bool::try_from(groups.eq(2).all()).unwrap(), "{metric:?} {}", id.name);
            }
        }
        // With the groups of the whole layers, the pattern does not hold.
        if pattern != Pattern::Unstructured {
            let whole =
                certify_tower_within(&model, &request, &Cuts::default(), &pruned.masks, &MaskSet::new()).unwrap();
            assert!(!whole.holds());
        }
    }
}

#[test]
fn groups_that_a_pattern_does_not_divide_are_refused() {
    let mut model = vicuna();
    let target = TowerStructure { channels: 11.0, ..TowerStructure::default() };
    let TowerRemoval { cut, masks } = remove(&mut model, &request(target, GroupScore::Magnitude, BlockScore::Random));
    masks.apply(&mut model).unwrap();
    let mut cuts = Cuts::default();
    cuts.insert(Tower::Language, cut);
    let request = PruneRequest {
        tower: Tower::Language,
        metric: Metric::Magnitude,
        pattern: Pattern::NOfM { keep: 2, of: 4 },
        sparsity: None,
        group: None,
        method: MethodConfig::default(),
        tokens: TokenConfig::default(),
        propagate: Propagate::Dense,
        seed: 3,
    };
    let inputs = TowerInputs { cuts: Some(&cuts), ..TowerInputs::default() };
    let error = prune_tower_with(&mut model, &request, inputs, &mut |_| {}).unwrap_err();
    assert!(matches!(error, PruneError::Width { width: 11, of: 4, .. }), "{error}");
}

#[test]
fn targets_that_cannot_be_met_are_refused() {
    let remove = |target| {
        let request = request(target, GroupScore::Magnitude, BlockScore::Random);
        remove_groups(&mut vicuna(), &request, None, &[], &mut |_| {}).unwrap_err().to_string()
    };
    let more = remove(TowerStructure { channels: 1e6, ..TowerStructure::default() });
    assert!(more.contains("lower `structure.language.channels`"), "{more}");
    let connector = StructureRequest {
        tower: Tower::Connector,
        ..request(TowerStructure { blocks: 0.5, ..TowerStructure::default() }, GroupScore::Random, BlockScore::Random)
    };
    let error = remove_groups(&mut vicuna(), &connector, None, &[], &mut |_| {}).unwrap_err();
    assert!(matches!(error, PruneError::Blocks { candidates: 0, .. }), "{error}");
    let calibrated =
        request(TowerStructure { blocks: 0.5, ..TowerStructure::default() }, GroupScore::Random, BlockScore::Influence);
    let error = remove_groups(&mut vicuna(), &calibrated, None, &[], &mut |_| {}).unwrap_err().to_string();
    assert!(error.contains("calibration samples"), "{error}");
}

fn of_queries(target: f64, score: GroupScore) -> StructureRequest {
    let target = TowerStructure { queries: target, ..TowerStructure::default() };
    StructureRequest { tower: Tower::Connector, target, score: Some(score), block_score: None, seed: 4 }
}

/// The queries that are left, and a certificate that holds.
fn queries_left(model: &mut Model, request: &StructureRequest) -> Vec<i64> {
    let found = remove(model, request);
    assert_eq!(found.masks.len(), 0, "no layer is smaller");
    positions(found.cut.queries.as_ref().expect("some are gone"))
}

/// Scores by hand: norms, the gradient of the summed loss times the query, and the projection's weights times the norms of what leaves the Q-Former.
#[test]
fn queries_go_by_what_they_are_worth() {
    for mut model in [t5(), vicuna()] {
        let queries = model.queries().unwrap().base().shallow_clone();
        let width = queries.size()[2];
        let sizes = Tensor::from_slice(&[3.0f32, 0.5, 1.0]).view([1, 3, 1]);
        let uneven = Tensor::ones([1, 3, width], (Kind::Float, tch::Device::Cpu)) * sizes;
        let set = |model: &mut Model, value: &Tensor| {
            let weight = model.weights_mut().into_iter().find(|weight| weight.key() == "query_tokens").unwrap();
            weight.set_base(value.shallow_clone()).unwrap();
        };
        set(&mut model, &uneven);
        assert_eq!(queries_left(&mut model, &of_queries(2.0, GroupScore::Magnitude)), [0, 2]);
        assert_eq!(queries_left(&mut model, &of_queries(0.5, GroupScore::Magnitude)), [0, 2], "half of three is one");
        assert_eq!(queries_left(&mut model, &of_queries(1.0, GroupScore::Magnitude)), [0]);
        set(&mut model, &queries);

        let leaf = queries.detach().copy().set_requires_grad(true);
        set(&mut model, &leaf);
        for sample in &samples() {
            let prefix = model.visual_prefix(&model.encode_images(&sample.pixels), &sample.prompt);
            let answer = std::slice::from_ref(&sample.answer);
            model.force(Some(&prefix), &sample.prompt.language, answer).loss().backward();
        }
        let sum = |x: Tensor, over: i64| x.sum_dim_intlist([over].as_slice(), false, Kind::Double);
        let by_gradient = sum((&queries * leaf.grad()).abs().to_kind(Kind::Double).select(0, 0), 1);
        set(&mut model, &queries);
        let outputs: Vec<Tensor> = samples()
            .iter()
            .map(|sample| tch::no_grad(|| model.query_output(&model.encode_images(&sample.pixels), &sample.prompt)))
            .collect();
        let norms = Tensor::cat(&outputs, 0).to_kind(Kind::Double).square();
        let norms = sum(norms, 0).sqrt();
        let weights = sum(model.connectors()[0].weight().to_kind(Kind::Double).abs(), 0);
        let by_reading = sum(norms * weights, 1);
        for (score, worth) in [(GroupScore::Gradient, by_gradient), (GroupScore::Wanda, by_reading)] {
            let worth = Vec::<f64>::try_from(&worth).unwrap();
            let least = (0..3).min_by(|&a, &b| worth[a].total_cmp(&worth[b])).unwrap();
            let expected: Vec<i64> = (0..3).filter(|&at| at != least).map(|at| at as i64).collect();
            assert_eq!(queries_left(&mut model, &of_queries(2.0, score)), expected, "{score:?} {worth:?}");
            assert!(model.queries().unwrap().base().equal(&queries), "left as it was");
        }
    }
}

/// A second removal counts from all queries, keeps no more of them, and says them by their first numbers.
#[test]
fn a_second_removal_of_queries_goes_on_from_the_first() {
    let mut model = t5();
    let first = remove(&mut model, &of_queries(2.0, GroupScore::Random));
    let kept = positions(first.cut.queries.as_ref().unwrap());
    model.keep_queries(first.cut.queries.as_ref().unwrap()).unwrap();
    let mut again = |request: StructureRequest| {
        remove_groups(&mut model, &request, Some(&first.cut), &[], &mut |_| {}).expect("removes").cut
    };
    let second = again(of_queries(1.0, GroupScore::Random));
    let left = positions(second.queries.as_ref().unwrap());
    assert!(left.len() == 1 && kept.contains(&left[0]), "{kept:?} {left:?}");
    assert_eq!(second.numbers.queries.map(|queries| (queries.left, queries.of)), Some((1, 3)));
    // What a later removal of channels does not ask for stays as it was.
    let channels = TowerStructure { channels: 0.25, ..TowerStructure::default() };
    let other = again(StructureRequest { target: channels, ..of_queries(0.0, GroupScore::Magnitude) });
    assert_eq!(positions(other.queries.as_ref().unwrap()), kept);
    assert!(other.numbers.channels.is_some());
    let mut wrong = first;
    wrong.cut.queries = Some(Tensor::from_slice(&[0i64]));
    let violations = certify_structure(&model, Tower::Connector, &wrong).violations;
    assert!(violations.iter().any(|violation| violation.contains("query_tokens")), "{violations:?}");
}

#[test]
fn queries_that_cannot_go_are_refused_by_name() {
    let mut model = t5();
    let mut error = |request: StructureRequest| {
        remove_groups(&mut model, &request, None, &[], &mut |_| {}).expect_err("refused").to_string()
    };
    let more = error(of_queries(4.0, GroupScore::Random));
    assert_eq!(
        more,
        "4 queries of tower `connector` are to remain, and there are 3: lower `structure.connector.queries`"
    );
    let blind = error(of_queries(2.0, GroupScore::Wanda));
    assert!(blind.contains("its scores need calibration samples"), "{blind}");
}
