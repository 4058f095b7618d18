//! What expansion promises: counts, keys, sharing.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use ressa_experiment::{Cell, Experiment, Pattern, RunConfig, Stage, StageKey, canonical::canonical, stage::stages};

use crate::{kinds, load};

fn good(yaml: &str, overrides: &[&str]) -> Experiment {
    load(yaml, overrides).unwrap_or_else(|error| panic!("{error}: {:?}", error.advice()))
}

const STUDY: &str = "
model.preset: shapes-flant5
replicate: { seed: 0..1 }
axes:
  prune.metric: [magnitude, wanda]
zip:
  pattern:
    prune.pattern: [unstructured, \"2:4\", unstructured]
    prune.vision.sparsity: [0.5, 0.5, 0.7]
    prune.language.sparsity: [0.5, 0.5, 0.7]
variants:
  restoration:
    pruned: {}
    lora: { restore.method: lora }
    remasked: { restore.method: lora-remasked }
include: [{ name: dense, prune.metric: none }]
evaluate.tasks: [vqav2, nocaps, flickr30k]
";

fn keys(experiment: &Experiment) -> BTreeSet<StageKey> {
    experiment.stages().into_iter().map(|node| node.key).collect()
}

fn new_kinds(before: &Experiment, after: &Experiment) -> BTreeMap<&'static str, usize> {
    let known = keys(before);
    let mut kinds = BTreeMap::new();
    for node in after.stages().into_iter().filter(|node| !known.contains(&node.key)) {
        *kinds.entry(node.stage.kind()).or_default() += 1;
    }
    kinds
}

#[test]
fn a_study_shares_what_it_can() {
    let study = good(STUDY, &[]);
    let counts: Vec<String> = kinds(&study).into_iter().map(|(kind, count)| format!("{kind} {count}")).collect();
    // Magnitude: 3 patterns x 2 towers; Wanda the same at 2 seeds. One training per pruned model and seed serves both LoRA variants.
    // Retrieval sees no language mask, so 3 + 6 vision towers and the dense model have one evaluation each beside the restored ones.
    insta::assert_snapshot!(counts.join(", "), @"dense 1, prune 18, adapt 12, merge 24, evaluate 102");
    assert_eq!(study.counts.cells, (2 * 3 * 3 + 1) * 2);
    assert_eq!(study.counts.runs, 3 + 6 + 24 + 1);
}

/// Without an axis, points are told apart by their names.
#[test]
fn points_without_an_axis_have_one_of_their_names() {
    let yaml = "
model.preset: shapes-flant5
replicate: { seed: 0..1 }
include: [{ name: one, prune.metric: wanda }, { name: other, prune.metric: magnitude }]
report: { tables: [{ id: both, rows: [point], columns: metric, values: [average] }] }
";
    let study = good(yaml, &[]);
    assert_eq!(
        (study.axes[0].name.as_str(), study.axes[0].labels.as_slice()),
        ("point", &["one".into(), "other".into()][..])
    );
    let labels: Vec<String> = study.cells.iter().filter_map(|cell| cell.label("point")).collect();
    assert_eq!(labels, ["one", "one", "other", "other"]);
    assert_eq!(good(&format!("{yaml}exclude: [{{ point: other, seed: 1 }}]\n"), &[]).cells.len(), 3);
    let with_axis = yaml.replace("rows: [point]", "rows: [prune.language.sparsity]");
    let with_axis = good(&format!("{with_axis}axes: {{ prune.language.sparsity: [0.5, 0.6] }}\n"), &[]);
    assert_eq!(with_axis.axes.len(), 1);
}

#[test]
fn order_is_product_order_with_seeds_innermost() {
    let study = good(STUDY, &[]);
    let show = |cell: &Cell| {
        let labels: Vec<&str> = cell.coordinates.iter().map(|(_, label)| label.as_str()).collect();
        format!("{} @{}", labels.join(" "), cell.seed)
    };
    let lines: Vec<String> = study.cells.iter().take(8).chain(study.cells.iter().rev().take(1)).map(show).collect();
    insta::assert_snapshot!(lines.join("\n"), @r"
    magnitude 50 % pruned @0
    magnitude 50 % pruned @1
    magnitude 50 % lora @0
    magnitude 50 % lora @1
    magnitude 50 % remasked @0
    magnitude 50 % remasked @1
    magnitude 2:4 pruned @0
    magnitude 2:4 pruned @1
    none dense dense @1
    ");
}

/// Adding to a study adds exactly what is new: nothing that was there gets another key.
#[test]
fn a_value_a_task_and_a_seed_add_only_new_stages() {
    let study = good(STUDY, &[]);
    let value = good(&STUDY.replace("0.7]", "0.7, 0.8]").replace("unstructured]", "unstructured, unstructured]"), &[]);
    let task = good(&STUDY.replace("[vqav2,", "[vqav2, gqa,"), &[]);
    let seed = good(&STUDY.replace("0..1", "0..2"), &[]);
    for bigger in [&value, &task, &seed] {
        assert!(keys(bigger).is_superset(&keys(&study)));
    }
    let shown = format!(
        "value {:?}\ntask {:?}\nseed {:?}",
        new_kinds(&study, &value),
        new_kinds(&study, &task),
        new_kinds(&study, &seed)
    );
    insta::assert_snapshot!(shown, @r#"
    value {"adapt": 4, "evaluate": 33, "merge": 8, "prune": 6}
    task {"evaluate": 34}
    seed {"adapt": 6, "evaluate": 45, "merge": 12, "prune": 6}
    "#);
}

/// Planted channel scales are one stage more, which everything behind it reads; without them nothing changes its key.
#[test]
fn planted_scales_stand_between_the_dense_model_and_all_else() {
    let study = good(STUDY, &[]);
    let gated = STUDY.to_owned() + "dense.gate: { vqav2: 90 }\n";
    let planted = good(&gated, &["model.channel-spread=0,0.7"]);
    assert!(keys(&planted).is_superset(&keys(&study)));
    let kinds = new_kinds(&study, &planted);
    assert_eq!((kinds.get("rescale"), kinds.get("dense")), (Some(&1), None), "{kinds:?}");
    for cell in &planted.cells {
        let spread = cell.run.model.channel_spread;
        let model = &cell.stages[usize::from(spread > 0.0)];
        assert_eq!(model.stage.kind(), if spread > 0.0 { "rescale" } else { "dense" });
        let reads = |node: &ressa_experiment::StageNode| node.inputs.dense.as_ref() == Some(&model.key);
        assert!(cell.stages.iter().skip_while(|node| node.key != model.key).skip(1).all(|node| reads(node)));
    }
    // Both models must reach the gate.
    let gates: BTreeSet<_> =
        planted.gates.iter().flat_map(|gate| &gate.evaluate).map(|node| &node.inputs.dense).collect();
    assert_eq!((planted.gates.len(), gates.len()), (2, 2));
    // Scales that are not there have no seed; the included dense point stands at one of the two.
    let runs = |overrides: &[&str]| good(STUDY, overrides).counts.runs;
    assert_eq!(runs(&["model.channel-seed=0,1"]), study.counts.runs);
    assert_eq!(runs(&["model.channel-spread=0.7", "model.channel-seed=0,1"]), 2 * study.counts.runs - 1);
}

const DIVIDED: &str = "
model.preset: shapes-flant5
replicate: { seed: 0..1 }
prune: { metric: magnitude, vision.sparsity: 0.5, language.sparsity: 0.6 }
evaluate.tasks: [gqa]
";

/// What a division cannot see does not tell runs apart, and what divides nothing is no division.
#[test]
fn settings_of_other_divisions_are_neutral() {
    let runs = |yaml: &str| good(&format!("{DIVIDED}{yaml}"), &[]).counts.runs;
    let axis = |path: &str, values: &str, method: &str| {
        runs(&format!("prune.allocation: {{ method: {method} }}\naxes: {{ prune.allocation.{path}: {values} }}\n"))
    };
    // Magnitude without a measurement draws nothing, so both seeds are one run.
    assert_eq!(axis("lambda", "[0.1, 0.2]", "uniform"), 1);
    assert_eq!(axis("lambda", "[0.1, 0.2]", "owl"), 2 * 2);
    assert_eq!(axis("lambda", "[0.1, 0.2]", "ecoflap"), 2);
    assert_eq!(axis("epsilon", "[0.1, 0.2]", "ecoflap"), 2);
    assert_eq!(axis("epsilon", "[0.1, 0.2]", "ecoflap, order: zeroth"), 2 * 2);
    assert_eq!(axis("score", "[obd, aobd]", "owl"), 2);
    assert_eq!(axis("method", "[uniform, owl, ecoflap]", "table, group: tower"), 1);
    assert_eq!(axis("method", "[uniform, owl, ecoflap]", "table, group: tower, towers: joint"), 1 + 2 * 2);
    let two_of_four = "prune.allocation.method: ecoflap\naxes: { prune.allocation.group: [block, layer] }\n";
    let implied = DIVIDED.replace("0.6", "0.5").replace("magnitude,", "magnitude, pattern: \"2:4\",");
    assert_eq!(good(&format!("{implied}{two_of_four}"), &[]).counts.runs, 1);
}

/// A tower is measured once for all ratios, and asking for it changes no other stage.
#[test]
fn measurements_are_shared_by_ratios() {
    let ratios = "
axes: { prune.vision.sparsity: [0.5, 0.6], prune.allocation.method: [uniform, ecoflap, owl, table], prune.allocation.towers: [each, joint] }
prune.allocation.table: { \"vision.0\": 0.3, \"*.wo\": 0.7 }
";
    let study = good(&format!("{DIVIDED}{ratios}"), &[]);
    let counts: Vec<String> = kinds(&study).into_iter().map(|(kind, count)| format!("{kind} {count}")).collect();
    // Two methods measure two towers at two seeds. Masks by magnitude: uniform 2 + 1; a table as many, a joint one 2 + 2; the measured
    // two likewise at both seeds.
    insta::assert_snapshot!(counts.join(", "), @"dense 1, sensitivity 8, prune 38, evaluate 22");
    let plain = good(&format!("{DIVIDED}axes: {{ prune.vision.sparsity: [0.5, 0.6] }}\n"), &[]);
    assert!(keys(&study).is_superset(&keys(&plain)));
}

/// With dense calibration a tower's inputs are measured once for all methods, ratios and patterns. Who else reads the measurement, and so what is in
/// it, changes no other key.
#[test]
fn statistics_are_shared_by_methods() {
    let of = |metrics: &str, propagate: &str| {
        good(
            &format!(
                "
model.preset: shapes-flant5
replicate: {{ seed: 0..1 }}
prune: {{ vision.sparsity: 0.5, language.sparsity: 0.5, calibration.propagate: {propagate} }}
axes: {{ prune.metric: [{metrics}], prune.pattern: [unstructured, \"2:4\"] }}
evaluate.tasks: [gqa]
"
            ),
            &[],
        )
    };
    let counts = |study: &Experiment| {
        kinds(study).into_iter().map(|(kind, count)| format!("{kind} {count}")).collect::<Vec<_>>().join(", ")
    };
    let all = of("magnitude, wanda, sparsegpt, dsnot", "dense");
    // Two towers at two seeds; magnitude reads none.
    insta::assert_snapshot!(counts(&all), @"dense 1, statistics 4, prune 28, evaluate 14");
    let needs = |study: &Experiment| {
        let node = study.cells.iter().flat_map(|cell| &cell.stages).find_map(|node| match &*node.stage {
            Stage::Statistics { needs, .. } => Some((needs.norms, needs.moments, needs.gram)),
            _ => None,
        });
        node.expect("statistics")
    };
    assert_eq!(needs(&all), (true, true, true));
    let some = of("wanda, ria", "dense");
    assert_eq!(needs(&some), (true, false, false));
    let others = |study: &Experiment| -> BTreeSet<StageKey> {
        let nodes = study.cells.iter().flat_map(|cell| &cell.stages);
        nodes.filter(|node| !matches!(*node.stage, Stage::Statistics { .. })).map(|node| node.key).collect()
    };
    assert!(others(&all).is_superset(&others(&of("wanda", "dense"))));
    for cell in &all.cells {
        for node in cell.stages.iter().filter(|node| matches!(*node.stage, Stage::Prune { .. })) {
            let read = node.inputs.statistics.as_ref();
            assert!(
                read.is_none_or(|key| cell.stages.iter().any(|node| node.key == *key)),
                "what is read is in the run"
            );
        }
    }
    assert_eq!(counts(&of("magnitude, wanda", "pruned")), "dense 1, prune 12, evaluate 6");
}

/// What a grid remembers of earlier runs must not show in later ones.
#[test]
fn a_run_has_the_stages_in_a_grid_that_it_has_alone() {
    let divided = "prune.allocation: { method: owl, towers: joint }";
    for settings in ["", "prune.calibration.propagate: dense", divided, "prune.connector.sparsity: 0.5"] {
        let study = good(&format!("{STUDY}{settings}\n"), &["replicate.seed=3,1"]);
        for cell in &study.cells {
            let in_grid = cell.stages.iter().map(|node| &**node);
            let alone = stages(&cell.run);
            assert_eq!(in_grid.clone().count(), alone.len());
            for (in_grid, alone) in in_grid.zip(&alone) {
                // One measurement serves several methods: what is in it differs, and its name with it.
                if !matches!(*alone.stage, Stage::Statistics { .. }) {
                    assert_eq!(
                        (in_grid.key, &in_grid.stage),
                        (alone.key, &alone.stage),
                        "{settings}: {:?}",
                        cell.coordinates
                    );
                }
            }
        }
    }
}

/// Keys are the store's addresses: a change here throws every stored result away, so it must be meant.
#[test]
fn keys_do_not_change_by_accident() {
    let yaml = "
model.preset: shapes-flant5
data.seed: 1234
replicate: { seed: [7] }
prune: { metric: wanda, pattern: \"2:4\", vision.sparsity: 0.5, language.sparsity: 0.5 }
restore: { method: sparse-lora, distill.weight: 0.5 }
evaluate.tasks: [gqa, flickr30k]
";
    let run = &good(yaml, &[]).cells[0];
    let mut lines: Vec<String> =
        run.stages.iter().map(|node| format!("{} {}", node.stage.kind(), node.key.short())).collect();
    lines.push(format!("run {}", &run.run_id[..12]));
    insta::assert_snapshot!(lines.join("\n"), @r"
    dense 98f996d01ede
    prune b713087a3f5e
    prune d573f93beb81
    adapt 4461b62ab047
    merge 261f33041a7c
    evaluate f4e07b6a5f53
    evaluate 3e6e1f6d2273
    run 3fda19d3a180
    ");
    let again = stages(&run.run);
    assert!(
        again.iter().zip(&run.stages).all(|(one, other)| one == &**other),
        "a run alone has the keys it has in a grid"
    );
}

#[test]
fn settings_that_a_run_cannot_see_do_not_split_it() {
    let runs = |axis: &str, rest: &str| {
        good(&format!("model.preset: shapes-flant5\nreplicate.seed: 0..1\naxes: {{ {axis} }}\n{rest}"), &[]).counts.runs
    };
    let wanda = "prune: { metric: wanda, vision.sparsity: 0.5 }";
    let magnitude = "prune: { metric: magnitude, vision.sparsity: 0.5 }";
    let sparsegpt = "prune: { metric: sparsegpt, vision.sparsity: 0.5 }";
    let dsnot = "prune: { metric: dsnot, vision.sparsity: 0.5 }";
    let nm = "prune: { metric: wanda, pattern: \"2:4\", vision.sparsity: 0.5 }";
    let lora = "restore: { method: lora, connector.tune: false }";
    // what varies, in which run, distinct runs over two seeds
    for (axis, rest, expected) in [
        ("restore.steps: [1, 2]", wanda, 2),
        ("restore.steps: [1, 2]", lora, 4),
        ("restore.connector.rank: [1, 2]", lora, 2),
        ("restore.distill.temperature: [1, 2]", lora, 2),
        ("restore.distill.attention.weight: [0, 1]", "restore: { method: lora, distill.weight: 0 }", 2),
        ("restore.distill.attention.weight: [0, 1]", "restore: { method: lora, distill.weight: 0.5 }", 4),
        ("restore.distill.attention.blocks: [last, all]", "restore: { method: lora, distill.weight: 0.5 }", 2),
        (
            "restore.distill.attention.blocks: [last, all]",
            "restore: { method: lora, distill: { weight: 0.5, attention.weight: 1 } }",
            4,
        ),
        ("prune.metric: [none, magnitude, wanda]", "", 1),
        ("prune.metric: [none, magnitude, wanda]", "prune.vision.sparsity: 0.5", 4),
        ("prune.pattern: [unstructured, \"2:4\"]", "", 1),
        ("prune.calibration.images: [1, 2]", magnitude, 1),
        ("prune.calibration.images: [1, 2]", wanda, 4),
        ("prune.vision.group: [null, row]", wanda, 2),
        ("prune.vision.group: [null, matrix]", magnitude, 1),
        ("prune.vision.group: [row, matrix]", wanda, 4),
        ("prune.vision.group: [row, matrix]", nm, 2),
        ("prune.language.group: [row, matrix]", wanda, 2),
        ("prune.rounding: [decimal, nearest]", wanda, 4),
        ("prune.rounding: [decimal, nearest]", nm, 2),
        ("prune.threshold: [exact, strict, inclusive]", wanda, 6),
        ("prune.threshold: [exact, inclusive]", dsnot, 2),
        ("prune.threshold: [exact, strict]", sparsegpt, 2),
        ("prune.magnitude.signed: [false, true]", magnitude, 2),
        ("prune.magnitude.signed: [false, true]", wanda, 2),
        ("prune.sparsegpt.damping-share: [0.01, 0.1]", wanda, 2),
        ("prune.sparsegpt.damping-share: [0.01, 0.1]", sparsegpt, 4),
        (
            "prune.rounding: [decimal, nearest]",
            "prune: { metric: sparsegpt, sparsegpt.threshold: inclusive, vision.sparsity: 0.5 }",
            2,
        ),
        ("prune.sparsegpt.order: [natural, loss]", sparsegpt, 4),
        ("prune.sparsegpt.order: [natural, loss]", wanda, 2),
        ("prune.alps.penalty: [0.1, 0.2]", "prune: { metric: alps, vision.sparsity: 0.5 }", 4),
        ("prune.alps.penalty: [0.1, 0.2]", sparsegpt, 2),
        ("restore.language.scale: [1, 2]", "restore.method: spp", 4),
        ("restore.loading.every: [10, 20]", "restore.method: spp", 2),
        ("restore.loading.every: [10, 20]", "restore: { method: spp, loading.method: dynamic }", 4),
        ("restore.language.scale: [1, 2]", "restore.method: scale-lora", 2),
        ("prune.dsnot.cycles: [1, 2]", sparsegpt, 2),
        ("prune.dsnot.threshold: [0.1, 0.2]", dsnot, 4),
        ("prune.dsnot.threshold: [0.1, 0.2]", "prune: { metric: dsnot, dsnot.cycles: 0, vision.sparsity: 0.5 }", 2),
        (
            "prune.dsnot.sign: [published, always]",
            "prune: { metric: dsnot, pattern: \"2:4\", vision.sparsity: 0.5 }",
            2,
        ),
        ("prune.calibration.tokens.text: [1, 2]", wanda, 4),
        ("prune.calibration.tokens.text: [1, 2]", magnitude, 1),
        ("prune.calibration.tokens.alpha: [1, 2]", wanda, 2),
        (
            "prune.calibration.tokens.alpha: [1, 2]",
            "prune: { metric: wanda, calibration.tokens.select: atv, vision.sparsity: 0.5 }",
            4,
        ),
        ("prune.vision.calibration.images: [null, 48]", wanda, 2),
        ("prune.vision.calibration.images: [null, 4]", wanda, 4),
        ("prune.vision.calibration.images: [null, 4]", magnitude, 1),
        ("prune.language.calibration.images: [null, 4]", wanda, 2),
        ("dense.seed: [0, 1]", "", 2),
        ("evaluate.images: [8, 9]", "evaluate.tasks: [gqa]", 1),
        ("evaluate.questions: [8, 9]", "evaluate.tasks: [nocaps]", 1),
        ("evaluate.beams: [1, 5]", "evaluate.tasks: [flickr30k]", 1),
        ("evaluate.beams: [1, 5]", "evaluate.tasks: [gqa]", 2),
        ("evaluate.tasks: [[gqa, vqav2], [vqav2, gqa]]", "", 1),
    ] {
        assert_eq!(runs(axis, rest), expected, "{axis} with {rest}");
    }
}

#[test]
fn includes_name_labels_and_overrides_narrow() {
    let study = good(&STUDY.replace("name: dense,", "name: dense, pattern: \"2:4\", restoration: none,"), &[]);
    let dense: Vec<&Cell> = study.point("dense").collect();
    assert_eq!(dense.len(), 2);
    assert_eq!(dense[0].coordinates[0].1, "none", "a product axis takes the label of the setting");
    assert_eq!(
        (dense[0].label("pattern").unwrap(), dense[0].label("restoration").unwrap()),
        ("2:4".into(), "none".into())
    );
    assert_eq!(dense[0].run.prune.pattern, Pattern::Unstructured, "a dense run has no pattern");
    assert_eq!(study.axis("restoration").unwrap().labels, ["pruned", "lora", "remasked", "none"]);

    let narrow = good(STUDY, &["restoration=lora", "prune.metric=random,wanda", "replicate.seed=3", "restore.steps=5"]);
    assert_eq!(narrow.axis("prune.metric").unwrap().labels, ["random", "wanda", "none"]);
    assert_eq!(narrow.counts.points, 2 * 3);
    assert!(narrow.cells.iter().filter(|cell| cell.point.is_none()).all(|cell| cell.run.restore.steps == 5));
    assert!(narrow.cells.iter().all(|cell| cell.seed == 3));
    let new_axis = good(STUDY, &["restore.language.rank=4,8", "evaluate.tasks=gqa,vqav2"]);
    assert_eq!(new_axis.counts.points, 2 * 2 * 9);
    assert_eq!(new_axis.cells[0].run.evaluate.tasks.len(), 2);
}

#[test]
fn gates_ask_for_the_dense_evaluations_of_their_tasks() {
    let gated = STUDY.to_owned() + "dense.gate: { vqav2: 90, gqa: 75, gqa/where-row: 60 }\n";
    let study = good(&gated, &[]);
    assert_eq!(study.gates.len(), 1);
    let gate = &study.gates[0];
    assert_eq!((gate.model_name.as_str(), gate.evaluate.len(), gate.floors.len()), ("shapes-flant5", 2, 3));
    let dense = study.point("dense").next().expect("the dense point");
    let shared = |node: &ressa_experiment::StageNode| dense.stages.iter().any(|other| other.key == node.key);
    assert!(shared(&gate.evaluate[0]), "the gate's VQAv2 evaluation is the one of the dense run");
    assert!(matches!(*gate.evaluate[1].stage, Stage::Evaluate { items: 1000, .. }), "{:?}", gate.evaluate[1].stage);
    assert_eq!(
        keys(&study).len(),
        keys(&good(STUDY, &[])).len() + 1,
        "only GQA is new, and no key depends on the gate"
    );
    assert_eq!(good(STUDY, &[]).gates.len(), 0);
}

#[test]
fn later_files_win_and_names_are_not_inherited() {
    let folder = crate::Folder::new();
    folder.write(
        "base.yaml",
        "model.preset: shapes-flant5\nname: base\nprune: { metric: wanda, vision.sparsity: 0.5 }\n",
    );
    folder.write("more.yaml", "prune.metric: magnitude\naxes: { restore.steps: [1], restore.batch: [4, 8] }\n");
    folder.write(
        "child.yaml",
        "extends: [base.yaml, more.yaml]\naxes: { restore.steps: [1, 2, 3] }\nrestore.method: lora\n",
    );
    let child = folder.load("child.yaml", &[]).unwrap();
    assert_eq!(child.name, "child");
    assert_eq!(child.cells[0].label("prune.metric").unwrap(), "magnitude");
    assert_eq!(child.cells[0].run.prune.vision.sparsity, 0.5);
    assert_eq!(child.counts.points, 3 * 2, "axes merge by name");
}

/// Every leaf of a run's configuration is a setting, and every setting a leaf: the table cannot drift from the types.
#[test]
fn the_settings_table_covers_the_configuration() {
    fn leaves(prefix: &str, value: &serde_json::Value, into: &mut BTreeSet<String>) {
        match value {
            serde_json::Value::Object(map) if prefix != "dense.gate" && !map.is_empty() => {
                for (key, value) in map {
                    let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                    leaves(&path, value, into);
                }
            }
            _ => {
                into.insert(prefix.to_owned());
            }
        }
    }
    let yaml = "
model: { preset: shapes-flant5, checkpoint: x, compute: float32, channel-spread: 0.7, channel-seed: 1 }
dense: { steps: 1, gate: { gqa: 1 } }
data:
  root: x
  text: x
  calibration: { augment: crop, question: x }
  restoration: { augment: crop, question: x }
prune:
  allocation: { cap: 0.5, margin: 0.1, search: { levels: 2 } }
  calibration: { tokens: { select: atv } }
  vision: { calibration: { images: 1 } }
  connector: { calibration: { images: 1 }, projection: true }
  language: { calibration: { images: 1 } }
  rounding: nearest
  threshold: strict
  magnitude: { signed: true }
  sparsegpt: { block: 1, order: loss }
  alps: { steps: 1 }
  dsnot: { cycles: 1 }
restore:
  micro-batch: 1
  recompute: blocks
  align: 1
  distill: { top-k: 1, divergence: reverse, square: true, logits: 0.5, hidden: { weight: 1 }, attention: { weight: 1 }, teacher: x }
  hardness: 1
  evolve: { every: 1, drop: sensitivity, grow: random }
  perturb: { sigma: 1 }
  penalty: { weight: 1, groups: rows }
  loading: { method: dynamic, every: 1 }
  vision: { bias: all, norms: true, full: true }
  connector: { bias: all, norms: true, full: true, queries: true }
  language: { bias: all, norms: true, full: true }
evaluate:
  answer:
    { prompt: x, text: blip-question, max-new-tokens: 1, min-new-tokens: 1, length-penalty: 1, repetition-penalty: 1, repetition-over: answer }
  caption: { prompt: x, max-new-tokens: 1, min-new-tokens: 1, length-penalty: 1, repetition-penalty: 1, repetition-over: answer }
  okvqa: { lemmatizer: rules, crop: center }
  retrieval: { checkpoint: x }
  perplexity: { window: 16, windows: 1 }
  retrieved: { captions: 1, corpora: [coco], checkpoint: x, separator: x }
  perturb: { rate: 1 }
  smoothing: { method: masked, prompt: x }
refine: { method: least-squares, iterations: 1 }
structure: { score: wanda, connector: { queries: 1 } }
reconstruct: { samples: 1 }
steps: [ prune: { name: prune } ]
";
    let run: RunConfig = serde_yaml::from_str(yaml).unwrap();
    let mut found = BTreeSet::new();
    leaves("", &serde_json::to_value(&run).unwrap(), &mut found);
    // Keys are made of the earlier name.
    let found: BTreeSet<String> = found.iter().map(|path| path.replace(".qformer.", ".connector.")).collect();
    let table: BTreeSet<String> =
        ressa_experiment::settings::SETTINGS.iter().map(|setting| setting.path.to_owned()).collect();
    assert_eq!(found, table);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Points are the product of the axes; every cell is there once; canonical runs are fixed points.
    #[test]
    fn counts_are_products(
        steps in prop::collection::btree_set(1u32..50, 1..4),
        ranks in prop::collection::btree_set(1u32..16, 1..4),
        rows in 1usize..5,
        variants in 1usize..4,
        seeds in 1u64..4,
        out in 0usize..3,
    ) {
        let list = |values: &BTreeSet<u32>| values.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
        let sparsity: Vec<String> = (0..rows).map(|row| format!("0.{}", row + 1)).collect();
        let names: Vec<String> = (0..variants).map(|i| format!("v{i}: {{ restore.samples: {} }}", 100 + i)).collect();
        let excluded: BTreeSet<u32> = steps.iter().copied().take(out.min(steps.len() - 1)).collect();
        let exclude = if excluded.is_empty() { String::new() } else { format!("exclude: [{{ restore.steps: [{}] }}]", list(&excluded)) };
        let yaml = format!(
            "model.preset: shapes-vicuna\nprune.metric: wanda\nrestore.method: sparse-lora\nreplicate.seed: 0..{}\n\
             axes: {{ restore.steps: [{}], restore.language.rank: [{}] }}\n\
             zip: {{ s: {{ prune.vision.sparsity: [{}] }} }}\nvariants: {{ v: {{ {} }} }}\n{exclude}\n",
            seeds - 1, list(&steps), list(&ranks), sparsity.join(", "), names.join(", "),
        );
        let experiment = good(&yaml, &[]);
        let points = steps.len() * ranks.len() * rows * variants;
        let left = (steps.len() - excluded.len()) * ranks.len() * rows * variants * seeds as usize;
        prop_assert_eq!(experiment.counts.points, points);
        prop_assert_eq!(experiment.counts.cells, left);
        prop_assert_eq!(experiment.counts.runs, left, "every setting on these axes is seen");
        let distinct: BTreeSet<String> =
            experiment.cells.iter().map(|cell| format!("{:?} {}", cell.coordinates, cell.seed)).collect();
        prop_assert_eq!(distinct.len(), left);
        for cell in &experiment.cells {
            prop_assert_eq!(&canonical(&cell.run), &*cell.run);
            let upstream: BTreeSet<StageKey> = cell.stages.iter().map(|node| node.key).collect();
            prop_assert!(cell.stages.iter().all(|node| node.inputs.iter().all(|key| upstream.contains(key))));
        }
        // A plan lists every stage after what it reads.
        let mut seen = BTreeSet::new();
        for node in experiment.stages() {
            prop_assert!(node.inputs.iter().all(|key| seen.contains(key)));
            seen.insert(node.key);
        }
    }

    /// No text makes the loader panic.
    #[test]
    fn any_text_is_an_answer(text in "[a-z0-9:{}\\[\\],.&*!|>\"' \\n-]{0,200}") {
        let _ = load(&text, &[]);
        let _ = load("model.preset: shapes-flant5\naxes: { restore.steps: [1, 2] }\n", &[&text]);
    }
}
