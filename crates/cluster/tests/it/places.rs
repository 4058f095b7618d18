//! A pilot and profiles for tests.

use ressa_cluster::{Pilot, Profile};

/// A pilot whose every path needs quoting somewhere.
pub fn pilot() -> Pilot {
    Pilot {
        program: "/opt/ressa/ressa".into(),
        global: Vec::new(),
        results: "/data/my results".into(),
        folder: "/opt/ressa".into(),
        logs: "/data/my results/pilots".into(),
    }
}

/// A profile for Slurm with these keys under `defaults`.
pub fn slurm(keys: &str) -> Profile {
    Profile::parse(&format!("engine: slurm\ndefaults: {{ {keys} }}"), "test").unwrap()
}
