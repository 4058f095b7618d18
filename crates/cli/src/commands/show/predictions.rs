//! Stored predictions beside the images that they are about.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
};

use ressa_data::Benchmark;
use ressa_experiment::{Asks, Stage, StageNode, Task, config::DataConfig};
use ressa_store::{Store, StoreError};
use serde::{Deserialize, Serialize};

use super::pictures::Picture;
use crate::{
    exit::{Exit, Failure},
    text::{columns, say},
};

/// File of the predictions in a stage's folder.
const PREDICTIONS: &str = "predictions.jsonl";

/// Predictions of one evaluation.
#[derive(Serialize)]
pub struct Evaluated {
    pub task: Task,
    /// The first ones, in the order of the benchmark.
    pub predictions: Vec<Predicted>,
    /// How many there are.
    pub items: usize,
    /// Why images have no name, where they have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// A prediction.
#[derive(Serialize)]
pub struct Predicted {
    pub id: String,
    /// Name of the image: its file below the data's root, or its number in the embedded world.
    pub image: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// Captions that were read before the prompt.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub retrieved: Vec<String>,
    /// What copies of the question were answered, each with its prompt.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub copies: Vec<CopyOf>,
    /// What the model said; of retrieval, the place of the right match.
    pub prediction: String,
    /// What is right.
    pub right: Vec<String>,
    /// What it adds to the task's score, in the score's unit.
    pub points: f64,
    #[serde(skip)]
    pub picture: Option<Picture>,
}

/// A copy of a question.
#[derive(Deserialize, Serialize)]
pub struct CopyOf {
    prompt: String,
    prediction: String,
}

/// A line of the file, whatever its kind.
#[derive(Deserialize)]
struct Line {
    id: String,
    points: f64,
    prompt: Option<String>,
    prediction: Option<String>,
    answers: Option<Vec<String>>,
    references: Option<Vec<String>>,
    options: Option<Vec<String>>,
    answer: Option<usize>,
    nll: Option<f64>,
    direction: Option<String>,
    image: Option<usize>,
    rank: Option<u64>,
    #[serde(default)]
    retrieved: Vec<String>,
    #[serde(default)]
    copies: Vec<CopyOf>,
}

/// The first predictions of a stage; `None` of a stage that is no evaluation or is not there. Relative paths start at `root`.
pub fn read(node: &StageNode, many: usize, store: &Store, root: &Path) -> Result<Option<Evaluated>, Failure> {
    let Stage::Evaluate { task, items, data, .. } = &*node.stage else { return Ok(None) };
    let Some(entry) = store.entry(&node.key.hex())? else { return Ok(None) };
    let path = entry.file(PREDICTIONS)?;
    let unread = |source| StoreError::Read { path: path.clone(), source };
    let mut lines: Vec<Line> = Vec::new();
    let mut count = 0;
    for text in BufReader::new(File::open(&path).map_err(unread)?).lines() {
        let text = text.map_err(unread)?;
        count += 1;
        if lines.len() < many {
            let wrong = |e| format!("`{}`: line {count} is no prediction: {e}", path.display());
            lines.push(serde_json::from_str(&text).map_err(|e| Failure::new(Exit::Unusable, wrong(e)))?);
        }
    }
    let is_text = task.asks() == Asks::Text;
    let (benchmark, note) = match benchmark(data, *task, *items as usize, root) {
        Ok(benchmark) => (Some(benchmark), None),
        Err(_) if is_text => (None, None),
        Err(error) => (None, Some(format!("images are not named: {error}"))),
    };
    let predictions = lines.into_iter().map(|line| predicted(line, benchmark.as_ref(), data, root)).collect();
    Ok(Some(Evaluated { task: *task, predictions, items: count, note }))
}

/// The benchmark behind an evaluation, with its images where they are now.
fn benchmark(data: &DataConfig, task: Task, items: usize, root: &Path) -> Result<Benchmark, ressa_data::DataError> {
    let data = DataConfig { root: data.root.as_ref().map(|folder| root.join(folder)), ..data.clone() };
    Benchmark::load(&data, task, items)
}

fn predicted(line: Line, benchmark: Option<&Benchmark>, data: &DataConfig, root: &Path) -> Predicted {
    // Retrieval names its image; other items are found by their identity.
    let of_item = || benchmark?.items().iter().find(|item| item.id == line.id).map(|item| item.image);
    let index = line.image.or_else(of_item);
    let picture = index.zip(benchmark).and_then(|(index, benchmark)| benchmark.images().get(index));
    let below = |path: &PathBuf| {
        let folder = data.root.as_ref().map(|folder| root.join(folder)).unwrap_or_default();
        path.strip_prefix(folder).unwrap_or(path).display().to_string()
    };
    let name = match picture {
        Some(ressa_data::Picture::File(path)) => Some(below(path)),
        Some(ressa_data::Picture::Held(_) | ressa_data::Picture::Cell(_)) => {
            index.map(|index| format!("image {index}"))
        }
        None => None,
    };
    let prediction = match (line.prediction, line.nll, line.rank) {
        (Some(text), ..) => text,
        (None, Some(nll), _) => format!("{nll:.4} nats per token"),
        (None, None, rank) => {
            let what = if line.direction.as_deref() == Some("image-to-text") { "text" } else { "image" };
            format!("right {what} at place {}", rank.unwrap_or_default())
        }
    };
    let option = line.options.zip(line.answer).and_then(|(options, answer)| Some(vec![options.get(answer)?.clone()]));
    Predicted {
        id: line.id,
        image: name,
        prompt: line.prompt,
        retrieved: line.retrieved,
        copies: line.copies,
        prediction,
        right: line.answers.or(line.references).or(option).unwrap_or_default(),
        points: line.points,
        picture: picture.and_then(Picture::of),
    }
}

impl Evaluated {
    /// Prints a line for each.
    pub fn print(&self) {
        let mut rows = vec![["image", "prompt", "prediction", "right", "points"].map(str::to_owned).to_vec()];
        for one in &self.predictions {
            // Ten annotators mostly agree.
            let mut right = one.right.clone();
            right.dedup();
            let more = if right.len() > 1 { format!(" (and {} more)", right.len() - 1) } else { String::new() };
            rows.push(vec![
                one.image.clone().unwrap_or_else(|| one.id.clone()),
                one.prompt.clone().unwrap_or_default(),
                one.prediction.clone(),
                right.first().map(|first| format!("{first}{more}")).unwrap_or_default(),
                format!("{:.1}", one.points),
            ]);
        }
        let shown = self.predictions.len();
        say(format_args!("\npredictions of {}, {shown} of {}\n{}", self.task, self.items, columns(&rows).trim_end()));
        self.predictions.iter().for_each(Predicted::print_aids);
        self.note.iter().for_each(say);
    }
}

impl Predicted {
    /// Prints what was read before the prompt and what its copies were answered, where there is such.
    fn print_aids(&self) {
        if self.retrieved.is_empty() && self.copies.is_empty() {
            return;
        }
        say(format_args!("\n  {}", self.id));
        self.retrieved.iter().for_each(|caption| say(format_args!("    retrieved: {caption}")));
        for CopyOf { prompt, prediction } in &self.copies {
            say(format_args!("    copy: {prompt} -> {prediction}"));
        }
    }
}
