//! The published benchmarks and corpora, read from a miniature in their own formats (`scripts/make_paper_fixture.py --data-only`).

use std::{
    fs,
    path::{Path, PathBuf},
};

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use ressa_data::{
    Benchmark, Captions, Content, Picture, pool, published,
    wording::{blip_caption, blip_question},
};
use ressa_experiment::{
    Task,
    config::{AskingConfig, CorporaConfig, Corpus, DataConfig, DataSource, RetrievedConfig, SampleForm, TextRule},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/published")
}

fn config(root: &Path) -> DataConfig {
    DataConfig { source: DataSource::Folder, root: Some(root.to_owned()), ..DataConfig::default() }
}

fn lines(benchmark: &Benchmark) -> String {
    let line = |content: &Content| match content {
        Content::Question { text, answers, template } => {
            format!("{text} -> {} [{}]", answers.join(" | "), template.as_deref().unwrap_or("-"))
        }
        Content::Caption { instruction, references, set } => {
            format!("`{instruction}` -> {} {} [{}]", references.len(), references[0], set.as_deref().unwrap_or("-"))
        }
        Content::Retrieval { caption } => caption.clone(),
        Content::Choice { .. } => panic!("no task of the paper has options"),
    };
    benchmark.items().iter().map(|i| format!("{} #{} {}\n", i.id, i.image, line(&i.content))).collect()
}

#[test]
fn every_benchmark_is_read_in_file_order_and_its_images_open() {
    let load = |task, items| {
        let benchmark = Benchmark::load(&config(&root()), task, items).expect("a complete benchmark");
        for picture in benchmark.images() {
            let image = picture.image().expect("an image");
            assert!(image.width() > 0 && matches!(picture, Picture::File(_)));
        }
        lines(&benchmark)
    };
    insta::assert_snapshot!(load(Task::Vqav2, 3));
    insta::assert_snapshot!(load(Task::Okvqa, 2));
    insta::assert_snapshot!(load(Task::Gqa, 100));
    insta::assert_snapshot!(load(Task::Nocaps, 100));
    insta::assert_snapshot!(load(Task::Flickr30k, 1));
    insta::assert_snapshot!(load(Task::EasyVqa, 100), @r"
    0-0 #0 what is the red shape? -> circle [shape]
    0-1 #0 what color is the circle? -> red [color]
    1-0 #1 is there no blue shape? -> no [yes-no]
    0-2 #0 is a circle present? -> yes [yes-no]
    ");
}

#[test]
fn questions_of_a_corpus_are_asked_as_its_template_says() {
    let corpora = CorporaConfig {
        corpora: vec![Corpus::EasyVqa],
        question: Some("Question: {} Short answer:".to_owned()),
        ..CorporaConfig::default()
    };
    let first = Captions::first(&corpora, &root(), 2).expect("a complete corpus");
    let entry = &first.entries()[1];
    assert!(entry.image.ends_with("easy-vqa/train/images/1.png"), "{}", entry.image.display());
    let said = |config: &CorporaConfig| entry.sample(config, &mut ChaCha8Rng::seed_from_u64(1));
    let texts = |read: &str| (read.to_owned(), "teal".to_owned());
    assert_eq!(said(&corpora), texts("Question: what color is the shape? Short answer:"));
    assert_eq!(said(&CorporaConfig { question: None, ..corpora.clone() }), texts("what color is the shape?"));
    assert_eq!(Captions::available(&corpora, &root(), 100).expect("counted"), 3);

    // A row of another length, and a name that leads out of the folder.
    for (from, to, told) in [
        (
            "\"teal\", 1",
            "\"teal\"",
            "is not as expected after 1 entries: expected the 3 values question, answer, image_id, found 2",
        ),
        ("\"teal\", 1", "\"teal\", \"../1\"", "entry 2: `image_id` is `../1.png`, not a path below"),
        ("\"teal\"", "7", "entry 2: `answer` is `7`, not a text"),
    ] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let of = |path: &str| folder.path().join("easy-vqa/train").join(path);
        fs::create_dir_all(of("images")).expect("created");
        let text = fs::read_to_string(root().join("easy-vqa/train/questions.json")).expect("read");
        assert!(text.contains(from), "{text}");
        fs::write(of("questions.json"), text.replacen(from, to, 1)).expect("written");
        let error = Captions::first(&corpora, folder.path(), 3).expect_err("damaged").to_string();
        assert!(error.contains(told), "{error}");
    }
}

/// The embedded world's training side as files: the corpus that is drawn from is the world's own images and texts.
#[test]
fn the_embedded_world_is_written_as_a_corpus() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let world = DataConfig::default();
    ressa_data::write_corpus(&world, folder.path(), 3, 2).expect("written");
    let corpora = CorporaConfig { corpora: vec![Corpus::Shapes], ..CorporaConfig::default() };
    let drawn = Captions::first(&corpora, folder.path(), 100).expect("a complete corpus");
    assert_eq!(drawn.entries().len(), 9);
    let painted = ressa_data::World::new(&world).expect("a world").training_image(1).image;
    let entry = &drawn.entries()[5];
    assert_eq!(entry.question.as_deref(), Some("describe the image"));
    let read = ressa_data::Image::open(&entry.image).expect("an image");
    assert_eq!(read.rgb(), painted.rgb());
    let again = tempfile::tempdir().expect("a temporary folder");
    ressa_data::write_corpus(&world, again.path(), 3, 1).expect("written");
    let list = "shapes/train/questions.json";
    assert_eq!(fs::read(again.path().join(list)).expect("read"), fs::read(folder.path().join(list)).expect("read"));
}

#[test]
fn questions_are_worded_as_the_protocol_says() {
    let asking =
        |text| AskingConfig { prompt: Some("Question: {} Short answer:".to_owned()), text, ..AskingConfig::default() };
    let first = |rule| {
        let benchmark = Benchmark::load(&config(&root()), Task::Gqa, 1).expect("complete").asked(&asking(rule));
        let Content::Question { text, .. } = benchmark.items()[0].content.clone() else { panic!("not a question") };
        text
    };
    let plain = first(TextRule::Verbatim);
    assert!(plain.starts_with("Question: what color is the ") && plain.ends_with("? Short answer:"), "{plain}");
    assert_eq!(first(TextRule::BlipQuestion), plain);
    let caption = AskingConfig { prompt: Some("A short image caption.".to_owned()), ..AskingConfig::default() };
    let captions = Benchmark::load(&config(&root()), Task::Nocaps, 1).expect("complete").asked(&caption);
    assert!(lines(&captions).contains("`A short image caption.`"));

    // Checked with LAVIS' processors.
    let text = "  What's \"this\" (Mr. Smith's)?\n Is it: 3.5;  a cat!  ";
    assert_eq!(blip_question(text), "  what's this mr smith's?\n is it 35  a cat");
    assert_eq!(blip_caption(text), "what's this mr smith's ? is it 3 5 a cat");
    let long = vec!["Word"; 60].join(" ");
    assert_eq!(blip_caption(&long).split(' ').count(), 50);
    assert_eq!(blip_question(&long).split(' ').count(), 50);
}

#[test]
fn corpora_are_drawn_evenly_and_split_as_the_form_says() {
    let corpora = CorporaConfig {
        corpora: vec![Corpus::Coco, Corpus::Vg, Corpus::Cc3m],
        form: SampleForm::Prefix,
        ..CorporaConfig::default()
    };
    let mut asked = Vec::new();
    let drawn = Captions::draw(&corpora, &root(), 5, &mut |total, wanted| {
        asked.push((total, wanted));
        (0..wanted).rev().collect()
    })
    .expect("complete corpora");
    assert_eq!(asked, [(4, 2), (4, 2), (4, 1)]);
    let names: Vec<String> = drawn
        .entries()
        .iter()
        .map(|entry| entry.image.strip_prefix(root()).expect("below the root").display().to_string())
        .collect();
    insta::assert_snapshot!(names.join("\n"), @r"
    coco/images/train2014/COCO_train2014_000000000001.jpg
    coco/images/train2014/COCO_train2014_000000000001.jpg
    vg/images/VG_100K/1.jpg
    vg/images/VG_100K/1.jpg
    conceptual_caption/images/1_7.png
    ");
    let first = Captions::first(&corpora, &root(), 3).expect("complete corpora");
    assert_eq!(first.entries()[0], drawn.entries()[1]);

    let entry = &first.entries()[0];
    let mut cuts = std::collections::BTreeSet::new();
    for seed in 0..300 {
        let (read, written) = entry.sample(&corpora, &mut ChaCha8Rng::seed_from_u64(seed));
        assert_eq!(format!("{read}{written}"), entry.caption);
        cuts.insert(read.chars().count());
    }
    assert_eq!((cuts.first(), cuts.last()), (Some(&1), Some(&(entry.caption.chars().count() / 2))));
    let instruct = CorporaConfig {
        form: SampleForm::Instruct,
        instructions: vec!["One.".to_owned(), "Two.".to_owned()],
        ..corpora
    };
    let said = |seed| entry.sample(&instruct, &mut ChaCha8Rng::seed_from_u64(seed));
    let both: std::collections::BTreeSet<String> = (0..40).map(|seed| said(seed).0).collect();
    assert_eq!(both.into_iter().collect::<Vec<_>>(), ["One.", "Two."]);
    assert_eq!(said(1).1, entry.caption);
}

/// A copy of one benchmark's annotations with a text replaced; images are only looked for when they are opened.
fn damaged(file: &str, change: impl Fn(String) -> String) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for task in Task::ALL {
        for expected in published::expected(task) {
            let (from, to) = (root().join(expected.path), folder.path().join(expected.path));
            if from.is_dir() {
                fs::create_dir_all(&to).expect("created");
            } else {
                fs::create_dir_all(to.parent().expect("a folder")).expect("created");
                let text = fs::read_to_string(from).expect("read");
                fs::write(to, if expected.path == file { change(text) } else { text }).expect("written");
            }
        }
    }
    let path = folder.path().to_owned();
    (folder, path)
}

#[test]
fn what_is_wrong_is_named_with_its_file_entry_and_field() {
    let error = |task, file: &str, from: &str, to: &str| {
        let (_keep, folder) = damaged(file, |text| {
            assert!(text.contains(from), "{text}");
            text.replacen(from, to, 1)
        });
        let error = Benchmark::load(&config(&folder), task, 100).expect_err("damaged").to_string();
        error.replace(&folder.display().to_string(), "ROOT")
    };
    let gqa = "gqa/annotations/testdev_balanced_questions.json";
    insta::assert_snapshot!(error(Task::Gqa, gqa, "\"answer\"", "\"reply\""), @"`ROOT/gqa/annotations/testdev_balanced_questions.json`, entry 1: field `answer` is missing");
    insta::assert_snapshot!(error(Task::Gqa, gqa, "\"n000001.jpg\"", "[1]"), @"`ROOT/gqa/annotations/testdev_balanced_questions.json`, entry 2: `image` is `[1]`, not a text");
    insta::assert_snapshot!(error(Task::Gqa, gqa, "n000001.jpg", "../../n000001.jpg"), @"`ROOT/gqa/annotations/testdev_balanced_questions.json`, entry 2: `image` is `../../n000001.jpg`, not a path below `ROOT/gqa/images`");
    insta::assert_snapshot!(error(Task::Gqa, gqa, "00000001", "00000000"), @"`ROOT/gqa/annotations/testdev_balanced_questions.json`, entry 2: question `00000000` was there before");
    insta::assert_snapshot!(error(Task::Gqa, gqa, "[{", "{"), @"`ROOT/gqa/annotations/testdev_balanced_questions.json` holds an object with the fields `answer`, `image`, `question`, `question_id`; expected LAVIS' list of questions (`image`, `question`, `answer`, `question_id`), or the official object from ids to questions (`imageId`, `question`, `answer`)");
    insta::assert_snapshot!(error(Task::Gqa, gqa, "},\n {", ",\n {"), @"`ROOT/gqa/annotations/testdev_balanced_questions.json` is not as expected after 0 entries: key must be a string at line 2 column 2");
    let truth = "vqav2/annotations/v2_mscoco_val2014_annotations.json";
    insta::assert_snapshot!(error(Task::Vqav2, truth, "\"question_id\": 1001", "\"question_id\": 77"), @"`ROOT/vqav2/annotations/v2_mscoco_val2014_annotations.json`: it has no answers to question `1001` of `ROOT/vqav2/annotations/vqa_val_eval.json`; both files must be of one split, in LAVIS' or in the official form");
    insta::assert_snapshot!(error(Task::Vqav2, truth, "\"annotations\"", "\"notes\""), @"`ROOT/vqav2/annotations/v2_mscoco_val2014_annotations.json` is not as expected after 0 entries: there is no list `annotations` at line 40 column 68");
    let captions = "nocaps/annotations/nocaps_val_4500_captions.json";
    insta::assert_snapshot!(error(Task::Nocaps, captions, "\"caption\"", "\"text\""), @"`ROOT/nocaps/annotations/nocaps_val_4500_captions.json`, entry 1: field `caption` is missing");
    let pairs = "flickr30k/annotations/test.json";
    insta::assert_snapshot!(error(Task::Flickr30k, pairs, "\"caption\": [", "\"caption\": [4, "), @r#"`ROOT/flickr30k/annotations/test.json`, entry 1: `caption` is `[4,"A white ball, in the grass.","A whit...`, not a list of texts"#);

    let (_keep, folder) = damaged(gqa, |text| text);
    let benchmark = Benchmark::load(&config(&folder), Task::Gqa, 1).expect("annotations are fine");
    let unopened = benchmark.images()[0].image().expect_err("there are no images").to_string();
    assert!(unopened.contains("gqa/images/n000000.jpg"), "{unopened}");
    let corpora = CorporaConfig { corpora: vec![Corpus::Vg], ..CorporaConfig::default() };
    let missing = Captions::first(&corpora, &folder, 1).expect_err("no corpora there").to_string();
    insta::assert_snapshot!(missing.replace(&folder.display().to_string(), "ROOT"), @"corpus `vg` is incomplete under `ROOT`; missing: `vg/annotations/vg_caption.json` (image and caption), `vg/images/VG_100K` (Visual Genome images)");
}

/// The root with one file replaced; the loaded benchmark as text, or the error.
fn with(task: Task, file: &str, text: &str) -> String {
    let (_keep, folder) = damaged(file, |_| text.to_owned());
    for expected in published::expected(task) {
        let (from, to) = (root().join(expected.path), folder.join(expected.path));
        if from.is_dir() {
            fs::remove_dir(&to).expect("an empty folder");
            std::os::unix::fs::symlink(from, to).expect("linked");
        }
    }
    match Benchmark::load(&config(&folder), task, 100) {
        Ok(benchmark) => {
            let path = |picture: &Picture| match picture {
                Picture::File(path) => path.strip_prefix(&folder).expect("below the root").display().to_string(),
                Picture::Held(_) | Picture::Cell(_) => "held".to_owned(),
            };
            let images: Vec<String> = benchmark.images().iter().map(path).collect();
            format!("{}{}", lines(&benchmark), images.join(" "))
        }
        Err(error) => error.to_string().replace(&folder.display().to_string(), "ROOT"),
    }
}

#[test]
fn official_forms_are_read_as_the_lists_of_lavis_are() {
    let questions = "vqav2/annotations/vqa_val_eval.json";
    insta::assert_snapshot!(with(
        Task::Vqav2,
        questions,
        r#"{"info": {}, "questions": [{"image_id": 1, "question": "What color?", "question_id": 1001}], "data_subtype": "val2014"}"#
    ));
    insta::assert_snapshot!(with(
        Task::Vqav2,
        questions,
        r#"{"data_subtype": "val2014", "questions": [{"image_id": 99, "question": "What?", "question_id": 1001}]}"#
    ));
    insta::assert_snapshot!(with(
        Task::Vqav2,
        questions,
        r#"{"questions": [{"image_id": 1, "question": "What?", "question_id": 1001}]}"#
    ));
    insta::assert_snapshot!(with(Task::Vqav2, questions, r#"{"annotations": []}"#));
    let gqa = "gqa/annotations/testdev_balanced_questions.json";
    insta::assert_snapshot!(with(
        Task::Gqa,
        gqa,
        r#"{"07": {"imageId": "n000000", "question": "Is it red?", "answer": "no", "types": {}}, "08": {"imageId": "n000001", "question": "Left or right?", "answer": "left"}}"#
    ));
    insta::assert_snapshot!(with(Task::Gqa, gqa, r#"{"questions": [{"imageId": "n000000"}]}"#));
    let nocaps = "nocaps/annotations/nocaps_val.json";
    insta::assert_snapshot!(with(
        Task::Nocaps,
        nocaps,
        r#"{"licenses": [], "images": [{"id": 1, "file_name": "0000000000000001.jpg", "open_images_id": "1", "domain": "out-domain"}]}"#
    ));
    let flickr = "flickr30k/annotations/test.json";
    insta::assert_snapshot!(with(
        Task::Flickr30k,
        flickr,
        r#"{"images": [{"split": "train", "filename": "1.jpg", "sentences": []}, {"sentids": [0, 1], "split": "test", "filename": "1000.jpg", "sentences": [{"raw": "A dog.", "tokens": ["a"]}, {"raw": "Two: dogs"}]}], "dataset": "flickr30k"}"#
    ));
    insta::assert_snapshot!(with(
        Task::Flickr30k,
        flickr,
        r#"{"images": [{"split": "train", "filename": "1.jpg", "sentences": [{"raw": "A dog."}]}], "dataset": "flickr30k"}"#
    ));
    insta::assert_snapshot!(with(Task::Flickr30k, flickr, "version https://git-lfs.github.com/spec/v1"));
}

#[test]
fn a_byte_order_mark_before_annotations_is_passed_over() {
    for (task, file) in [
        (Task::Vqav2, "vqav2/annotations/vqa_val_eval.json"),
        (Task::Vqav2, "vqav2/annotations/v2_mscoco_val2014_annotations.json"),
        (Task::Gqa, "gqa/annotations/testdev_balanced_questions.json"),
        (Task::Nocaps, "nocaps/annotations/nocaps_val_4500_captions.json"),
        (Task::Flickr30k, "flickr30k/annotations/test.json"),
    ] {
        let plain = fs::read_to_string(root().join(file)).expect("read");
        assert_eq!(with(task, file, &format!("\u{feff}{plain}")), with(task, file, &plain), "{file}");
    }
}

#[test]
fn nothing_of_an_annotation_file_is_dropped_silently() {
    let changed = |file: &str, from: &str, to: &str| {
        let text = fs::read_to_string(root().join(file)).expect("read");
        assert!(text.contains(from), "{text}");
        text.replacen(from, to, 1)
    };
    let captions = "nocaps/annotations/nocaps_val_4500_captions.json";
    let unknown = changed(captions, "\"image_id\": 1", "\"image_id\": 77");
    insta::assert_snapshot!(with(Task::Nocaps, captions, &unknown));
    let twice = changed(captions, "\"images\": [", "\"images\": [{\"id\": 1, \"domain\": \"out-domain\"}, ");
    insta::assert_snapshot!(with(Task::Nocaps, captions, &twice));
    let answers = "vqav2/annotations/v2_mscoco_val2014_annotations.json";
    let other = r#""annotations": [{"question_id": 1001, "answers": [{"answer": "x"}]}, "#;
    insta::assert_snapshot!(with(Task::Vqav2, answers, &changed(answers, "\"annotations\": [", other)));
}

#[test]
fn a_pool_needs_the_captions_of_a_corpus_and_not_its_images() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let [annotations, images] = published::expected_of_corpus(Corpus::Cc3m);
    let file = folder.path().join(annotations.path);
    fs::create_dir_all(file.parent().expect("a folder")).expect("created");
    let retrieved = RetrievedConfig { corpora: vec![Corpus::Cc3m], pool: 2, ..RetrievedConfig::default() };
    let error = pool(&config(folder.path()), &retrieved).expect_err("no annotations").to_string();
    assert!(error.contains(annotations.path) && !error.contains(images.holds), "{error}");
    fs::copy(root().join(annotations.path), &file).expect("copied");
    let captions = pool(&config(folder.path()), &retrieved).expect("a pool");
    assert!(captions.len() == 2 && captions.iter().all(|caption| caption.image.is_some()), "{captions:?}");
    let corpora = CorporaConfig { corpora: vec![Corpus::Cc3m], ..CorporaConfig::default() };
    let error = Captions::first(&corpora, folder.path(), 2).expect_err("no images").to_string();
    assert!(error.contains(images.holds), "{error}");
}

#[test]
fn karpathys_file_of_coco_is_a_corpus() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for expected in published::expected_of_corpus(Corpus::Coco) {
        fs::create_dir_all(folder.path().join(expected.path).parent().expect("a folder")).expect("created");
    }
    let [annotations, images] = published::expected_of_corpus(Corpus::Coco);
    fs::create_dir_all(folder.path().join(images.path)).expect("created");
    let image = |split: &str, name: &str, captions: &[&str]| {
        let sentences: Vec<_> = captions.iter().map(|raw| serde_json::json!({ "raw": raw })).collect();
        serde_json::json!({ "filepath": "val2014", "filename": name, "split": split, "sentences": sentences })
    };
    let text = serde_json::json!({ "dataset": "coco", "images": [
        image("test", "a.jpg", &["Never."]),
        image("restval", "b.jpg", &["A dog.", "Two dogs."]),
        image("train", "c.jpg", &["A cat."]),
    ] });
    fs::write(folder.path().join(annotations.path), format!("\u{feff}{text}")).expect("written");
    let corpora = CorporaConfig { corpora: vec![Corpus::Coco], ..CorporaConfig::default() };
    let drawn = Captions::draw(&corpora, folder.path(), 5, &mut |total, wanted| {
        assert_eq!((total, wanted), (3, 3));
        vec![2, 0]
    })
    .expect("a corpus");
    let said: Vec<(&str, bool)> =
        drawn.entries().iter().map(|e| (e.caption.as_str(), e.image.ends_with("coco/images/val2014/c.jpg"))).collect();
    assert_eq!(said, [("a cat", true), ("a dog", false)]);
    assert_eq!(Captions::available(&corpora, folder.path(), 2).expect("a corpus"), 2);
    assert_eq!(Captions::available(&corpora, folder.path(), 128).expect("a corpus"), 3);
    assert_eq!(
        Captions::available(&CorporaConfig { corpora: vec![Corpus::Vg, Corpus::Cc3m], ..corpora }, &root(), 128)
            .expect("corpora"),
        8
    );
}
