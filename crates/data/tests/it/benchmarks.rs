//! Benchmarks as text: the same items for every run.

use ressa_data::{Benchmark, Content};
use ressa_experiment::{
    Task,
    config::{DataConfig, DataSource},
};

fn show(benchmark: &Benchmark) -> String {
    let line = |content: &Content| match content {
        Content::Question { text, answers, template } => {
            format!("{text} -> {} [{}]", answers.join(" | "), template.as_deref().unwrap_or("-"))
        }
        Content::Caption { instruction, references, set } => {
            format!("{instruction} -> {} [{}]", references[..2].join(" | "), set.as_deref().unwrap_or("-"))
        }
        Content::Retrieval { caption } => caption.clone(),
        Content::Choice { .. } => panic!("no task of the paper has options"),
    };
    benchmark.items().iter().map(|i| format!("{} #{} {}\n", i.id, i.image, line(&i.content))).collect()
}

#[test]
fn items_are_always_the_same() {
    let show = |task, items| show(&Benchmark::load(&DataConfig::default(), task, items).expect("shapes"));
    insta::assert_snapshot!(show(Task::Vqav2, 4), @r"
    00000-0 #0 what shape is the cyan object -> square [shape]
    00000-1 #0 how many yellow objects are there -> 1 [count-color]
    00001-0 #1 what texture is the orange arch -> striped [texture]
    00001-1 #1 what size is the orange arch -> small [size]
    ");
    insta::assert_snapshot!(show(Task::Gqa, 4), @r"
    00000-0 #0 what color is the object right of the green triangle -> yellow [object-color]
    00000-1 #0 where is the green triangle on left or right -> center [where-column]
    00001-0 #1 what color is the object left of the pink cross -> yellow [object-color]
    00001-1 #1 is the blue bar above the pink cross -> no [relation]
    ");
    insta::assert_snapshot!(show(Task::Okvqa, 4), @r"
    00000-0 #0 who makes the yellow object -> ruxes [maker]
    00000-1 #0 where does the yellow object live -> reefs [home]
    00001-0 #1 what is the arch called -> kuno [name]
    00001-1 #1 where does the orange object live -> cliffs [home]
    ");
    insta::assert_snapshot!(show(Task::Nocaps, 2), @r"
    in-domain-00000 #0 describe the image -> a striped blue triangle | a striped blue triangle [in-domain]
    in-domain-00001 #1 describe the image -> a pink diamond and a small yellow cross and a large striped blue bar | i see a large pink diamond next to a small yellow cross next to a striped blue bar [in-domain]
    held-out-00000 #2 describe the image -> there is a large orange arch and a large orange diamond and a large striped pink circle | a large orange arch and a large orange diamond and a large striped pink circle [held-out]
    held-out-00001 #3 describe the image -> a picture with a small striped green bar and a small striped blue circle | a picture with a striped green bar and a small striped blue circle [held-out]
    ");
    insta::assert_snapshot!(show(Task::Flickr30k, 2), @r"
    00000 #0 a large striped white ring and a small red triangle and a small striped yellow cross
    00001 #1 a large striped green arch and a small cyan arch and a large striped blue circle
    ");
}

#[test]
fn missing_published_files_are_named() {
    let root = tempfile::tempdir().expect("a temporary folder");
    let load = |task| {
        let config =
            DataConfig { source: DataSource::Folder, root: Some(root.path().to_owned()), ..DataConfig::default() };
        let error = Benchmark::load(&config, task, 10).expect_err("nothing there").to_string();
        error.replace(&root.path().display().to_string(), "ROOT")
    };
    std::fs::create_dir_all(root.path().join("gqa/images")).expect("created");
    insta::assert_snapshot!(load(Task::Gqa), @"benchmark `gqa` is incomplete under `ROOT`; missing: `gqa/annotations/testdev_balanced_questions.json` (image, question and answer)");
    insta::assert_snapshot!(load(Task::Vqav2), @"benchmark `vqav2` is incomplete under `ROOT`; missing: `vqav2/annotations/vqa_val_eval.json` (image, question and id of each question), `vqav2/annotations/v2_mscoco_val2014_annotations.json` (ten answers per question), `coco/images/val2014` (COCO val2014 images)");
    let nowhere = DataConfig { source: DataSource::Folder, ..DataConfig::default() };
    insta::assert_snapshot!(Benchmark::load(&nowhere, Task::Gqa, 10).expect_err("no root"), @"`data.source: folder` needs `data.root`, the folder that holds the benchmarks");
}
