//! Planted channel scales through every stage.

use std::path::Path;

use ressa_experiment::{
    Readings, RunConfig, Task,
    config::{Metric, RestoreMethod},
    model::Preset,
    stage::stages,
};
use ressa_store::Store;

use crate::{digests, execute, executor, short_run};

fn run_of(metric: Metric, spread: f64) -> RunConfig {
    let mut run = short_run(Preset::ShapesVicuna, RestoreMethod::None);
    run.prune.metric = metric;
    run.model.channel_spread = spread;
    run.evaluate.tasks = vec![Task::Gqa, Task::Flickr30k];
    run
}

#[test]
fn a_rescaled_model_scores_as_it_did_and_only_magnitude_prunes_otherwise() {
    let folder = tempfile::tempdir().unwrap();
    let mut executor = executor(folder.path());
    let store = Store::open(folder.path(), Vec::new()).unwrap();
    // Masks and scores, without the certificate's folder.
    let mut made = |metric, spread| {
        let nodes = stages(&run_of(metric, spread));
        execute(&mut executor, &nodes);
        for node in &nodes {
            assert_eq!(executor.verify(node).unwrap(), Vec::<String>::new(), "{}", node.stage.kind());
        }
        let kinds: Vec<&str> = nodes.iter().map(|node| node.stage.kind()).collect();
        assert_eq!(kinds.contains(&"rescale"), spread > 0.0, "{kinds:?}");
        let pruned: Vec<_> = nodes.iter().filter(|node| ["prune", "evaluate"].contains(&node.stage.kind())).collect();
        let inputs = pruned.last().unwrap().inputs.clone();
        let source = executor.run_weights(&inputs, &Readings::default(), Path::new("")).unwrap().source;
        let pruned: Vec<_> = pruned.into_iter().cloned().collect();
        (digests(folder.path(), &pruned), source)
    };
    for metric in [Metric::None, Metric::Wanda, Metric::Magnitude] {
        let ((plain, source), (planted, rescaled)) = (made(metric, 0.0), made(metric, 0.7));
        assert_eq!(plain == planted, metric != Metric::Magnitude, "{metric:?}\n{plain:#?}\n{planted:#?}");
        // What an export of the run takes for its template.
        assert_ne!(source, rescaled);
        let weights = |folder| std::fs::read(Path::join(folder, "model.safetensors")).unwrap();
        assert_eq!(weights(&source).len(), weights(&rescaled).len());
        assert_ne!(weights(&source), weights(&rescaled));
    }
    let entry = store.require(&stages(&run_of(Metric::None, 0.7))[1].key.hex()).unwrap();
    assert_eq!(
        (entry.manifest.result["norms"].as_u64(), &entry.manifest.result["published"]),
        (Some(20), &false.into())
    );
}
