//! MME from the folders of its authors: one per subtask, an image and a text file with its two questions side by side or in folders of their
//! own.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use ressa_experiment::Task;

use super::{Expected, Images, MME, expect, not_empty};
use crate::{Benchmark, Content, DataError, Item};

/// Folders of the subtasks, perception first, as the benchmark calls them.
pub(super) const EXPECTED: [Expected; 14] = [
    expect("mme/existence", "images and questions"),
    expect("mme/count", "images and questions"),
    expect("mme/position", "images and questions"),
    expect("mme/color", "images and questions"),
    expect("mme/posters", "images and questions"),
    expect("mme/celebrity", "images and questions"),
    expect("mme/scene", "images and questions"),
    expect("mme/landmark", "images and questions"),
    expect("mme/artwork", "images and questions"),
    expect("mme/OCR", "images and questions"),
    expect("mme/commonsense_reasoning", "images and questions"),
    expect("mme/numerical_calculation", "images and questions"),
    expect("mme/text_translation", "images and questions"),
    expect("mme/code_reasoning", "images and questions"),
];

/// Where the files of a subtask may be, below its folder: questions, then images.
const PLACES: [(&str, &str); 2] = [("questions_answers_YN", "images"), ("", "")];

/// How images end.
const IMAGES: [&str; 3] = ["jpg", "png", "jpeg"];

/// Questions about an image: the benchmark counts an image where both are answered.
const PAIR: usize = 2;

/// Largest file of questions that is read, in bytes.
const LIMIT: u64 = 1 << 20;

fn subtasks() -> impl Iterator<Item = &'static str> {
    EXPECTED.iter().filter_map(|folder| folder.path.rsplit('/').next())
}

/// Files of questions, relative to the root, in the order in which they are read.
pub(super) fn questions(root: &Path) -> Vec<String> {
    let found = subtasks().flat_map(|subtask| listed(root, subtask));
    found.filter_map(|file| Some(file.questions.strip_prefix(root).ok()?.to_str()?.to_owned())).collect()
}

/// An image's questions, and where the image may be.
struct File {
    questions: PathBuf,
    /// Without its ending.
    image: PathBuf,
}

/// The files of a subtask by name; none where there is no such folder.
fn listed(root: &Path, subtask: &str) -> Vec<File> {
    let folder = root.join(MME).join(subtask);
    let mut found = BTreeMap::new();
    for (questions, images) in PLACES {
        for entry in fs::read_dir(folder.join(questions)).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|ending| ending == "txt")
                && let Some(stem) = path.file_stem()
            {
                let image = folder.join(images).join(stem);
                found.entry(stem.to_owned()).or_insert(File { questions: path, image });
            }
        }
    }
    found.into_values().collect()
}

/// Questions of all subtasks in turn, an image at a time, so that the first so many are of all; both questions about an image or none.
pub(super) fn mme(root: &Path, items: usize) -> Result<Benchmark, DataError> {
    let files: Vec<(&str, Vec<File>)> = subtasks().map(|subtask| (subtask, listed(root, subtask))).collect();
    for (subtask, files) in &files {
        if files.is_empty() {
            let path = root.join(MME).join(subtask);
            let reason = "it has no text files with questions, neither itself nor in a folder `questions_answers_YN`";
            return Err(DataError::Unfit { path, reason: reason.to_owned() });
        }
    }
    let mut images = Images::default();
    let mut entries: Vec<Item> = Vec::new();
    let longest = files.iter().map(|(_, files)| files.len()).max().unwrap_or_default();
    'all: for at in 0..longest {
        for (subtask, files) in &files {
            let Some(file) = files.get(at) else { continue };
            if entries.len() >= items {
                break 'all;
            }
            let image = images.index(image(file));
            let name = file.image.file_name().unwrap_or_default().to_string_lossy();
            for (number, (text, answer)) in pair(&file.questions)?.into_iter().enumerate() {
                entries.push(Item {
                    id: format!("{subtask}/{name}-{}", number + 1),
                    image,
                    content: Content::Question {
                        text,
                        answers: vec![answer],
                        template: Some(subtask.to_lowercase().replace('_', "-")),
                    },
                });
            }
        }
    }
    not_empty(&root.join(MME), &entries)?;
    Ok(Benchmark::on_disk(Task::Mme, images.paths, entries))
}

/// The image of some questions: the one that is there, or else the first that could be.
fn image(file: &File) -> PathBuf {
    let named = |ending: &str| {
        let mut name = file.image.file_name().unwrap_or_default().to_owned();
        name.push(".");
        name.push(ending);
        file.image.with_file_name(name)
    };
    let candidates = IMAGES.map(named);
    candidates.iter().find(|path| path.is_file()).unwrap_or(&candidates[0]).clone()
}

/// The two questions of a file with their answers.
fn pair(path: &Path) -> Result<Vec<(String, String)>, DataError> {
    let unread = |source| DataError::Read { path: path.to_owned(), source };
    let entry = |number: usize, reason: String| DataError::Entry { path: path.to_owned(), number, reason };
    let data = path.metadata().map_err(unread)?;
    if !data.is_file() || data.len() > LIMIT {
        let reason = format!("it is no file of at most {LIMIT} bytes");
        return Err(DataError::Unfit { path: path.to_owned(), reason });
    }
    let text = fs::read_to_string(path).map_err(unread)?;
    let lines = text.trim_start_matches('\u{feff}').lines().map(str::trim).filter(|line| !line.is_empty());
    let mut found = Vec::new();
    for (number, line) in (1..).zip(lines) {
        let (question, answer) = line
            .rsplit_once('\t')
            .ok_or_else(|| entry(number, "it has no tab between question and answer".to_owned()))?;
        let answer = answer.trim().to_lowercase().replace('.', "");
        if !["yes", "no"].contains(&answer.as_str()) {
            return Err(entry(number, format!("the answer is `{answer}`, neither `Yes` nor `No`")));
        }
        found.push((question.trim().to_owned(), answer));
    }
    if found.len() != PAIR {
        let reason = format!("it has {} questions, and the benchmark scores {PAIR} of an image", found.len());
        return Err(DataError::Unfit { path: path.to_owned(), reason });
    }
    Ok(found)
}
