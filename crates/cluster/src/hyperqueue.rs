//! The same pilots as a task array of a HyperQueue server, for `hq submit`.

use crate::{
    pilot::{Pilot, quoted},
    profile::Class,
};

/// The words of the command that submits `jobs` pilots.
///
/// A pilot needs a HyperQueue worker that lives as long as its time limit; one that is lost with its worker is started again, however often.
pub fn submit_command(pilot: &Pilot, class: &Class, gpu_resource: &str, jobs: u32, token: &str) -> Vec<String> {
    let resources = &class.resources;
    let mut words = ["hq", "submit", "--name", token].map(str::to_owned).to_vec();
    let mut option = |name: &str, value: String| words.extend([name.to_owned(), value]);
    option("--array", format!("0-{}", jobs.max(1) - 1));
    if let Some(cpus) = resources.cpus {
        option("--cpus", cpus.to_string());
    }
    if resources.gpus > 0 {
        option("--resource", format!("{gpu_resource}={}", resources.gpus));
    }
    if let Some(size) = resources.mebibytes() {
        option("--resource", format!("mem={size}"));
    }
    if let Some(minutes) = resources.minutes {
        option("--time-request", format!("{minutes}min"));
        option("--time-limit", format!("{minutes}min"));
    }
    option("--crash-limit", "unlimited".to_owned());
    option("--cwd", pilot.folder.display().to_string());
    let log = format!("{}/{token}-%{{TASK_ID}}.log", pilot.logs.display());
    // A pilot speaks on standard error; one file written from two sides would lose lines.
    option("--stdout", "none".to_owned());
    option("--stderr", log);
    words.extend(resources.options.iter().cloned());
    let mut lines = resources.setup.clone();
    lines.push(format!("exec {}", pilot.command(class)));
    words.extend(["--", "bash", "-c"].map(str::to_owned));
    words.push(lines.join("\n"));
    words
}

/// A command as a line for a shell.
pub fn shell_line(words: &[String]) -> String {
    words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
}
