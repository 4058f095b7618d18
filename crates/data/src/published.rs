//! Where the published benchmarks are expected on disk: the annotation files of the LAVIS distribution, under one root.

use std::path::Path;

use ressa_experiment::Task;

use crate::DataError;

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
    const COCO: Expected = expect("coco/images/val2014", "COCO val2014 images");
    const VQAV2: &[Expected] = &[
        expect("vqav2/annotations/vqa_val_eval.json", "image, question and id of each question"),
        expect("vqav2/annotations/v2_mscoco_val2014_annotations.json", "ten answers per question"),
        COCO,
    ];
    const OKVQA: &[Expected] = &[
        expect("okvqa/annotations/vqa_val_eval.json", "image, question and id of each question"),
        expect("okvqa/annotations/mscoco_val2014_annotations.json", "ten answers per question"),
        COCO,
    ];
    const GQA: &[Expected] = &[
        expect("gqa/annotations/testdev_balanced_questions.json", "image, question and answer"),
        expect("gqa/images", "GQA images"),
    ];
    const NOCAPS: &[Expected] = &[
        expect("nocaps/annotations/nocaps_val.json", "image and id"),
        expect("nocaps/annotations/nocaps_val_4500_captions.json", "reference captions in COCO format"),
        expect("nocaps/images/val", "NoCaps validation images"),
    ];
    const FLICKR30K: &[Expected] = &[
        expect("flickr30k/annotations/test.json", "image and five captions"),
        expect("flickr30k/images/flickr30k-images", "Flickr30k images"),
    ];
    match task {
        Task::Vqav2 => VQAV2,
        Task::Gqa => GQA,
        Task::Okvqa => OKVQA,
        Task::Nocaps => NOCAPS,
        Task::Flickr30k => FLICKR30K,
    }
}

/// What a benchmark lacks under a root.
pub fn missing(root: &Path, task: Task) -> Vec<Expected> {
    expected(task).iter().filter(|expected| !root.join(expected.path).exists()).copied().collect()
}

/// Checks that everything a benchmark needs is there.
///
/// # Errors
/// [`DataError::Missing`] with every missing file and what it should hold.
pub fn check(root: &Path, task: Task) -> Result<(), DataError> {
    let missing: Vec<String> = missing(root, task).iter().map(|m| format!("`{}` ({})", m.path, m.holds)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(DataError::Missing { task: task.to_string(), root: root.to_owned(), missing })
}
