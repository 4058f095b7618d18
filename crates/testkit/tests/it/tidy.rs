//! The workspace as it is, against the tidy rules.

use ressa_testkit::tidy::Workspace;

#[test]
fn the_workspace_is_tidy() {
    let violations = Workspace::of(env!("CARGO_MANIFEST_DIR")).violations();
    assert!(violations.is_empty(), "\n{}", violations.join("\n"));
}
