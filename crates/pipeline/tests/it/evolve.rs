//! Masks that change in a restoration: later steps, certificates and exports see the new ones.

use ressa_experiment::{
    Pattern, RunConfig, Tower,
    config::{Metric, RestoreMethod},
    model::Preset,
    stage::stages,
};
use ressa_models::{KeepMask, MaskSet};
use ressa_pipeline::Executor;
use ressa_store::Store;
use serde_json::{Value as Json, json};
use tch::{Kind, Tensor};

use crate::{
    execute, executed_alike, executor, make, short_run,
    steps::{certificate, masks, of_kind, outcome, pruned_to, run_of, step, weights},
};

/// Exchanges before steps 1 and 2 of 3.
fn evolving() -> Json {
    json!({ "evolve.every": 1, "evolve.share": 0.6, "evolve.until": 1.0 })
}

fn kept(mask: &KeepMask) -> Tensor {
    mask.keep().sum_dim_intlist([-1i64].as_slice(), false, Kind::Int64)
}

fn layers(masks: &MaskSet) -> Vec<&str> {
    masks.iter().map(|(name, _)| name).collect()
}

#[test]
fn later_steps_and_exports_see_the_new_masks() {
    let steps = vec![
        pruned_to("first", 0.3),
        step("restore", "tune", evolving()),
        pruned_to("second", 0.6),
        step("restore", "last", json!({ "steps": 2 })),
    ];
    let mut run = run_of(Metric::Wanda, steps);
    // One tower low-rank, the other element by element.
    for settings in &mut run.steps.iter_mut().filter(|step| step.name == "tune") {
        settings.settings.insert("language.full".to_owned(), true.into());
        settings.settings.insert("learning-rate".to_owned(), 0.001.into());
    }
    let nodes = stages(&ressa_experiment::canonical::canonical(&run));
    let at = nodes.iter().position(|node| node.stage.kind() == "merge").unwrap();
    let (first, mut whole) = executed_alike(&nodes, at);

    let store = Store::open(first.path(), Vec::new()).unwrap();
    let prunes = of_kind(&nodes, "prune");
    let [vision, language, vision_again, language_again] = prunes.as_slice() else { panic!("four") };
    let adapt = of_kind(&nodes, "adapt")[0];
    let evolved = masks(&store, adapt);
    let result: Json = store.require(&adapt.key.hex()).unwrap().result().unwrap();
    assert_eq!(result["evolution"]["exchanges"], 2);
    assert!(result["evolution"]["exchanged"].as_u64().unwrap() > 0, "{result}");
    let mut changed = 0;
    for (before, after) in [(vision, vision_again), (language, language_again)] {
        let (before, after) = (masks(&store, before), masks(&store, after));
        for name in layers(&before) {
            let [one, two, three] = [&before, &evolved, &after].map(|masks| masks.get(name).unwrap());
            // Wanda's rows have one number each, and keep it.
            assert!(kept(one).equal(&kept(two)), "`{name}`");
            changed += i64::from(!one.equal(two));
            // What the second pruning removes is what the changed masks removed, and more.
            assert_eq!(three.keep().logical_and(&two.remove()).any().int64_value(&[]), 0, "`{name}`");
        }
    }
    assert!(changed > 0);
    let merge = of_kind(&nodes, "merge")[0];
    let certificate = certificate(&store, merge);
    assert!(certificate.holds() && certificate.tensors.values().all(|tensor| tensor.revived == 0));
    for tower in [Tower::Vision, Tower::Language] {
        assert!((certificate.sparsity(tower).unwrap() - 0.3).abs() < 0.02);
    }

    // Weights behind the first merge are zero where the new masks say so.
    let inputs = ressa_experiment::stage::Inputs {
        merge: Some(merge.key),
        dense: Some(nodes[0].key),
        ..ressa_experiment::stage::Inputs::default()
    };
    let tuned = weights(&mut whole, &inputs);
    for (name, keep) in evolved.iter() {
        let [rows, columns] = keep.size();
        let dense = Tensor::ones([rows, columns], (Kind::Float, tch::Device::Cpu));
        let weight = tuned.weight(name, &dense).unwrap().unwrap();
        assert_eq!(weight.masked_select(&keep.remove()).ne(0.0).any().int64_value(&[]), 0, "`{name}`");
        assert!(tuned.mask(name).unwrap().equal(keep));
    }
    let last = weights(&mut whole, outcome(&nodes));
    assert!(masks(&store, language_again).iter().all(|(name, keep)| last.mask(name).unwrap().equal(keep)));
}

fn evolving_run(full: bool) -> RunConfig {
    let mut run = short_run(Preset::ShapesVicuna, RestoreMethod::SparseLora);
    run.restore.evolve.every = 1;
    run.restore.evolve.until = 1.0;
    run.restore.evolve.share = 0.6;
    (run.restore.vision.full, run.restore.language.full) = (full, full);
    run.restore.learning_rate = 1e-3;
    run.evaluate.tasks = vec![ressa_experiment::Task::Gqa];
    ressa_experiment::canonical::canonical(&run)
}

/// Groups of four keep two each in a decoder-only model, and a published training whose masks are damaged does not merge.
#[test]
fn groups_hold_and_damage_is_told() {
    for full in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let nodes = stages(&evolving_run(full));
        let mut executor: Executor = executor(folder.path());
        execute(&mut executor, &nodes);
        let merge = of_kind(&nodes, "merge")[0];
        let store = Store::open(folder.path(), Vec::new()).unwrap();
        let found = certificate(&store, merge);
        assert!(found.holds());
        let pruned = found.tensors.values().filter(|tensor| tensor.pattern == Some(Pattern::NOfM { keep: 2, of: 4 }));
        assert!(pruned.clone().count() > 0 && pruned.clone().all(|tensor| tensor.group_violations == 0));

        // A mask with one weight less than the budget.
        let adapt = of_kind(&nodes, "adapt")[0];
        let path = store.require(&adapt.key.hex()).unwrap().file("masks.safetensors").unwrap();
        let mut wrong = MaskSet::load(&path).unwrap();
        let name = layers(&wrong)[0].to_owned();
        let keep = wrong.get(&name).unwrap().keep().copy();
        let at = keep.view([-1]).nonzero().get(0).int64_value(&[0]);
        let _ = keep.view([-1]).get(at).fill_(0);
        wrong.insert(&name, keep);
        let values = path.with_file_name("weights.safetensors");
        let changed = ressa_models::WeightSet::load(&values, &MaskSet::load(&path).unwrap()).unwrap();
        for file in [&path, &values] {
            let mut permissions = std::fs::metadata(file).unwrap().permissions();
            #[allow(clippy::permissions_set_readonly_false)]
            permissions.set_readonly(false);
            std::fs::set_permissions(file, permissions).unwrap();
        }
        wrong.save(&path).unwrap();
        changed.save(&values, &wrong).unwrap();
        let violations = executor.verify(merge).unwrap();
        assert!(violations.iter().any(|text| text.starts_with(&format!("`{name}`: the mask keeps"))), "{violations:?}");
    }
}

/// Groups that a penalty made zero are in the result of the training.
#[test]
fn a_penalty_says_what_it_made_zero() {
    let mut run = short_run(Preset::ShapesFlanT5, RestoreMethod::SparseLora);
    run.restore.language.full = true;
    run.restore.penalty.weight = 1e6;
    run.evaluate.tasks = vec![ressa_experiment::Task::Gqa];
    let nodes = stages(&ressa_experiment::canonical::canonical(&run));
    let folder = tempfile::tempdir().unwrap();
    let mut executor = executor(folder.path());
    for node in nodes.iter().filter(|node| node.stage.kind() != "evaluate") {
        make(&mut executor, node).unwrap();
    }
    let store = Store::open(folder.path(), Vec::new()).unwrap();
    let result: Json = store.require(&of_kind(&nodes, "adapt")[0].key.hex()).unwrap().result().unwrap();
    let groups = result["groups"].as_object().unwrap();
    assert_eq!(groups.keys().collect::<Vec<_>>(), ["language"]);
    for (kind, counts) in groups["language"].as_object().unwrap() {
        assert!(counts["of"].as_u64().unwrap() > 0 && counts["zero"] == counts["of"], "{kind}: {counts}");
    }
    assert!(certificate(&store, of_kind(&nodes, "merge")[0]).holds());
}
