//! The benchmarks of today and a text through the stage `evaluate`.

use std::fs;

use ressa_data::Family;
use ressa_experiment::{
    RunConfig, Stage, Task,
    config::{PerplexityConfig, RetrievalConfig},
    record::TaskScore,
    stage::stages,
};
use ressa_store::Store;

use crate::{
    digests, execute, executor,
    published::{paper_run, predictions},
};

const TODAY: [Task; 6] = [Task::Textvqa, Task::Vizwiz, Task::Pope, Task::Scienceqa, Task::Mmbench, Task::Mme];

/// A dense model that answers the benchmarks of today.
fn today(folder: &std::path::Path, family: Family) -> RunConfig {
    let mut run = paper_run(folder, family);
    (run.prune, run.restore) = (Default::default(), Default::default());
    run.evaluate.beams = 1;
    run.evaluate.answer = Default::default();
    run.evaluate.answer.max_new_tokens = Some(3);
    run.evaluate.retrieval = RetrievalConfig::default();
    run.evaluate.tasks = TODAY.to_vec();
    run
}

#[test]
fn benchmarks_of_today_are_answered_ranked_and_scored() {
    for family in [Family::T5, Family::Llama] {
        let (models, first, second) =
            (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let nodes = stages(&today(models.path(), family));
        let mut one = executor(first.path());
        execute(&mut one, &nodes);
        execute(&mut executor(second.path()), &nodes);
        assert_eq!(digests(first.path(), &nodes), digests(second.path(), &nodes));
        let store = Store::open(first.path(), Vec::new()).unwrap();
        let mut seen = 0;
        for node in &nodes {
            let Stage::Evaluate { task, .. } = &*node.stage else { continue };
            let score: TaskScore = store.require(&node.key.hex()).unwrap().result().unwrap();
            let predictions = predictions(&store, node);
            let (lines, items) = match task {
                Task::Textvqa | Task::Vizwiz => (4, 4),
                Task::Pope => (12, 12),
                Task::Scienceqa => (3, 3),
                // Three questions with two, three and four options.
                Task::Mmbench => (9, 3),
                _ => (34, 34),
            };
            assert_eq!((predictions.len(), score.score.as_ref().unwrap().items), (lines, items), "{task}");
            assert_eq!(one.verify(node).unwrap(), Vec::<String>::new(), "{task}");
            if [Task::Scienceqa, Task::Mmbench].contains(task) {
                assert!(score.parts.contains_key("likelihood") && score.parts.contains_key("likelihood-per-token"));
                for line in &predictions {
                    let values = line["log-likelihoods"].as_array().unwrap();
                    assert_eq!(values.len(), line["options"].as_array().unwrap().len());
                    assert!(values.iter().all(|value| value.as_f64().unwrap() < 0.0), "{values:?}");
                    assert!(line["prompt"].as_str().unwrap().contains("given choices directly."));
                }
            }
            seen += 1;
        }
        assert_eq!(seen, TODAY.len());
    }
}

#[test]
fn a_text_is_cut_into_windows_and_known_by_its_content() {
    let (models, store) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut run = today(models.path(), Family::Llama);
    let text = models.path().join("text.txt");
    fs::write(&text, "a red square is left of a blue circle . ".repeat(20)).unwrap();
    run.data.text = Some(text.clone());
    run.evaluate.tasks = vec![Task::Perplexity];
    run.evaluate.perplexity = PerplexityConfig { window: 12, windows: Some(5) };
    let nodes = stages(&run);
    let mut executor = executor(store.path());
    execute(&mut executor, &nodes);
    let node = nodes.last().unwrap();
    let score: TaskScore = executor.store().require(&node.key.hex()).unwrap().result().unwrap();
    let found = score.score.unwrap();
    assert_eq!((found.metric.as_str(), found.items), ("perplexity", 5));
    assert!((found.value - score.parts["nll"].value.exp()).abs() < 1e-9);
    assert_eq!(executor.verify(node).unwrap(), Vec::<String>::new());
    // Its words occur in turn, so windows nine words apart read the same: after the first, which has the start token.
    let lines = predictions(&Store::open(store.path(), Vec::new()).unwrap(), node);
    assert_eq!(lines[0]["tokens"], 11);

    // The text alone, and where it lies, is what the stage reads.
    let reads = node.stage.reads();
    assert_eq!(reads.len(), 1);
    assert_eq!(reads[0].1, text.display().to_string());
    fs::write(&text, "too short").unwrap();
    let again = tempfile::tempdir().unwrap();
    let mut executor = crate::executor(again.path());
    crate::make(&mut executor, &nodes[0]).unwrap();
    let error = crate::make(&mut executor, node).unwrap_err().to_string();
    assert!(error.contains("a window 12"), "{error}");
    fs::write(&text, [0xff, 0xfe, 0x41]).unwrap();
    let error = crate::make(&mut executor, node).unwrap_err().to_string();
    assert!(error.contains("text.txt") && error.contains("UTF-8"), "{error}");
}
