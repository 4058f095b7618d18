//! How long stages are expected to take.

use ressa_experiment::{
    StageKey,
    config::{Metric, RestoreMethod},
    model::ModelConfig,
};
use ressa_runlog::{Index, Log, LogEvent, Proof, Published};
use ressa_store::Environment;
use ressa_sweep::{Estimates, Graph, GraphStage};

use crate::bench::{Bench, cell, cells, graph, run};

/// A log in which stages were published: model, device, kind, detail, seconds.
fn publish(bench: &Bench, lines: &[(&str, &str, &str, &str, f64)]) -> Index {
    let mut log = Log::begin(&bench.store, "a test").unwrap();
    for (number, &(model, device, kind, detail, seconds)) in lines.iter().enumerate() {
        let environment = match device {
            "" => Environment::default(),
            "cpu" => Environment { device: "cpu".to_owned(), ..Environment::default() },
            gpu => Environment { device: "cuda:0".to_owned(), accelerator: gpu.to_owned(), ..Environment::default() },
        };
        let record = Published {
            kind: kind.into(),
            detail: detail.into(),
            model: model.into(),
            seconds,
            cpu_seconds: 0.0,
            environment: environment.into(),
            result: serde_json::value::to_raw_value(&()).unwrap().into(),
            files: Vec::new().into(),
            proof: Proof(0),
        };
        log.write(LogEvent::Found { key: StageKey::new([number as u8; 32]), record }).unwrap();
    }
    log.index().clone()
}

fn stage<'g>(graph: &'g Graph, kind: &str) -> &'g GraphStage {
    graph.stages.iter().find(|stage| stage.node.stage.kind() == kind).unwrap()
}

#[test]
fn times_are_those_of_the_model_and_the_device() {
    let bench = Bench::new();
    let index = publish(
        &bench,
        &[
            ("shapes-flant5", "cpu", "adapt", "", 20.0),
            ("shapes-flant5", "NVIDIA H100 80GB HBM3", "adapt", "", 2.0),
            ("checkpoints/large", "NVIDIA H100 80GB HBM3", "adapt", "", 900.0),
            ("checkpoints/large", "NVIDIA H100 80GB HBM3", "prune", "vision", 4.0),
        ],
    );
    let small = graph(&cells());
    let mut large = run(Metric::Wanda, RestoreMethod::SparseLora, 0);
    large.model = ModelConfig { checkpoint: Some("checkpoints/large".into()), ..ModelConfig::default() }.into();
    let large = graph(&[cell(large)]);
    let on = |device: &str| Estimates::of(&index, |known| known == device);
    let (cpu, gpu) = (on("cpu"), on("NVIDIA H100 80GB HBM3"));
    assert_eq!(cpu.timed(stage(&small, "adapt")), Some(20.0));
    assert_eq!(gpu.timed(stage(&small, "adapt")), Some(2.0));
    assert_eq!(gpu.timed(stage(&large, "adapt")), Some(900.0));
    assert_eq!(cpu.timed(stage(&large, "adapt")), None);
    // A kind that was timed stands for its other sorts, another kind does not.
    let language = large.stages.iter().filter(|stage| stage.node.stage.kind() == "prune").nth(1).unwrap();
    assert_eq!(gpu.timed(language), Some(4.0));
    assert_eq!(gpu.timed(stage(&large, "evaluate")), None);
}

#[test]
fn outputs_of_earlier_versions_are_times_of_the_embedded_world_on_a_cpu() {
    let bench = Bench::new();
    let index = publish(&bench, &[("", "", "adapt", "", 30.0)]);
    let graph = graph(&cells());
    let on = |device: &str| Estimates::of(&index, |known| known == device);
    assert_eq!(on("cpu").timed(stage(&graph, "adapt")), Some(30.0));
    assert_eq!(on("cuda").timed(stage(&graph, "adapt")), None);
}

#[test]
fn a_sweep_writes_down_which_model_ran_on_what() {
    let bench = Bench::new();
    let graph = graph(&cells());
    bench.sweep(&graph);
    let index = ressa_runlog::read(&bench.store).unwrap().index;
    let machine =
        |key| index.published(key).map(|record| (record.model.to_string(), record.environment.machine().to_owned()));
    let expected = Some(("shapes-flant5".to_owned(), "cpu".to_owned()));
    assert!(graph.stages.iter().all(|stage| machine(&stage.node.key) == expected));
    let estimates = Estimates::of(&index, |device| device == "cpu");
    assert!(graph.stages.iter().all(|stage| estimates.timed(stage).is_some()));
}
