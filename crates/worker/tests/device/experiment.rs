//! The experiment `device` of the embedded world, in both families: one on each of two devices at once.

use std::{collections::BTreeSet, path::Path, process::Command, thread};

use ressa_experiment::{
    Experiment, Stage, StageNode,
    job::{Container, Export, Job},
    stage::Inputs,
};
use ressa_testkit::stand_in::StandIn;

use crate::{
    Machine, assert_used_well, differences, files, repository, rounded_otherwise,
    worker::{program, work},
};

fn nodes(preset: &str) -> Vec<StageNode> {
    let root = repository().join("experiments");
    let overrides = [format!("model.preset={preset}")];
    let experiment = Experiment::load(&root.join("shapes/device.yaml"), &root, &overrides).unwrap();
    experiment.stages().into_iter().map(|node| (**node).clone()).collect()
}

#[test]
fn two_devices_compute_what_the_cpu_computes() {
    let families = ["shapes-flant5", "shapes-vicuna"].map(nodes);
    let kinds: BTreeSet<&str> = families[0].iter().map(|node| node.stage.kind()).collect();
    assert_eq!(kinds.len(), Stage::VERSIONS.len(), "the experiment has every kind of stage: {kinds:?}");

    let (cpu, device, logs) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let stand_in = StandIn { devices: 2, ..StandIn::new() };
    let report = logs.path().join("report");
    thread::scope(|scope| {
        for (number, nodes) in families.iter().enumerate() {
            let (cpu, device, stand_in, report) = (cpu.path(), device.path(), &stand_in, &report);
            scope.spawn(move || {
                Machine::Cpu.execute(cpu, nodes);
                Machine::Lent(stand_in, number as u32, report).execute(device, nodes);
            });
        }
    });
    assert_used_well(&report, 2);
    for nodes in &families {
        let differ = differences(cpu.path(), device.path(), nodes);
        assert!(differ.is_empty(), "{} of {} stages differ:\n{}", differ.len(), nodes.len(), differ.join("\n"));
    }

    // Restored runs as model folders: dense weights on the device, masks, changed weights and adapters from the store.
    let merges = families.iter().flatten().filter(|node| matches!(*node.stage, Stage::Merge { .. }));
    for (number, merge) in merges.enumerate() {
        let report = logs.path().join(format!("export {number}"));
        let mut there = program("job", "cuda:0");
        stand_in.lend(&mut there, &report);
        let here = export(program("job", "cpu"), cpu.path(), merge, &logs.path().join(format!("cpu {number}")));
        let there = export(there, device.path(), merge, &logs.path().join(format!("device {number}")));
        // What was trained on masks that rounding may turn over has other values.
        let rounded = families.iter().any(|nodes| rounded_otherwise(nodes).contains(&merge.key));
        let sizes = |files: &[Vec<u8>]| files.iter().map(Vec::len).collect::<Vec<_>>();
        assert!(here == there || (rounded && sizes(&here) == sizes(&there)), "other bytes: {:?}", merge.stage);
        assert_used_well(&report, 1);
    }
}

/// The weights of a restored run's folder, by file.
fn export(command: Command, store: &Path, merge: &StageNode, output: &Path) -> Vec<Vec<u8>> {
    let shipped = repository().join("experiments/store");
    let inputs = Inputs { merge: Some(merge.key), dense: merge.inputs.dense, ..Inputs::default() };
    let job = Export {
        store: store.to_owned(),
        shipped: vec![shipped],
        root: repository(),
        inputs,
        readings: Default::default(),
        output: output.to_owned(),
        max_shard_size: None,
        full_size: false,
        container: Container::Dense,
        card: serde_json::json!({ "base": "", "label": "", "run": "", "stages": [], "steps": [], "restored": null, "seed": null, "scores": [], "program": "" }),
    };
    work(command, &Job::Export(Box::new(job))).unwrap_or_else(|failure| panic!("{failure:?}"));
    files(output)
        .into_iter()
        .filter(|(name, _)| name.extension().is_some_and(|e| e == "safetensors"))
        .map(|(_, bytes)| bytes)
        .collect()
}
