//! Lists of steps: what they expand to, what settings their steps have, and what is refused.

use std::collections::BTreeSet;

use ressa_experiment::{
    Cell, Experiment, Stage, StageKey, WrittenBy, canonical::canonical, config::Metric, steps::Step,
};

use crate::{Folder, broken::render, load};

const HEAD: &str = "
model.preset: shapes-flant5
replicate: { seed: 1 }
prune: { metric: wanda, calibration.propagate: dense }
restore: { method: sparse-lora, steps: 60 }
evaluate.tasks: [gqa, flickr30k]
";

const GRADUAL: &str = "
steps:
  - prune: { name: first, vision.sparsity: 0.3, language.sparsity: 0.3 }
  - restore: { steps: 20 }
  - prune: { name: second, vision.sparsity: 0.5, language.sparsity: 0.5 }
  - restore: { name: last }
";

fn good(yaml: &str, overrides: &[&str]) -> Experiment {
    load(&format!("{HEAD}{yaml}"), overrides).unwrap_or_else(|error| panic!("{:?}", miette::Report::new(error)))
}

fn keys(cell: &Cell) -> Vec<StageKey> {
    cell.stages.iter().map(|node| node.key).collect()
}

/// Sparsity of the image encoder in every step that prunes, steps of trainings in every one that restores.
fn numbers(cell: &Cell) -> Vec<f64> {
    let number = |step: Step| match step {
        Step::Prune(prune) => prune.vision.sparsity,
        Step::Refine(refine) => f64::from(refine.iterations()),
        Step::Structure(structure) => structure.vision.channels,
        Step::Reconstruct(reconstruct) => f64::from(reconstruct.samples),
        Step::Restore(restore) => f64::from(restore.steps),
    };
    cell.run.sequence().into_iter().map(number).collect()
}

/// A chain in words: each stage with the numbers of those that it reads.
fn chain(cell: &Cell) -> String {
    let at = |key: &StageKey| cell.stages.iter().position(|node| node.key == *key).expect("read before");
    let line = |(number, node): (usize, &std::sync::Arc<ressa_experiment::StageNode>)| {
        let what = match &*node.stage {
            Stage::Prune { tower, sparsity, .. } => format!("{tower} {}", sparsity.unwrap_or_default()),
            Stage::Statistics { tower, .. } => tower.to_string(),
            Stage::Reconstruct { tower, training, .. } => format!("{tower} {}", training.window),
            Stage::Refine { tower, method, .. } => format!("{tower} {}", method.name()),
            Stage::Structure { tower, target, .. } => format!("{tower} {target}"),
            Stage::Adapt { training, seed, .. } => format!("{} steps, seed {seed}", training.steps),
            Stage::Evaluate { task, .. } => task.to_string(),
            _ => String::new(),
        };
        let inputs: Vec<String> = node.inputs.iter().map(|key| at(key).to_string()).collect();
        format!("{number:2} {:10} {what:18} {}", node.stage.kind(), inputs.join(" "))
    };
    cell.stages.iter().enumerate().map(line).map(|line| line.trim_end().to_owned() + "\n").collect()
}

#[test]
fn a_list_of_the_usual_steps_is_no_list() {
    let sections = &good("prune.vision.sparsity: 0.5\n", &[]).cells[0];
    for list in [
        "steps: [ prune: { vision.sparsity: 0.5 }, restore ]\n",
        "prune.vision.sparsity: 0.5\nsteps: [ prune, restore: null ]\n",
        "prune.vision.sparsity: 0.5\nsteps: null\n",
        // Steps that change nothing are no steps.
        "steps: [ prune: { name: idle }, prune: { name: prune, vision.sparsity: 0.5 }, restore: { name: restore }, restore: { method: none } ]\n",
    ] {
        let listed = &good(list, &[]).cells[0];
        assert_eq!((&sections.run_id, keys(sections)), (&listed.run_id, keys(listed)), "{list}");
        assert_eq!(sections.run, listed.run, "{list}");
    }
}

#[test]
fn steps_follow_each_other() {
    let experiment = good(GRADUAL, &[]);
    insta::assert_snapshot!("chain_of_gradual_pruning", chain(&experiment.cells[0]));
    let turned = good("steps: [ restore, prune: { vision.sparsity: 0.5, language.sparsity: 0.5 } ]\n", &[]);
    insta::assert_snapshot!("chain_of_restoration_before_pruning", chain(&turned.cells[0]));
    let twice = "
steps:
  - prune: { name: first, language.sparsity: 0.3, calibration.propagate: pruned, vision.sparsity: 0.3 }
  - prune: { name: second, language.sparsity: 0.5, calibration.propagate: pruned }
";
    let refined = "
steps:
  - prune: { vision.sparsity: 0.5, language.sparsity: 0.5 }
  - refine: { name: swap }
  - refine: { name: solve, method: least-squares }
  - restore
";
    let refined = good(refined, &["prune.metric=magnitude"]);
    insta::assert_snapshot!("chain_of_refinement", chain(&refined.cells[0]));
    let reconstructed = "
steps:
  - prune: { vision.sparsity: 0.5, language.sparsity: 0.5 }
  - reconstruct: { name: dense }
  - restore
  - reconstruct: { name: changed, inputs: changed, window: 2, language.tune: false }
  - reconstruct: { name: none, train: none }
";
    let reconstructed = good(reconstructed, &["prune.metric=magnitude"]);
    insta::assert_snapshot!("chain_of_reconstruction", chain(&reconstructed.cells[0]));
    insta::assert_snapshot!("chain_of_two_prunings", chain(&good(twice, &[]).cells[0]));
}

/// Images of the calibration of every refinement, by its tower.
fn refined_with(yaml: &str) -> Vec<(String, u32)> {
    let cell = &good(yaml, &["prune.metric=magnitude"]).cells[0];
    assert_eq!(canonical(&cell.run), *cell.run);
    let images = |node: &std::sync::Arc<ressa_experiment::StageNode>| match &*node.stage {
        Stage::Refine { tower, calibration, .. } => Some((tower.to_string(), calibration.images)),
        _ => None,
    };
    cell.stages.iter().filter_map(images).collect()
}

#[test]
fn a_tower_is_refined_with_the_calibration_of_its_own_pruning() {
    let list = "
steps:
  - prune: { name: first, vision.sparsity: 0.5, vision.calibration.images: 5, calibration.images: 9 }
  - prune: { name: second, language.sparsity: 0.5, calibration.images: 6 }
  - refine
";
    let of = |tower: &str, images| (tower.to_owned(), images);
    assert_eq!(refined_with(list), [of("vision", 5), of("language", 6)]);
    // A later pruning of the same tower is what is refined.
    let again = list.replace("name: second", "name: second, vision.sparsity: 0.6");
    assert_eq!(refined_with(&again), [of("vision", 6), of("language", 6)]);
    // A pruning that does nothing is none, wherever it stands.
    for idle in ["metric: none", "language.sparsity: 0"] {
        let idle = format!("  - prune: {{ name: idle, {idle} }}\n  - refine\n");
        assert_eq!(refined_with(&list.replace("  - refine\n", &idle)), [of("vision", 5), of("language", 6)], "{idle}");
    }
}

/// Only what a merge fills is there again: not a tower that was not tuned, whose matrices did not train, or of which targets leave something out.
#[test]
fn what_lora_fills_can_be_pruned_less_again() {
    let list = |lora: &str, last: &str| {
        let lists = format!(
            "{HEAD}steps:\n  - prune: {{ name: first, vision.sparsity: 0.5, language.sparsity: 0.5 }}\n  \
             - restore: {{ method: lora, {lora} }}\n  - {last}\n"
        );
        load(&lists, &[]).map(|found| found.cells[0].run.sparsity(ressa_experiment::Tower::Vision))
    };
    let less = "prune: { name: second, vision.sparsity: 0.3 }";
    let full = "restore: { name: last, method: lora, vision.full: true }";
    assert_eq!(list("vision.rank: 4", less).unwrap(), 0.3);
    assert!(list("vision.rank: 4", full).is_ok());
    for lora in ["vision.tune: false", "vision: { rank: 0, norms: true }", "vision.targets: [qkv]"] {
        let error = list(lora, less).expect_err(lora).to_string();
        assert!(error.contains("`second` removes 0.3 of tower `vision`, of which `first` has removed 0.5"), "{error}");
        let error = list(lora, full).expect_err(lora).to_string();
        assert!(error.contains("the vision tower is pruned, and `lora` would not keep its mask"), "{error}");
    }
}

/// What a removal cannot follow is an N:M pattern that is still claimed; what divides no budget cannot be wrong behind one.
#[test]
fn patterns_and_budgets_beside_removals() {
    let list =
        |steps: &str| load(&format!("{HEAD}steps: [ {steps} ]\n"), &[]).map(|_| ()).map_err(|error| error.to_string());
    let half = "prune: { name: half, pattern: \"2:4\", vision.sparsity: 0.5 }";
    let more = "prune: { name: more, vision.sparsity: 0.6 }";
    let smaller = "structure: { name: small, score: magnitude, vision.channels: 0.25 }";
    let refused = list(&format!("{half}, {smaller}, restore")).unwrap_err();
    assert!(refused.contains("`half` has pruned tower `vision` by an N:M pattern"), "{refused}");
    assert_eq!(list(&format!("{half}, {more}, {smaller}, restore")), Ok(()), "no pattern is claimed any longer");
    let divided = |pattern: &str| {
        let prune = format!("prune: {{ name: p, pattern: {pattern}, vision.sparsity: 0.5, allocation.method: owl }}");
        list(&format!("{smaller}, {prune}, restore"))
    };
    let refused = divided("unstructured").unwrap_err();
    assert!(refused.contains("budgets are divided among whole layers only"), "{refused}");
    assert_eq!(divided("\"2:4\""), Ok(()), "a pattern says every budget");
}

/// Queries are tokens: what compares token by token with the dense model cannot stand behind their removal, what works on layers can.
#[test]
fn what_stands_behind_removed_queries() {
    let list = |steps: &str, more: &[&str]| {
        load(&format!("{HEAD}steps: [ {steps} ]\n"), more).map(|_| ()).map_err(|error| error.to_string())
    };
    let fewer = "structure: { name: fewer, score: random, connector.queries: 0.25 }";
    let owl = "prune: { connector.sparsity: 0.5, allocation.method: owl }";
    for steps in ["restore", "restore: { method: lora }", &format!("{owl}, restore")] {
        assert_eq!(list(&format!("{fewer}, {steps}"), &[]), Ok(()), "{steps}");
    }
    let patterned = format!("prune: {{ pattern: \"2:4\", connector.sparsity: 0.5 }}, {fewer}, restore");
    assert_eq!(list(&patterned, &[]), Ok(()), "groups are the same");
    let states = list(&format!("{fewer}, restore"), &["restore.distill.weight=0.5", "restore.distill.hidden.weight=1"])
        .unwrap_err();
    assert!(states.contains("reads fewer tokens than the teacher"), "{states}");
    for (tower, is_refused) in [("vision", false), ("connector", true), ("language", true)] {
        let towers = format!("restore.distill.attention.towers=[{tower}]");
        let found = list(
            &format!("{fewer}, restore"),
            &["restore.distill.weight=0.5", "restore.distill.attention.weight=1", &towers],
        );
        assert_eq!(found.is_err_and(|error| error.contains("`fewer` has removed queries")), is_refused, "{tower}");
    }
    let reconstructed = list(&format!("{fewer}, reconstruct, restore"), &[]).unwrap_err();
    assert!(reconstructed.contains("compares each token of tower `connector`"), "{reconstructed}");
    let more = "structure: { name: more, score: random, connector.queries: 0.1 }";
    let less = list(&format!("{fewer}, {more}, restore"), &[]).unwrap_err();
    assert!(less.contains("asks for 0.1 of the queries, and `fewer` has removed more already for 0.25"), "{less}");
    let unknown = list("structure: { score: random, vision.queries: 0.25 }, restore", &[]).unwrap_err();
    assert!(unknown.contains("vision.queries"), "{unknown}");
}

#[test]
fn calibration_text_is_asked_for_tower_by_tower() {
    let with = |metric: &str, prune: &str, last: &str| {
        let steps = format!("steps: [ prune: {{ vision.sparsity: 0.5, {prune} }}, {last} ]\n");
        load(&format!("{HEAD}{steps}"), &[&format!("prune.metric={metric}")])
            .map(drop)
            .map_err(|error| error.to_string())
    };
    let none = "calibration.questions: 0, calibration.captions: 0";
    let own = "vision.calibration.questions: 0, vision.calibration.captions: 0";
    let elsewhere = "language.calibration.questions: 0, language.calibration.captions: 0";
    let given = format!("{none}, vision.calibration.questions: 1");
    assert_eq!(with("magnitude", none, "restore"), Ok(()), "nothing is calibrated");
    for (metric, last) in [("wanda", "restore"), ("magnitude", "refine")] {
        assert!(with(metric, none, last).unwrap_err().contains("both questions and captions are 0"));
        assert!(with(metric, own, last).unwrap_err().contains("both questions and captions of tower `vision` are 0"));
        assert_eq!(with(metric, elsewhere, last), Ok(()), "the language model is not pruned");
        assert_eq!(with(metric, &given, last), Ok(()));
    }
}

#[test]
fn names_and_later_steps_leave_earlier_stages_alone() {
    let gradual = good(GRADUAL, &[]);
    let renamed = good(&GRADUAL.replace("first", "one").replace("last", "other"), &[]);
    assert_eq!(keys(&gradual.cells[0]), keys(&renamed.cells[0]));
    assert_ne!(gradual.cells[0].run_id, renamed.cells[0].run_id);
    let further = good(&GRADUAL.replace("vision.sparsity: 0.5", "vision.sparsity: 0.6"), &[]);
    let (before, after): (BTreeSet<_>, BTreeSet<_>) =
        (keys(&gradual.cells[0]).into_iter().collect(), keys(&further.cells[0]).into_iter().collect());
    let made_anew: Vec<&str> = (further.cells[0].stages.iter().filter(|node| !before.contains(&node.key)))
        .map(|node| node.stage.kind())
        .collect();
    assert_eq!(made_anew, ["prune", "adapt", "merge", "evaluate", "evaluate"]);
    assert_eq!(before.intersection(&after).count(), before.len() - 5);
    for cell in gradual.cells.iter().chain(&further.cells) {
        assert_eq!(canonical(&cell.run), *cell.run);
    }
}

#[test]
fn a_steps_own_settings_come_before_those_of_its_section() {
    // The section, the list, what names the step; each wins over the one before, wherever it stands.
    assert_eq!(numbers(&good(GRADUAL, &[]).cells[0]), [0.3, 20.0, 0.5, 60.0]);
    assert_eq!(numbers(&good(GRADUAL, &["restore.steps=7"]).cells[0]), [0.3, 20.0, 0.5, 7.0]);
    let named = format!("steps.second.vision.sparsity: 0.7\n{GRADUAL}");
    assert_eq!(numbers(&good(&named, &["steps.restore-1.steps=8"]).cells[0]), [0.3, 8.0, 0.7, 60.0]);
    let nested = format!("axes: {{ steps.second.vision.sparsity: [0.5, 0.6] }}\n{GRADUAL}");
    let cells = good(&nested, &["steps.last.steps=1,2"]).cells;
    assert_eq!(
        cells.iter().map(numbers).collect::<Vec<_>>(),
        [[0.3, 20.0, 0.5, 1.0], [0.3, 20.0, 0.5, 2.0], [0.3, 20.0, 0.6, 1.0], [0.3, 20.0, 0.6, 2.0]]
    );
    assert_eq!(cells[2].label("steps.second.vision.sparsity").as_deref(), Some("0.6"));
    assert_eq!(cells[2].label("steps.first.vision.sparsity").as_deref(), Some("0.3"));
    assert_eq!(cells[2].label("prune.metric").as_deref(), Some("wanda"));
    assert_eq!(cells[2].label("prune.vision.sparsity"), None, "steps differ");
}

#[test]
fn lists_are_variants_and_points() {
    let yaml = "
axes: { steps.last.vision.sparsity: [0.6, 0.7] }
variants:
  schedule:
    one-shot: { steps: [ prune: { name: last, language.sparsity: 0.7 }, restore ] }
    gradual:
      steps:
        - prune: { name: first, vision.sparsity: 0.3, language.sparsity: 0.3 }
        - restore: { name: between, steps: 20 }
        - prune: { name: last, language.sparsity: 0.7 }
        - restore: { name: after, steps: 40 }
include:
  - { name: dense, prune.metric: none, restore.method: none }
  - { name: sections, prune: { vision.sparsity: 0.5, language.sparsity: 0.5 } }
";
    let cells = good(yaml, &[]).cells;
    let found: Vec<Vec<f64>> = cells.iter().map(numbers).collect();
    let lists: [&[f64]; 6] =
        [&[0.6, 60.0], &[0.3, 20.0, 0.6, 40.0], &[0.7, 60.0], &[0.3, 20.0, 0.7, 40.0], &[0.0, 60.0], &[0.5, 60.0]];
    assert_eq!(found[..4], lists[..4]);
    assert_eq!(found[5], lists[5]);
    assert!(cells[4].run.is_dense() && cells[4].run.restorations().next().is_none());
    assert_eq!(good(yaml, &["schedule=gradual"]).counts.points, 2);
    let at = |cells: &[Cell]| {
        cells.iter().map(|cell| cell.run.sparsity(ressa_experiment::Tower::Vision)).collect::<Vec<_>>()
    };
    assert_eq!(at(&cells[..4]), [0.6, 0.6, 0.7, 0.7]);
    let usual = good(GRADUAL, &["steps=null", "prune.metric=magnitude,random"]);
    assert!(usual.cells.iter().all(|cell| cell.run.steps.is_empty() && numbers(cell).len() == 2), "as the file's null");
    let other = good(GRADUAL, &["steps=[prune: {vision.sparsity: 0.5}]", "prune.metric=magnitude,random"]);
    assert_eq!(
        other.cells.iter().map(|cell| cell.run.prune.metric).collect::<Vec<_>>(),
        [Metric::Magnitude, Metric::Random]
    );
}

/// A step that one point of the grid fills with life is none of them.
#[test]
fn steps_that_never_change_anything_are_told() {
    let told = |yaml: &str, overrides: &[&str]| {
        let idle = good(yaml, overrides).idle_steps;
        idle.into_iter().map(|step| format!("{}: {}", step.name, step.why)).collect::<Vec<_>>()
    };
    assert_eq!(told(GRADUAL, &[]), [""; 0]);
    let none = ["last: its `method` is none", "restore-1: its `method` is none"];
    assert_eq!(told(GRADUAL, &["restore.method=none"]), none);
    assert_eq!(told(GRADUAL, &["restore.method=none,sparse-lora"]), [""; 0]);
    let idle = "steps: [ prune: { name: a }, prune: { name: b, metric: none, vision.sparsity: 0.5 }, restore ]\n";
    assert_eq!(told(idle, &[]), ["a: the sparsity of every tower is 0", "b: its `metric` is none"]);
}

#[test]
fn a_filter_knows_the_settings_of_steps() {
    let experiment = good(&format!("axes: {{ steps.second.vision.sparsity: [0.5, 0.6, 0.7] }}\n{GRADUAL}"), &[]);
    let select = |text: &str| {
        let filter = ressa_experiment::Filter::parse(&[text.to_owned()]).unwrap().unwrap();
        let bound = filter.bind(std::slice::from_ref(&experiment)).unwrap();
        experiment.cells.iter().filter(|cell| bound.selects(0, cell)).count()
    };
    assert_eq!(select("steps.second.vision.sparsity > 0.5"), 2);
    assert_eq!(select("steps.first.vision.sparsity = 0.3"), 3);
    assert_eq!(select("prune.metric = wanda"), 3);
}

#[test]
fn every_setting_of_a_step_says_who_set_it() {
    let experiment =
        good(&format!("axes: {{ steps.second.vision.sparsity: [0.5, 0.6] }}\n{GRADUAL}"), &["steps.last.steps=7"]);
    let traced = experiment.trace(&experiment.cells[1]);
    let find = |path: &str| traced.iter().find(|traced| traced.path == path).unwrap_or_else(|| panic!("{path}"));
    assert_eq!(find("steps.first.vision.sparsity").at.as_ref().map(|at| at.line), Some(10));
    assert_eq!(find("steps.first.metric").by, WrittenBy::File);
    assert_eq!(find("steps.first.metric").value, "wanda");
    assert_eq!(find("steps.last.steps").by, WrittenBy::CommandLine);
    assert!(matches!(&find("steps.second.vision.sparsity").by, WrittenBy::Axis { label, .. } if label == "0.6"));
    assert_eq!(find("steps.second.vision.group").by, WrittenBy::Default);
    assert!(traced.iter().all(|traced| !traced.path.starts_with("prune.")));
}

#[test]
fn broken_lists_are_pointed_at() {
    let list = |text: &str| format!("{HEAD}steps:\n{text}");
    let with = |text: &str| format!("{HEAD}{text}{GRADUAL}");
    let files = [
        ("no list", format!("{HEAD}steps: prune\n")),
        ("an empty list", format!("{HEAD}steps: []\n")),
        ("an unknown kind", list("  - prune\n  - restor: { steps: 3 }\n")),
        ("a kind that does not exist yet", list("  - prune\n  - quantize: { bits: 4 }\n")),
        ("two kinds in one step", list("  - { prune: {}, restore: {} }\n")),
        ("a typo in a step", list("  - prune: { vison.sparsity: 0.5 }\n")),
        ("a setting of another kind", list("  - prune: { learning-rate: 0.1 }\n")),
        ("a value out of range", list("  - prune: { vision.sparsity: 30 }\n")),
        ("a name twice", list("  - prune: { name: one }\n  - restore: { name: one }\n")),
        ("a name with a dot", list("  - prune: { name: step.1 }\n")),
        ("a setting twice", list("  - prune: { vision.sparsity: 0.5, vision: { sparsity: 0.5 } }\n")),
        ("a step that is not there", with("steps.frist.metric: ria\n")),
        ("a setting that the step does not have", with("axes: { steps.first.steps: [1, 2] }\n")),
        ("a step without a list", format!("{HEAD}axes: {{ steps.prune.metric: [ria, wanda] }}\n")),
        ("lists as an axis", format!("{HEAD}axes: {{ steps: [[prune], [restore]] }}\n")),
        (
            "one name for two kinds",
            format!(
                "{HEAD}variants: {{ a: {{ x: {{ steps: [ prune: {{ name: s }} ] }}, y: {{ steps: [ restore: {{ name: s }} ] }} }} }}\n"
            ),
        ),
        ("weights that would come back", with("steps.second.vision.sparsity: 0.2\n")),
        ("weights that would come back in a list", format!("{HEAD}{}", GRADUAL.replace("0.5", "0.2"))),
        ("a contradiction in a step", with("steps.last.batch: 4000\n")),
        ("nothing to refine", list("  - prune: { vision.sparsity: 0.5 }\n  - restore\n  - refine\n")),
        ("a refinement that is none", list("  - prune\n  - refine: { method: sparse-swaps }\n")),
        ("nothing to reconstruct", list("  - reconstruct\n  - prune: { vision.sparsity: 0.5 }\n")),
        ("a window that is none", list("  - prune\n  - reconstruct: { window: blok }\n")),
        ("a window of no block", list("  - prune\n  - reconstruct: { window: 0 }\n")),
        (
            "a batch of more than all samples",
            list("  - prune: { vision.sparsity: 0.5 }\n  - reconstruct: { batch: 8, samples: 4 }\n"),
        ),
        (
            "a pattern in a step",
            format!(
                "{HEAD}{}",
                GRADUAL.replace("name: second", "name: second, pattern: \"2:4\", connector.sparsity: 0.7")
            ),
        ),
    ];
    let lists = |head: &str, text: &str| format!("{HEAD}{head}steps:\n{text}");
    let folder = "data: { source: folder, root: /data }\n";
    let refined = "  - prune: { name: first, metric: magnitude, vision.sparsity: 0.5 }\n  - refine: { name: swap }\n";
    let after = "  - prune: { name: first, vision.sparsity: 0.6, connector: { sparsity: 0.5, projection: true } }\n";
    let more = [
        ("a name that no path can have", list("  - prune: { name: \u{e9} }\n")),
        ("no text to refine with", lists("prune.calibration: { questions: 0, captions: 0 }\n", refined)),
        ("no corpus to refine with", lists(folder, refined)),
        (
            "questions of a corpus to refine with",
            lists(&format!("{folder}data.calibration.corpora: [cc3m]\n"), refined),
        ),
        (
            "a pattern that removes too little",
            lists("", &format!("{after}  - prune: {{ name: second, pattern: \"2:4\", vision.sparsity: 0.5 }}\n")),
        ),
        (
            "a projection that was pruned",
            lists("", &format!("{after}  - prune: {{ name: second, connector.sparsity: 0.6 }}\n")),
        ),
        (
            "weights of a single corpus",
            lists(
                &format!("{folder}data.restoration.corpora: [cc3m]\n"),
                "  - restore: { name: tune, questions: 0, loading.method: dynamic }\n",
            ),
        ),
        ("a section that no step reads", format!("{HEAD}refine.method: least-squares\n")),
        (
            "an axis that no step reads",
            format!("{HEAD}axes: {{ refine.method: [sparseswaps, least-squares] }}\nsteps: [prune]\n"),
        ),
        (
            "a step of another variant",
            format!(
                "{HEAD}variants:\n  way:\n    one: {{ steps: [prune: {{ name: only }}], steps.first.metric: ria }}\n    two: {{ steps: [prune: {{ name: first }}] }}\n"
            ),
        ),
        (
            "nothing that trains",
            list(
                "  - prune\n  - restore: { vision.rank: 0, connector.rank: 0, language: { rank: 0, bias: lora-only } }\n",
            ),
        ),
    ];
    let mut shown = String::new();
    for (title, yaml) in files.into_iter().chain(more) {
        let folder = Folder::new();
        folder.write("broken.yaml", &yaml);
        let error = folder.load("broken.yaml", &[]).err().unwrap_or_else(|| panic!("{title}: loaded"));
        assert!(error.position().is_some(), "{title}: points nowhere");
        shown += &format!("### {title}\n{}\n\n", render(&error, &folder));
    }
    insta::assert_snapshot!("broken_lists", shown);
}
