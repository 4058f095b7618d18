//! Scores of stored predictions.

use ressa_eval::{Direction, EvalError, Prediction, from_json_lines, score, to_json_lines};
use ressa_experiment::Task;

fn said(id: usize, prediction: &str, answer: &str, template: &str) -> Prediction {
    Prediction::Answer {
        id: id.to_string(),
        prompt: "what".into(),
        prediction: prediction.into(),
        answers: vec![answer.into()],
        template: Some(template.into()),
    }
}

fn caption(id: usize, prediction: &str, reference: &str, set: &str) -> Prediction {
    Prediction::Caption {
        id: id.to_string(),
        prompt: "describe the image".into(),
        prediction: prediction.into(),
        references: vec![reference.into()],
        set: Some(set.into()),
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
    assert_eq!((scored.score.metric.as_str(), scored.score.value, scored.score.items), ("accuracy", 50.0, 4));
    let parts: Vec<(&str, f64)> = scored.parts.iter().map(|(name, part)| (name.as_str(), part.value)).collect();
    assert_eq!(parts, [("color", 50.0), ("count", 100.0), ("exists", 0.0)]);
}

#[test]
fn captions_share_document_frequencies_over_sets() {
    let predictions = [caption(0, "x y z w", "x y z w", "in-domain"), caption(1, "x y z w", "p q r s", "held-out")];
    let scored = score(Task::Nocaps, &predictions).expect("captions");
    assert_eq!((scored.score.metric.as_str(), scored.score.value), ("cider-d", 50.0));
    assert_eq!((scored.parts["in-domain"].value, scored.parts["held-out"].value), (100.0, 0.0));
    assert_eq!(scored.parts["rouge-l"].value, 50.0);
    assert!((scored.parts["bleu-4"].value - 50.0).abs() < 1e-9);
}

#[test]
fn retrieval_averages_both_directions() {
    use Direction::{ImageToText, TextToImage};
    let predictions =
        [found(0, ImageToText, 1), found(1, ImageToText, 4), found(0, TextToImage, 1), found(1, TextToImage, 1)];
    let scored = score(Task::Flickr30k, &predictions).expect("ranks");
    assert_eq!((scored.score.value, scored.score.items), (75.0, 2));
    assert_eq!((scored.parts["text-recall@1"].value, scored.parts["image-recall@1"].value), (50.0, 100.0));
    assert_eq!(scored.parts["text-recall@5"].value, 100.0);
    // Per image 100 and 50 points: standard deviation 50 / sqrt 2, over sqrt 2.
    assert!((scored.score.standard_error - 25.0).abs() < 1e-9);
}

#[test]
fn stored_predictions_read_back_and_show_their_points() {
    let predictions = vec![said(0, "red", "red", "color"), said(1, "a \"quoted\"\nline", "red", "color")];
    let text = to_json_lines(Task::Gqa, &predictions).expect("answers");
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
