//! The published benchmarks and corpora on disk: annotation files and images under one root.
//!
//! Files have the names of the LAVIS distribution. What is in them may be LAVIS' form or the one of the benchmark's authors (for captions
//! of COCO and Flickr30k: Karpathy's); which of them it is, a file's content says.

mod captions;
mod choices;
pub(crate) mod easy_vqa;
pub(crate) mod karpathy;
mod mme;
mod questions;
mod today;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use ressa_experiment::{Task, config::Corpus};

use crate::{Benchmark, DataError, Item};

const VQAV2_QUESTIONS: &str = "vqav2/annotations/vqa_val_eval.json";
const VQAV2_ANNOTATIONS: &str = "vqav2/annotations/v2_mscoco_val2014_annotations.json";
const OKVQA_QUESTIONS: &str = "okvqa/annotations/vqa_val_eval.json";
const OKVQA_ANNOTATIONS: &str = "okvqa/annotations/mscoco_val2014_annotations.json";
const GQA_QUESTIONS: &str = "gqa/annotations/testdev_balanced_questions.json";
const GQA_IMAGES: &str = "gqa/images";
const NOCAPS_LIST: &str = "nocaps/annotations/nocaps_val.json";
const NOCAPS_REFERENCES: &str = "nocaps/annotations/nocaps_val_4500_captions.json";
const NOCAPS_IMAGES: &str = "nocaps/images";
const FLICKR30K_CAPTIONS: &str = "flickr30k/annotations/test.json";
const FLICKR30K_IMAGES: &str = "flickr30k/images";
const EASY_VQA_QUESTIONS: &str = "easy-vqa/test/questions.json";
const EASY_VQA_IMAGES: &str = "easy-vqa/test/images";

const TEXTVQA_QUESTIONS: &str = "textvqa/annotations/TextVQA_0.5.1_val.json";
const TEXTVQA_IMAGES: &str = "textvqa/images/train_images";
const VIZWIZ_QUESTIONS: &str = "vizwiz/annotations/val.json";
const VIZWIZ_IMAGES: &str = "vizwiz/images/val";
/// Splits of POPE with their files, in the order in which its questions alternate.
const POPE_SPLITS: [(&str, &str); 3] = [
    ("random", "pope/annotations/coco_pope_random.json"),
    ("popular", "pope/annotations/coco_pope_popular.json"),
    ("adversarial", "pope/annotations/coco_pope_adversarial.json"),
];
const COCO_VAL: &str = "coco/images/val2014";
const SCIENCEQA_PROBLEMS: &str = "scienceqa/annotations/problems.json";
const SCIENCEQA_SPLITS: &str = "scienceqa/annotations/pid_splits.json";
const SCIENCEQA_IMAGES: &str = "scienceqa/images";
const MMBENCH_TABLE: &str = "mmbench/annotations/MMBench_DEV_EN.tsv";
const MME: &str = "mme";

/// A file or folder that a benchmark needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Path relative to the root.
    pub path: &'static str,
    /// What it holds.
    pub holds: &'static str,
}

const fn expect(path: &'static str, holds: &'static str) -> Expected {
    Expected { path, holds }
}

/// What a benchmark needs, annotations first.
pub fn expected(task: Task) -> &'static [Expected] {
    const COCO: Expected = expect(COCO_VAL, "COCO val2014 images");
    const VQAV2: &[Expected] = &[
        expect(VQAV2_QUESTIONS, "image, question and id of each question"),
        expect(VQAV2_ANNOTATIONS, "ten answers per question"),
        COCO,
    ];
    const OKVQA: &[Expected] = &[
        expect(OKVQA_QUESTIONS, "image, question and id of each question"),
        expect(OKVQA_ANNOTATIONS, "ten answers per question"),
        COCO,
    ];
    const GQA: &[Expected] = &[expect(GQA_QUESTIONS, "image, question and answer"), expect(GQA_IMAGES, "GQA images")];
    const NOCAPS: &[Expected] = &[
        expect(NOCAPS_LIST, "image and id"),
        expect(NOCAPS_REFERENCES, "reference captions in COCO format"),
        expect("nocaps/images/val", "NoCaps validation images"),
    ];
    const FLICKR30K: &[Expected] = &[
        expect(FLICKR30K_CAPTIONS, "image and five captions"),
        expect("flickr30k/images/flickr30k-images", "Flickr30k images"),
    ];
    const EASY_VQA: &[Expected] = &[
        expect(EASY_VQA_QUESTIONS, "question, answer and image of each test question"),
        expect(EASY_VQA_IMAGES, "easy-VQA test images"),
    ];
    const TEXTVQA: &[Expected] = &[
        expect(TEXTVQA_QUESTIONS, "image, question and ten answers"),
        expect(TEXTVQA_IMAGES, "TextVQA images of training and validation"),
    ];
    const VIZWIZ: &[Expected] = &[
        expect(VIZWIZ_QUESTIONS, "image, question, ten answers and whether it can be answered"),
        expect(VIZWIZ_IMAGES, "VizWiz validation images"),
    ];
    const POPE: &[Expected] = &[
        expect(POPE_SPLITS[0].1, "image, question and label, a line each"),
        expect(POPE_SPLITS[1].1, "image, question and label, a line each"),
        expect(POPE_SPLITS[2].1, "image, question and label, a line each"),
        COCO,
    ];
    const SCIENCEQA: &[Expected] = &[
        expect(SCIENCEQA_PROBLEMS, "question, options and answer of each problem"),
        expect(SCIENCEQA_SPLITS, "problems of each split"),
        expect("scienceqa/images/test", "ScienceQA test images"),
    ];
    const MMBENCH: &[Expected] = &[expect(MMBENCH_TABLE, "questions, options, answers and images")];
    match task {
        Task::EasyVqa => EASY_VQA,
        Task::Vqav2 => VQAV2,
        Task::Gqa => GQA,
        Task::Okvqa => OKVQA,
        Task::Nocaps => NOCAPS,
        Task::Flickr30k => FLICKR30K,
        Task::Textvqa => TEXTVQA,
        Task::Vizwiz => VIZWIZ,
        Task::Pope => POPE,
        Task::Scienceqa => SCIENCEQA,
        Task::Mmbench => MMBENCH,
        Task::Mme => &mme::EXPECTED,
        Task::Perplexity => &[],
    }
}

/// The annotation files of a benchmark, relative to the root: those that [`expected`] names, or that its folders hold.
pub fn annotations(root: &Path, task: Task) -> Vec<String> {
    let is_file = |path: &&str| path.ends_with(".json") || path.ends_with(".tsv");
    let named = expected(task).iter().map(|file| file.path).filter(is_file).map(str::to_owned);
    named.chain(if task == Task::Mme { mme::questions(root) } else { Vec::new() }).collect()
}

/// What a corpus needs: its annotations, then its images.
pub fn expected_of_corpus(corpus: Corpus) -> &'static [Expected; 2] {
    const COCO: &[Expected; 2] = &[
        expect("coco/annotations/coco_karpathy_train.json", "image and caption"),
        expect("coco/images", "COCO images"),
    ];
    const VG: &[Expected; 2] = &[
        expect("vg/annotations/vg_caption.json", "image and caption"),
        expect("vg/images/VG_100K", "Visual Genome images"),
    ];
    const CC3M: &[Expected; 2] = &[
        expect("conceptual_caption/annotations/cc3m.json", "image and caption"),
        expect("conceptual_caption/images", "Conceptual Captions images"),
    ];
    const EASY_VQA: &[Expected; 2] = &[
        expect("easy-vqa/train/questions.json", "question, answer and image of each training question"),
        expect("easy-vqa/train/images", "easy-VQA training images"),
    ];
    const SHAPES: &[Expected; 2] = &[
        expect("shapes/train/questions.json", "question, answer and image, as `ressa data --write` writes them"),
        expect("shapes/train/images", "training images of the embedded world"),
    ];
    match corpus {
        Corpus::EasyVqa => EASY_VQA,
        Corpus::Shapes => SHAPES,
        Corpus::Coco => COCO,
        Corpus::Vg => VG,
        Corpus::Cc3m => CC3M,
    }
}

/// What a benchmark lacks under a root.
pub fn missing(root: &Path, task: Task) -> Vec<Expected> {
    absent(root, expected(task))
}

/// What a corpus lacks under a root.
pub fn missing_of_corpus(root: &Path, corpus: Corpus) -> Vec<Expected> {
    absent(root, expected_of_corpus(corpus))
}

/// The annotations that a corpus lacks under a root.
pub fn missing_annotations(root: &Path, corpus: Corpus) -> Vec<Expected> {
    absent(root, &expected_of_corpus(corpus)[..1])
}

fn absent(root: &Path, expected: &[Expected]) -> Vec<Expected> {
    expected.iter().filter(|expected| !root.join(expected.path).exists()).copied().collect()
}

/// Checks that everything a benchmark needs is there.
///
/// # Errors
/// [`DataError::Missing`] with every missing file and what it should hold.
pub fn check(root: &Path, task: Task) -> Result<(), DataError> {
    complete(root, &format!("benchmark `{task}`"), &missing(root, task))
}

/// Checks that everything a corpus needs is there.
///
/// # Errors
/// [`DataError::Missing`] with every missing file and what it should hold.
pub fn check_corpus(root: &Path, corpus: Corpus) -> Result<(), DataError> {
    complete(root, &format!("corpus `{}`", corpus.name()), &missing_of_corpus(root, corpus))
}

/// Checks that the annotations of a corpus are there; its images need not be.
///
/// # Errors
/// [`DataError::Missing`] with the missing file and what it should hold.
pub fn check_annotations(root: &Path, corpus: Corpus) -> Result<(), DataError> {
    complete(root, &format!("corpus `{}`", corpus.name()), &missing_annotations(root, corpus))
}

fn complete(root: &Path, what: &str, missing: &[Expected]) -> Result<(), DataError> {
    if missing.is_empty() {
        return Ok(());
    }
    let missing = missing.iter().map(|m| format!("`{}` ({})", m.path, m.holds)).collect();
    Err(DataError::Missing { what: what.to_owned(), root: root.to_owned(), missing })
}

/// Reads the first `items` questions of a benchmark, or the first `items` images for captions and retrieval, in file order.
///
/// # Errors
/// What is missing under the root, or the file, entry and field that is wrong.
pub fn read(root: &Path, task: Task, items: usize) -> Result<Benchmark, DataError> {
    check(root, task)?;
    match task {
        Task::Vqav2 | Task::Okvqa => questions::vqa(root, task, items),
        Task::Gqa => questions::gqa(root, items),
        Task::EasyVqa => easy_vqa::read(root, items),
        Task::Nocaps => captions::nocaps(root, items),
        Task::Flickr30k => captions::flickr30k(root, items),
        Task::Textvqa => today::textvqa(root, items),
        Task::Vizwiz => today::vizwiz(root, items),
        Task::Pope => today::pope(root, items),
        Task::Scienceqa => choices::scienceqa(root, items),
        Task::Mmbench => choices::mmbench(root, items),
        Task::Mme => mme::mme(root, items),
        Task::Perplexity => Err(DataError::NoImages(task)),
    }
}

/// Image files, each once, in the order of their first mention.
#[derive(Default)]
struct Images {
    paths: Vec<PathBuf>,
    known: HashMap<PathBuf, usize>,
}

impl Images {
    fn index(&mut self, path: PathBuf) -> usize {
        *self.known.entry(path).or_insert_with_key(|path| {
            self.paths.push(path.clone());
            self.paths.len() - 1
        })
    }

    /// Looks for the first image where `fields` of an official file say its name, so that a folder laid out otherwise is found before
    /// anything runs.
    fn expect_first(&self, annotations: &Path, fields: &str) -> Result<(), DataError> {
        match self.paths.first() {
            Some(image) if !image.exists() => {
                let reason = format!(
                    "it is in the official form; {fields} of its first entry name `{}`, which is not there",
                    image.display()
                );
                Err(DataError::Unfit { path: annotations.to_owned(), reason })
            }
            _ => Ok(()),
        }
    }
}

fn not_empty(path: &Path, items: &[Item]) -> Result<(), DataError> {
    match items {
        [] => Err(DataError::Unfit { path: path.to_owned(), reason: "it has no entries".to_owned() }),
        _ => Ok(()),
    }
}
