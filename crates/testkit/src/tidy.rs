//! Rules about the source tree that no compiler knows.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Most lines of a source file.
pub const FILE_CAP: usize = 800;

/// Layers of the workspace, lowest first. A crate may depend on crates of lower layers of its own side and of the vocabulary's.
const LAYERS: [(&[&str], &[&str]); 7] = [
    (&["experiment", "store"], &["runtime"]),
    (&["checkpoint", "runlog"], &[]),
    (&["data", "hub", "predict"], &["models"]),
    (&["cluster", "contents"], &["prune", "restore", "eval", "pretrain"]),
    (&["sweep", "report"], &["pipeline"]),
    (&[], &["lab"]),
    (&["cli"], &["worker"]),
];

/// What only tests may depend on.
const TESTS_ONLY: &str = "testkit";

/// Dependencies that bring libtorch.
const LIBTORCH: [&str; 2] = ["tch", "torch-sys"];

/// A workspace to look at.
#[derive(Debug)]
pub struct Workspace {
    root: PathBuf,
}

/// A crate's dependencies by the section that names them.
#[derive(Debug, Default)]
struct Dependencies {
    normal: BTreeSet<String>,
    tests: BTreeSet<String>,
}

impl Workspace {
    /// The workspace whose `crates` folder holds the crate with this manifest folder.
    pub fn of(manifest_dir: &str) -> Self {
        let root = Path::new(manifest_dir).ancestors().nth(2).unwrap_or(Path::new("."));
        Self { root: root.to_owned() }
    }

    /// Everything that is against the rules, one line each; empty when all is well.
    pub fn violations(&self) -> Vec<String> {
        let mut found = Vec::new();
        for path in self.sources() {
            let text = fs::read_to_string(&path).unwrap_or_default();
            let shown = path.strip_prefix(&self.root).unwrap_or(&path).display().to_string();
            found.extend(source_violations(&shown, &text));
        }
        found.extend(arrow_violations(&self.dependencies()));
        found
    }

    fn sources(&self) -> Vec<PathBuf> {
        let files =
            walkdir::WalkDir::new(self.root.join("crates")).sort_by_file_name().into_iter().filter_map(Result::ok);
        files.map(walkdir::DirEntry::into_path).filter(|path| path.extension().is_some_and(|e| e == "rs")).collect()
    }

    fn dependencies(&self) -> BTreeMap<String, Dependencies> {
        let mut all = BTreeMap::new();
        for entry in fs::read_dir(self.root.join("crates")).into_iter().flatten().filter_map(Result::ok) {
            if let Ok(manifest) = fs::read_to_string(entry.path().join("Cargo.toml")) {
                all.insert(entry.file_name().to_string_lossy().into_owned(), dependencies(&manifest));
            }
        }
        all
    }
}

/// Reads the dependency sections of a manifest of this workspace, where every dependency is one line `name.workspace = true` or
/// `name = ...`.
fn dependencies(manifest: &str) -> Dependencies {
    let mut found = Dependencies::default();
    let mut section = "";
    for line in manifest.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']');
            continue;
        }
        let name = line.split(['.', '=', ' ']).next().unwrap_or_default();
        if name.is_empty() || name.starts_with('#') {
            continue;
        }
        match section {
            "dependencies" | "build-dependencies" => found.normal.insert(name.to_owned()),
            "dev-dependencies" => found.tests.insert(name.to_owned()),
            _ => continue,
        };
    }
    found
}

/// Rules about one source file.
fn source_violations(shown: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let lines = text.lines().count();
    if lines > FILE_CAP {
        found.push(format!("{shown}: {lines} lines, the cap is {FILE_CAP}; split it by idea"));
    }
    if !text.starts_with("//!") {
        found.push(format!("{shown}: begins without a module doc (`//!`)"));
    }
    // Spelt in two halves, so that this file keeps its own rules.
    let unfinished = [concat!("todo", "!("), concat!("unimplemented", "!("), concat!("dbg", "!(")];
    let places = [
        concat!("/", "home/"),
        concat!("/", "root/"),
        concat!("/", "work/"),
        concat!("/", "farm/"),
        concat!("/", "Users/"),
    ];
    let prints = [concat!("println", "!("), concat!("print", "!("), concat!("eprintln", "!("), concat!("eprint", "!(")];
    // Build scripts talk to cargo, binaries and examples to people, tests to whoever runs them.
    let may_print = ["build.rs", "/tests/", "/examples/", "/benches/", "crates/cli/", "crates/worker/"];
    let library = !may_print.iter().any(|place| shown.contains(place));
    for (number, line) in text.lines().enumerate() {
        let at = number + 1;
        let code = line.split("//").next().unwrap_or_default();
        for word in unfinished {
            if code.contains(word) {
                found.push(format!("{shown}:{at}: `{word}...)` is not finished work"));
            }
        }
        for place in places {
            if line.contains(place) {
                found.push(format!("{shown}:{at}: `{place}` is a path of one machine"));
            }
        }
        if library && prints.iter().any(|print| code.contains(print)) {
            found.push(format!("{shown}:{at}: a library does not print"));
        }
    }
    found
}

/// Rules about who depends on whom.
fn arrow_violations(all: &BTreeMap<String, Dependencies>) -> Vec<String> {
    let layer = |name: &str| LAYERS.iter().position(|(free, torch)| free.contains(&name) || torch.contains(&name));
    let free = |name: &str| LAYERS.iter().any(|(free, _)| free.contains(&name));
    let mut found = Vec::new();
    for (name, dependencies) in all {
        let inside = |set: &BTreeSet<String>| -> Vec<String> {
            set.iter().filter_map(|d| d.strip_prefix("ressa-")).map(str::to_owned).collect()
        };
        if name == TESTS_ONLY {
            let allowed = |d: &String| d == "runtime" || d == "experiment";
            found.extend(
                inside(&dependencies.normal)
                    .iter()
                    .filter(|d| !allowed(d))
                    .map(|d| format!("testkit depends on {d}; tests of {d} could not use it")),
            );
            continue;
        }
        let Some(mine) = layer(name) else {
            found.push(format!("crate {name} has no layer; give it one in the tidy rules and in ARCHITECTURE.md"));
            continue;
        };
        for other in inside(&dependencies.normal) {
            match layer(&other) {
                _ if other == TESTS_ONLY => found.push(format!("{name} depends on {TESTS_ONLY} outside its tests")),
                Some(theirs) if theirs >= mine => {
                    found.push(format!("{name} depends on {other}, which is not below it"))
                }
                Some(_) if free(name) && !free(&other) => {
                    found.push(format!("{name} depends on {other}, which brings libtorch"))
                }
                Some(_) => {}
                None => found.push(format!("{name} depends on {other}, which has no layer")),
            }
        }
        if free(name) {
            for torch in
                LIBTORCH.iter().filter(|t| dependencies.normal.contains(**t) || dependencies.tests.contains(**t))
            {
                found.push(format!("{name} depends on {torch}; its side is free of libtorch"));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(manifests: &[(&str, &str)]) -> BTreeMap<String, Dependencies> {
        manifests.iter().map(|(name, text)| ((*name).to_owned(), dependencies(text))).collect()
    }

    #[test]
    fn every_rule_about_sources_can_be_broken() {
        let long = "//! Doc.\n".repeat(FILE_CAP + 1);
        assert_eq!(source_violations("crates/data/src/a.rs", &long).len(), 1);
        let cases = [
            "fn f() {}",
            &format!("//! D\nfn f() {{ {}) }}", concat!("todo", "!(")),
            &format!("//! D\nconst P: &str = \"{}x\";", concat!("/", "home/")),
        ];
        for case in cases {
            assert_eq!(source_violations("crates/data/src/a.rs", case).len(), 1, "{case}");
        }
        let prints = format!("//! D\nfn f() {{ {}\"x\") }}", concat!("println", "!("));
        assert_eq!(source_violations("crates/data/src/a.rs", &prints).len(), 1);
        assert_eq!(source_violations("crates/cli/src/a.rs", &prints).len(), 0);
    }

    #[test]
    fn every_rule_about_arrows_can_be_broken() {
        let broken = [
            ("prune", "[dependencies]\nressa-restore.workspace = true"),
            ("cli", "[dependencies]\nressa-models = { path = \"../models\" }"),
            ("report", "[dev-dependencies]\ntch.workspace = true"),
            ("eval", "[dependencies]\nressa-testkit.workspace = true"),
            ("models", "[dependencies]\nressa-pipeline.workspace = true"),
            ("extra", "[dependencies]"),
        ];
        for (name, manifest) in broken {
            assert_eq!(arrow_violations(&graph(&[(name, manifest)])).len(), 1, "{name}");
        }
        let fine = "[dependencies]\nressa-data.workspace = true\ntch.workspace = true\n[dev-dependencies]\nressa-testkit.workspace = true";
        assert_eq!(arrow_violations(&graph(&[("eval", fine)])), Vec::<String>::new());
    }
}
