//! What Slurm has, against what a profile asks for.

use std::{env, fs};

use super::Check;
use crate::{
    pilot::Pilot,
    profile::{Class, Profile, Resources, slurm_time},
    script::sbatch_script,
    size::Array,
    slurm::{
        Answer, Call, Commands, ListedNode, NODE_FIELDS, Settings, TASK_FIELDS, listed_nodes, listed_tasks, read_gres,
        record, refusal,
    },
};

/// Seconds between SIGTERM and SIGKILL below which it is said that a training may not be saved.
const SHORT_KILL_WAIT: u64 = 30;

/// Looks at what jobs of a profile would meet.
pub fn slurm_checks(profile: &Profile, pilot: &Pilot, commands: &dyn Commands) -> Vec<Check> {
    let site = Site { commands };
    let mut checks = Vec::new();
    let settings = match site.ask("scontrol", &["show", "config"]) {
        Err(error) => {
            let help = "run this where Slurm's commands are, such as a login node, and see that `sinfo` answers";
            return vec![Check::bad("slurm", format!("{error}; {help}"))];
        }
        Ok(output) => Settings::read(&output),
    };
    checks.push(site.versions(&settings));
    checks.extend(limits(profile, &settings));
    checks.push(site.queue());
    checks.push(environment());
    for class in &profile.classes {
        checks.extend(site.class(class, pilot, &settings));
    }
    checks
}

struct Site<'a> {
    commands: &'a dyn Commands,
}

impl Site<'_> {
    fn call(&self, program: &'static str, words: &[&str]) -> Result<Answer, String> {
        self.commands.call(&Call::new(program, words.iter().copied())).map_err(|error| error.to_string())
    }

    fn ask(&self, program: &'static str, words: &[&str]) -> Result<String, String> {
        let answer = self.call(program, words)?;
        if answer.is_success() { Ok(answer.output) } else { Err(format!("`{program}`: {}", answer.message())) }
    }

    fn versions(&self, settings: &Settings) -> Check {
        let controller = settings.get("SLURM_VERSION").unwrap_or("unknown").to_owned();
        match self.ask("sbatch", &["--version"]) {
            Err(error) => Check::bad("slurm", error),
            Ok(own) => {
                let own = own.trim().trim_start_matches("slurm ").trim_start_matches("slurm-wlm ").to_owned();
                let year = |version: &str| -> Option<(u32, u32)> {
                    let mut parts = version.split('.').map(|part| part.parse().ok());
                    Some((parts.next()??, parts.next()??))
                };
                let old = year(&own).or(year(&controller)).is_some_and(|version| version < (20, 11));
                let found = if own == controller {
                    format!("Slurm {own}")
                } else {
                    format!("Slurm {own} here, {controller} the controller")
                };
                if old {
                    Check::bad("slurm", format!("{found}; 20.11 or newer is needed"))
                } else {
                    Check::good("slurm", found)
                }
            }
        }
    }

    /// Whether the queue can be read as a sweep reads it.
    fn queue(&self) -> Check {
        let format = format!("--format={TASK_FIELDS}");
        match self.ask("squeue", &["--noheader", "--array", "--states=all", &format, "--name=ressa-doctor"]) {
            Ok(output) if listed_tasks(&output).is_some() => Check::good("queue", "`squeue` answers"),
            Ok(output) => {
                let start: String = output.trim().chars().take(60).collect();
                Check::bad("queue", format!("`squeue` answers `{}`; is it a site's own script?", start.escape_debug()))
            }
            Err(error) => Check::bad("queue", error),
        }
    }

    fn class(&self, class: &Class, pilot: &Pilot, settings: &Settings) -> Vec<Check> {
        let what = format!("class {}", class.name);
        let resources = &class.resources;
        let mut checks = vec![self.partition(&what, resources)];
        if checks[0].good {
            checks.push(self.nodes(&what, resources));
        }
        checks.push(self.acceptance(&what, class, pilot));
        if resources.requeue && settings.number("JobRequeue") == Some(0) {
            let found = "this site starts no job again (JobRequeue=0), `requeue: true` may do nothing; the sweep submits new jobs instead";
            checks.push(Check::good(what, found));
        }
        checks
    }

    /// Whether the partitions of a class are there, open, and allow its time.
    fn partition(&self, what: &str, resources: &Resources) -> Check {
        let output = match self.ask("scontrol", &["show", "partition", "--oneliner"]) {
            Err(error) => return Check::bad(what, error),
            Ok(output) => output,
        };
        let all: Vec<_> = output.lines().map(record).filter(|fields| fields.contains_key("PartitionName")).collect();
        let names: Vec<&str> = all.iter().map(|fields| fields["PartitionName"]).collect();
        let wanted: Vec<&str> = match &resources.partition {
            Some(list) => list.split(',').collect(),
            None => match all.iter().find(|fields| fields.get("Default") == Some(&"YES")) {
                Some(fields) => vec![fields["PartitionName"]],
                None => {
                    let advice = format!("name one of them in `partition`: {}", names.join(", "));
                    return Check::bad(what, format!("there is no default partition; {advice}"));
                }
            },
        };
        for name in &wanted {
            let Some(fields) = all.iter().find(|fields| fields["PartitionName"] == *name) else {
                return Check::bad(what, format!("there is no partition `{name}`; there are {}", names.join(", ")));
            };
            if let Some(state) = fields.get("State").filter(|state| **state != "UP") {
                return Check::bad(
                    what,
                    format!("partition `{name}` is {state}; ask the site, or choose one of {}", names.join(", ")),
                );
            }
            let most = fields.get("MaxTime").and_then(|time| minutes(time));
            if let (Some(most), Some(asked)) = (most, resources.minutes)
                && asked > most
            {
                let advice = format!("write `time: {most}min` or less, or choose another partition");
                return Check::bad(
                    what,
                    format!(
                        "partition `{name}` allows {}, `time` is {}; {advice}",
                        slurm_time(most),
                        slurm_time(asked)
                    ),
                );
            }
        }
        Check::good(
            what,
            format!("partition {} is up and allows {}", wanted.join(", "), slurm_time(resources.minutes.unwrap_or(0))),
        )
    }

    /// Whether a node has what a job asks for.
    fn nodes(&self, what: &str, resources: &Resources) -> Check {
        let format = format!("--format={NODE_FIELDS}");
        let mut words = vec!["--noheader", "--Node", &format];
        let partition = resources.partition.as_ref().map(|list| format!("--partition={list}"));
        words.extend(partition.as_deref());
        let nodes = match self.ask("sinfo", &words) {
            Err(error) => return Check::bad(what, error),
            Ok(output) => listed_nodes(&output),
        };
        let usable: Vec<&ListedNode> =
            nodes.iter().filter(|node| node.is_up() && !resources.exclude.contains(&node.name)).collect();
        let lacking = |node: &&&ListedNode| shortage(node, resources).is_none();
        let fitting = usable.iter().filter(lacking).count();
        match (fitting, usable.first()) {
            (0, None) => Check::bad(
                what,
                format!("none of {} nodes is up; ask the site, or choose another partition", nodes.len()),
            ),
            (0, Some(first)) => {
                // What keeps most of them from fitting is what to change.
                let why = usable.iter().filter_map(|node| shortage(node, resources)).next().unwrap_or_default();
                let found = format!("none of {} nodes fits: {} {why}", usable.len(), first.name);
                Check::bad(what, found)
            }
            (fitting, _) => Check::good(what, format!("{fitting} of {} nodes fit", nodes.len())),
        }
    }

    /// Whether Slurm would take the script; nothing is submitted.
    fn acceptance(&self, what: &str, class: &Class, pilot: &Pilot) -> Check {
        let script = pilot.logs.join(format!("doctor-{}.sh", class.name));
        let text = sbatch_script(pilot, class, Array { jobs: 1, at_once: None }, "ressa-doctor", &[]);
        let written = fs::create_dir_all(&pilot.logs).and_then(|()| fs::write(&script, text));
        if let Err(error) = written {
            return Check::bad(what, format!("`{}` cannot be written: {error}", script.display()));
        }
        let answer = self.call("sbatch", &["--test-only", &script.display().to_string()]);
        let _ = fs::remove_file(&script);
        match answer {
            Err(error) => Check::bad(what, error),
            Ok(answer) if answer.is_success() => {
                let told = answer.errors.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("accepted");
                let told = told.trim_start_matches("sbatch: ").replace("Job 0 to start", "a job would start");
                Check::good(what, told)
            }
            Ok(answer) => {
                let advice = refusal(&answer.errors).advice.map_or(String::new(), |advice| format!("; {advice}"));
                Check::bad(what, format!("`sbatch --test-only`: {}{advice}", answer.message()))
            }
        }
    }
}

/// What a node lacks for a job, with what to change.
fn shortage(node: &ListedNode, resources: &Resources) -> Option<String> {
    if let Some(cpus) = resources.cpus.filter(|&cpus| cpus > node.cpus) {
        return Some(format!("has {} cores, `cpus` is {cpus}", node.cpus));
    }
    if let Some(size) = resources.mebibytes().filter(|&size| size > node.mebibytes) {
        return Some(format!("has {} MiB, jobs ask for {size}", node.mebibytes));
    }
    let has = |name: &str, kind: &str| -> u32 {
        let fits = |own: &&(String, String, u32)| own.0 == name && (kind.is_empty() || own.1 == kind);
        node.gres.iter().filter(fits).map(|own| own.2).sum()
    };
    let asked = match (&resources.gres, resources.gpus) {
        (Some(gres), _) => gres.split(',').filter_map(read_gres).collect(),
        (None, 0) => Vec::new(),
        (None, gpus) => vec![("gpu".to_owned(), String::new(), gpus)],
    };
    if let Some((name, kind, count)) = asked.into_iter().find(|(name, kind, count)| has(name, kind) < *count) {
        let own: Vec<String> = node
            .gres
            .iter()
            .map(|(name, kind, count)| [name, kind, &count.to_string()].map(String::as_str).join(":"))
            .collect();
        let own = if own.is_empty() {
            "no generic resources".to_owned()
        } else {
            format!("`{}`", own.join(",").replace("::", ":"))
        };
        let wanted = [name, kind, count.to_string()].join(":").replace("::", ":");
        return Some(format!("has {own}, jobs ask for `{wanted}`"));
    }
    let features = resources
        .constraint
        .as_deref()
        .filter(|text| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.&".contains(&b)));
    let missing =
        features.and_then(|text| text.split('&').find(|feature| !node.features.iter().any(|own| own == feature)));
    missing.map(|feature| {
        let own = if node.features.is_empty() { "none".to_owned() } else { node.features.join(", ") };
        format!("does not have the feature `{feature}` of `constraint` (it has {own})")
    })
}

/// Minutes of Slurm's `D-HH:MM:SS`, `HH:MM:SS` or `UNLIMITED`, which is `None`.
fn minutes(text: &str) -> Option<u64> {
    let (days, clock) = text.split_once('-').unwrap_or(("0", text));
    let parts: Vec<u64> = clock.split(':').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    let [hours, minutes, _] = parts[..] else { return None };
    Some((days.parse::<u64>().ok()? * 24 + hours) * 60 + minutes)
}

fn limits(profile: &Profile, settings: &Settings) -> Vec<Check> {
    let mut checks = Vec::new();
    let most = profile.classes.iter().map(|class| class.resources.max_jobs).max().unwrap_or(1);
    checks.push(match settings.number("MaxArraySize") {
        None => Check::good("arrays", "MaxArraySize is not said; 1001 is assumed"),
        Some(0 | 1) => Check::bad("arrays", "this site allows no job arrays (MaxArraySize); ask it to"),
        Some(size) if u64::from(most) > size => {
            Check::good("arrays", format!("at most {size} jobs in an array; `max-jobs: {most}` takes several"))
        }
        Some(size) => Check::good("arrays", format!("at most {size} jobs in an array")),
    });
    let lead = profile.classes.iter().map(|class| class.resources.lead).min().unwrap_or(0);
    let preempts = settings.get("PreemptMode").filter(|mode| *mode != "OFF");
    let preemption = match preempts {
        None => "jobs are not preempted".to_owned(),
        Some(mode) => format!("preempted jobs: {}", mode.to_lowercase()),
    };
    checks.push(match settings.number("KillWait") {
        Some(wait) if wait < SHORT_KILL_WAIT => Check::good(
            "end of a job",
            format!(
                "the time limit is announced {lead} s before; {preemption}; only {wait} s are between SIGTERM and SIGKILL (KillWait): a large \
                 training that is preempted loses what it did since its last checkpoint"
            ),
        ),
        Some(wait) => Check::good("end of a job", format!("the time limit is announced {lead} s before; {preemption}, with {wait} s to save (KillWait)")),
        None => Check::good("end of a job", format!("the time limit is announced {lead} s before; {preemption}")),
    });
    checks
}

/// Variables of the user's that other submissions heed and a sweep's do not.
fn environment() -> Check {
    let mut set: Vec<String> = env::vars_os()
        .map(|(name, _)| name.to_string_lossy().into_owned())
        .filter(|name| name.starts_with("SBATCH_"))
        .collect();
    set.sort();
    if set.is_empty() {
        Check::good("environment", "no SBATCH_ variables")
    } else {
        Check::good("environment", format!("{} are not heeded: the profile says what is asked for", set.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_partitions_are_read() {
        let read = ["UNLIMITED", "01:00:00", "2-12:00:00", "00:02:00"].map(minutes);
        assert_eq!(read, [None, Some(60), Some(3600), Some(2)]);
    }

    #[test]
    fn what_a_node_lacks_is_said_with_both_sides() {
        let node = ListedNode {
            name: "n1".to_owned(),
            state: "idle".to_owned(),
            cpus: 2,
            mebibytes: 4000,
            features: vec!["fast".to_owned()],
            gres: vec![("gpu".to_owned(), "a100".to_owned(), 2)],
        };
        let lacks = |keys: &str| {
            let profile = Profile::parse(&format!("engine: slurm\ndefaults: {{ time: 1h, {keys} }}"), "p").unwrap();
            shortage(&node, &profile.classes[0].resources)
        };
        for fine in [
            "cpus: 2",
            "mem: 4000M",
            "gpus: 2",
            "gres: \"gpu:a100:1\"",
            "constraint: fast",
            "constraint: \"slow|fast\"",
        ] {
            assert_eq!(lacks(fine), None, "{fine}");
        }
        let cases = [
            ("cpus: 3", "has 2 cores, `cpus` is 3"),
            ("mem: 4G", "has 4000 MiB, jobs ask for 4096"),
            ("cpus: 2, mem-per-cpu: 3G", "has 4000 MiB, jobs ask for 6144"),
            ("gpus: 3", "has `gpu:a100:2`, jobs ask for `gpu:3`"),
            ("gres: \"gpu:h100:1\"", "has `gpu:a100:2`, jobs ask for `gpu:h100:1`"),
            ("constraint: slow", "does not have the feature `slow` of `constraint` (it has fast)"),
        ];
        for (keys, expected) in cases {
            assert_eq!(lacks(keys).as_deref(), Some(expected), "{keys}");
        }
    }
}
