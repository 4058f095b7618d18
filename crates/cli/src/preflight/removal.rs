//! Targets of structured removal that remove nothing: fractions of less than one group, and numbers that an earlier step has gone below.

use ressa_experiment::{
    Stage, Tower,
    structure::{TowerStructure, remaining},
};

use super::{Preflight, model::Network};

/// One of the targets of a tower.
type Target = fn(&TowerStructure) -> f64;

/// Notes targets of a stage that remove nothing from what the stages before it leave. `removed` are the targets of those, `network` says how many
/// groups each tower has.
pub(super) fn look(
    stage: &Stage,
    removed: &dyn Fn(Tower) -> Vec<TowerStructure>,
    network: &Network,
    found: &mut Preflight,
) {
    let Stage::Structure { tower, target, .. } = stage else { return };
    let removable = network.removable(*tower);
    let earlier = removed(*tower);
    let one = |number: &Result<u64, String>| number.as_ref().map(|number| vec![*number]).unwrap_or_default();
    let blocks = removable.blocks.clone().unwrap_or_default();
    let kinds: [(&str, Target, Vec<u64>); 4] = [
        ("heads", |target| target.heads, one(&removable.heads)),
        ("channels", |target| target.channels, one(&removable.channels)),
        ("blocks", |target| target.blocks, blocks),
        ("queries", |target| target.queries, one(&removable.queries)),
    ];
    for (what, of, counts) in kinds {
        let target = of(target);
        let left =
            |count: u64| earlier.iter().filter_map(|earlier| remaining(of(earlier), count)).fold(count, u64::min);
        let removes = |count: &u64| remaining(target, *count).is_none_or(|after| after < left(*count));
        let Some(&count) = counts.first().filter(|_| target > 0.0 && !counts.iter().any(removes)) else { continue };
        let why = match left(count) {
            left if left < count => format!("an earlier step leaves {left} of {count} {what}"),
            _ if target < 1.0 => format!("{target} of {count} {what} is less than one"),
            _ => format!("there are {count} {what}, and as many are to remain"),
        };
        found.note(format!("structure.{tower}.{what}"), format!("{why}: {target} removes nothing"));
    }
}
