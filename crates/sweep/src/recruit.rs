//! Who has workers started on other machines. The coordinator says what there is to do; how many workers that takes, where and when, is
//! decided outside this crate.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
};

use serde::{Deserialize, Serialize};

use crate::GraphStage;

/// Classes of workers: machines of one class have what certain stages need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Classes {
    names: Vec<String>,
    /// By kind of stage, and whether its model is one of the embedded world.
    takes: HashMap<(String, bool), usize>,
}

impl Default for Classes {
    /// One class, which takes everything.
    fn default() -> Self {
        Self { names: vec![String::new()], takes: HashMap::new() }
    }
}

impl Classes {
    /// Classes by name. `takes` says which one (its place among the names) takes a kind of stage of the embedded world or of published
    /// checkpoints; what it does not name goes to the first.
    pub fn new(names: Vec<String>, takes: HashMap<(String, bool), usize>) -> Self {
        assert!(takes.values().all(|&class| class < names.len()), "a class without a name");
        Self { names, takes }
    }

    /// Their names.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The class of a name.
    pub(crate) fn position(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|known| known == name)
    }

    /// The class that takes a stage.
    pub(crate) fn of(&self, stage: &GraphStage) -> usize {
        self.takes.get(&(stage.node.stage.kind().to_owned(), stage.is_embedded)).copied().unwrap_or(0)
    }
}

/// What a class of workers has to do.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ClassWork {
    /// Stages that can be started, or run.
    pub active: usize,
    /// Stages that wait for others.
    pub waiting: usize,
    /// Expected seconds of what has not begun, one after the other.
    pub seconds: f64,
}

/// What a sweep has to do now.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Need {
    /// By class.
    pub work: Vec<ClassWork>,
    /// Jobs of the pilots that are there, as they name them.
    pub jobs: BTreeSet<String>,
    /// By machine, the seconds after which each of its latest stages failed, one after the other without a success between them.
    pub quick_failures: HashMap<String, Vec<f64>>,
    /// Whether no stage is started any more.
    pub stopping: bool,
}

/// What a recruiter has to say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// What happened, a line each.
    pub lines: Vec<String>,
    /// Classes for which nobody will come any more, and why.
    pub given_up: HashMap<usize, String>,
    /// How things stand with those that were asked for.
    pub standing: Vec<ClassStanding>,
}

/// The jobs of a class of workers, as the engine last said it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ClassStanding {
    /// Name of the class.
    pub class: String,
    /// Jobs that its work asks for.
    pub wanted: u32,
    /// Jobs on a machine.
    pub running: usize,
    /// Those of them whose pilot has joined the sweep.
    pub joined: usize,
    /// Jobs in the queue.
    pub waiting: usize,
    /// Why most of them wait, in the engine's word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Why no more jobs are submitted, where that is so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gave_up: Option<String>,
}

/// A line for people: `train: 2 running, 3 waiting (Priority), 5 wanted`.
impl fmt::Display for ClassStanding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} running, {} waiting", self.class, self.running, self.waiting)?;
        self.reason.iter().try_for_each(|reason| write!(f, " ({reason})"))?;
        write!(f, ", {} wanted", self.wanted)?;
        self.gave_up.iter().try_for_each(|why| write!(f, "; no more are submitted: {why}"))
    }
}

/// Has workers started and ended.
pub trait Recruiter {
    /// The classes that it has workers started for.
    fn classes(&self) -> Classes;

    /// Called about once a second; must not wait for anything.
    fn tick(&mut self, need: &Need) -> Told;

    /// The sweep has ended: nobody who waits to begin is needed. Returns what people should be told.
    fn end(&mut self) -> Vec<String>;
}
