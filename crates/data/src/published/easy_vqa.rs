//! easy-VQA (Zhou, 2020): a list of `[question, answer, image]` per split, as its package has it.

use std::{collections::HashMap, path::Path};

use ressa_experiment::Task;

use super::{EASY_VQA_IMAGES, EASY_VQA_QUESTIONS, Images, not_empty};
use crate::{
    Benchmark, Content, DataError, Item,
    annotations::{Entry, Next, Place, each},
};

/// What stands in an entry, in its order.
pub(crate) const ENTRY: Place = Place::Rows(&["question", "answer", "image_id"]);

/// The image of an entry.
pub(crate) fn image(entry: &Entry<'_>, folder: &Path) -> Result<std::path::PathBuf, DataError> {
    entry.file("image_id", folder, &format!("{}.png", entry.id("image_id")?))
}

/// The kind of a question, which its answer tells: the package has 2 + 3 + 8 answers.
fn kind(answer: &str) -> &'static str {
    match answer {
        "yes" | "no" => "yes-no",
        "circle" | "rectangle" | "triangle" => "shape",
        _ => "color",
    }
}

/// The first `items` test questions. An id is the image's and the number of the question about it.
pub(super) fn read(root: &Path, items: usize) -> Result<Benchmark, DataError> {
    let path = root.join(EASY_VQA_QUESTIONS);
    let folder = root.join(EASY_VQA_IMAGES);
    let mut images = Images::default();
    let mut entries: Vec<Item> = Vec::new();
    let mut asked: HashMap<String, usize> = HashMap::new();
    each(&path, ENTRY, &|_| true, &mut |entry| {
        let number = entry.id("image_id")?;
        let file = image(&entry, &folder)?;
        let before = asked.entry(number.clone()).or_default();
        let answer = entry.text("answer")?.to_owned();
        entries.push(Item {
            id: format!("{number}-{before}"),
            image: images.index(file),
            content: Content::Question {
                text: entry.text("question")?.to_owned(),
                template: Some(kind(&answer).to_owned()),
                answers: vec![answer],
            },
        });
        *before += 1;
        Ok(if entries.len() < items { Next::More } else { Next::Enough })
    })?;
    not_empty(&path, &entries)?;
    Ok(Benchmark::on_disk(Task::EasyVqa, images.paths, entries))
}
