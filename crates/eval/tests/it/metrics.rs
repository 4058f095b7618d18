//! Metrics against closed forms and small goldens.

use proptest::prelude::*;
use ressa_eval::metrics::{
    bleu::{self, Zero},
    cider::CiderD,
    lemma::by_rules,
    ptb::tokenize,
    retrieval::rank,
    rouge::rouge_l,
    statistics::mean_and_error,
    vqa,
};

fn close(ours: f64, expected: f64) {
    assert!((ours - expected).abs() < 1e-12, "{ours} instead of {expected}");
}

fn answers(list: &[(&str, usize)]) -> Vec<String> {
    list.iter().flat_map(|(answer, times)| vec![(*answer).to_owned(); *times]).collect()
}

#[test]
fn vqa_answers_are_normalised_as_by_the_benchmark() {
    for (said, normal) in [
        ("Two", "2"),
        ("none", "0"),
        ("1,000", "1000"),
        ("3. 5", "3 5"),
        ("10:30 am", "10:30 am"),
        ("a/c", "c"),
        ("t-shirt", "t shirt"),
        ("an  apple", "apple"),
        ("u.s.a", "usa"),
        ("1,5 and a-b", "15 and ab"),
        ("trenan ?", "trenan"),
        ("No. 1", "no 1"),
        (".5", ".5"),
        ("dont", "don't"),
        ("hed've", "he'd've"),
        ("Im", "im"),
        ("couldntve", "couldntve"),
        ("yall", "y'all"),
        ("twas\n", "'twas"),
        ("somebody'd", "somebodyd"),
        ("the a an", ""),
    ] {
        assert_eq!(vqa::normalize(said), normal, "{said}");
    }
}

#[test]
fn vqa_credit_grows_with_agreement() {
    let ten = |yes| answers(&[("yes", yes), ("no", 10 - yes)]);
    for (yes, expected) in [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)] {
        // `yes` annotators who gave this answer see one agreement fewer than the others.
        close(vqa::accuracy("Yes.", &ten(yes)), expected);
    }
    close(vqa::accuracy("2", &answers(&[("2", 1)])), 1.0);
    close(vqa::accuracy("2 dogs", &answers(&[("2", 1)])), 0.0);
    close(vqa::accuracy("x", &answers(&[("x", 2), ("y", 1)])), (0.5 + 0.5 + 1.0) / 3.0);
    close(vqa::accuracy("x", &[]), 0.0);
    // Annotators' punctuation is dropped only where they differ.
    close(vqa::accuracy("t shirt", &answers(&[("t-shirt", 10)])), 0.0);
    close(vqa::accuracy("t shirt", &answers(&[("t-shirt", 9), ("coat", 1)])), 1.0);
}

#[test]
fn cider_follows_its_formula() {
    let golden: serde_json::Value = serde_json::from_str(include_str!("../fixtures/cider.json")).expect("JSON");
    let texts = |value: &serde_json::Value| -> Vec<String> { serde_json::from_value(value.clone()).expect("texts") };
    let references: Vec<Vec<String>> = golden["references"].as_array().expect("a list").iter().map(texts).collect();
    let scorer = CiderD::new(&references.iter().map(Vec::as_slice).collect::<Vec<_>>());
    for (image, candidate) in texts(&golden["candidates"]).iter().enumerate() {
        close(scorer.score(image, candidate), golden["scores"][image].as_f64().expect("a number"));
    }
    // A caption equal to its only reference, none of whose n-grams occurs elsewhere.
    let own = [vec!["x y z w".to_owned()], vec!["p q r s".to_owned()]];
    close(CiderD::new(&own.iter().map(Vec::as_slice).collect::<Vec<_>>()).score(0, "x y z w"), 10.0);
}

/// Each line of the fixture: a caption, a tab, and the words that pycocoevalcap 1.2 makes of it with CoreNLP's own tokenizer
/// (`scripts/compare_metrics.py --tokens`).
#[test]
fn captions_are_cut_as_the_stanford_tokenizer_does() {
    let golds = include_str!("../fixtures/ptb.tsv");
    let wrong: Vec<String> = golds
        .lines()
        .filter_map(|line| line.split_once('\t'))
        .filter(|(caption, words)| tokenize(caption) != *words)
        .map(|(caption, words)| format!("{caption}\n  theirs {words}\n  ours   {}", tokenize(caption)))
        .collect();
    assert!(wrong.is_empty() && golds.lines().count() > 300, "{}", wrong.join("\n"));
    assert_eq!(tokenize("two\nlines"), "two lines");
    assert_eq!(tokenize(""), "");
}

#[test]
fn bleu_and_rouge_have_closed_forms() {
    let reference = ["a b c d e".to_owned()];
    let four =
        |caption: &str, zero| bleu::corpus(&[(caption.to_owned(), reference.to_vec())], zero).map(|(value, _)| value);
    let bleu = |caption: &str| four(caption, Zero::Is)[3];
    close(bleu("a b c d e"), 1.0);
    // One word short: all precisions 1, brevity penalty exp(1 - 5/4).
    close(bleu("a b c d"), (-0.25_f64).exp());
    // One word wrong at the end: precisions 4/5, 3/4, 2/3, 1/2.
    close(bleu("a b c d x"), (0.8_f64 * 0.75 * (2.0 / 3.0) * 0.5).powf(0.25));
    close(bleu(""), 0.0);
    close(four("a b c d x", Zero::Is)[0], 0.8);
    close(four("a b x d e", Zero::Is)[1], (0.8_f64 * 0.5).sqrt());
    // pycocoevalcap 1.2 on these captions.
    let theirs = four("a b x d e", Zero::AsTheReference);
    for (ours, theirs) in
        theirs.iter().zip([0.7999999996800004, 0.6324555317648827, 5.108729546934668e-6, 1.6068568370523996e-8])
    {
        assert!((ours - theirs).abs() < 1e-12, "{ours} instead of {theirs}");
    }

    close(rouge_l("a b c d e", &reference), 1.0);
    let (precision, recall) = (2.0 / 3.0, 2.0 / 5.0);
    close(rouge_l("a x e", &reference), 2.44 * precision * recall / (recall + 1.44 * precision));
    close(rouge_l("", &reference), 0.0);
}

#[test]
fn words_have_base_forms() {
    for (forms, base) in [
        ("surfing surfed surfs", "surf"),
        ("skating skated skates", "skate"),
        ("running runs ran", "run"),
        ("riding rides ridden", "ride"),
        ("playing played plays", "play"),
        ("carrying carried carries", "carry"),
        ("dancing danced", "dance"),
        ("using used uses", "use"),
        ("juggling", "juggle"),
        ("rotating", "rotate"),
        ("eating", "eat"),
        ("falling", "fall"),
        ("dressed", "dress"),
        ("skateboarding", "skateboard"),
        ("potatoes", "potato"),
        ("strawberries", "strawberry"),
        ("boxes", "box"),
        ("dishes", "dish"),
        ("glasses", "glass"),
        ("men", "man"),
        ("knives", "knife"),
    ] {
        for form in forms.split(' ') {
            assert_eq!(by_rules(form), base, "{form}");
        }
    }
    for same in ["building", "tennis", "red", "bus", "T-shirt", "grass", "spring", "2 dog", "1950s", ""] {
        assert_eq!(by_rules(same), same);
    }
    assert_eq!(by_rules("Two  dogs"), "Two dog");
}

#[test]
fn ranks_break_ties_as_the_reference_and_distrust_nan() {
    assert_eq!(rank(&[0.3, 0.9, 0.5], 1), 1);
    assert_eq!(rank(&[0.3, 0.9, 0.5], 0), 3);
    assert_eq!((rank(&[0.5, 0.5, 0.5], 0), rank(&[0.5, 0.5, 0.5], 2)), (3, 1));
    assert_eq!(rank(&[f32::NAN, 0.1], 0), 2);
    assert_eq!(rank(&[f32::NAN, 0.1], 1), 1);
}

#[test]
fn standard_error_of_a_share_is_the_binomial_one() {
    let points: Vec<f64> = (0..400).map(|i| if i % 4 == 0 { 100.0 } else { 0.0 }).collect();
    let (mean, error) = mean_and_error(&points);
    close(mean, 25.0);
    close(error, (25.0 * 75.0 / 399.0_f64).sqrt());
    assert_eq!(mean_and_error(&[7.0]), (7.0, 0.0));
}

proptest! {
    #[test]
    fn the_best_candidate_is_first_and_ranks_are_a_permutation(scores in proptest::collection::vec(-5i8..5, 1..20)) {
        let scores: Vec<f32> = scores.into_iter().map(f32::from).collect();
        let mut ranks: Vec<usize> = (0..scores.len()).map(|i| rank(&scores, i)).collect();
        let best = scores[ranks.iter().position(|rank| *rank == 1).expect("a first")];
        prop_assert!(scores.iter().all(|score| *score <= best));
        ranks.sort_unstable();
        prop_assert_eq!(ranks, (1..=scores.len()).collect::<Vec<_>>());
    }

    #[test]
    fn normalising_never_panics(text in "\\PC{0,24}") {
        vqa::normalize(&text);
    }

    #[test]
    fn any_text_has_words(text in "\\PC{0,40}|[a-z.'\"()<>@&#:;=_/0-9 -]{0,40}") {
        let words = tokenize(&text);
        prop_assert!(words.split(' ').all(|word| !word.is_empty()) || words.is_empty());
    }
}
