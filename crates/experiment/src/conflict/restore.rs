//! Settings of a restoration that are each valid and together make no sense.

use std::collections::BTreeMap;

use super::{Conflict, found};
use crate::{
    Tower,
    config::{MatrixUpdate, RestoreConfig, RestoreMethod},
    penalty::PenalisedGroups,
};

/// What a restoration cannot be, where so much of some towers is gone.
pub(super) fn restore(restore: &RestoreConfig, gone: &BTreeMap<Tower, (f64, &str)>) -> Option<Conflict> {
    if restore.method == RestoreMethod::None {
        return None;
    }
    if Tower::ALL.iter().all(|&tower| !restore.tower(tower).tune) {
        return found(
            "restore.method",
            format!("`{}` trains no tower: every `tune` is false", restore.method.name()),
            "set `restore.vision.tune`, `restore.connector.tune` or `restore.language.tune` to true",
        );
    }
    let trains = |tower: Tower| restore.tower(tower).tune && restore.tower(tower).trains();
    if !Tower::ALL.into_iter().any(trains) {
        return found(
            "restore.method",
            format!("`{}` trains nothing: the rank of every tower is 0", restore.method.name()),
            "set a `rank` above 0, `full`, `norms`, `queries` or `bias: all`; `bias: lora-only` are biases of matrices that train",
        );
    }
    for tower in Tower::ALL {
        let is_pruned = gone.contains_key(&tower);
        if restore.tower(tower).tune && restore.tower(tower).full && is_pruned && !restore.method.trains_masked() {
            return found(
                match tower {
                    Tower::Vision => "restore.vision.full",
                    Tower::Connector => "restore.connector.full",
                    Tower::Language => "restore.language.full",
                },
                format!("the {tower} tower is pruned, and `{}` would not keep its mask", restore.method.name()),
                "set `restore.method` to sparse-lora, which masks what trains, or `full` to false",
            );
        }
    }
    if restore.align > restore.steps {
        return found(
            "restore.align",
            format!("{} of {} steps cannot leave the language model out", restore.align, restore.steps),
            "lower `restore.align` or raise `restore.steps`",
        );
    }
    if restore.align > 0 && !restore.connector.tune {
        return found(
            "restore.align",
            "only the connector learns without the language model, and `restore.connector.tune` is false",
            "set `restore.align` to 0, or tune the connector",
        );
    }
    let distill = &restore.distill;
    if distill.weight > 0.0 && distill.logits <= 0.0 && !distill.looks_inside() {
        return found(
            "restore.distill.logits",
            "distillation has a weight, and neither distributions nor hidden states nor attention have one",
            "raise `restore.distill.logits`, `restore.distill.hidden.weight` or `restore.distill.attention.weight`, or set `restore.distill.weight` to 0",
        );
    }
    if distill.compares_states() && distill.hidden.image + distill.hidden.text + distill.hidden.answer <= 0.0 {
        return found(
            "restore.distill.hidden.answer",
            "hidden states are compared on no token: image, text and answer weigh 0",
            "raise one of `restore.distill.hidden.image`, `restore.distill.hidden.text` and `restore.distill.hidden.answer`",
        );
    }
    if restore.batch > restore.samples {
        return found(
            "restore.batch",
            format!("a batch of {} images cannot come from {} samples", restore.batch, restore.samples),
            "lower `restore.batch` or raise `restore.samples`",
        );
    }
    if let Some(micro_batch) = restore.micro_batch.filter(|&size| size > restore.batch) {
        return found(
            "restore.micro-batch",
            format!(
                "a micro-batch of {micro_batch} images is larger than the batch of {} that it is a part of",
                restore.batch
            ),
            "lower `restore.micro-batch`, or leave it out to compute the whole batch at once",
        );
    }
    evolve(restore, gone).or_else(|| perturb(restore)).or_else(|| penalty(restore))
}

/// Masks that cannot change while this trains.
fn evolve(restore: &RestoreConfig, gone: &BTreeMap<Tower, (f64, &str)>) -> Option<Conflict> {
    let evolve = &restore.evolve;
    if !evolve.is_on() {
        return None;
    }
    let name = restore.method.name();
    let why = match (restore.method.update(), restore.method.trains_masked()) {
        (MatrixUpdate::Sum, true) => None,
        (MatrixUpdate::Sum, false) => {
            Some("trains pruned weights as if there were no mask, so there is nothing to grow")
        }
        _ => Some("changes a weight by a share of itself: what grows at zero would stay zero"),
    };
    if let Some(why) = why {
        return found(
            "restore.evolve.every",
            format!("masks cannot change: `{name}` {why}"),
            "set `restore.method` to sparse-lora, with a rank or with `full`, or `restore.evolve.every` to 0",
        );
    }
    let evolves = |tower: &Tower| {
        let adapter = restore.tower(*tower);
        adapter.tune && adapter.trains_matrices()
    };
    if !gone.keys().any(evolves) {
        return found(
            "restore.evolve.every",
            "no mask can change: no tower is pruned whose matrices train",
            "put a step `prune` before it, train matrices of a pruned tower, or set `restore.evolve.every` to 0",
        );
    }
    let (steps, align) = (restore.steps, restore.align);
    if evolve.exchanges(steps, align) == 0 {
        let end = (evolve.until * f64::from(steps)).ceil();
        let (from, lower) = match align {
            0 => (String::new(), "lower `restore.evolve.every`"),
            _ => (
                format!(" from step {align} on, where `restore.align` lets them begin, and"),
                "lower `restore.align` or `restore.evolve.every`",
            ),
        };
        return found(
            "restore.evolve.every",
            format!(
                "no mask changes: exchanges are due every {} steps, none of them{from} before step {end}, where `restore.evolve.until` ends them",
                evolve.every
            ),
            format!("{lower}, or raise `restore.evolve.until` or `restore.steps`"),
        );
    }
    None
}

/// Noise that nothing can be said about.
fn perturb(restore: &RestoreConfig) -> Option<Conflict> {
    if !restore.perturb.is_on() {
        return None;
    }
    if restore.method.update() != MatrixUpdate::Sum {
        return found(
            "restore.perturb.sigma",
            format!(
                "`{}` multiplies weights, and the noise is defined for updates that are added to them",
                restore.method.name()
            ),
            "set `restore.method` to lora, lora-remasked or sparse-lora, or `restore.perturb.sigma` to 0",
        );
    }
    if !Tower::ALL.iter().any(|&tower| restore.tower(tower).tune && restore.tower(tower).trains_matrices()) {
        return found(
            "restore.perturb.sigma",
            "noise goes on matrices that train, and none does",
            "set a `rank` above 0 or `full`, or `restore.perturb.sigma` to 0",
        );
    }
    None
}

/// Groups that cannot become zero.
fn penalty(restore: &RestoreConfig) -> Option<Conflict> {
    if !restore.penalty.is_on() {
        return None;
    }
    let full = |tower: &Tower| restore.tower(*tower).tune && restore.tower(*tower).full;
    if restore.method.update() != MatrixUpdate::Sum || !Tower::ALL.iter().any(full) {
        return found(
            "restore.penalty.weight",
            "a group becomes zero where its weights train element by element, and those of no tower do",
            "set `restore.vision.full`, `restore.connector.full` or `restore.language.full` to true (with `lora` or `sparse-lora`), or `restore.penalty.weight` to 0",
        );
    }
    let mut partly = Tower::ALL.into_iter().filter(|tower| full(tower) && !restore.tower(*tower).targets.is_empty());
    if restore.penalty.groups == PenalisedGroups::Structure
        && let Some(tower) = partly.next()
    {
        return found(
            match tower {
                Tower::Vision => "restore.vision.targets",
                Tower::Connector => "restore.connector.targets",
                Tower::Language => "restore.language.targets",
            },
            format!("heads and channels of the {tower} tower lie on several layers, of which `targets` trains some"),
            "leave `targets` empty, or set `restore.penalty.groups` to rows",
        );
    }
    None
}
