//! The benchmarks of today, read from a miniature in the forms of their authors (`scripts/make_benchmark_fixture.py`).

use std::{
    fs,
    path::{Path, PathBuf},
};

use ressa_data::{Benchmark, Content, DataError, ImageLoader, Picture, published};
use ressa_experiment::{
    Task,
    config::{AskingConfig, DataConfig, DataSource, PerturbConfig},
};

const TODAY: [Task; 6] = [Task::Textvqa, Task::Vizwiz, Task::Pope, Task::Scienceqa, Task::Mmbench, Task::Mme];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/published")
}

fn load(root: &Path, task: Task, items: usize) -> Result<Benchmark, DataError> {
    let config = DataConfig { source: DataSource::Folder, root: Some(root.to_owned()), ..DataConfig::default() };
    Benchmark::load(&config, task, items)
}

fn lines(benchmark: &Benchmark) -> String {
    let line = |content: &Content| match content {
        Content::Question { text, answers, template } => {
            format!("{text:?} -> {} [{}]", answers.join(" | "), template.as_deref().unwrap_or("-"))
        }
        Content::Choice { text, stem, options, answer, kinds, .. } => {
            format!("{text:?} / {stem:?} -> {answer} of {} [{}]", options.len(), kinds.join(", "))
        }
        other => format!("{other:?}"),
    };
    benchmark.items().iter().map(|item| format!("{} #{} {}\n", item.id, item.image, line(&item.content))).collect()
}

#[test]
fn questions_are_asked_as_lmms_eval_words_them() {
    let show = |task, items| {
        let benchmark = load(&root(), task, items).expect("a complete benchmark").asked(&AskingConfig::default());
        for picture in benchmark.images() {
            assert!(picture.image().expect("an image").width() > 0);
            assert!(picture.identity().is_some() && !matches!(picture, Picture::Held(_)));
        }
        lines(&benchmark)
    };
    insta::assert_snapshot!(show(Task::Textvqa, 3));
    insta::assert_snapshot!(show(Task::Vizwiz, 100));
    insta::assert_snapshot!(show(Task::Pope, 5));
    insta::assert_snapshot!(show(Task::Scienceqa, 100));
    insta::assert_snapshot!(show(Task::Mmbench, 100));
    insta::assert_snapshot!(show(Task::Mme, 5));
    assert_eq!(load(&root(), Task::Mme, 1000).expect("complete").items().len(), 2 * 17);
}

#[test]
fn a_prompt_of_the_experiment_takes_the_place_of_the_tasks() {
    let asking = AskingConfig { prompt: Some("Question: {} Answer:".to_owned()), ..AskingConfig::default() };
    let first =
        |task| lines(&load(&root(), task, 1).expect("complete").asked(&asking)).lines().next().unwrap().to_owned();
    assert!(first(Task::Textvqa).contains(r#""Question: what does Sign 0 say? Answer:""#), "{}", first(Task::Textvqa));
    // What the benchmark itself asks for stays.
    assert!(first(Task::Mme).contains("Please answer yes or no. Answer:"), "{}", first(Task::Mme));
    assert!(first(Task::Scienceqa).contains(r#"\nA. ice\nB. fire"#), "{}", first(Task::Scienceqa));
    let end = first(Task::Scienceqa);
    assert!(end.contains(" Answer:\" / ") && !end.contains("given choices"), "{end}");
}

#[test]
fn mmes_instruction_stays_whole_whatever_becomes_of_its_questions() {
    let benchmark = load(&root(), Task::Mme, 4).expect("complete");
    assert!(benchmark.questions().iter().all(|question| !question.contains("Please")), "{:?}", benchmark.questions());
    let prompt = |benchmark: &Benchmark, at: usize| match &benchmark.items()[at].content {
        Content::Question { text, .. } => text.clone(),
        other => panic!("no question: {other:?}"),
    };
    let perturb = PerturbConfig { rate: 1.0, ..PerturbConfig::default() };
    let perturbed = benchmark.clone().perturbed(&perturb);
    for at in 0..4 {
        let words = benchmark.questions()[at].split_whitespace().count();
        let (all, masks) = (prompt(&perturbed, at), vec!["___"; words].join(" "));
        assert_eq!(all, format!("{masks} Please answer yes or no."));
        let worded = prompt(&perturbed.clone().asked(&AskingConfig::default()), at);
        assert!(worded.starts_with(&format!("{masks}\n")) && !worded.contains("Please"), "{worded}");
    }
}

#[test]
fn an_image_of_coco_has_one_name_in_all_its_years() {
    let name = |path: &str| Picture::File(path.into()).name().expect("a name");
    assert_eq!(name("a/COCO_val2014_000000000042.jpg"), name("b/val2017/000000000042.jpg"));
    assert_eq!(name("COCO_train2014_000000000042.jpg"), "000000000042");
    assert_eq!(name("COCO_of_mine.jpg"), "coco_of_mine");
    assert_ne!(name("42.jpg"), name("COCO_val2014_000000000042.jpg"), "Visual Genome counts its own");
}

#[test]
fn a_picture_in_a_table_has_the_levels_of_its_file() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    ressa_data::write_processor_files(folder.path(), ressa_data::Family::T5, 4).expect("written");
    let loader = ImageLoader::new(&ressa_data::Processor::load(folder.path()).expect("a processor"), None);
    let benchmark = load(&root(), Task::Mmbench, 3).expect("complete");
    // Rotations share their question's picture.
    assert_eq!(benchmark.images().len(), 3);
    for picture in benchmark.images() {
        let image = picture.image().expect("an image");
        let file = folder.path().join("image.png");
        image::save_buffer(&file, &image.rgb(), image.width(), image.height(), image::ColorType::Rgb8).expect("saved");
        assert_eq!(loader.levels_of(picture).expect("levels"), loader.levels(&file).expect("levels"));
    }
}

/// What becomes of a file's text.
type Change<'a> = &'a dyn Fn(String) -> String;

/// A copy of the benchmarks with one file changed.
fn damaged(file: &str, change: impl Fn(String) -> String) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for task in TODAY {
        for name in published::annotations(&root(), task) {
            let to = folder.path().join(&name);
            fs::create_dir_all(to.parent().expect("a folder")).expect("created");
            let text = fs::read_to_string(root().join(&name)).expect("read");
            fs::write(to, if name == file { change(text) } else { text }).expect("written");
        }
        for expected in published::expected(task).iter().filter(|expected| root().join(expected.path).is_dir()) {
            copy_images(&root().join(expected.path), &folder.path().join(expected.path));
        }
    }
    folder
}

fn copy_images(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("created");
    for entry in fs::read_dir(from).expect("read").flatten() {
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy_images(&path, &target);
        } else if path.extension().is_some_and(|ending| ending != "txt") {
            fs::copy(path, target).expect("copied");
        }
    }
}

#[test]
fn what_is_wrong_is_named_with_its_file_and_entry() {
    const TEXTVQA: &str = "textvqa/annotations/TextVQA_0.5.1_val.json";
    const VIZWIZ: &str = "vizwiz/annotations/val.json";
    const POPE: &str = "pope/annotations/coco_pope_popular.json";
    const PROBLEMS: &str = "scienceqa/annotations/problems.json";
    const SPLITS: &str = "scienceqa/annotations/pid_splits.json";
    const MMBENCH: &str = "mmbench/annotations/MMBench_DEV_EN.tsv";
    const MME: &str = "mme/existence/0000.txt";
    let cases: &[(Task, &str, Change<'_>)] = &[
        (Task::Textvqa, TEXTVQA, &|t| t.replacen("\"question_id\": 34603", "\"question_id\": 34602", 1)),
        (Task::Textvqa, TEXTVQA, &|t| t.replacen("\"question\": ", "\"asked\": ", 1)),
        (Task::Textvqa, TEXTVQA, &|t| t.replacen("\"image_id\": \"", "\"image_id\": \"../../", 1)),
        (Task::Textvqa, TEXTVQA, &|t| t.replacen("\"data\"", "\"date\"", 1)),
        (Task::Textvqa, TEXTVQA, &|t| t.replacen("000000", "nowhere", 1)),
        (Task::Textvqa, TEXTVQA, &|_| String::new()),
        (Task::Vizwiz, VIZWIZ, &|t| t.replacen("\"answerable\": 1", "\"answerable\": 7", 1)),
        (Task::Vizwiz, VIZWIZ, &|t| t.replacen("\"answerable\": 1", "\"answerable\": \"yes\"", 1)),
        (Task::Vizwiz, VIZWIZ, &|_| "[]".to_owned()),
        (Task::Pope, POPE, &|t| t.replacen("\"label\": \"yes\"", "\"label\": \"perhaps\"", 1)),
        (Task::Pope, POPE, &|t| t.replacen("\n", "\n[1]\n", 1)),
        (Task::Pope, POPE, &|t| t.replacen("\"text\"", "\"test\"", 1)),
        (Task::Pope, POPE, &|_| "\n".to_owned()),
        (Task::Scienceqa, PROBLEMS, &|t| t.replacen("\"answer\": 1", "\"answer\": 3", 1)),
        (Task::Scienceqa, PROBLEMS, &|t| t.replacen("[\"ice\", \"fire\", \"a warm bath\"]", "[\"ice\"]", 1)),
        (Task::Scienceqa, PROBLEMS, &|t| t.replace("\"fire\"", "\" \"")),
        (Task::Scienceqa, PROBLEMS, &|t| t.replace("\"grade3\"", "\"third\"")),
        (Task::Scienceqa, SPLITS, &|t| t.replacen("\"6\"", "\"60\"", 1)),
        (Task::Scienceqa, SPLITS, &|t| t.replacen("\"test\"", "\"tests\"", 1)),
        (Task::Scienceqa, SPLITS, &|t| t.replacen("\"6\"", "[]", 1)),
        (Task::Mmbench, MMBENCH, &|t| t.replacen("index", "id", 1)),
        (Task::Mmbench, MMBENCH, &|t| t.replacen("\t\t\tA\t", "\t\t\tD\t", 1)),
        (Task::Mmbench, MMBENCH, &|t| t.replacen("dog\t\t\t", "\tdog\t\t", 1)),
        (Task::Mmbench, MMBENCH, &|t| t.replacen("iVBOR", "!VBOR", 1)),
        (Task::Mmbench, MMBENCH, &|t| t.replacen("\n1000241", "\n241", 1)),
        (Task::Mmbench, MMBENCH, &|t| t.replacen("\n1000241", "\n1000999", 1)),
        (Task::Mmbench, MMBENCH, &|t| t.replacen("\n1000241", "\nsoon", 1)),
        (Task::Mmbench, MMBENCH, &|t| t.replacen("\t243\t", "\t999\t", 1)),
        (Task::Mmbench, MMBENCH, &|_| String::new()),
        (Task::Mmbench, MMBENCH, &|t| t.lines().next().unwrap().to_owned()),
        (Task::Mme, MME, &|t| t.replacen("\tYes", "\tPerhaps", 1)),
        (Task::Mme, MME, &|t| t.replacen('\t', " ", 1)),
        (Task::Mme, MME, &|t| t.lines().next().unwrap().to_owned()),
    ];
    let mut said = String::new();
    for (task, file, change) in cases {
        let folder = damaged(file, change);
        let error = load(folder.path(), *task, 1000).expect_err("damaged").to_string();
        said += &format!("{task}: {}\n", error.replace(&folder.path().display().to_string(), "ROOT"));
    }
    insta::assert_snapshot!(said);
}

#[test]
fn a_quotation_mark_that_swallows_rows_is_named_with_its_row() {
    const MMBENCH: &str = "mmbench/annotations/MMBench_DEV_EN.tsv";
    let said = |table: &str| {
        let folder = damaged(MMBENCH, |_| table.to_owned());
        load(folder.path(), Task::Mmbench, 1000).expect_err("swallowed").to_string()
    };
    let row = |index: u32, comment: &str| format!("{index}\tq\ta\tb\tA\tAAAA\t{comment}\n");
    let head = "index\tquestion\tA\tB\tanswer\timage\tcomment\n";
    let never_closed = [head, &row(1, "x"), &row(2, "\"x"), &row(3, "x"), &row(4, "x")].concat();
    let error = said(&never_closed);
    assert!(error.contains("entry 2: a cell begins with a quotation mark that nothing closes"), "{error}");
    let closed_later = [head, &row(1, "\"x"), &row(2, "x"), &row(3, "\""), &row(4, "x")].concat();
    let error = said(&closed_later);
    assert!(error.contains("entry 1: a cell holds whole rows"), "{error}");
}

#[test]
fn pictures_that_are_none_are_named_when_they_are_opened() {
    const MMBENCH: &str = "mmbench/annotations/MMBench_DEV_EN.tsv";
    let said = |change: &dyn Fn(String) -> String| {
        let folder = damaged(MMBENCH, change);
        let benchmark = load(folder.path(), Task::Mmbench, 10).expect("read");
        let errors = benchmark.images().iter().filter_map(|picture| picture.image().err());
        let error = errors.map(|error| error.to_string()).next().expect("no image");
        error.replace(&folder.path().display().to_string(), "ROOT")
    };
    let told = [
        said(&|t| t.replacen("iVBORw0KGgo", "iVBORw0KGg=", 1)),
        said(&|t| t.replacen("iVBORw0KGgo", "AAAARw0KGgo", 1)),
    ];
    insta::assert_snapshot!(told.join("\n"));
    // A table that was changed meanwhile.
    let folder = damaged(MMBENCH, |text| text);
    let benchmark = load(folder.path(), Task::Mmbench, 10).expect("read");
    fs::write(folder.path().join(MMBENCH), "index").expect("written");
    assert!(benchmark.images()[2].image().is_err());
    fs::remove_file(folder.path().join(MMBENCH)).expect("removed");
    assert!(matches!(benchmark.images()[0].image(), Err(DataError::Read { .. })));
}

#[test]
fn what_is_not_there_is_listed() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let said = |task| load(folder.path(), task, 1).expect_err("empty").to_string();
    let text: Vec<String> =
        TODAY.into_iter().map(|task| said(task).replace(&folder.path().display().to_string(), "ROOT")).collect();
    insta::assert_snapshot!(text.join("\n"));
    let shapes = Benchmark::load(&DataConfig::default(), Task::Pope, 1).expect_err("no miniature").to_string();
    assert_eq!(shapes, "the embedded world has no `pope`; set `data.source: folder` and `data.root`");
}
