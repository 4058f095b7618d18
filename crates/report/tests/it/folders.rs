//! Whose a results folder is, and the page that leads to all of them.

use ressa_experiment::Experiment;
use ressa_report::{Options, Rendered};
use ressa_store::Store;

use crate::{probe, world};

struct Desk {
    folder: tempfile::TempDir,
    store: Store,
}

impl Desk {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = world::store(&folder.path().join("results"));
        Self { folder, store }
    }

    fn load(&self, file: &str, overrides: &[&str]) -> Experiment {
        let root = self.folder.path().join("experiments");
        let path = root.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let yaml = probe::YAML.replacen("name: probe\n", "", 1);
        std::fs::write(&path, yaml.replace("published: [paper]", "published: []")).unwrap();
        let overrides: Vec<String> = overrides.iter().map(|text| (*text).to_owned()).collect();
        Experiment::load(&path, &root, &overrides).unwrap_or_else(|e| panic!("{e:?}"))
    }

    fn render(&self, file: &str, overrides: &[&str]) -> Rendered {
        let experiment = self.load(file, overrides);
        world::fill(&self.store, &experiment.cells, probe::score);
        let options = Options { results: self.folder.path().join("results"), published: None, strict: true };
        ressa_report::render(&experiment, &self.store, &options).unwrap()
    }

    fn index(&self) -> String {
        let path = ressa_report::render_index(&self.folder.path().join("results")).unwrap();
        std::fs::read_to_string(path).unwrap()
    }

    fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.folder.path().join("results").join(path)).unwrap()
    }
}

#[test]
fn a_selection_leaves_the_report_of_the_whole() {
    let desk = Desk::new();
    let whole = desk.render("shapes/one.yaml", &[]);
    assert_eq!((whole.name.as_str(), whole.notes.len()), ("one", 0));
    let records = desk.read("one/records.csv");
    let part = desk.render("shapes/one.yaml", &["prune.metric=wanda"]);
    assert!(part.name.starts_with("one@") && part.notes[0].contains("is the report of `shapes/one.yaml`"));
    assert_eq!(desk.read("one/records.csv"), records);
    assert!(desk.read(&format!("{}/records.csv", part.name)).len() < records.len());
    assert!(desk.read(&format!("{}/report.md", part.name)).contains("A selection, not the whole experiment"));

    let other = desk.render("mine/one.yaml", &[]);
    assert!(other.name.starts_with("one@") && other.name != part.name, "{}", other.name);
    assert_eq!(desk.render("shapes/one.yaml", &[]).notes, Vec::<String>::new());
}

/// What is on the page follows from what is in the folder, whichever command came last.
#[test]
fn the_index_has_every_report_that_is_there() {
    let desk = Desk::new();
    desk.render("shapes/one.yaml", &[]);
    desk.render("shapes/two and <a>.yaml".replace("<a>", "a").as_str(), &[]);
    let both = desk.index();
    assert_eq!(both.matches("<article id=").count(), 2);
    let verdicts = both.matches("class=\"verdict").count();
    desk.render("shapes/one.yaml", &[]);
    assert_eq!(desk.index(), both);
    assert!(both.contains("href=\"two%20and%20a/report.html\""), "paths are links");

    let old = desk.folder.path().join("results/older");
    std::fs::create_dir_all(&old).unwrap();
    std::fs::write(old.join("report.html"), "").unwrap();
    let three = desk.index();
    assert_eq!(three.matches("class=\"verdict").count(), verdicts);
    assert!(three.contains("Earlier results") && three.contains("older/report.html"));
    assert!(desk.render("shapes/older.yaml", &[]).notes[0].contains("did not record its file"));
    assert!(!desk.index().contains("Earlier results"));
}

#[test]
fn a_marker_names_no_path_of_this_machine() {
    let desk = Desk::new();
    desk.render("shapes/one.yaml", &[]);
    let outside = desk.folder.path().join("elsewhere.yaml");
    std::fs::copy(desk.folder.path().join("experiments/shapes/one.yaml"), &outside).unwrap();
    let experiment = Experiment::load(&outside, &desk.folder.path().join("experiments"), &[]).unwrap();
    let here = desk.folder.path().display().to_string();
    assert!(!desk.read("one/report.json").contains(&here));
    assert!(experiment.origin.file.starts_with("elsewhere.yaml (") && !experiment.origin.file.contains(&here));
}
