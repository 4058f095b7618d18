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
    };
    benchmark.items().iter().map(|i| format!("{} #{} {}\n", i.id, i.image, line(&i.content))).collect()
}

#[test]
fn items_are_always_the_same() {
    let show = |task, items| show(&Benchmark::load(&DataConfig::default(), task, items).expect("shapes"));
    insta::assert_snapshot!(show(Task::Vqav2, 4), @"");
    insta::assert_snapshot!(show(Task::Gqa, 4), @"");
    insta::assert_snapshot!(show(Task::Okvqa, 4), @"");
    insta::assert_snapshot!(show(Task::Nocaps, 2), @"");
    insta::assert_snapshot!(show(Task::Flickr30k, 2), @"");
}

#[test]
fn missing_published_files_are_named() {
    let root = tempfile::tempdir().expect("a temporary folder");
    let load = |task| {
        let config = DataConfig { source: DataSource::Folder, root: Some(root.path().to_owned()), ..DataConfig::default() };
        let error = Benchmark::load(&config, task, 10).expect_err("nothing there").to_string();
        error.replace(&root.path().display().to_string(), "ROOT")
    };
    std::fs::create_dir_all(root.path().join("gqa/images")).expect("created");
    insta::assert_snapshot!(load(Task::Gqa), @"");
    insta::assert_snapshot!(load(Task::Vqav2), @"");
    let nowhere = DataConfig { source: DataSource::Folder, ..DataConfig::default() };
    insta::assert_snapshot!(Benchmark::load(&nowhere, Task::Gqa, 10).expect_err("no root"), @"");
}
