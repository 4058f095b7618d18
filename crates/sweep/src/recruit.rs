//! Who has workers started on other machines. The coordinator says what there is to do; how many workers that takes, where and when, is
//! decided outside this crate.

use std::collections::{BTreeMap, BTreeSet, HashMap};

/// What a sweep has to do now.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Need {
    /// Stages that are not settled, by kind: how many, and the seconds they are expected to take.
    pub open: BTreeMap<&'static str, (usize, f64)>,
    /// Workers that can be given stages, here and elsewhere.
    pub workers: usize,
    /// Stages that workers have.
    pub running: usize,
    /// Jobs of the pilots that are there, as they name them.
    pub jobs: BTreeSet<String>,
    /// By machine, the seconds after which each of its latest stages failed, one after the other without a success between them.
    pub quick_failures: HashMap<String, Vec<f64>>,
    /// Whether no stage is started any more.
    pub stopping: bool,
}

/// Has workers started and ended.
pub trait Recruiter {
    /// Called about once a second; must not wait for anything. Returns what people should be told, a line each.
    fn tick(&mut self, need: &Need) -> Vec<String>;

    /// The sweep has ended: nobody who waits to begin is needed.
    fn end(&mut self);
}
