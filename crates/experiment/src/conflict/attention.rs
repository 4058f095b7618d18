//! Attention that cannot be distilled: there is nothing to compare, or nothing that would learn from it.

use std::collections::BTreeMap;

use super::{Conflict, found};
use crate::{
    Tower,
    config::{RestoreConfig, RestoreMethod},
    structure::TowerStructure,
};

/// The removal of queries, where there was one.
fn without_queries<'a>(
    smaller: &'a BTreeMap<Tower, (TowerStructure, &'a str)>,
) -> Option<&'a (TowerStructure, &'a str)> {
    smaller.get(&Tower::Connector).filter(|(target, _)| target.cuts_queries())
}

/// Hidden states of a restoration that cannot be compared: behind removed queries there are fewer tokens than the teacher has.
pub(super) fn states(restore: &RestoreConfig, smaller: &BTreeMap<Tower, (TowerStructure, &str)>) -> Option<Conflict> {
    if restore.method == RestoreMethod::None || !restore.distill.compares_states() {
        return None;
    }
    let (_, step) = without_queries(smaller)?;
    found(
        "restore.distill.hidden.weight",
        format!(
            "`{step}` has removed queries, so that the language model reads fewer tokens than the teacher's, whose states would be compared"
        ),
        "set it to 0 and distil the logits",
    )
}

/// What attention of a restoration cannot be compared, behind steps that made some towers smaller.
pub(super) fn attention(
    restore: &RestoreConfig,
    smaller: &BTreeMap<Tower, (TowerStructure, &str)>,
) -> Option<Conflict> {
    let distill = &restore.distill;
    if restore.method == RestoreMethod::None || !distill.compares_attention() {
        return None;
    }
    let trains = |tower: &Tower| restore.tower(*tower).tune && restore.tower(*tower).trains();
    for &tower in &distill.attention.towers {
        if !Tower::ALL.iter().filter(|&&below| below <= tower).any(trains) {
            return found(
                "restore.distill.attention.towers",
                format!("nothing trains that the attention of tower `{tower}` depends on"),
                format!(
                    "set `restore.{tower}.tune` to true and give it something to train, or leave the tower out of the list"
                ),
            );
        }
        if distill.teacher.is_some() && tower != Tower::Language {
            return found(
                "restore.distill.attention.towers",
                format!(
                    "a teacher of another folder may cut an image into other patches, so the attention of tower `{tower}` cannot be compared with its own"
                ),
                "compare the language model alone (`towers: [language]`), or let the dense model teach",
            );
        }
        if let Some((_, step)) = without_queries(smaller).filter(|_| tower != Tower::Vision) {
            return found(
                "restore.distill.attention.towers",
                format!(
                    "`{step}` has removed queries: tower `{tower}` looks at fewer tokens than the teacher does, so that there is nothing to compare them with"
                ),
                "leave the tower out of the list, or distil the logits alone",
            );
        }
        if let Some((target, step)) = smaller.get(&tower)
            && (target.heads > 0.0 || target.blocks > 0.0)
        {
            let what = if target.heads > 0.0 { "heads" } else { "blocks" };
            return found(
                "restore.distill.attention.towers",
                format!(
                    "`{step}` has removed {what} of tower `{tower}`: where they were, nothing looks at what the teacher looks at"
                ),
                "leave the tower out of the list, remove channels alone, or compare hidden states (`restore.distill.hidden`)",
            );
        }
    }
    None
}
