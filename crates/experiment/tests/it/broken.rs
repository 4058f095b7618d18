//! Broken experiment files: each is refused, at the right place, with advice. The snapshot is what people see.

use miette::{GraphicalReportHandler, GraphicalTheme};
use ressa_experiment::ExperimentError;

use crate::Folder;

/// A file that would load; every broken file below changes one thing about it.
const GOOD: &str = "
model.preset: shapes-flant5
replicate: { seed: 0..1 }
axes:
  prune.metric: [magnitude, wanda]
zip:
  pattern:
    prune.pattern: [unstructured, \"2:4\"]
    prune.vision.sparsity: [0.5, 0.5]
    prune.language.sparsity: [0.5, 0.5]
variants:
  restoration:
    pruned: { restore.method: none }
    ressa: { restore.method: sparse-lora }
";

pub fn render(error: &ExperimentError, folder: &Folder) -> String {
    let handler =
        GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor()).with_width(400).with_links(false);
    let mut text = String::new();
    handler.render_report(&mut text, error).expect("rendering into text");
    let real = std::fs::canonicalize(folder.0.path()).expect("the folder is there");
    let text =
        text.replace(&format!("{}/", real.display()), "").replace(&format!("{}/", folder.0.path().display()), "");
    let text =
        text.replace(&real.display().to_string(), "ROOT").replace(&folder.0.path().display().to_string(), "ROOT");
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    lines.join("\n").trim_matches('\n').to_owned()
}

/// Each case: a title and what stands in the file.
fn files() -> Vec<(&'static str, String)> {
    let with = |more: &str| format!("{GOOD}{more}");
    let instead = |old: &str, new: &str| {
        assert!(GOOD.contains(old), "{old}");
        GOOD.replace(old, new)
    };
    vec![
        ("a typo in a setting", with("prune.metrc: wanda\n")),
        (
            "a pattern without a sparsity",
            "model.preset: shapes-flant5\nprune: { metric: wanda, pattern: \"2:4\" }\nreplicate: { seed: 0..1 }\n"
                .to_owned(),
        ),
        ("a micro-batch larger than the batch", with("restore: { method: lora, batch: 16, micro-batch: 17 }\n")),
        ("a typo in a nested setting", with("restore:\n  distill: { wieght: 0.5 }\n")),
        ("underscores instead of hyphens", with("restore.learning_rate: 0.001\n")),
        ("an unknown top-level key", with("sweep: true\n")),
        ("the same key twice", with("restore.steps: 10\nrestore.steps: 20\n")),
        ("the same setting dotted and nested", with("restore.steps: 10\nrestore: { steps: 20 }\n")),
        ("text for a number", with("restore.steps: many\n")),
        ("a list for a mapping", with("restore: [1, 2]\n")),
        ("a number for a mapping", instead("{ seed: 0..1 }", "3")),
        ("sparsity in percent", instead("prune.vision.sparsity: [0.5, 0.5]", "prune.vision.sparsity: [50, 0.5]")),
        ("sparsity of 1", with("prune.connector.sparsity: 1.0\n")),
        ("a negative rank", with("restore.vision.rank: -1\n")),
        ("a fraction for a whole number", with("restore.steps: 1.5\n")),
        (
            "no token that counts",
            instead("[magnitude, wanda]", "[wanda]") + "prune.calibration.tokens: { text: 0, visual: 0 }\n",
        ),
        ("a weight above 1", with("restore.distill.weight: 1.5\n")),
        ("a temperature of 0", with("restore.distill.temperature: 0\n")),
        ("an unknown word", instead("[magnitude, wanda]", "[magnitude, wnda]")),
        ("a pattern that keeps all", instead("\"2:4\"", "\"4:4\"")),
        (
            "a sparsity that the pattern contradicts",
            instead("language.sparsity: [0.5, 0.5]", "language.sparsity: [0.5, 0.7]"),
        ),
        (
            "a table of sparsities without a table",
            instead("[unstructured, \"2:4\"]", "[unstructured, \"4:8\"]")
                .replace("restore.method: none", "prune.allocation.method: table"),
        ),
        ("a share in percent in a table", with("prune.allocation.table: { \"vision.0\": 30 }\n")),
        ("a cap below what is asked", with("prune.allocation: { method: owl, cap: 0.4 }\n")),
        (
            "a division where a whole tower is compared",
            with("prune.allocation.method: ecoflap\nprune.vision.group: tower\n"),
        ),
        ("no tower to train", with("restore: { vision.tune: false, connector.tune: false, language.tune: false }\n")),
        (
            "masks that change under a dense update",
            instead("restore.method: sparse-lora", "restore: { method: lora-remasked, evolve.every: 5 }"),
        ),
        (
            "masks that change where weights scale",
            instead("restore.method: sparse-lora", "restore: { method: scale-lora, evolve.every: 5 }"),
        ),
        (
            "masks that change where nothing trains under them",
            instead(
                "restore.method: sparse-lora",
                "restore: { method: sparse-lora, evolve.every: 5, vision: { rank: 0, norms: true }, language.tune: false }",
            ),
        ),
        (
            "masks that never change",
            instead("restore.method: sparse-lora", "restore: { method: sparse-lora, steps: 40, evolve.every: 30 }"),
        ),
        (
            "weights of domains that never change",
            instead(
                "restore.method: sparse-lora",
                "restore: { method: sparse-lora, steps: 60, align: 55, loading: { method: dynamic, every: 10 } }",
            ),
        ),
        (
            "weights of kinds of questions without questions",
            instead(
                "restore.method: sparse-lora",
                "restore: { method: sparse-lora, questions: 0, loading.method: dynamic }",
            ),
        ),
        (
            "noise on weights that scale",
            instead("restore.method: sparse-lora", "restore: { method: spp, perturb.sigma: 0.03 }"),
        ),
        (
            "a penalty on groups where products train",
            instead("restore.method: sparse-lora", "restore: { method: sparse-lora, penalty.weight: 0.01 }"),
        ),
        (
            "a penalty on heads of which a part trains",
            instead(
                "restore.method: sparse-lora",
                "restore: { method: sparse-lora, penalty.weight: 0.01, vision: { full: true, targets: [qkv] } }",
            ),
        ),
        ("no task", with("evaluate.tasks: []\n")),
        ("a task twice", with("evaluate.tasks: [gqa, vqav2, gqa]\n")),
        ("no question", with("evaluate.questions: 0\n")),
        ("a gate on something that is no score", with("dense.gate: { gqa/where-rows: 60 }\n")),
        ("no model", instead("model.preset: shapes-flant5", "")),
        ("two models", with("model.checkpoint: somewhere\n")),
        ("an axis without values", instead("[magnitude, wanda]", "[]")),
        ("an axis that is no list", instead("[magnitude, wanda]", "wanda")),
        ("a value twice on an axis", instead("[magnitude, wanda]", "[wanda, wanda]")),
        ("an axis over a group of settings", instead("  prune.metric:", "  prune.vision:")),
        ("the seed as an axis", instead("  prune.metric: [magnitude, wanda]", "  seed: [0, 1]")),
        ("the gate as an axis", instead("  prune.metric: [magnitude, wanda]", "  dense.gate: [{ gqa: 50 }]")),
        ("columns of unequal length", instead("prune.vision.sparsity: [0.5, 0.5]", "prune.vision.sparsity: [0.5]")),
        ("rows that cannot be told apart", instead("[unstructured, \"2:4\"]", "[\"2:4\", \"2:4\"]")),
        ("two axes that set the same", instead("zip:\n", "zip:\n  other: { prune.pattern: [\"4:8\", \"2:4\"] }\n")),
        (
            "variants without variants",
            instead("    pruned: { restore.method: none }\n    ressa: { restore.method: sparse-lora }\n", "    {}\n"),
        ),
        ("an axis with the name of a setting", with("").replace("  restoration:\n", "  restore:\n")),
        ("a range that runs backwards", instead("0..1", "2..0")),
        ("a seed twice", instead("{ seed: 0..1 }", "{ seed: [1, 1] }")),
        ("an exclude with an unknown label", with("exclude: [{ prune.metric: magnitdue }]\n")),
        ("an exclude that matches nothing", with("exclude: [{ prune.metric: wanda, restore.steps: 7 }]\n")),
        ("an exclude of everything", with("exclude: [{ prune.metric: [magnitude, wanda] }]\n")),
        ("an include without a name", with("include: [{ prune.metric: none }]\n")),
        ("an include on an unknown axis", with("include: [{ name: dense, patern: dense }]\n")),
        ("nothing varies", "model.preset: shapes-flant5\nprune.metric: wanda\n".to_owned()),
        ("too many cells", instead("0..1", "0..99999")),
        (
            "a table over an unknown axis",
            with("report: { tables: [{ id: t, rows: [restoraton], columns: pattern, values: [average] }] }\n"),
        ),
        (
            "a table of an unknown value",
            with("report: { tables: [{ id: t, rows: [restoration], columns: pattern, values: [avarage] }] }\n"),
        ),
        (
            "a table without rows",
            with("report:\n  tables:\n    - id: t\n      columns: pattern\n      values: [average]\n"),
        ),
        (
            "a table with two values and an axis",
            with("report: { tables: [{ id: t, rows: [restoration], columns: pattern, values: [gqa, vqav2] }] }\n"),
        ),
        (
            "a value that is not measured",
            with("evaluate.tasks: [gqa]\nreport: { figures: [{ id: f, kind: bars, x: pattern, y: vqa-mean }] }\n"),
        ),
        ("a figure of an unknown kind", with("report: { figures: [{ id: f, kind: pie, x: pattern, y: average }] }\n")),
        (
            "a figure of losses over an axis",
            with("report: { figures: [{ id: f, kind: losses, x: pattern, series: restoration }] }\n"),
        ),
        ("a figure of a loss that is not there", with("report: { figures: [{ id: f, kind: losses, y: distil }] }\n")),
        (
            "a label that does not exist",
            with("report: { figures: [{ id: f, kind: bars, x: pattern, y: average, where: { pattern: \"2:5\" } }] }\n"),
        ),
        (
            "a baseline that does not exist",
            with("report: { figures: [{ id: f, kind: bars, x: pattern, y: average, baseline: dense }] }\n"),
        ),
        (
            "the same id twice",
            with(
                "report:\n  tables:\n    - { id: t, rows: [restoration], columns: pattern, values: [gqa] }\n    - { id: t, rows: [restoration], columns: pattern, values: [gqa] }\n",
            ),
        ),
        (
            "an id that is no file name",
            with("report: { figures: [{ id: ../f, kind: bars, x: pattern, y: average }] }\n"),
        ),
        ("a claim without a test", with("claims: [{ id: c, text: something }]\n")),
        (
            "a peak at an unknown label",
            with("claims: [{ id: c, text: t, peak: { x: pattern, at: \"9:9\", tolerance: 1, metric: gqa } }]\n"),
        ),
        ("a name that is no folder", with("name: My Experiment\n")),
        ("not YAML", with("report: { tables: [\n")),
        ("tabs", with("report:\n\ttables: []\n")),
        ("an alias", with("prune: &p { metric: wanda }\nrestore: *p\n")),
        ("two documents", with("---\nseed: 1\n")),
        ("an empty file", String::new()),
        ("a list as a file", "- a\n- b\n".to_owned()),
        ("deep nesting", format!("{GOOD}description: {}{}\n", "[".repeat(60), "]".repeat(60))),
    ]
}

#[test]
fn broken_files_are_pointed_at() {
    assert!(crate::load(GOOD, &[]).is_ok(), "the good file is good");
    let mut shown = String::new();
    for (title, yaml) in files() {
        let folder = Folder::new();
        folder.write("broken.yaml", &yaml);
        let error = folder.load("broken.yaml", &[]).err().unwrap_or_else(|| panic!("{title}: loaded"));
        assert!(error.position().is_some(), "{title}: points nowhere");
        shown += &format!("### {title}\n{}\n\n", render(&error, &folder));
    }
    insta::assert_snapshot!("broken_files", shown);
}

#[test]
fn broken_relations_between_files_are_pointed_at() {
    let mut shown = String::new();
    let mut show = |title: &str, folder: &Folder, name: &str| {
        let error = folder.load(name, &[]).err().unwrap_or_else(|| panic!("{title}: loaded"));
        shown += &format!("### {title}\n{}\n\n", render(&error, folder));
    };
    let folder = Folder::new();
    folder.write("a.yaml", format!("extends: b.yaml\n{GOOD}"));
    folder.write("b.yaml", "extends: sub/c.yaml\n");
    folder.write("sub/c.yaml", "extends: ../a.yaml\n");
    show("a circle", &folder, "a.yaml");
    folder.write("self.yaml", "extends: self.yaml\n");
    show("a file that extends itself", &folder, "self.yaml");
    folder.write("up.yaml", format!("extends: ../../etc/passwd\n{GOOD}"));
    show("a path that leaves the folder", &folder, "up.yaml");
    folder.write("absolute.yaml", format!("extends: /etc/passwd\n{GOOD}"));
    show("an absolute path", &folder, "absolute.yaml");
    folder.write("base/shapes.yaml", "prune.metric: wanda\n");
    folder.write("missing.yaml", format!("extends: base/shape.yaml\n{GOOD}"));
    show("a base that does not exist", &folder, "missing.yaml");
    folder.write("number.yaml", format!("extends: 3\n{GOOD}"));
    show("a base that is no path", &folder, "number.yaml");
    folder.write("wrong-base.yaml", "extends: base/wrong.yaml\n".to_owned() + GOOD);
    folder.write("base/wrong.yaml", "restore:\n  steps: -3\n");
    show("a mistake in a base", &folder, "wrong-base.yaml");
    folder.write("latin.yaml", b"description: caf\xe9\n");
    show("not UTF-8", &folder, "latin.yaml");
    folder.write("long.yaml", format!("# {}\n{GOOD}", "x".repeat(10 << 20)));
    show("ten megabytes", &folder, "long.yaml");
    show("a folder", &folder, "base");
    show("no file", &folder, "laten.yaml");
    for i in 0..20 {
        folder.write(&format!("chain{i}.yaml"), format!("extends: chain{}.yaml\n", i + 1));
    }
    folder.write("chain20.yaml", "seed: 1\n");
    show("a chain of twenty files", &folder, "chain0.yaml");
    insta::assert_snapshot!("broken_relations", shown);
}

#[test]
fn broken_overrides_are_pointed_at() {
    let mut shown = String::new();
    for arguments in [
        &["prune.metrc=wanda"][..],
        &["prune.metric"],
        &["prune.metric="],
        &["prune.metric=wanda,wnda"],
        &["prune.metric=wanda", "prune.metric=random"],
        &["restore.method=lora"],
        &["restoration=resa"],
        &["prune.pattern=2:4"],
        &["replicate.seed=4..0"],
        &["replicate.seed=0,0"],
        &["seed=3"],
        &["report=none"],
        &["restore.steps=1,two"],
    ] {
        let folder = Folder::new();
        folder.write("good.yaml", GOOD);
        let error = folder.load("good.yaml", arguments).err().unwrap_or_else(|| panic!("{arguments:?}: loaded"));
        assert_eq!(error.position().map(|position| position.file).as_deref(), Some("command line"), "{arguments:?}");
        shown += &format!("### {}\n{}\n\n", arguments.join(" "), render(&error, &folder));
    }
    insta::assert_snapshot!("broken_overrides", shown);
}
