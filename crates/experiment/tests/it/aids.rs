//! Captions before a prompt, perturbed questions and votes: which stages see them, what is neutral, what is refused.

use std::collections::BTreeSet;

use ressa_experiment::{Experiment, Stage, StageKey, Task};

use crate::{Folder, broken::render, kinds, load};

const HEAD: &str = "
model.preset: shapes-flant5
replicate: { seed: 0..1 }
prune: { metric: wanda, vision.sparsity: 0.5, language.sparsity: 0.5 }
restore: { method: sparse-lora, steps: 20 }
";
const GATE: &str = "dense.gate: { gqa: 60 }\n";

fn good(yaml: &str) -> Experiment {
    load(&format!("{HEAD}{yaml}"), &[]).unwrap_or_else(|error| panic!("{:?}", miette::Report::new(error)))
}

/// Evaluations of a task, all runs together.
fn evaluations(experiment: &Experiment, task: Task) -> BTreeSet<StageKey> {
    let stages = experiment.stages();
    let of_task = |stage: &Stage| matches!(stage, Stage::Evaluate { task: own, .. } if *own == task);
    stages.iter().filter(|node| of_task(&node.stage)).map(|node| node.key).collect()
}

const ONE: &str = "axes: { prune.metric: [wanda] }\n";

#[test]
fn an_axis_of_the_evaluation_shares_all_that_is_pruned_and_trained() {
    let plain = good(ONE);
    let rates = good("axes: { evaluate.perturb.rate: [0, 0.1, 0.3] }\n");
    assert_eq!((plain.counts.runs, rates.counts.runs), (2, 6));
    let made = |experiment: &Experiment| -> Vec<(&str, usize)> {
        kinds(experiment).into_iter().filter(|(kind, _)| *kind != "evaluate").collect()
    };
    assert_eq!(made(&plain), made(&rates));
    for task in Task::PAPER {
        let (one, all) = (evaluations(&plain, task), evaluations(&rates, task));
        assert!(one.is_subset(&all), "a rate of 0 is no perturbation");
        assert_eq!(all.len(), if task.has_questions() { 6 } else { 2 }, "{task}");
    }
    for (axis, values, also) in [
        ("evaluate.retrieved.captions", "[0, 1, 3]", Task::Nocaps),
        ("evaluate.smoothing.method", "[none, masked]", Task::Gqa),
        ("evaluate.smoothing.copies", "[3, 5]", Task::Gqa),
    ] {
        let many = good(&format!("evaluate.smoothing.method: masked\naxes: {{ {axis}: {values} }}\n"));
        assert_eq!(made(&plain), made(&many), "{axis}");
        let each = values.split(',').count();
        assert_eq!(evaluations(&many, also).len(), 2 * each, "{axis}");
        assert_eq!(evaluations(&many, Task::Flickr30k), evaluations(&plain, Task::Flickr30k), "{axis}");
    }
}

#[test]
fn what_decides_is_in_the_key_and_what_does_not_is_neutral() {
    let keys = |settings: &str| evaluations(&good(&format!("{ONE}evaluate: {{ {settings} }}\n")), Task::Gqa);
    let plain = keys("beams: 1");
    for neutral in [
        "perturb: { kind: drop, seed: 4 }",
        "smoothing: { copies: 9, mask: 0.5, seed: 4 }",
        "retrieved: { pool: 5, corpora: [coco], template: \"{} {captions}\" }",
    ] {
        assert_eq!(keys(neutral), plain, "{neutral}");
    }
    let base = "perturb.rate: 0.2, smoothing.method: masked, retrieved: { captions: 2, checkpoint: itm }";
    let all = keys(base);
    assert!(all.is_disjoint(&plain));
    // The embedded world's captions come from no corpus, and nothing is asked to fill masks.
    assert_eq!(keys(&format!("{base}, retrieved.corpora: [vg], smoothing.prompt: \"{{}}\"")), all);
    for (old, new) in [
        ("perturb.rate: 0.2", "perturb: { rate: 0.2, kind: typo }"),
        ("perturb.rate: 0.2", "perturb: { rate: 0.2, seed: 1 }"),
        ("perturb.rate: 0.2", "perturb: { rate: 0.3 }"),
        ("smoothing.method: masked", "smoothing: { method: masked, copies: 3 }"),
        ("smoothing.method: masked", "smoothing: { method: masked, mask: 0.4 }"),
        ("smoothing.method: masked", "smoothing: { method: masked, seed: 1 }"),
        ("captions: 2", "captions: 3"),
        ("captions: 2", "captions: 2, pool: 100"),
        ("captions: 2", "captions: 2, separator: \"; \""),
        ("captions: 2", "captions: 2, template: \"{} {captions}\""),
        ("checkpoint: itm", "checkpoint: other"),
    ] {
        assert!(keys(&base.replace(old, new)).is_disjoint(&all), "{new}");
    }
}

#[test]
fn a_gate_asks_the_dense_model_plainly() {
    let plain = good(&format!("{GATE}{ONE}"));
    let aided = good(&format!(
        "{GATE}{ONE}evaluate: {{ perturb.rate: 0.3, smoothing.method: masked, retrieved.captions: 2 }}\n"
    ));
    assert_eq!(plain.gates.len(), 1);
    assert_eq!(plain.gates, aided.gates);
}

#[test]
fn contradictions_are_pointed_at() {
    let mut shown = String::new();
    for (title, yaml) in [
        ("a template without captions", "evaluate.retrieved: { captions: 2, template: \"Question: {}\" }"),
        ("more captions than a pool", "evaluate.retrieved: { captions: 4, pool: 3 }"),
        ("no corpus", "evaluate.retrieved.captions: 2\ndata: { source: folder, root: data }\nevaluate.tasks: [gqa]"),
        ("a corpus of questions", "evaluate.retrieved: { captions: 2, corpora: [easy-vqa] }"),
        ("a rate in percent", "evaluate.perturb.rate: 30"),
        ("a perturbation that there is not", "evaluate.perturb: { rate: 0.1, kind: typos }"),
        ("no copies", "evaluate.smoothing: { method: masked, copies: 0 }"),
        ("a model that fills no masks", "evaluate.smoothing.method: self-denoised"),
    ] {
        let folder = Folder::new();
        // Published data has its own rules for calibration and training.
        let published = yaml.contains("source: folder");
        let head = if published {
            "model.preset: shapes-flant5\nprune.metric: magnitude\naxes: { prune.vision.sparsity: [0.5] }\n"
        } else {
            HEAD
        };
        let head = format!("{head}{}", if published { "" } else { ONE });
        folder.write("broken.yaml", format!("{head}{yaml}\n"));
        let error = folder.load("broken.yaml", &[]).err().unwrap_or_else(|| panic!("{title}: loaded"));
        assert!(error.position().is_some(), "{title}: points nowhere");
        shown += &format!("### {title}\n{}\n\n", render(&error, &folder));
    }
    insta::assert_snapshot!("broken_aids", shown);
    // A checkpoint may be asked to fill masks, if its prompt says where.
    let checkpoint = HEAD.replace("model.preset: shapes-flant5", "model.checkpoint: folder");
    let fills = |prompt: &str| {
        let settings = format!("evaluate: {{ tasks: [gqa], smoothing: {{ method: self-denoised{prompt} }} }}\n");
        load(&format!("{checkpoint}{ONE}{settings}"), &[]).map(|_| ()).map_err(|error| error.to_string())
    };
    assert_eq!(fills(""), Ok(()));
    assert!(fills(", prompt: Fill").unwrap_err().contains("does not say where the question goes"));
}
