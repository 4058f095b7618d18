//! Merging: outputs stay, pruned weights stay zero, and what does not is recorded.

use std::collections::BTreeMap;

use ressa_experiment::{
    Pattern,
    config::{Recompute, RestoreMethod, TrainedBiases},
    stage::AdaptTraining,
};
use ressa_models::{Cuts, MaskSet, Surgery, Tower, UpdateSet};
use ressa_restore::{
    Budgets, MergeRequest, Merged, RestoreError, TrainingOptions, adapters, certify_merged, merge, train_adapters,
};

use crate::world::{Batches, dense, masks, probe, settings, student};

const PATTERN: Pattern = Pattern::NOfM { keep: 2, of: 4 };

fn trained(masked: bool) -> UpdateSet {
    let options = TrainingOptions { masked, seed: 1, checkpoints: None, budgets: Budgets::default() };
    let settings = settings(4, None);
    let mut student = student();
    train_adapters(student.as_mut(), None, &settings, options, &mut Batches::default(), &mut |_| {})
        .expect("trains")
        .adapters
}

fn merged(method: RestoreMethod, masks: &MaskSet, adapters: &UpdateSet) -> Result<Merged, RestoreError> {
    let patterns = patterns();
    merge(
        &dense(),
        MergeRequest { method, masks, adapters, patterns: &patterns, cuts: &Cuts::default(), before: None },
        &probe(),
    )
}

/// Every layer of the pruned towers.
fn patterns() -> BTreeMap<String, Pattern> {
    let model = dense();
    let pruned = model.linears().into_iter().filter(|(id, _)| id.tower != Tower::Connector);
    pruned.map(|(id, _)| (id.name.clone(), PATTERN)).collect()
}

#[test]
fn sparse_lora_keeps_outputs_and_zeros() {
    let masks = masks(&dense());
    let merged = merged(RestoreMethod::SparseLora, &masks, &trained(true)).expect("merges");
    assert!(merged.certificate.holds(), "{:?}", merged.certificate.violations);
    assert!(merged.largest_output_difference < 1e-4, "{}", merged.largest_output_difference);
    assert_eq!(merged.certificate.sparsity(Tower::Vision), Some(0.5));
    assert_eq!(merged.certificate.sparsity(Tower::Language), Some(0.5));
    assert_eq!(merged.certificate.sparsity(Tower::Connector), Some(0.0));
    assert_eq!(merged.tensors.len(), dense().linears().len());
}

/// A projection that is pruned is trained where its tower is, keeps its mask, and is counted.
#[test]
fn a_pruned_projection_is_one_of_its_towers_layers() {
    let dense = dense();
    let mut masks = masks(&dense);
    let projection = dense.connectors().into_iter().find(|linear| linear.name() == "language_projection").unwrap();
    masks.insert("language_projection", projection.weight().gt(0.0));
    for recompute in [Recompute::None, Recompute::Blocks] {
        let mut student = dense.shallow_clone();
        masks.apply(student.as_mut()).expect("fits");
        let settings = AdaptTraining { recompute, ..settings(4, None) };
        let options = TrainingOptions { masked: true, seed: 1, checkpoints: None, budgets: Budgets::default() };
        let adapters = train_adapters(student.as_mut(), None, &settings, options, &mut Batches::default(), &mut |_| {})
            .expect("trains")
            .adapters;
        let update = adapters.get("language_projection").expect("no target is named, so every layer is tuned");
        assert!(update.respects_mask() && update.parameters()[1].1.abs().max().double_value(&[]) > 0.0);
        let merged = merged(RestoreMethod::SparseLora, &masks, &adapters).expect("merges");
        assert!(merged.certificate.holds(), "{:?}", merged.certificate.violations);
        let (found, keep) =
            (&merged.certificate.tensors["language_projection"], masks.get("language_projection").unwrap());
        assert_eq!((found.zeros, found.total), (keep.numel() - keep.kept(), keep.numel()));
    }
}

/// What scales weights is on every layer, with a mask or without; what it trained is what a file holds and what is merged.
#[test]
fn updates_that_scale_keep_outputs_and_zeros() {
    for method in [RestoreMethod::ScaleLora, RestoreMethod::Spp, RestoreMethod::SppLora] {
        let name = method.name();
        let settings = AdaptTraining { update: method.update(), ..settings(4, None) };
        let options = TrainingOptions { masked: true, seed: 1, checkpoints: None, budgets: Budgets::default() };
        let mut student = student();
        let before = adapters::initialise(student.as_ref(), &settings, true, 1).expect("adapters");
        before.apply(student.as_mut()).expect("fits");
        for (id, linear) in student.linears() {
            let masked = linear.mask().map_or(linear.weight().shallow_clone(), |keep| linear.weight() * keep);
            assert!(
                linear.effective_weight().allclose(&masked, 1e-6, 1e-7, false),
                "{name}: {} starts as it is",
                id.name
            );
        }
        let batches = &mut Batches::default();
        let trained =
            train_adapters(student.as_mut(), None, &settings, options, batches, &mut |_| {}).expect("trains").adapters;
        assert_eq!(trained.len(), dense().linears().len(), "{name}");
        assert!(trained.iter().all(|(_, update)| update.kind() == name));
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("adapter.safetensors");
        trained.save(&file).expect("saves");
        let trained = UpdateSet::load(&file).expect("loads");
        let masks = masks(&dense());
        let found = merged(method, &masks, &trained).expect("merges");
        assert!(found.certificate.holds(), "{name}: {:?}", found.certificate.violations);
        assert!(found.largest_output_difference < 1e-4, "{name}: {}", found.largest_output_difference);
        assert_eq!(found.certificate.sparsity(Tower::Language), Some(0.5), "{name}");
        assert!(matches!(merged(RestoreMethod::Lora, &masks, &trained), Err(RestoreError::WrongAdapter { .. })));
    }
}

/// With rank 0, what trains are biases and norms.
#[test]
fn norms_and_biases_train_alone() {
    let mut settings = settings(2, None);
    (settings.connector, settings.language) = (None, None);
    let vision = settings.vision.as_mut().expect("tuned");
    (vision.rank, vision.norms, vision.bias) = (0, true, TrainedBiases::All);
    let found = adapters::initialise(student().as_ref(), &settings, true, 1).expect("adapters");
    assert!(found.iter().all(|(name, update)| update.kind() == "full" && name.starts_with("vision_model.")));
    assert!(found.get("vision_model.encoder.layers.0.mlp.fc1.bias").is_some());
    assert!(found.get("vision_model.encoder.layers.0.mlp.fc1").is_none());
}

#[test]
fn lora_revives_openly_and_remasking_costs() {
    let (masks, adapters) = (masks(&dense()), trained(false));
    let open = merged(RestoreMethod::Lora, &masks, &adapters).expect("merges");
    assert!(open.certificate.holds(), "{:?}", open.certificate.violations);
    assert!(open.certificate.sparsity(Tower::Language).expect("a tower") < 0.01);
    assert!(open.certificate.tensors.values().any(|t| t.revived > 0 && t.group_violations > 0));
    assert!(open.largest_output_difference < 1e-4, "{}", open.largest_output_difference);

    let remasked = merged(RestoreMethod::LoraRemasked, &masks, &adapters).expect("merges");
    assert!(remasked.certificate.holds(), "{:?}", remasked.certificate.violations);
    assert_eq!(remasked.certificate.sparsity(Tower::Language), Some(0.5));
    assert!(remasked.largest_output_difference > 1e-3, "{}", remasked.largest_output_difference);
}

#[test]
fn a_revived_weight_breaks_the_certificate() {
    let (masks, adapters) = (masks(&dense()), trained(true));
    let merged = merged(RestoreMethod::SparseLora, &masks, &adapters).expect("merges");
    let mut model = dense();
    for (id, linear) in model.linears_mut() {
        linear.set_weight(merged.tensors[&id.name].copy()).expect("fits");
    }
    let name = masks.iter().next().map(|(name, _)| name.to_owned()).expect("a mask");
    let patterns = patterns();
    let cuts = Cuts::default();
    let (masks, adapters, patterns, cuts) = (&masks, &adapters, &patterns, &cuts);
    let request = MergeRequest { method: RestoreMethod::SparseLora, masks, adapters, patterns, cuts, before: None };
    assert!(certify_merged(&model, request).holds());
    for (id, linear) in model.linears_mut() {
        if id.name == name {
            let _ = linear.weight().get(0).get(1).fill_(0.25);
        }
    }
    assert_eq!(
        certify_merged(&model, request).violations,
        [
            format!("`{name}`: 1 pruned weights hold a value again"),
            format!("`{name}`: 1 groups keep more than `2:4` allows"),
        ]
    );
}

#[test]
fn an_adapter_trained_for_another_method_is_refused() {
    let error = merged(RestoreMethod::SparseLora, &masks(&dense()), &trained(false)).expect_err("refused").to_string();
    assert!(error.contains("as `sparse-lora`: its adapter was trained unmasked"), "{error}");
}

#[test]
fn merged_norms_and_biases_keep_outputs_and_zeros() {
    let mut settings = settings(4, None);
    for tower in [&mut settings.vision, &mut settings.connector, &mut settings.language].into_iter().flatten() {
        tower.norms = true;
    }
    settings.vision.as_mut().expect("tuned").bias = TrainedBiases::LoraOnly;
    settings.vision.as_mut().expect("tuned").targets = vec!["fc1".to_owned()];
    for (masked, method) in [(true, RestoreMethod::SparseLora), (false, RestoreMethod::LoraRemasked)] {
        let options = TrainingOptions { masked, seed: 1, checkpoints: None, budgets: Budgets::default() };
        let mut student = student();
        let batches = &mut Batches::default();
        let adapters =
            train_adapters(student.as_mut(), None, &settings, options, batches, &mut |_| {}).expect("trains").adapters;
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("adapter.safetensors");
        adapters.save(&file).expect("saves");
        let adapters = UpdateSet::load(&file).expect("loads");
        let masks = masks(&dense());
        let merged = merged(method, &masks, &adapters).expect("merges");
        assert!(merged.certificate.holds(), "{:?}", merged.certificate.violations);
        assert_eq!(merged.certificate.sparsity(Tower::Vision), Some(0.5));
        assert_eq!(merged.certificate.sparsity(Tower::Language), Some(0.5));
        if masked {
            assert!(merged.largest_output_difference < 1e-4, "{}", merged.largest_output_difference);
        }
        let dense = dense();
        let differs = |name: &str| {
            let before = dense.tensors().remove(name).expect("a tensor of the model");
            let key = name.strip_suffix(".weight").unwrap_or(name);
            merged.tensors.get(key).is_some_and(|after| !after.equal(&before))
        };
        assert!(differs("vision_model.post_layernorm.bias") && differs("vision_model.encoder.layers.0.mlp.fc1.bias"));
        assert!(
            differs("language_model.encoder.final_layer_norm.weight") && differs("qformer.embeddings.layernorm.weight")
        );
        assert!(!differs("vision_model.encoder.layers.0.mlp.fc2.bias"), "it has no adapter");
    }
}

#[test]
fn biases_that_are_not_there_are_said() {
    let mut settings = settings(1, None);
    settings.language.as_mut().expect("tuned").bias = TrainedBiases::All;
    let options = TrainingOptions { masked: true, seed: 1, checkpoints: None, budgets: Budgets::default() };
    let (mut student, batches) = (student(), &mut Batches::default());
    let error =
        train_adapters(student.as_mut(), None, &settings, options, batches, &mut |_| {}).expect_err("T5 has none");
    assert_eq!(error.to_string(), "tower `language` has no bias to train; leave `restore.language.bias` at `none`");
}
