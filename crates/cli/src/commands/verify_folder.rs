//! `ressa verify DIR`: the weights of a folder against its configuration, its certificate, and claims on the command line.

use std::path::Path;

use ressa_checkpoint::{Checkpoint, Claims, FolderCertificate, Verification, misfits, verify};
use ressa_experiment::rounded_percent;
use serde_json::json;

use crate::{
    arguments::{Global, VerifyOptions},
    exit::{Exit, Outcome},
    text::{columns, count, say, say_json, thousands},
};

/// Whether a word of the command line is a model folder or a safetensors file rather than a run.
pub fn is_folder(word: &str) -> bool {
    let path = Path::new(word);
    let is_weights = path.extension().is_some_and(|ending| ending == "safetensors");
    path.is_dir() || (path.is_file() && is_weights)
}

/// Recounts folders; names what does not hold.
pub fn run(global: &Global, options: &VerifyOptions) -> Outcome {
    let claims = Claims { pattern: options.pattern, sparsity: options.sparsity, towers: options.towers.clone() };
    let mut all_hold = true;
    let mut answers = Vec::new();
    for word in &options.which {
        let path = Path::new(word);
        let (checkpoint, own) = match path.is_dir() {
            true => (Checkpoint::open(path)?, FolderCertificate::read(path)?),
            false => (Checkpoint::of_file(path)?, None),
        };
        let mut found = verify(&checkpoint, own.as_ref(), &claims);
        if path.is_dir() {
            found.violations.extend(misfits(&checkpoint));
        }
        all_hold &= found.holds();
        if global.json {
            let mut answer = json!(found);
            answer["path"] = json!(word);
            answer["holds"] = json!(found.holds());
            answers.push(answer);
        } else {
            print(word, &found, own.as_ref(), global.verbose);
        }
    }
    if global.json {
        say_json(&if answers.len() == 1 { answers.remove(0) } else { json!(answers) });
    }
    Ok(if all_hold { Exit::Done } else { Exit::NotVerified })
}

fn print(word: &str, found: &Verification, own: Option<&FolderCertificate>, verbose: bool) {
    say(word);
    let mut rows = vec![["tower", "linears", "weights", "zero", "pattern"].map(str::to_owned).to_vec()];
    for (tower, sums) in &found.towers {
        let pattern = sums.pattern.map(|pattern| pattern.to_string()).unwrap_or_default();
        rows.push(vec![
            tower.to_string(),
            sums.linears.to_string(),
            thousands(sums.elements),
            rounded_percent(sums.sparsity),
            pattern,
        ]);
    }
    if rows.len() > 1 {
        say(format_args!("\n{}", columns(&rows)));
    } else {
        say("no prunable linears");
    }
    if verbose {
        let mut rows = vec![["tensor", "weights", "zero", "pattern"].map(str::to_owned).to_vec()];
        for tensor in &found.tensors {
            let share = tensor.zeros as f64 / tensor.elements.max(1) as f64;
            let pattern = tensor.pattern.map(|pattern| pattern.to_string()).unwrap_or_default();
            rows.push(vec![tensor.name.clone(), thousands(tensor.elements), rounded_percent(share), pattern]);
        }
        say(columns(&rows));
    }
    let mut wrong = 0;
    for tensor in &found.tensors {
        for violation in &tensor.violations {
            say(format_args!("WRONG  {}: {violation}", tensor.name));
            wrong += 1;
        }
    }
    for violation in &found.violations {
        say(format_args!("WRONG  {violation}"));
        wrong += 1;
    }
    let compared = match own {
        Some(own) => format!("{} compared with its certificate", count(own.tensors.len(), "tensor")),
        None => "no certificate in it".to_owned(),
    };
    say(format_args!("{compared}, {wrong} wrong"));
}
