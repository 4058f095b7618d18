//! A stage whose sources changed needs a new version, or a record that results are unchanged: else stored results would be passed off as new ones.

use ressa_experiment::Stage;
use ressa_testkit::stage_sources::{Recorded, current, recorded};

#[test]
fn sources_of_every_stage_are_as_recorded() {
    let recorded = recorded().expect("crates/experiment/stage-sources.json can be read");
    for (stage, version) in Stage::VERSIONS {
        let found = Recorded { version, digest: current(stage) };
        let known = recorded.get(stage).unwrap_or_else(|| panic!("stage `{stage}` is not recorded"));
        assert_eq!(
            &found, known,
            "the sources behind stage `{stage}` changed. If a number can move, raise its version in Stage::VERSIONS and say so in \
             CHANGELOG.md; then, in either case: cargo run --release -p ressa-testkit --example record_stage_sources"
        );
    }
}
