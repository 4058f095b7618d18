//! A cluster's engine, as a sweep uses it: the profile that says what jobs ask for, and the fleet of pilots that is kept on it.

use std::{
    collections::HashMap,
    env,
    path::{Path, PathBuf},
};

use ressa_cluster::{
    Array, Class, ClassStatus, DEFAULT_CLASS, Engine, Fleet, MAX_COMPLETIONS, Need as FleetNeed, Pilot, Profile, Work,
    hyperqueue_command, indexed_job, sbatch_script, sees_results, shell_line, slurm::Programs, wanted,
};
use ressa_experiment::Stage;
use ressa_sweep::{ClassStanding, ClassWork, Classes, Need, Recruiter, SweepError, Told};
use serde_json::json;

use crate::{
    arguments::Global,
    exit::{Exit, Failure},
    text::{count, note, say, say_json},
    workspace::Workspace,
};

/// Name of a submission in what is only printed, where a real one is unique.
const EXAMPLE: &str = "ressa";

/// A profile, and the command that its jobs run.
#[derive(Debug)]
pub struct Cluster {
    profile: Profile,
    pilot: Pilot,
}

impl Cluster {
    /// Reads a profile: a file, or the name of one in the folder `profiles`.
    pub fn find(workspace: &Workspace, global: &Global, name: &str) -> Result<Self, Failure> {
        let path = profile_path(workspace, name)?;
        let profile = Profile::read(&path, &workspace.show(&path))?;
        let program = env::current_exe()
            .map_err(|e| Failure::new(Exit::Other, format!("the path of this program is unknown: {e}")))?;
        let mut words = vec!["--experiments".to_owned(), workspace.experiments.display().to_string()];
        if global.worker.is_some() {
            words.extend(["--worker".to_owned(), workspace.worker().display().to_string()]);
        }
        let pilot = Pilot {
            program,
            global: words,
            results: workspace.results.clone(),
            folder: workspace.root.clone(),
            logs: workspace.results.join("pilots"),
        };
        if let Engine::Kubernetes(settings) = &profile.engine
            && !sees_results(settings, &workspace.results)
        {
            let message = format!(
                "pods would not see `{}`: the claim is mounted at `{}`; say where they find it with `results:` in `{}`",
                workspace.results.display(),
                settings.mount,
                workspace.show(&path)
            );
            return Err(Failure::new(Exit::BadExperiment, message));
        }
        Ok(Self { profile, pilot })
    }

    /// The profile.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// The command that its jobs run.
    pub fn pilot(&self) -> &Pilot {
        &self.pilot
    }

    /// Which class takes which stage.
    pub fn classes(&self) -> Classes {
        classes(&self.profile)
    }

    /// Prints what would be given to the engine for so much work, and how much that is; a value for each class where a machine reads.
    pub fn print(&self, work: &[ClassWork], json: bool) {
        let mut listed = Vec::new();
        for (class, work) in self.profile.classes.iter().zip(work).filter(|(_, work)| work.active + work.waiting > 0) {
            // A class whose work waits for others gets its jobs later; what one of them would look like is shown all the same.
            let jobs = wanted(open(*work), &class.resources).max(1);
            if json {
                listed.push(json!({
                    "class": class.name, "jobs": jobs, "stages": work.active + work.waiting, "seconds": work.seconds,
                    "submission": self.submission(class, jobs),
                }));
                continue;
            }
            match &self.profile.engine {
                Engine::Slurm => {
                    let stages = count(work.active + work.waiting, "stage");
                    let now = if work.active == 0 { " once its stages can begin" } else { "" };
                    let number = count(jobs as usize, "job");
                    say(format_args!(
                        "# class {}: {stages}; {number} at first{now}, then as the work asks for",
                        class.name
                    ));
                    say(self.submission(class, jobs).trim_end());
                }
                // One document after the other, as `kubectl` takes them.
                Engine::Kubernetes(_) => say(format_args!("---\n{}", self.submission(class, jobs))),
                Engine::HyperQueue { .. } => say(self.submission(class, jobs)),
            }
        }
        if json {
            say_json(&json!(listed));
        } else if work.iter().all(|work| work.active + work.waiting == 0) {
            note("nothing to do, so nothing would be submitted");
        }
    }

    /// What the engine takes for jobs of a class: a script, a manifest (JSON is YAML), or a command.
    fn submission(&self, class: &Class, jobs: u32) -> String {
        match &self.profile.engine {
            Engine::Slurm => {
                let array = Array::of(jobs, class.resources.array_limit, u32::MAX);
                sbatch_script(&self.pilot, class, array, EXAMPLE, &[])
            }
            Engine::Kubernetes(settings) => {
                let token = self.token(&class.name);
                let job = indexed_job(&self.pilot, class, settings, jobs.min(MAX_COMPLETIONS), &token);
                serde_json::to_string_pretty(&job).expect("a manifest is plain data")
            }
            Engine::HyperQueue { gpu_resource } => {
                shell_line(&hyperqueue_command(&self.pilot, class, gpu_resource, jobs, &self.token(&class.name)))
            }
        }
    }

    fn token(&self, class: &str) -> String {
        if class == DEFAULT_CLASS { EXAMPLE.to_owned() } else { format!("{EXAMPLE}-{class}") }
    }

    /// Begins to have pilots started, where that is ours to do.
    pub fn recruit(&self) -> Result<Box<dyn Recruiter>, Failure> {
        let fleet = match &self.profile.engine {
            Engine::Slurm => {
                let fleet = Fleet::start(self.profile.clone(), self.pilot.clone(), Box::new(Programs::default()));
                Some(fleet.map_err(|source| SweepError::Write { path: self.pilot.logs.clone(), source })?)
            }
            Engine::Kubernetes(_) | Engine::HyperQueue { .. } => None,
        };
        Ok(Box::new(Recruits { classes: classes(&self.profile), profile: self.profile.clone(), fleet }))
    }
}

/// Who has pilots started for a sweep.
struct Recruits {
    profile: Profile,
    classes: Classes,
    /// Where jobs are submitted by us; elsewhere users submit what `--dry-run` prints.
    fleet: Option<Fleet>,
}

impl Recruiter for Recruits {
    fn classes(&self) -> Classes {
        self.classes.clone()
    }

    fn tick(&mut self, need: &Need) -> Told {
        let Some(fleet) = &mut self.fleet else { return Told::default() };
        let names = self.profile.classes.iter().map(|class| class.name.clone());
        let events = fleet.tick(FleetNeed {
            work: names.zip(need.work.iter().map(|work| open(*work))).collect(),
            jobs: need.jobs.clone(),
            failures: need.quick_failures.clone(),
            stopping: need.stopping,
        });
        let status = fleet.status();
        Told {
            lines: events.iter().map(ToString::to_string).collect(),
            given_up: status
                .classes
                .iter()
                .enumerate()
                .filter_map(|(class, status)| Some((class, status.hopeless()?.to_owned())))
                .collect(),
            standing: status.classes.iter().map(standing).collect(),
        }
    }

    fn end(&mut self) -> Vec<String> {
        let events = self.fleet.take().map(Fleet::finish).unwrap_or_default();
        events.iter().map(ToString::to_string).collect()
    }
}

/// Work by which jobs are counted: what can be done now, and one job as long as anything waits, so that a place in the queue is kept.
fn open(work: ClassWork) -> Work {
    Work { open: work.active.max(usize::from(work.waiting > 0)), seconds: work.seconds }
}

fn standing(status: &ClassStatus) -> ClassStanding {
    let ClassStatus { class, wanted, waiting, reason, running, joined, gave_up } = status.clone();
    ClassStanding { class, wanted, running, joined, waiting, reason, gave_up }
}

fn classes(profile: &Profile) -> Classes {
    let position = |class: &str| profile.classes.iter().position(|known| known.name == class).unwrap_or_default();
    let mut takes = HashMap::new();
    for (kind, _) in Stage::VERSIONS {
        for embedded in [false, true] {
            takes.insert((kind.to_owned(), embedded), position(&profile.class_of(kind, embedded).name));
        }
    }
    Classes::new(profile.classes.iter().map(|class| class.name.clone()).collect(), takes)
}

/// A file as it is named, or a profile of the repository by its name.
fn profile_path(workspace: &Workspace, name: &str) -> Result<PathBuf, Failure> {
    let named = Path::new(name);
    if named.is_file() {
        return Ok(env::current_dir().unwrap_or_default().join(named));
    }
    let folder = workspace.root.join("profiles");
    let path = folder.join(format!("{name}.yaml"));
    if path.is_file() {
        return Ok(path);
    }
    let known = std::fs::read_dir(&folder).into_iter().flatten().flatten().filter_map(|item| {
        let path = item.path();
        let stem = path.file_stem()?.to_str()?.to_owned();
        (path.extension()? == "yaml").then_some(stem)
    });
    let mut known: Vec<String> = known.collect();
    known.sort();
    let known = if known.is_empty() { "there are none".to_owned() } else { known.join(", ") };
    let message = format!(
        "no profile `{name}`: neither a file nor one of `{}` ({known}); copy one, and name its file with --profile",
        workspace.show(&folder)
    );
    Err(Failure::new(Exit::Usage, message))
}
