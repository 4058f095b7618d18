//! Scores of the benchmarks of today, as their own rules have them (`scripts/export_benchmark_goldens.py`).

use std::collections::BTreeMap;

use ressa_eval::{EvalError, Prediction, ScoreOptions, from_json_lines, metrics::statistics, score, to_json_lines};
use ressa_experiment::Task;
use serde_json::{Value, json};

/// Predictions and the scores that they have.
fn goldens() -> Vec<(Task, BTreeMap<String, f64>, Vec<Prediction>)> {
    let of = |line: &str| {
        let golden: Value = serde_json::from_str(line).expect("JSON");
        let lines: Vec<String> =
            golden["predictions"].as_array().expect("a list").iter().map(Value::to_string).collect();
        let expected = serde_json::from_value(golden["expected"].clone()).expect("numbers");
        let task = Task::named(golden["task"].as_str().expect("a name")).expect("a task");
        (task, expected, from_json_lines(&lines.join("\n")).expect("predictions"))
    };
    include_str!("../fixtures/benchmarks.jsonl").lines().map(of).collect()
}

#[test]
fn scores_are_those_of_the_official_rules() {
    let goldens = goldens();
    assert_eq!(goldens.len(), 6);
    for (task, expected, predictions) in goldens {
        let scored = score(task, &predictions, &ScoreOptions::default()).expect("a score");
        let mut found: BTreeMap<String, f64> =
            scored.parts.iter().map(|(name, score)| (name.clone(), score.value)).collect();
        found.insert(task.name().to_owned(), scored.score.expect("defined").value);
        assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{task}");
        for (name, value) in &expected {
            assert!((found[name] - value).abs() < 1e-9, "{task}, {name}: {} instead of {value}", found[name]);
        }
    }
}

#[test]
fn points_of_items_average_to_the_score() {
    for (task, expected, predictions) in goldens() {
        let lines = to_json_lines(task, &predictions, &ScoreOptions::default()).expect("points");
        let point =
            |line: &str| serde_json::from_str::<Value>(line).expect("JSON")["points"].as_f64().expect("a number");
        let points: Vec<f64> = lines.lines().map(point).collect();
        let (mean, _) = statistics::mean_and_error(&points);
        assert!((mean - expected[task.name()]).abs() < 1e-9, "{task}: {mean}");
        assert_eq!(from_json_lines(&lines).expect("what was written"), predictions);
    }
}

fn read(lines: &[Value]) -> Vec<Prediction> {
    let lines: Vec<String> = lines.iter().map(Value::to_string).collect();
    from_json_lines(&lines.join("\n")).expect("predictions")
}

#[test]
fn predictions_that_contradict_themselves_are_named() {
    let answer = |id: &str, answers: Value, template: Value| json!({ "kind": "answer", "id": id, "prompt": "", "prediction": "yes", "answers": answers, "template": template });
    let choice = |answer: u64, more: Value| {
        let mut line = json!({ "kind": "choice", "id": "7-0", "prompt": "", "prediction": "A", "options": ["x", "y"], "answer": answer });
        line.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        line
    };
    let window = |id: &str, tokens: u64, nll: f64| json!({ "kind": "window", "id": id, "tokens": tokens, "nll": nll });
    let cases = [
        (Task::Pope, vec![answer("a", json!(["maybe"]), json!("random"))]),
        (Task::Pope, vec![answer("a", json!(["yes", "no"]), json!("random"))]),
        (Task::Pope, vec![answer("a", json!(["yes"]), json!(null))]),
        (Task::Mme, vec![answer("count/1-1", json!(["yes"]), json!("count"))]),
        (Task::Mme, vec![answer("1-1", json!(["yes"]), json!("count")), answer("1-2", json!(["no"]), json!("color"))]),
        (Task::Mmbench, vec![choice(2, json!({}))]),
        (Task::Scienceqa, vec![choice(0, json!({ "log-likelihoods": [-1.0], "tokens": [1] }))]),
        (Task::Scienceqa, vec![choice(0, json!({ "log-likelihoods": [-1.0, -2.0], "tokens": [1, 0] }))]),
        (Task::Scienceqa, vec![choice(0, json!({ "options": ["only one"] }))]),
        (Task::Perplexity, vec![window("0", 7, 2.0), window("1", 8, 2.0)]),
        (Task::Perplexity, vec![window("0", 7, -2.0)]),
        (Task::Mmbench, vec![window("0", 7, 2.0)]),
        (Task::Perplexity, vec![choice(0, json!({}))]),
    ];
    let said: Vec<String> = cases
        .into_iter()
        .map(|(task, lines)| score(task, &read(&lines), &ScoreOptions::default()).expect_err("contradicts").to_string())
        .collect();
    insta::assert_snapshot!(said.join("\n"), @r#"
    prediction `a`: its answers are ["maybe"]; `pope` has one, `yes` or `no`
    prediction `a`: its answers are ["yes", "no"]; `pope` has one, `yes` or `no`
    prediction `a`: `template`, its split, is missing
    prediction `count/1`: of its image there are 1 items; MME scores pairs, alike up to the last `-` of their ids
    prediction `1-2`: its subtask is `color`, and that of its image is `count`
    prediction `7-0`: `answer` is 2, and there are 2 options, counted from 0
    prediction `7-0`: it has 2 options, 1 likelihoods and 1 numbers of tokens
    prediction `7-0`: a likelihood is not a number, or an option has no tokens
    prediction `7-0`: it has 1 options; there must be 2 to 26
    prediction `1`: its window predicts 8 tokens, and the first window 7
    prediction `0`: -2 is no mean negative log-likelihood
    prediction `0` does not belong to task `mmbench`
    prediction `7-0` does not belong to task `perplexity`
    "#);
    let task = Task::Textvqa;
    assert!(matches!(score(task, &[], &ScoreOptions::default()), Err(EvalError::Empty(Task::Textvqa))));
}

#[test]
fn a_perplexity_is_the_exponential_of_the_mean_over_windows() {
    let windows: Vec<Value> = [1.0, 2.0, 6.0]
        .iter()
        .enumerate()
        .map(|(at, nll)| json!({ "kind": "window", "id": at.to_string(), "tokens": 9, "nll": nll }))
        .collect();
    let scored = score(Task::Perplexity, &read(&windows), &ScoreOptions::default()).expect("a score");
    let found = scored.score.expect("defined");
    assert!((found.value - 3.0f64.exp()).abs() < 1e-9);
    // Of the mean: sqrt(7 / 3); times the perplexity.
    assert!((found.standard_error - 3.0f64.exp() * (7.0f64 / 3.0).sqrt()).abs() < 1e-9);
    assert_eq!((scored.parts["nll"].value, scored.parts["nll"].items, found.unit()), (3.0, 3, ""));
}
