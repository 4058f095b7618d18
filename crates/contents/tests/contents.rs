//! Every kind of file that a stage reads, edited one by one: exactly the stages that read it get other keys.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use ressa_checkpoint::Written;
use ressa_contents::{ContentError, Contents};
use ressa_experiment::{Experiment, StageNode};
use ressa_store::Store;
use tempfile::TempDir;

const STUDY: &str = r#"
name: mine
replicate: { seed: [0] }
model: { checkpoint: MODEL }
data:
  source: folder
  root: DATA
  calibration: { corpora: [cc3m], form: prefix }
  restoration: { corpora: [coco], form: instruct }
prune:
  metric: wanda
  vision: { sparsity: 0.5 }
  calibration: { images: 2, questions: 0, captions: 1, propagate: pruned }
restore: { method: sparse-lora, steps: 2, batch: 1, samples: 2, questions: 0, contrastive: 0 }
evaluate:
  tasks: [gqa, flickr30k, nocaps]
  questions: 1
  images: 1
  retrieval: { checkpoint: MATCHER }
"#;

struct World {
    folder: TempDir,
    store: Store,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().join("results/store"), Vec::new()).unwrap();
        let world = Self { folder, store };
        for model in ["model", "matcher"] {
            for name in [
                "config.json",
                "generation_config.json",
                "preprocessor_config.json",
                "processor_config.json",
                "tokenizer.json",
                "tokenizer_config.json",
                "special_tokens_map.json",
                "added_tokens.json",
                "qformer_tokenizer/tokenizer.json",
                "README.md",
            ] {
                world.write(&format!("{model}/{name}"), "{}");
            }
            world.weights(model, 0.0);
        }
        let one = |image: &str| {
            format!(r#"[{{"image": "{image}", "caption": "a red cat"}}, {{"image": "b.jpg", "caption": "two dogs"}}]"#)
        };
        world.write("data/conceptual_caption/annotations/cc3m.json", &one("a.jpg"));
        world.write("data/coco/annotations/coco_karpathy_train.json", &one("a.jpg"));
        let gqa = r#"[{"question_id": 1, "image": "a.jpg", "question": "?", "answer": "no"},
                      {"question_id": 2, "image": "b.jpg", "question": "?", "answer": "no"}]"#;
        world.write("data/gqa/annotations/testdev_balanced_questions.json", gqa);
        world.write(
            "data/flickr30k/annotations/test.json",
            r#"[{"image": "flickr30k-images/a.jpg", "caption": ["a cat"]}]"#,
        );
        world.write("data/nocaps/annotations/nocaps_val.json", r#"[{"img_id": 0, "image": "val/a.jpg"}]"#);
        let references =
            r#"{"images": [{"id": 0, "domain": "in-domain"}], "annotations": [{"image_id": 0, "caption": "a cat"}]}"#;
        world.write("data/nocaps/annotations/nocaps_val_4500_captions.json", references);
        for image in [
            "conceptual_caption/images/a.jpg",
            "conceptual_caption/images/b.jpg",
            "coco/images/a.jpg",
            "coco/images/b.jpg",
            "gqa/images/a.jpg",
            "gqa/images/b.jpg",
            "flickr30k/images/flickr30k-images/a.jpg",
            "nocaps/images/val/a.jpg",
        ] {
            world.write(&format!("data/{image}"), image);
        }
        world.study("model", "matcher", "data");
        world
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), text).unwrap();
    }

    fn weights(&self, model: &str, last: f32) {
        let mut values = [1.0; 400];
        values[399] = last;
        let tensor = Written::floats(vec![400], &values);
        let path = self.path(&format!("{model}/model.safetensors"));
        ressa_checkpoint::write(&path, [("a", &tensor)], ("format", "pt")).unwrap();
    }

    fn study(&self, model: &str, matcher: &str, data: &str) {
        let text = STUDY.replace("MODEL", model).replace("MATCHER", matcher).replace("DATA", data);
        self.write("experiments/mine.yaml", &text);
    }

    /// Stages by kind and, for evaluations, task.
    fn nodes(&self) -> BTreeMap<String, StageNode> {
        let folder = self.path("experiments");
        let mut experiment = Experiment::load(&folder.join("mine.yaml"), &folder, &[]).unwrap();
        let contents = Contents::new(&self.store, self.folder.path());
        experiment.mark_contents(&mut |stage| contents.readings(stage));
        contents.into_findings().remember();
        let name = |node: &StageNode| match &*node.stage {
            ressa_experiment::Stage::Evaluate { task, .. } => task.name().to_owned(),
            stage => stage.kind().to_owned(),
        };
        experiment.cells[0].stages.iter().map(|node| (name(node), StageNode::clone(node))).collect()
    }

    /// What has another key than before.
    fn moved(&self, before: &BTreeMap<String, StageNode>) -> BTreeSet<String> {
        let now = self.nodes();
        now.iter().filter(|(name, node)| before[*name].key != node.key).map(|(name, _)| name.clone()).collect()
    }
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

const ALL: [&str; 7] = ["dense", "prune", "adapt", "merge", "gqa", "flickr30k", "nocaps"];

#[test]
fn each_edit_moves_exactly_the_stages_that_read_the_file() {
    let world = World::new();
    let before = world.nodes();
    assert_eq!(before.keys().cloned().collect::<BTreeSet<_>>(), set(&ALL));
    let after_prune = &ALL[1..];
    let after_adapt = &ALL[2..];
    let cases: Vec<(&str, &[&str])> = vec![
        ("model/config.json", &ALL),
        ("model/generation_config.json", &ALL),
        ("model/preprocessor_config.json", &ALL),
        ("model/processor_config.json", &ALL),
        ("model/tokenizer.json", &ALL),
        ("model/tokenizer_config.json", &ALL),
        ("model/special_tokens_map.json", &ALL),
        ("model/added_tokens.json", &ALL),
        ("model/qformer_tokenizer/tokenizer.json", &ALL),
        ("model/README.md", &[]),
        ("matcher/tokenizer.json", &["flickr30k"]),
        ("matcher/preprocessor_config.json", &["flickr30k"]),
        ("data/conceptual_caption/annotations/cc3m.json", after_prune),
        ("data/conceptual_caption/images/a.jpg", after_prune),
        ("data/coco/annotations/coco_karpathy_train.json", after_adapt),
        ("data/coco/images/b.jpg", after_adapt),
        ("data/gqa/annotations/testdev_balanced_questions.json", &["gqa"]),
        ("data/gqa/images/a.jpg", &["gqa"]),
        // Of the second question only the first is asked: its image is not opened.
        ("data/gqa/images/b.jpg", &[]),
        ("data/flickr30k/annotations/test.json", &["flickr30k"]),
        ("data/flickr30k/images/flickr30k-images/a.jpg", &["flickr30k"]),
        ("data/nocaps/annotations/nocaps_val.json", &["nocaps"]),
        ("data/nocaps/annotations/nocaps_val_4500_captions.json", &["nocaps"]),
        ("data/nocaps/images/val/a.jpg", &["nocaps"]),
    ];
    for (file, expected) in cases {
        let text = fs::read_to_string(world.path(file)).unwrap();
        // Of the same size, for whoever looks at no more: blanks are nothing to JSON and everything to a digest.
        let edited = if text.starts_with(['{', '[']) { text.replacen([':', '}'], " ", 1) } else { text.to_uppercase() };
        let edited = if file.starts_with("data") && text.starts_with(['{', '[']) { format!("{text} ") } else { edited };
        world.write(file, &edited);
        assert_eq!(world.moved(&before), set(expected), "{file}");
        world.write(file, &text);
        assert_eq!(world.moved(&before), set(&[]), "{file}, put back");
    }
    world.weights("model", 2.0);
    assert_eq!(world.moved(&before), set(&ALL), "the last weight of a tensor");
    world.weights("model", 0.0);
    world.weights("matcher", 2.0);
    assert_eq!(world.moved(&before), set(&["flickr30k"]), "the last weight of the matching model");
}

#[test]
fn a_folder_that_moved_is_the_same() {
    let world = World::new();
    let before = world.nodes();
    for folder in ["model", "matcher", "data"] {
        fs::rename(world.path(folder), world.path(&format!("moved-{folder}"))).unwrap();
    }
    world.study("moved-model", "moved-matcher/", "moved-data//");
    assert_eq!(world.moved(&before), set(&[]), "renamed, and written with a slash at the end");
    std::os::unix::fs::symlink(world.path("moved-data"), world.path("linked")).unwrap();
    world.study(&world.path("moved-model").display().to_string(), "./moved-matcher", "linked");
    assert_eq!(world.moved(&before), set(&[]), "absolute, and through a link");
    fs::write(world.path("moved-model/config.json"), "{}").unwrap();
    assert_eq!(world.moved(&before), set(&[]), "touched without a change");
}

#[test]
fn results_outlive_what_they_were_made_from() {
    let world = World::new();
    let before = world.nodes();
    for folder in ["model", "matcher", "data"] {
        fs::remove_dir_all(world.path(folder)).unwrap();
    }
    assert_eq!(world.moved(&before), set(&[]));
}

/// What is gone says nothing about what is still there: old scores of edited annotations must not stand as those of today.
#[test]
fn a_part_that_changed_is_not_excused_by_another_that_is_gone() {
    let questions = "data/gqa/annotations/testdev_balanced_questions.json";
    let world = World::new();
    let before = world.nodes();
    fs::remove_file(world.path("data/gqa/images/a.jpg")).unwrap();
    assert_eq!(world.moved(&before), set(&[]), "what is there is what it was");
    let text = fs::read_to_string(world.path(questions)).unwrap();
    world.write(questions, &text.replace("no", "yes"));
    assert_eq!(world.moved(&before), set(&["gqa"]), "corrected answers, and an image that is away");
    world.write(questions, &text);
    assert_eq!(world.moved(&before), set(&[]), "the answers are what they were");
    fs::remove_dir_all(world.path("data/gqa")).unwrap();
    assert_eq!(world.moved(&before), set(&[]), "deleted as a whole");
}

#[test]
fn what_changes_after_planning_is_found_before_anything_is_made_of_it() {
    let world = World::new();
    let nodes = world.nodes();
    let contents = || Contents::new(&world.store, world.folder.path());
    for node in nodes.values() {
        contents().check(node).unwrap();
        contents().check_model(&node.readings).unwrap();
    }
    let fails = |name: &str| {
        matches!(contents().check(&nodes[name]), Err(ContentError::Changed { .. } | ContentError::Gone { .. }))
    };
    world.write("data/gqa/images/a.jpg", "another");
    assert!(fails("gqa") && !fails("nocaps") && !fails("prune"));
    world.weights("model", 3.0);
    assert!(nodes.keys().all(|name| fails(name)), "every stage reads the dense model");
    let message = contents().check(&nodes["prune"]).unwrap_err().to_string();
    assert_eq!(
        message,
        "`model` changed since this sweep was planned; run the sweep again, it plans with what is there now"
    );
    fs::remove_file(world.path("model/config.json")).unwrap();
    let message = contents().check(&nodes["merge"]).unwrap_err().to_string();
    assert!(message.contains("config.json") && message.contains("is not there any more"), "{message}");
}

#[test]
fn the_second_look_reads_nothing() {
    let world = World::new();
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
    let is_old = |path: &Path| fs::File::options().append(true).open(path).unwrap().set_modified(old).unwrap();
    is_old(&world.path("model/model.safetensors"));
    // The time of change cannot be put back; what was touched within two seconds is read again.
    std::thread::sleep(std::time::Duration::from_millis(2100));
    world.nodes();
    let contents = Contents::new(&world.store, world.folder.path());
    for node in world.nodes().values() {
        contents.check(node).unwrap();
    }
    assert_eq!(contents.bytes_read(), 0);
    let other = Store::open(world.store.root(), Vec::new()).unwrap();
    let contents = Contents::new(&other, world.folder.path());
    world.nodes().values().for_each(|node| contents.check(node).unwrap());
    assert_eq!(contents.bytes_read(), 0, "another process remembers as well");
}

/// What is there and wrong is not what was there before: its results are not current. A pipe would be read for ever.
#[test]
fn what_is_there_and_cannot_be_used_is_no_absence() {
    let world = World::new();
    let before = world.nodes();
    let image = world.path("data/gqa/images/a.jpg");
    fs::remove_file(&image).unwrap();
    let made = std::process::Command::new("mkfifo").arg(&image).status().unwrap();
    assert!(made.success());
    assert_eq!(world.moved(&before), set(&["gqa"]));
    let header = fs::read(world.path("matcher/model.safetensors")).unwrap();
    fs::write(world.path("matcher/model.safetensors"), &header[..20]).unwrap();
    assert_eq!(world.moved(&before), set(&["gqa", "flickr30k"]), "weights that were cut off");
}

/// A removal draws the images that a pruning of as many and the same seed draws: neither may hide them from the other.
#[test]
fn images_of_a_removal_are_read_whoever_is_asked_first() {
    let world = World::new();
    let removal = "structure: { score: gradient, language.channels: 0.5, calibration: { images: 2, questions: 0, captions: 1 } }\n\
                   steps: [structure, prune, restore]\n";
    let text = STUDY.replace("MODEL", "model").replace("MATCHER", "matcher").replace("DATA", "data");
    world.write("experiments/mine.yaml", &format!("{text}{removal}"));
    let with_removal = world.nodes();
    assert_eq!(with_removal.keys().filter(|name| *name == "structure").count(), 1);
    let image = world.path("data/conceptual_caption/images/a.jpg");
    let before = fs::read_to_string(&image).unwrap();
    fs::write(&image, before.to_uppercase()).unwrap();
    let moved = world.moved(&with_removal);
    assert!(moved.contains("structure") && moved.contains("prune") && !moved.contains("dense"), "{moved:?}");
    fs::write(&image, &before).unwrap();
    assert_eq!(world.moved(&with_removal), set(&[]), "put back");
    // What was planned behind a removal is remembered for the pruning alone.
    world.study("model", "matcher", "data");
    let plain = world.nodes();
    fs::write(&image, before.to_uppercase()).unwrap();
    assert_eq!(world.moved(&plain), set(&ALL[1..]));
}

/// Captions to retrieve from decide about every task that is asked behind them; their images are not opened.
#[test]
fn a_pool_of_captions_is_read_by_the_evaluations_that_retrieve_from_it() {
    let world = World::new();
    world.write("data/vg/annotations/vg_caption.json", r#"[{"image": "a.jpg", "caption": "a red cat"}]"#);
    world.write("data/vg/images/VG_100K/a.jpg", "a");
    let plain = world.nodes();
    let study = fs::read_to_string(world.path("experiments/mine.yaml")).unwrap();
    let retrieved = "  retrieved: { captions: 1, pool: 2, corpora: [vg], checkpoint: matcher }\n";
    world.write("experiments/mine.yaml", &format!("{study}{retrieved}"));
    assert_eq!(world.moved(&plain), set(&["gqa", "nocaps"]));
    let before = world.nodes();
    for (file, moved) in [
        ("data/vg/annotations/vg_caption.json", &["gqa", "nocaps"][..]),
        ("data/vg/images/VG_100K/a.jpg", &[]),
        ("data/gqa/annotations/testdev_balanced_questions.json", &["gqa"]),
        ("matcher/tokenizer.json", &["gqa", "nocaps", "flickr30k"]),
    ] {
        let old = fs::read_to_string(world.path(file)).unwrap();
        world.write(file, &format!("{old} "));
        assert_eq!(world.moved(&before), set(moved), "{file}");
        world.write(file, &old);
        assert_eq!(world.moved(&before), set(&[]), "{file} as it was");
    }
}
