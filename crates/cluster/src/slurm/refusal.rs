//! Why `sbatch` does not take a script, and whether asking again can help.

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What can be done about it.
    pub kind: RefusalKind,
    /// What to change, where that is known.
    pub advice: Option<&'static str>,
}

/// What can be done about a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalKind {
    /// The same script will never be taken.
    Never,
    /// A smaller array may be taken.
    TooLarge,
    /// The user has as many jobs as the site allows: later, or fewer.
    Full,
    /// The controller did not answer, or said something that this version does not know: later.
    Later,
}

/// The meaning of a message of `sbatch`, which is in English whatever the locale.
pub fn refusal(message: &str) -> Refusal {
    use RefusalKind::{Full, Later, Never, TooLarge};
    let message = message.to_lowercase();
    let known: [(&str, RefusalKind, Option<&str>); 22] = [
        ("invalid job array specification", TooLarge, None),
        (
            "job violates accounting/qos policy",
            Full,
            Some("the account or quality of service is at its limit of jobs; `max-jobs` bounds ours"),
        ),
        ("maxsubmit", Full, Some("the account or quality of service is at its limit of jobs; `max-jobs` bounds ours")),
        ("slurm temporarily unable to accept job", Full, None),
        ("maximum number of jobs", Full, None),
        ("invalid partition", Never, Some("correct `partition`; `sinfo -s` lists them")),
        ("invalid account", Never, Some("correct `account`; `sacctmgr show associations user=$USER` lists yours")),
        ("invalid qos", Never, Some("correct `qos`; `sacctmgr show associations user=$USER format=qos` lists yours")),
        ("invalid feature", Never, Some("correct `constraint`; `sinfo -o '%f'` lists features")),
        ("invalid generic resource", Never, Some("correct `gres`; `sinfo -o '%G'` lists them")),
        (
            "requested node configuration is not available",
            Never,
            Some(
                "no node has all of `gres`, `cpus`, `mem` and `constraint`; `ressa doctor --profile` lists what nodes have",
            ),
        ),
        ("memory specification can not be satisfied", Never, Some("no node has that much memory: lower `mem`")),
        ("requested time limit is invalid", Never, Some("`time` is more than the partition allows")),
        ("time limit specification required", Never, Some("the site wants `time`")),
        ("job dependency problem", Never, None),
        ("not permitted to use this partition", Never, Some("choose another `partition`, or ask the site")),
        ("access/permission denied", Never, Some("`account` or `partition` is not yours to use")),
        ("invalid node name", Never, Some("correct `exclude`")),
        ("unrecognized option", Never, Some("correct `options`")),
        ("invalid option", Never, Some("correct `options`")),
        ("invalid number", Never, None),
        ("socket timed out", Later, None),
    ];
    let found = known.iter().find(|(part, ..)| message.contains(part));
    found.map_or(Refusal { kind: Later, advice: None }, |&(_, kind, advice)| Refusal { kind, advice })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Messages of Slurm 22.05, as `sbatch` writes them.
    #[test]
    fn messages_of_slurm_have_their_kinds() {
        let cases = [
            ("Batch job submission failed: Invalid job array specification", RefusalKind::TooLarge),
            (
                "invalid partition specified: nope\nBatch job submission failed: Invalid partition name specified",
                RefusalKind::Never,
            ),
            ("Batch job submission failed: Requested node configuration is not available", RefusalKind::Never),
            ("Batch job submission failed: Invalid feature specification", RefusalKind::Never),
            (
                "Batch job submission failed: Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)",
                RefusalKind::Full,
            ),
            ("Batch job submission failed: Socket timed out on send/recv operation", RefusalKind::Later),
            ("Batch job submission failed: Unable to contact slurm controller (connect failure)", RefusalKind::Later),
            ("a message of a site's own plugin", RefusalKind::Later),
        ];
        for (message, kind) in cases {
            assert_eq!(refusal(message).kind, kind, "{message}");
        }
    }
}
