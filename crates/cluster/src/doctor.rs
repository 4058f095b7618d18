//! Checks of a site before anything is submitted: what was looked at, whether it is well, what was found and what to do about it.

mod folder;
mod job;
mod site;

use serde::Serialize;

pub use folder::folder_checks;
pub use job::try_job;
pub use site::slurm_checks;

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at.
    pub what: String,
    /// Whether it is well.
    pub good: bool,
    /// What was found; where it is not well, what to do.
    pub found: String,
}

impl Check {
    /// A finding.
    pub fn new(what: impl Into<String>, good: bool, found: impl Into<String>) -> Self {
        Self { what: what.into(), good, found: found.into() }
    }

    fn good(what: impl Into<String>, found: impl Into<String>) -> Self {
        Self::new(what, true, found)
    }

    fn bad(what: impl Into<String>, found: impl Into<String>) -> Self {
        Self::new(what, false, found)
    }
}
