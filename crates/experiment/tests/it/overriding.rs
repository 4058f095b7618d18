//! Values on the command line, and what an extending file can take away.

use miette::{GraphicalReportHandler, GraphicalTheme};
use proptest::prelude::*;
use ressa_experiment::{Cell, Experiment};

use crate::{Folder, load};

const STUDY: &str = "
model.preset: shapes-flant5
axes:
  prune.metric: [magnitude, wanda]
zip:
  pattern:
    prune.pattern:           [\"2:4\", \"2:4\", unstructured]
    prune.vision.sparsity:   [0.5, 0.5, 0.5]
    prune.language.sparsity: [0.5, 0.5, 0.5]
    restore.steps:           [64, 32, 64]
variants:
  restoration:
    pruned: { restore.method: none }
    \"with, comma\": { restore.method: sparse-lora }
include:
  - { name: dense, prune.metric: none, restore.method: none, prune.vision.sparsity: 0, prune.language.sparsity: 0 }
";

fn good(overrides: &[&str]) -> Experiment {
    load(STUDY, overrides).unwrap_or_else(|error| panic!("{overrides:?}: {error}: {:?}", error.advice()))
}

/// What is wrong with an override and what to do, in one text.
fn refused(argument: &str) -> String {
    match load(STUDY, &[argument]) {
        Ok(experiment) => panic!("{argument}: taken, {} runs", experiment.counts.runs),
        Err(error) => format!("{error}; {}", error.advice().unwrap_or_default()),
    }
}

fn prompts(argument: &str) -> Vec<Option<String>> {
    let mut found = Vec::new();
    let experiment = good(&["prune.metric=wanda", "pattern='50 %, 64'", "restoration=pruned", argument]);
    for cell in experiment.cells.iter().filter(|cell| cell.point.is_none()) {
        if !found.contains(&cell.run.evaluate.caption.prompt) {
            found.push(cell.run.evaluate.caption.prompt.clone());
        }
    }
    found
}

#[test]
fn texts_are_taken_as_they_stand_or_in_quotes() {
    let set = |text: &str| prompts(&format!("evaluate.caption.prompt={text}"));
    let one = |text: &str| vec![Some(text.to_owned())];
    for (written, text) in [
        ("A photo of", "A photo of"),
        ("Question: {} Short answer:", "Question: {} Short answer:"),
        ("\"A photo, in detail\"", "A photo, in detail"),
        ("'A photo, in detail'", "A photo, in detail"),
        ("'it''s, well'", "it's, well"),
        ("\"12\"", "12"),
        ("\"\"", ""),
        ("''", ""),
        ("", ""),
        ("a #tag", "a #tag"),
        ("say \"cheese\"", "say \"cheese\""),
        ("[\"only, one\"]", "only, one"),
        (" \u{e9}t\u{e9} ", "\u{e9}t\u{e9}"),
    ] {
        assert_eq!(set(written), one(text), "{written}");
    }
    assert_eq!(set("null"), [None]);
    let two = vec![Some("a, b".to_owned()), Some("c".to_owned())];
    assert_eq!(set("\"a, b\",c"), two);
    assert_eq!(set("[\"a, b\", c]"), two);
    assert_eq!(set("[ 'a, b' ,c ]"), two);
}

#[test]
fn a_comma_that_could_mean_either_is_refused_with_both_spellings() {
    let told = refused("evaluate.caption.prompt=A photo, in detail");
    assert!(told.contains("'evaluate.caption.prompt=\"A photo, in detail\"'"), "{told}");
    assert!(told.contains("'evaluate.caption.prompt=[\"A photo\", \"in detail\"]'"), "{told}");
    assert!(refused("data.root=/x,1/data").contains("comma"));
    assert!(refused("model.checkpoint=a,b").contains("comma"));
    let told = refused("data.calibration.instructions=A photo, in detail");
    assert!(told.contains("[\"A photo\", \"in detail\"]"), "{told}");
    // Words do not have blanks in them.
    good(&["restoration=\"with, comma\"", "restore.language.targets=q,v"]);
}

#[test]
fn brackets_and_quotes_are_yaml() {
    let axis = |argument: &str, of: &dyn Fn(&Cell) -> String| -> Vec<String> {
        let mut found: Vec<String> = Vec::new();
        for cell in good(&["pattern='50 %, 64'", argument]).cells.iter().filter(|cell| cell.point.is_none()) {
            let value = of(cell);
            if !found.contains(&value) {
                found.push(value);
            }
        }
        found
    };
    let steps = |cell: &Cell| cell.run.prune.calibration.images.to_string();
    for same in ["8,16", "[8, 16]", "[8,16]", " [ 8 , 16 ] ", "{ from: 8, to: 16, step: 8 }"] {
        let argument = format!("prune.calibration.images={same}");
        let overrides = ["prune.metric=wanda", "restoration=pruned"];
        let experiment = good(&[&overrides[..], &["pattern='50 %, 64'", &argument]].concat());
        let mut found: Vec<String> = experiment.cells.iter().filter(|c| c.point.is_none()).map(steps).collect();
        found.dedup();
        assert_eq!(found, ["8", "16"], "{same}");
    }
    let metrics = |cell: &Cell| cell.run.prune.metric.name().to_owned();
    assert_eq!(axis("prune.metric=[\"wanda\", 'magnitude']", &metrics), ["wanda", "magnitude"]);
    let tasks = |cell: &Cell| cell.run.evaluate.tasks.iter().map(|task| task.name()).collect::<Vec<_>>().join("+");
    for one in ["gqa,vqav2", "[gqa, vqav2]", "\"gqa\",\"vqav2\"", "[[gqa, vqav2]]"] {
        assert_eq!(axis(&format!("evaluate.tasks={one}"), &tasks), ["vqav2+gqa"], "{one}");
    }
    for two in ["[gqa],[vqav2, gqa]", "[[gqa], [vqav2, gqa]]"] {
        assert_eq!(axis(&format!("evaluate.tasks={two}"), &tasks), ["gqa", "vqav2+gqa"], "{two}");
    }
    assert_eq!(good(&["replicate.seed=[0, 2]"]).seeds, [0, 2]);
    assert_eq!(good(&["replicate.seed=[0..2]"]).seeds, [0, 1, 2]);
    assert!(good(&["dense.gate={}"]).gates.is_empty());
    assert_eq!(good(&["dense.gate={ gqa: 50 }"]).gates.len(), 1);
}

#[test]
fn a_value_that_is_none_says_so() {
    for (argument, said) in [
        ("prune.metric=", "has no value"),
        ("prune.metric=[]", "has no value"),
        ("evaluate.tasks=", "evaluate.tasks=[]"),
        ("prune.metric=[wanda", "not valid YAML"),
        ("prune.metric=wanda]", "not valid YAML"),
        ("evaluate.caption.prompt=\"A\" photo", "in quotes"),
        ("evaluate.caption.prompt=12", "must be text"),
        ("data.root=", "is empty"),
        ("data.root=\"\"", "is empty"),
        ("restoration=none", "no label `none`"),
        ("pattern=2:4, 6", "a label with a comma is quoted"),
    ] {
        let told = refused(argument);
        assert!(told.contains(said), "{argument}: {told}");
    }
}

#[test]
fn labels_with_commas_are_selected_by_quoting() {
    let labels = |argument: &str| good(&[argument]).axis("pattern").unwrap().labels.clone();
    assert_eq!(labels("pattern=\"2:4, 32\"")[0], "2:4, 32");
    assert_eq!(labels("pattern='2:4, 32',\"50 %, 64\"")[..2], ["2:4, 32", "50 %, 64"]);
    assert_eq!(labels("pattern=[\"2:4, 32\"]")[0], "2:4, 32");
    assert_eq!(good(&["restoration=\"with, comma\""]).axis("restoration").unwrap().labels[0], "with, comma");
}

#[test]
fn paths_that_only_a_shell_expands_are_refused_by_name() {
    for (path, part) in [("~/data", "`~`"), ("$HOME/data", "`$HOME`"), ("/x/${USER}/y", "`${USER}`"), ("~me", "`~me`")]
    {
        for setting in ["data.root", "model.checkpoint", "evaluate.retrieval.checkpoint"] {
            let told = refused(&format!("{setting}={path}"));
            assert!(told.contains(part) && told.contains("not expanded"), "{told}");
            let error = load(&format!("{STUDY}{setting}: '{path}'\n"), &[]).unwrap_err();
            assert!(error.to_string().contains(part), "{error}");
        }
    }
    assert!(refused("evaluate.caption.prompt=~5 dollars, $HOME").contains("comma"));
    good(&["evaluate.caption.prompt=~5 dollars for $HOME"]);
}

/// The same base with another file over it.
fn extended(child: &str) -> Result<Experiment, String> {
    let folder = Folder::new();
    folder.write("base.yaml", STUDY);
    folder.write("child.yaml", format!("extends: base.yaml\n{child}"));
    folder.load("child.yaml", &[]).map_err(|error| format!("{error}; {}", error.advice().unwrap_or_default()))
}

#[test]
fn an_extending_file_takes_away_what_it_does_not_want() {
    let cells = |child: &str| extended(child).unwrap_or_else(|error| panic!("{child}: {error}")).counts.cells;
    assert_eq!(cells("seed: 0"), 2 * 3 * 2 + 1);
    for none in ["[]", "null", "~", ""] {
        assert_eq!(cells(&format!("include: {none}")), 2 * 3 * 2, "{none}");
        assert_eq!(cells(&format!("axes: {{ prune.metric: {none} }}")), 3 * 2 + 1, "{none}");
        assert_eq!(cells(&format!("variants: {{ restoration: {none} }}")), 2 * 3 + 1, "{none}");
        assert_eq!(cells(&format!("zip: {{ pattern: {none} }}")), 2 * 2 + 1, "{none}");
    }
    let excluded = "exclude: [{ prune.metric: wanda }]\n";
    let folder = Folder::new();
    folder.write("base.yaml", format!("{STUDY}{excluded}"));
    folder.write("child.yaml", "extends: base.yaml\nexclude: []\n");
    folder.write("again.yaml", "extends: [none.yaml, base.yaml]\nexclude: null\n");
    folder.write("none.yaml", "zip: { pattern: null }\n");
    folder.write("over.yaml", "extends: [base.yaml, none.yaml]\n");
    folder.write("back.yaml", "extends: over.yaml\naxes: { prune.calibration.images: [8, 16] }\n");
    let cells = |name: &str| folder.load(name, &[]).unwrap().counts.cells;
    assert_eq!(cells("base.yaml"), 3 * 2 + 1);
    assert_eq!(cells("child.yaml"), 2 * 3 * 2 + 1);
    // A base takes away what the bases before it have.
    assert_eq!(cells("over.yaml"), 2 + 1);
    assert_eq!(cells("back.yaml"), 2 * 2 + 1);
    // What comes later brings it back.
    assert_eq!(cells("again.yaml"), 2 * 3 * 2 + 1);
    let idle = extended("axes: { prune.rounding: null }").unwrap_err();
    assert!(idle.contains("axis `prune.rounding` has no values"), "{idle}");
    let mistyped = extended("zip: { patern: null }").unwrap_err();
    assert!(mistyped.contains("did you mean `pattern`?"), "{mistyped}");
}

#[test]
fn steps_are_as_fine_as_they_are_written() {
    let labels = |range: &str| {
        let yaml = format!("model.preset: shapes-flant5\naxes: {{ restore.learning-rate: {range} }}\n");
        load(&yaml, &[]).unwrap_or_else(|error| panic!("{range}: {error}")).axes[0].labels.clone()
    };
    let tenths = labels("{ from: 1e-10, to: 9e-10, step: 1e-10 }");
    assert_eq!((tenths.len(), tenths[0].parse(), tenths[2].parse()), (9, Ok(1e-10), Ok(3e-10)));
    assert_eq!(labels("{ from: 0.1, to: 0.5, step: 0.1 }"), ["0.1", "0.2", "0.3", "0.4", "0.5"]);
    assert_eq!(labels("{ from: 0.12345678912, to: 0.2, step: 0.05 }"), ["0.12345678912", "0.17345678912"]);
    assert_eq!(labels("{ from: 1e-30, to: 3e-30, step: 1e-30 }").len(), 3);
    assert_eq!(labels("{ from: 1, to: 2, step: 0.25 }"), ["1", "1.25", "1.5", "1.75", "2"]);
}

#[test]
fn bases_that_are_read_again_and_again_are_refused() {
    let folder = Folder::new();
    folder.write("f0.yaml", STUDY);
    for level in 1..6 {
        let list = vec![format!("f{}.yaml", level - 1); 20].join(", ");
        folder.write(&format!("f{level}.yaml"), format!("extends: [{list}]\n"));
    }
    let error = folder.load("f5.yaml", &[]).unwrap_err();
    assert!(error.to_string().contains("more than 256 files"), "{error}");
    assert!(folder.load("f1.yaml", &[]).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// No value makes the program panic, and what is refused can be shown.
    #[test]
    fn any_value_is_an_answer(
        at in 0usize..8,
        value in "[a-c0-9:{}\\[\\],.&*!|>%@`\"'#~$\\\\=\u{e9}\u{1f600} \t\n-]{0,40}",
    ) {
        let settings = [
            "prune.metric", "evaluate.caption.prompt", "data.root", "restore.language.targets", "evaluate.tasks", "pattern",
            "replicate.seed", "dense.gate",
        ];
        if let Err(error) = load(STUDY, &[&format!("{}={value}", settings[at])]) {
            let mut shown = String::new();
            let theme = GraphicalTheme::unicode_nocolor();
            prop_assert!(GraphicalReportHandler::new_themed(theme).render_report(&mut shown, &error).is_ok());
            prop_assert!(error.position().is_some(), "{shown}");
        }
    }
}

/// A number beyond the maximum is refused with the maximum, not with a minimum that it meets.
#[test]
fn whole_numbers_are_refused_by_the_bound_that_they_break() {
    let label = |argument: &str| {
        let error = load(STUDY, &[argument]).expect_err(argument);
        let mut text = String::new();
        let handler = GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor()).with_width(400);
        handler.render_report(&mut text, &error).expect("rendering into text");
        text
    };
    for (argument, says) in [
        ("seed=5000000000", "must be a whole number from 0 to 4294967295"),
        ("restore.batch=9999999999999", "must be a whole number from 1 to 4294967295"),
        ("restore.batch=0", "must be a whole number of at least 1"),
        ("restore.batch=1.5", "must be a whole number of at least 1"),
        ("evaluate.smoothing.copies=256", "must be a whole number from 1 to 255"),
    ] {
        let text = label(argument);
        assert!(text.contains(says), "{argument}: {text}");
    }
}
