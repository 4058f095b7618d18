//! The batch script of an array of pilots: settings and the results folder, no data.

use std::fmt::Write;

use crate::{
    pilot::Pilot,
    profile::{Class, Memory, slurm_time},
    size::Array,
};

/// The script that `sbatch` takes. `token` is the job's name; `exclude` are nodes beside those of the profile.
pub fn sbatch_script(pilot: &Pilot, class: &Class, array: Array, token: &str, exclude: &[String]) -> String {
    script_ending_in(pilot, class, array, token, exclude, &format!("exec {}", pilot.command(class)))
}

/// The same with another last line.
pub(crate) fn script_ending_in(
    pilot: &Pilot,
    class: &Class,
    array: Array,
    token: &str,
    exclude: &[String],
    last: &str,
) -> String {
    let resources = &class.resources;
    let mut script = format!(
        "#!/bin/bash\n# Pilots of `ressa sweep`, class `{}`: each joins the sweep of the results folder and is told there what to do.\n",
        class.name
    );
    let mut line = |name: &str, value: &str| {
        let value = directive(value);
        let separator = if value.is_empty() { "" } else { "=" };
        let _ = writeln!(script, "#SBATCH --{name}{separator}{value}");
    };
    line("job-name", token);
    line("array", &array.to_string());
    line("nodes", "1");
    line("ntasks", "1");
    let texts = [
        ("partition", &resources.partition),
        ("account", &resources.account),
        ("qos", &resources.qos),
        ("constraint", &resources.constraint),
    ];
    for (name, text) in texts {
        text.iter().for_each(|text| line(name, text));
    }
    match (&resources.gres, resources.gpus) {
        (Some(gres), _) => line("gres", gres),
        (None, 0) => {}
        (None, gpus) => line("gres", &format!("gpu:{gpus}")),
    }
    resources.cpus.iter().for_each(|cpus| line("cpus-per-task", &cpus.to_string()));
    match resources.memory {
        None => {}
        Some(Memory::Job(size)) => line("mem", &format!("{size}M")),
        Some(Memory::PerCpu(size)) => line("mem-per-cpu", &format!("{size}M")),
        Some(Memory::PerGpu(size)) => line("mem-per-gpu", &format!("{size}M")),
    }
    resources.minutes.iter().for_each(|&minutes| line("time", &slurm_time(minutes)));
    // `B:` alone reaches the pilot, which takes the place of the batch shell.
    line("signal", &format!("B:{}@{}", resources.signal.name(), resources.lead));
    line(if resources.requeue { "requeue" } else { "no-requeue" }, "");
    line("open-mode", "append");
    let nodes: Vec<&str> = resources.exclude.iter().chain(exclude).map(String::as_str).collect();
    if !nodes.is_empty() {
        line("exclude", &nodes.join(","));
    }
    line("chdir", &pilot.folder.display().to_string());
    // Slurm puts numbers where it reads a `%`.
    let logs = pilot.logs.display().to_string().replace('%', "%%");
    line("output", &format!("{logs}/{token}-%a.log"));
    for option in &resources.options {
        let _ = writeln!(script, "#SBATCH {option}");
    }
    // Where the job that submitted this one asked for memory in another way, its variables contradict this job's own.
    let foreign = match resources.memory {
        Some(Memory::PerCpu(_)) => "SLURM_MEM_PER_NODE SLURM_MEM_PER_GPU",
        Some(Memory::PerGpu(_)) => "SLURM_MEM_PER_NODE SLURM_MEM_PER_CPU",
        Some(Memory::Job(_)) | None => "SLURM_MEM_PER_CPU SLURM_MEM_PER_GPU",
    };
    let _ = writeln!(script, "unset {foreign}");
    for setup in &resources.setup {
        let _ = writeln!(script, "{setup}");
    }
    let _ = writeln!(script, "{last}");
    script
}

/// A value as `#SBATCH` lines take it: blanks and comment signs in quotes.
fn directive(value: &str) -> String {
    let plain = |c: char| !c.is_whitespace() && !"#'\"\\".contains(c);
    if value.chars().all(plain) {
        value.to_owned()
    } else {
        format!("\"{}\"", value.replace('\\', r"\\").replace('"', "\\\""))
    }
}
