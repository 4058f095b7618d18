//! The one command that engines start: a pilot, which joins the sweep of a results folder and is told there what to do.

use std::path::PathBuf;

use crate::profile::{Class, DEFAULT_CLASS};

/// Exit code of a pilot that gave work back: a signal or its time limit ended it before the sweep did.
pub const GAVE_BACK: i32 = 75;

/// What the pilots of a sweep have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pilot {
    /// `ressa` itself, where pilots find it.
    pub program: PathBuf,
    /// Options before the command, such as `--worker FILE`.
    pub global: Vec<String>,
    /// Results folder.
    pub results: PathBuf,
    /// Where pilots start; relative paths of experiments begin here.
    pub folder: PathBuf,
    /// Folder of scripts and logs, `pilots` within the results.
    pub logs: PathBuf,
}

impl Pilot {
    /// The command line of a pilot, as words of a shell. It names itself after its job, so that a job that is started again is another
    /// pilot than the one before, which may still be running.
    pub(crate) fn command(&self, class: &Class) -> String {
        let resources = &class.resources;
        let mut words = vec![quoted(&self.program.display().to_string())];
        words.extend(self.global.iter().map(|word| quoted(word)));
        words.push("work".to_owned());
        let mut option = |name: &str, value: String| words.extend([name.to_owned(), value]);
        option("--results", quoted(&self.results.display().to_string()));
        option("--device", if resources.gpus > 0 { "auto" } else { "cpu" }.to_owned());
        if let Some(slots) = resources.slots() {
            option("--slots", slots.to_string());
        }
        option("--class", quoted(&class.name));
        if let Some(minutes) = resources.minutes {
            option("--time-limit", (minutes * 60).to_string());
        }
        option("--grace", resources.lead.to_string());
        words.join(" ")
    }
}

/// A word as a shell reads it back, in quotes only where it needs them.
pub(crate) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// A name made for one submission: unique, so that whether a submission arrived can be asked by its name.
pub(crate) fn token(class: &str, salt: u64) -> String {
    format!("ressa-{}-{salt:012x}", if class.is_empty() { DEFAULT_CLASS } else { class })
}

/// 48 bits that nobody has had before, from the seeds that the standard library draws for its hash tables.
pub(crate) fn salt() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish() & 0xffff_ffff_ffff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_a_shell() {
        for word in ["plain/path-1.0", "", "a b", "it's", "$HOME", "a\"b", "`x`", "naïve", "%"] {
            let answer = std::process::Command::new("sh").args(["-c", &format!("printf %s {}", quoted(word))]).output();
            assert_eq!(String::from_utf8(answer.unwrap().stdout).unwrap(), word);
        }
    }

    #[test]
    fn tokens_are_unique() {
        let made: std::collections::HashSet<String> = (0..1000).map(|_| token("train", salt())).collect();
        assert_eq!(made.len(), 1000);
    }
}
