//! `ressa diff`: what is different between two runs, two results folders or two reports.

mod folders;
mod reports;
mod runs;

use std::path::Path;

use ressa_report::Verdicts;

use crate::{
    arguments::{Global, show::DiffOptions},
    exit::{Exit, Failure, Outcome},
    study::Study,
    text::{say, say_json},
    workspace::Workspace,
};

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sort {
    Run,
    Results,
    Report,
}

impl Sort {
    /// A results folder holds a store, a report its marker; everything else is the name of a run.
    fn of(word: &str) -> Self {
        let path = Path::new(word);
        match () {
            () if path.join("store").is_dir() => Self::Results,
            () if Verdicts::are_at(path) => Self::Report,
            () => Self::Run,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Run => "a run",
            Self::Results => "a results folder",
            Self::Report => "a report",
        }
    }
}

/// Compares; the exit code says whether anything differs.
pub fn run(global: &Global, options: &DiffOptions) -> Outcome {
    let (a, b) = (options.a.as_str(), options.b.as_str());
    let (left, right) = (Sort::of(a), Sort::of(b));
    if left != right {
        let message = format!("`{a}` is {}, `{b}` {}; two of one sort are compared", left.name(), right.name());
        return Err(Failure::new(Exit::Usage, message));
    }
    let differ = match left {
        Sort::Report => {
            let found = reports::Difference::of(Path::new(a), Path::new(b))?;
            answer(global, &found, reports::Difference::print)?;
            found.differs
        }
        Sort::Results => {
            let workspace = Workspace::find(global)?;
            let study = Study::load(&workspace, &options.selection)?;
            let found = folders::Difference::of(&workspace, &study, Path::new(a), Path::new(b))?;
            answer(global, &found, folders::Difference::print)?;
            found.differs
        }
        Sort::Run => {
            let workspace = Workspace::find(global)?;
            let study = Study::load(&workspace, &options.selection)?;
            let found = runs::Difference::of(&workspace, &study, a, b)?;
            answer(global, &found, runs::Difference::print)?;
            found.differs
        }
    };
    Ok(if differ { Exit::Differ } else { Exit::Done })
}

fn answer<T: serde::Serialize>(global: &Global, found: &T, print: impl FnOnce(&T)) -> Result<(), Failure> {
    if global.json {
        say_json(&serde_json::to_value(found).map_err(|e| Failure::new(Exit::Other, e.to_string()))?);
    } else {
        print(found);
    }
    Ok(())
}

/// Lines below a head, at most so many; nothing where there are none.
fn list(head: &str, lines: &[String]) {
    const SHOWN: usize = 20;
    if lines.is_empty() {
        return;
    }
    say(format_args!("\n{head}"));
    lines.iter().take(SHOWN).for_each(|line| say(format_args!("  {line}")));
    if lines.len() > SHOWN {
        say(format_args!("  and {} more (--json has all of them)", lines.len() - SHOWN));
    }
}
