//! Prints the distinct stages of an experiment, upstream first, one JSON object a line: what a coordinator asks workers for.
//!
//! Usage: `stages EXPERIMENTS-FOLDER FILE [SETTING=VALUE...]`

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::{env, path::Path, process::ExitCode};

use ressa_experiment::Experiment;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [root, file, overrides @ ..] = arguments.as_slice() else {
        eprintln!("usage: stages EXPERIMENTS-FOLDER FILE [SETTING=VALUE...]");
        return ExitCode::FAILURE;
    };
    let experiment = match Experiment::load(Path::new(file), Path::new(root), overrides) {
        Ok(experiment) => experiment,
        Err(error) => {
            eprintln!("{:?}", miette::Report::new(error));
            return ExitCode::FAILURE;
        }
    };
    for node in experiment.stages() {
        match serde_json::to_string(&**node) {
            Ok(line) => println!("{line}"),
            Err(error) => {
                eprintln!("{error}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}
