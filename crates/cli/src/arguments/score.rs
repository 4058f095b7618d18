//! Options of `score`.

use std::path::PathBuf;

use clap::Args;
use ressa_experiment::Task;

/// Options of `score`.
#[derive(Args, Debug)]
pub struct ScoreOptions {
    /// `predictions.jsonl` of stored evaluations, or the folders of such stages
    #[arg(value_name = "FILE", required = true)]
    pub predictions: Vec<PathBuf>,
    /// Task of files that lie in no stage's folder, such as vqav2, pope or mmbench; their captions are scored as published ones
    #[arg(long, value_name = "TASK", value_parser = task)]
    pub task: Option<Task>,
    /// Compute METEOR too, of the tables in this `meteor-1.5.jar` and the paraphrases beside it (pycocoevalcap brings both)
    #[arg(long, value_name = "JAR")]
    pub meteor: Option<PathBuf>,
    /// Compute SPICE too, with this `spice-1.0.jar` and its models; needs Java
    #[arg(long, value_name = "JAR")]
    pub spice: Option<PathBuf>,
    /// The program that runs SPICE's jar [default: java], and METEOR's too, which is not run unless this is given
    #[arg(long, value_name = "PROGRAM")]
    pub java: Option<PathBuf>,
    /// Bring OK-VQA's answers to their base forms first, by rules
    #[arg(long)]
    pub lemmatize: bool,
    /// The same by a table of answers and their lemmas, divided by a tab (scripts/lemmatize_answers.py writes spaCy's)
    #[arg(long, value_name = "TABLE", conflicts_with = "lemmatize")]
    pub lemmas: Option<PathBuf>,
    /// Keep what METEOR and SPICE found beside the store, where `ressa report` finds it
    #[arg(long)]
    pub keep: bool,
}

fn task(text: &str) -> Result<Task, String> {
    Task::named(text).ok_or_else(|| format!("expected one of {}", Task::NAMES.join(", ")))
}
