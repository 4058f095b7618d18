//! One small job of a class, to see from a node what only a node can show: the folder, the program, the clock.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use super::Check;
use crate::{
    pilot::{Pilot, quoted, salt, token},
    profile::Class,
    script::script_ending_in,
    size::Array,
    slurm::{Call, Commands, submitted_job},
};

/// Time between two looks for the job's answer.
const LOOK: Duration = Duration::from_millis(500);

/// Submits a job of a class with all that the profile asks for, which answers through the results folder and ends; waits for it at most
/// `limit`, then cancels it.
pub fn try_job(class: &Class, pilot: &Pilot, commands: &dyn Commands, version: &str, limit: Duration) -> Check {
    let what = format!("job {}", class.name);
    let name = token(&class.name, salt());
    let (question, answer, script) = (
        pilot.logs.join(format!("{name}.ask")),
        pilot.logs.join(format!("{name}.answer")),
        pilot.logs.join(format!("{name}.sh")),
    );
    let last = command(pilot, &question, &answer);
    let text = script_ending_in(pilot, class, Array { jobs: 1, at_once: None }, &name, &[], &last);
    let written = fs::create_dir_all(&pilot.logs)
        .and_then(|()| fs::write(&question, "asked\n"))
        .and_then(|()| fs::write(&script, text));
    let outcome = match written {
        Err(error) => Err(format!("`{}` cannot be written: {error}", pilot.logs.display())),
        Ok(()) => submit_and_wait(commands, &script, &answer, limit),
    };
    let found = outcome.and_then(|(text, seconds)| judge(&text, version, seconds));
    let log = pilot.logs.join(format!("{name}-0.log"));
    let check = match found {
        Ok(found) => Check::good(what, found),
        Err(wrong) => {
            let told = fs::read_to_string(&log).unwrap_or_default();
            let told = told
                .lines()
                .rev()
                .find(|line| !line.trim().is_empty())
                .map_or(String::new(), |line| format!("; its log ends with `{line}`"));
            Check::bad(what, format!("{wrong}{told}"))
        }
    };
    for file in [&question, &answer, &script, &log] {
        let _ = fs::remove_file(file);
    }
    check
}

/// What the job does: it reads what was written here and writes what it finds, as a pilot would publish it.
fn command(pilot: &Pilot, question: &Path, answer: &Path) -> String {
    let words = |path: &Path| quoted(&path.display().to_string());
    let (question, answer, program) = (words(question), words(answer), words(&pilot.program));
    format!(
        "{{ echo \"node ${{SLURMD_NODENAME:-$(hostname)}}\"; echo \"read $(cat {question})\"; echo \"program $({program} --version 2>&1)\"; \
         echo \"devices ${{CUDA_VISIBLE_DEVICES-none}}\"; date '+time %s'; }} > {answer}.tmp && mv {answer}.tmp {answer}"
    )
}

fn submit_and_wait(
    commands: &dyn Commands,
    script: &Path,
    answer: &Path,
    limit: Duration,
) -> Result<(String, f64), String> {
    let call =
        |program, words: Vec<String>| commands.call(&Call::new(program, words)).map_err(|error| error.to_string());
    let submitted = call("sbatch", vec!["--parsable".to_owned(), script.display().to_string()])?;
    let job = submitted_job(&submitted.output).filter(|_| submitted.is_success());
    let Some(job) = job else { return Err(format!("`sbatch`: {}", submitted.message())) };
    let start = Instant::now();
    while start.elapsed() < limit {
        if let Ok(text) = fs::read_to_string(answer) {
            return Ok((text, start.elapsed().as_secs_f64()));
        }
        std::thread::sleep(LOOK);
    }
    let listed = call("squeue", vec!["--noheader".to_owned(), format!("--jobs={job}"), "--format=%T (%r)".to_owned()]);
    let state = listed.map(|answer| answer.output.trim().to_owned()).unwrap_or_default();
    let _ = call("scancel", vec![job.to_string()]);
    Err(if state.is_empty() {
        format!("job {job} ended without an answer in the results folder: does its node see it?")
    } else {
        format!(
            "job {job} gave no answer within {} s, it is {state}; it was cancelled. `--try-job SECONDS` waits longer",
            limit.as_secs()
        )
    })
}

fn judge(text: &str, version: &str, waited: f64) -> Result<String, String> {
    let field =
        |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).unwrap_or_default();
    let node = field("node");
    if field("read") != "asked" {
        return Err(format!("{node} does not see what was written here into the results folder"));
    }
    if field("program") != version {
        return Err(format!(
            "the program on {node} is `{}`, here it is `{version}`; build or install the same one",
            field("program")
        ));
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
    let skew = field("time").parse::<f64>().map_or(0.0, |then| (now - then).abs());
    // Its answer lay there for a moment; what is more than the wait cannot be the wait.
    let clock = if skew > waited + 5.0 {
        format!(", its clock is {skew:.0} s off, which harms nothing but times of logs")
    } else {
        String::new()
    };
    Ok(format!("answered from {node} after {waited:.0} s, with the same program, devices {}{clock}", field("devices")))
}
