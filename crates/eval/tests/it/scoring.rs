//! Scores of stored predictions.

use ressa_eval::{
    Aided, CopyAnswer, Direction, EvalError, Lemmas, Prediction, ScoreOptions, from_json_lines, to_json_lines,
};
use ressa_experiment::{
    Task,
    record::{Score, TaskScore},
};

const PUBLISHED: &ScoreOptions = &ScoreOptions { published: true, lemmas: Lemmas::None };

/// As in the embedded world.
fn score(task: Task, predictions: &[Prediction]) -> Result<TaskScore, EvalError> {
    ressa_eval::score(task, predictions, &ScoreOptions::default())
}

fn column(scored: &TaskScore) -> &Score {
    scored.score.as_ref().expect("a defined score")
}

fn said(id: usize, prediction: &str, answer: &str, template: &str) -> Prediction {
    Prediction::Answer {
        id: id.to_string(),
        prompt: "what".into(),
        prediction: prediction.into(),
        answers: vec![answer.into()],
        template: Some(template.into()),
        aided: Aided::default(),
    }
}

fn caption(id: usize, prediction: &str, reference: &str, set: &str) -> Prediction {
    Prediction::Caption {
        id: id.to_string(),
        prompt: "describe the image".into(),
        prediction: prediction.into(),
        references: vec![reference.into()],
        set: Some(set.into()),
        aided: Aided::default(),
    }
}

fn found(image: usize, direction: Direction, rank: usize) -> Prediction {
    Prediction::Rank { id: image.to_string(), direction, image, rank }
}

#[test]
fn answers_are_scored_per_template() {
    let predictions = [
        said(0, "red", "red", "color"),
        said(1, "two", "2", "count"),
        said(2, "blue", "red", "color"),
        said(3, "yes yes", "yes", "exists"),
    ];
    let scored = score(Task::Vqav2, &predictions).expect("answers");
    let found = column(&scored);
    assert_eq!((found.metric.as_str(), found.value, found.items), ("accuracy", 50.0, 4));
    let parts: Vec<(&str, f64)> = scored.parts.iter().map(|(name, part)| (name.as_str(), part.value)).collect();
    assert_eq!(parts, [("color", 50.0), ("count", 100.0), ("exists", 0.0)]);
}

#[test]
fn captions_share_document_frequencies_over_sets() {
    let predictions = [caption(0, "x y z w", "x y z w", "in-domain"), caption(1, "x y z w", "p q r s", "held-out")];
    let scored = score(Task::Nocaps, &predictions).expect("captions");
    assert_eq!((column(&scored).metric.as_str(), column(&scored).value), ("cider-d", 50.0));
    assert_eq!((scored.parts["in-domain"].value, scored.parts["held-out"].value), (100.0, 0.0));
    assert_eq!(scored.parts["rouge-l"].value, 50.0);
    assert!((scored.parts["bleu-4"].value - 50.0).abs() < 1e-9);
}

#[test]
fn published_captions_are_scored_in_the_unit_that_papers_print() {
    let predictions = [caption(0, "x y z w", "x y z w", "in-domain"), caption(1, "x y z w", "p q r s", "out-domain")];
    let scored = ressa_eval::score(Task::Nocaps, &predictions, PUBLISHED).expect("captions");
    assert_eq!((column(&scored).metric.as_str(), column(&scored).value), ("cider", 500.0));
    assert_eq!((scored.parts["in-domain"].value, scored.parts["out-domain"].value), (1000.0, 0.0));
    let names: Vec<&str> = scored.parts.keys().map(String::as_str).collect();
    assert_eq!(names, ["bleu-1", "bleu-2", "bleu-3", "bleu-4", "in-domain", "out-domain", "rouge-l"]);
    // What an item contributes has the unit of the score.
    let lines = to_json_lines(Task::Nocaps, &predictions, PUBLISHED).expect("captions");
    assert!(lines.lines().next().is_some_and(|line| line.ends_with(r#""points":1000.0}"#)), "{lines}");
}

#[test]
fn cider_of_one_image_is_undefined() {
    for options in [PUBLISHED, &ScoreOptions::default()] {
        let one = [caption(0, "a dog", "a dog", "in-domain")];
        let scored = ressa_eval::score(Task::Nocaps, &one, options).expect("a caption");
        assert_eq!(scored.score, None);
        assert!(scored.undefined().is_some_and(|why| why.contains("at least 2 images")));
        assert_eq!(scored.parts["rouge-l"].value, 100.0);
        assert!(!scored.parts.contains_key("in-domain"), "a part is CIDEr too");
    }
}

#[test]
fn lemmas_of_okvqa_show_their_effect() {
    let predictions = [said(0, "Surfing dogs", "surf dog", "sport"), said(1, "red glasses", "red glass", "sport")];
    let rules = ScoreOptions { published: true, lemmas: Lemmas::Rules };
    let scored = ressa_eval::score(Task::Okvqa, &predictions, &rules).expect("answers");
    assert_eq!((column(&scored).value, scored.parts["unlemmatized"].value), (100.0, 0.0));
    // Other tasks have no lemmatiser, and without one there is nothing to compare with.
    let scored = ressa_eval::score(Task::Vqav2, &predictions, &rules).expect("answers");
    assert_eq!((column(&scored).value, scored.parts.contains_key("unlemmatized")), (0.0, false));
    let table = std::collections::HashMap::from([("Surfing dogs".to_owned(), "surf dog".to_owned())]);
    let table = ScoreOptions { published: true, lemmas: Lemmas::Table(table.into()) };
    assert_eq!(column(&ressa_eval::score(Task::Okvqa, &predictions, &table).expect("answers")).value, 50.0);
}

#[test]
fn retrieval_averages_both_directions() {
    use Direction::{ImageToText, TextToImage};
    let predictions =
        [found(0, ImageToText, 1), found(1, ImageToText, 4), found(0, TextToImage, 1), found(1, TextToImage, 1)];
    let scored = score(Task::Flickr30k, &predictions).expect("ranks");
    assert_eq!((column(&scored).value, column(&scored).items), (75.0, 2));
    assert_eq!((scored.parts["text-recall@1"].value, scored.parts["image-recall@1"].value), (50.0, 100.0));
    assert_eq!(scored.parts["text-recall@5"].value, 100.0);
    // Per image 100 and 50 points: standard deviation 50 / sqrt 2, over sqrt 2.
    assert!((column(&scored).standard_error - 25.0).abs() < 1e-9);
}

#[test]
fn stored_predictions_read_back_and_show_their_points() {
    let predictions = vec![said(0, "red", "red", "color"), said(1, "a \"quoted\"\nline", "red", "color")];
    let text = to_json_lines(Task::Gqa, &predictions, PUBLISHED).expect("answers");
    assert_eq!(text.lines().count(), 2);
    assert!(
        text.starts_with(r#"{"kind":"answer","id":"0","#) && text.lines().all(|line| line.contains(r#""points":"#))
    );
    assert_eq!(from_json_lines(&text).expect("what was written"), predictions);

    let broken = text.replace("\"answers\"", "\"anwsers\"");
    assert!(matches!(from_json_lines(&broken), Err(EvalError::Line { line: 1, .. })));
    let message = score(Task::Nocaps, &predictions).expect_err("not captions").to_string();
    assert_eq!(message, "prediction `0` does not belong to task `nocaps`");
    assert!(matches!(score(Task::Gqa, &[]), Err(EvalError::Empty(Task::Gqa))));
}

/// What was retrieved and what copies said is stored beside the prediction; answers that were voted on have parts of their own, others have not.
#[test]
fn what_was_done_beyond_asking_once_is_stored_and_scored() {
    let copy =
        |prediction: &str, filled| CopyAnswer { prompt: "what ___".into(), prediction: prediction.into(), filled };
    let mut predictions = [said(0, "red", "red", "color"), said(1, "blue", "red", "color")];
    let plain = to_json_lines(Task::Gqa, &predictions, &ScoreOptions::default()).unwrap();
    assert!(!plain.contains("copies") && !plain.contains("retrieved"), "{plain}");
    let parts = |predictions: &[Prediction]| score(Task::Gqa, predictions).unwrap().parts;
    assert_eq!(parts(&predictions).keys().collect::<Vec<_>>(), ["color"]);
    let all = [
        [copy("red", Some(true)), copy("Red", Some(false)), copy("blue", Some(true)), copy("red ", Some(true))],
        [copy("blue", Some(false)), copy("red", Some(false)), copy("green", Some(false)), copy("blue", Some(true))],
    ];
    for (prediction, copies) in predictions.iter_mut().zip(all) {
        let Prediction::Answer { aided, .. } = prediction else { unreachable!() };
        *aided = Aided { retrieved: vec!["a \"red\" cube".into()], copies: copies.into() };
    }
    let found = parts(&predictions);
    assert_eq!([found["agreement"].value, found["filled"].value], [62.5, 50.0]);
    let text = to_json_lines(Task::Gqa, &predictions, &ScoreOptions::default()).unwrap();
    // Reports read the points at the end of a line without the rest.
    assert!(
        text.lines().all(|line| line.starts_with("{\"kind\":\"answer\",\"id\":\"") && line.contains(",\"points\":"))
    );
    assert_eq!(from_json_lines(&text).unwrap(), predictions);
    let Prediction::Answer { aided, .. } = &mut predictions[0] else { unreachable!() };
    aided.copies.iter_mut().for_each(|copy| copy.filled = None);
    assert_eq!(parts(&predictions[..1]).keys().collect::<Vec<_>>(), ["agreement", "color"]);
}

#[test]
fn a_kind_of_question_does_not_take_the_place_of_what_likelihoods_say() {
    let choice = Prediction::Choice {
        id: "1".into(),
        prompt: "what".into(),
        prediction: "A".into(),
        options: vec!["yes".into(), "no".into()],
        answer: 0,
        log_likelihoods: vec![-2.0, -1.0],
        tokens: vec![1, 1],
        kinds: vec!["likelihood".into(), "likelihood-per-token".into(), "physics".into()],
        aided: Aided::default(),
    };
    let parts = score(Task::Scienceqa, &[choice]).unwrap().parts;
    let of = |name: &str| parts[name].value;
    assert_eq!([of("kind-likelihood"), of("kind-likelihood-per-token"), of("physics")], [100.0; 3]);
    assert_eq!([of("likelihood"), of("likelihood-per-token")], [0.0; 2]);
}
