//! `ressa score`: stored predictions scored again, also by METEOR's and SPICE's own programs.

use std::path::{Path, PathBuf};

use ressa_experiment::{
    Task,
    job::{Job, ScorePredictions},
    record::{ExternalScores, TaskScore},
};
use serde_json::{Value, json};

use crate::{
    arguments::{Global, model::JobMachine, score::ScoreOptions},
    exit::{Exit, Failure, Outcome},
    job,
    text::{say, say_json},
    workspace::Workspace,
};

/// File of the predictions in a stage's folder.
const PREDICTIONS: &str = "predictions.jsonl";
/// What external scorers add to the parts.
const EXTERNAL: [&str; 2] = ["meteor", "spice"];

/// Has a worker score each file and prints what it found.
pub fn run(global: &Global, options: &ScoreOptions) -> Outcome {
    let workspace = Workspace::find(global)?;
    let mut found = Vec::new();
    for given in &options.predictions {
        let path = if given.is_dir() { given.join(PREDICTIONS) } else { given.clone() };
        if !path.is_file() {
            return Err(Failure::new(Exit::MissingInput, format!("there is no file `{}`", path.display())));
        }
        let stage = Stage::of(&path)?;
        let task = options.task.or(stage.as_ref().map(|stage| stage.task)).ok_or_else(|| {
            let message = format!("`{}` lies in no stage's folder; say --task", path.display());
            Failure::new(Exit::Usage, message)
        })?;
        let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
        let job = ScorePredictions {
            predictions: absolute(&path),
            task,
            published: stage.as_ref().is_none_or(|stage| stage.published),
            meteor: options.meteor.as_ref().map(absolute),
            spice: options.spice.as_ref().map(absolute),
            java: options.java.clone(),
            lemmatize: options.lemmatize
                || stage.as_ref().is_some_and(|stage| stage.lemmatized && options.lemmas.is_none()),
            lemmas: options.lemmas.as_ref().map(absolute),
            scratch: workspace.results.join("cache/spice"),
        };
        let answer = job::run(global, &JobMachine::host(), &Job::Score(Box::new(job)))?;
        let scored: TaskScore = serde_json::from_value(answer)
            .map_err(|e| Failure::new(Exit::Other, format!("the worker's answer: {e}")))?;
        if options.keep {
            keep(&workspace, &path, stage.as_ref(), &scored)?;
        }
        if !global.json {
            show(&path, &scored);
        }
        found.push(json!({ "file": path, "scores": scored }));
    }
    if global.json {
        say_json(&Value::Array(found));
    }
    Ok(Exit::Done)
}

/// What the manifest beside predictions says about them.
struct Stage {
    key: String,
    task: Task,
    published: bool,
    lemmatized: bool,
    /// Digest of the predictions.
    digest: String,
}

impl Stage {
    fn of(predictions: &Path) -> Result<Option<Self>, Failure> {
        let path = predictions.with_file_name("manifest.json");
        let Ok(text) = std::fs::read(&path) else { return Ok(None) };
        let wrong =
            || Failure::new(Exit::Unusable, format!("`{}` is not the manifest of an evaluation", path.display()));
        let manifest: Value = serde_json::from_slice(&text).map_err(|_| wrong())?;
        let configuration = &manifest["configuration"];
        let stage = || {
            Some(Self {
                key: manifest["key"].as_str()?.to_owned(),
                task: serde_json::from_value(configuration["task"].clone()).ok()?,
                published: configuration["data"]["source"] == "folder",
                lemmatized: configuration["okvqa"]["lemmatizer"] == "rules",
                digest: manifest["files"][PREDICTIONS]["blake3"].as_str()?.to_owned(),
            })
        };
        stage().map(Some).ok_or_else(wrong)
    }
}

/// Writes what other programs found beside the store.
fn keep(workspace: &Workspace, path: &Path, stage: Option<&Stage>, scored: &TaskScore) -> Result<(), Failure> {
    let stage = stage.ok_or_else(|| {
        Failure::new(
            Exit::Usage,
            format!("--keep needs the predictions of a stored stage; `{}` is none", path.display()),
        )
    })?;
    let store = workspace.store()?;
    let file = ExternalScores::path(store.root(), &stage.key);
    let parts = scored.parts.iter().filter(|(name, _)| EXTERNAL.contains(&name.as_str()));
    let mut kept = ExternalScores::read(store.root(), &stage.key, &stage.digest).unwrap_or_default();
    kept.predictions.clone_from(&stage.digest);
    kept.parts.extend(parts.map(|(name, score)| (name.clone(), score.clone())));
    let text = serde_json::to_vec_pretty(&kept).expect("plain data");
    std::fs::create_dir_all(file.parent().unwrap_or(Path::new("")))
        .map_err(|e| Failure::new(Exit::CannotWrite, format!("cannot write `{}`: {e}", file.display())))?;
    Ok(ressa_store::replace(&file, &text)?)
}

/// One line for each score.
fn show(path: &Path, scored: &TaskScore) {
    say(format_args!("{} ({})", scored.task, path.display()));
    let undefined = scored.undefined();
    let own = scored.score.as_ref().map(|score| (score.metric.as_str(), score));
    for (name, score) in own.into_iter().chain(scored.parts.iter().map(|(name, score)| (name.as_str(), score))) {
        let what = if name == score.metric { name.to_owned() } else { format!("{name} ({})", score.metric) };
        say(format_args!("  {what:<32} {:>8.2} +- {:.2}  n = {}", score.value, score.standard_error, score.items));
    }
    if let Some(why) = undefined {
        say(format_args!("  no score: {why}"));
    }
}
