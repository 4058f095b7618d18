//! Stored predictions scored again.

use std::{fs, path::Path};

use ressa_experiment::{
    Task,
    job::{Job, ScorePredictions},
    record::TaskScore,
};
use ressa_runtime::Device;

fn job(folder: &Path, task: Task) -> ScorePredictions {
    ScorePredictions {
        predictions: folder.join("predictions.jsonl"),
        task,
        published: true,
        meteor: None,
        spice: None,
        java: None,
        lemmatize: false,
        lemmas: None,
        scratch: folder.join("scratch"),
    }
}

fn score(job: ScorePredictions) -> Result<TaskScore, String> {
    let found = ressa_lab::run(&Job::Score(Box::new(job)), Device::Cpu, &mut |_, _| {}).map_err(|e| e.to_string())?;
    Ok(serde_json::from_value(found).expect("a task's score"))
}

#[test]
fn stored_answers_are_scored_with_the_lemmas_of_a_table() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let line = r#"{"kind":"answer","id":"1","prompt":"what","prediction":"Surfing","answers":["surf"],"template":null,"points":0.0}"#;
    fs::write(folder.path().join("predictions.jsonl"), format!("\u{feff}{line}\n")).expect("written");
    let value = |job| score(job).map(|found| found.score.expect("defined").value);
    assert_eq!(value(job(folder.path(), Task::Okvqa)), Ok(0.0));
    assert_eq!(value(ScorePredictions { lemmatize: true, ..job(folder.path(), Task::Okvqa) }), Ok(100.0));
    let table = folder.path().join("lemmas.tsv");
    fs::write(&table, "Surfing\tsurf\n").expect("written");
    let with_table = || ScorePredictions { lemmas: Some(table.clone()), ..job(folder.path(), Task::Okvqa) };
    let found = score(with_table()).expect("a score");
    assert_eq!((found.score.expect("defined").value, found.parts["unlemmatized"].value), (100.0, 0.0));
    fs::write(&table, "Surfing surf\n").expect("written");
    let wrong = score(with_table()).expect_err("no tab");
    assert!(wrong.ends_with("line 1: expected an answer, a tab and its lemmas, found `Surfing surf`"), "{wrong}");
}

#[test]
fn what_cannot_be_scored_is_named_with_its_file() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let missing = score(job(folder.path(), Task::Nocaps)).expect_err("no predictions");
    assert!(missing.contains("predictions.jsonl`: "), "{missing}");
    let line = r#"{"kind":"caption","id":"1","prompt":"","prediction":"a dog","references":["a dog"],"set":null}"#;
    let path = folder.path().join("predictions.jsonl");
    fs::write(&path, format!("{line}\n{line}\n")).expect("written");
    let doubled = score(job(folder.path(), Task::Nocaps)).expect_err("an item twice");
    assert!(doubled.ends_with("line 2: item `1` is predicted in line 1 already; leave one of them"), "{doubled}");
    let other = line.replace("\"id\":\"1\"", "\"id\":\"2\"");
    fs::write(&path, format!("{line}\n{other}\n")).expect("written");
    let jar = folder.path().join("meteor.jar");
    let external = ScorePredictions {
        meteor: Some(jar),
        java: Some(folder.path().join("no-java")),
        ..job(folder.path(), Task::Nocaps)
    };
    let wrong = score(external).expect_err("no Java");
    assert!(wrong.contains("meteor.jar`: METEOR: `") && wrong.contains("no-java` cannot be started: "), "{wrong}");
}
