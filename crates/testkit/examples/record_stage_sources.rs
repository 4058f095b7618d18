//! Records the sources behind every stage: run after raising a version, or when a change moves no number.

use std::collections::BTreeMap;

use ressa_experiment::Stage;
use ressa_testkit::stage_sources::{Recorded, current, write};

fn main() -> std::io::Result<()> {
    let recorded: BTreeMap<String, Recorded> = Stage::VERSIONS
        .iter()
        .map(|&(stage, version)| (stage.to_owned(), Recorded { version, digest: current(stage) }))
        .collect();
    write(&recorded)
}
