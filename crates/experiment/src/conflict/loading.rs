//! Settings of dynamic loading that are each valid and together make no sense.

use super::{Conflict, found};
use crate::{
    RunConfig,
    config::{DataSource, RestoreConfig, RestoreMethod},
    loading::domains,
};

/// Samples that a training draws: no more than it looks at.
fn drawn(restore: &RestoreConfig) -> u64 {
    u64::from(restore.samples).min(u64::from(restore.steps) * u64::from(restore.batch))
}

/// What a restoration cannot divide among domains.
pub(super) fn loading(run: &RunConfig, restore: &RestoreConfig) -> Option<Conflict> {
    let loading = &restore.loading;
    if !loading.is_on() || restore.method == RestoreMethod::None {
        return None;
    }
    let domains = domains(&run.data);
    match run.data.source {
        DataSource::Shapes if restore.questions == 0 => {
            return found(
                "restore.loading.method",
                "there is nothing to divide: the domains of the embedded world are its kinds of questions, and `restore.questions` is 0",
                "raise `restore.questions`, or set `restore.loading.method` to fixed",
            );
        }
        DataSource::Folder if domains.len() == 1 => {
            return found(
                "restore.loading.method",
                format!(
                    "there is nothing to divide: `{}` is the only corpus of `data.restoration.corpora`",
                    domains[0]
                ),
                "name another corpus, or set `restore.loading.method` to fixed",
            );
        }
        DataSource::Folder if drawn(restore) < domains.len() as u64 => {
            return found(
                "restore.samples",
                format!("{} samples are none of some of {} corpora", drawn(restore), domains.len()),
                "raise `restore.samples`, or steps times batch where those are fewer, or set `restore.loading.method` to fixed",
            );
        }
        DataSource::Shapes | DataSource::Folder => {}
    }
    if loading.updates(restore.steps, restore.align) > 0 {
        return None;
    }
    let (from, lower) = match restore.align {
        0 => (String::new(), "lower `restore.loading.every`"),
        align => (
            format!(", from step {align} on, where `restore.align` lets the language model in"),
            "lower `restore.align` or `restore.loading.every`",
        ),
    };
    found(
        "restore.loading.every",
        format!("no weight changes: losses are measured every {} steps of {}{from}", loading.every, restore.steps),
        format!("{lower}, or raise `restore.steps`"),
    )
}
