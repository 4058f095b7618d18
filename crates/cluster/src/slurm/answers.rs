//! Answers of Slurm's commands, read line by line: what cannot be read is left out and counted, never guessed.

use std::collections::HashMap;

use super::TaskState;

/// The job number that `sbatch --parsable` answers with: a line `123` or `123;cluster`, whatever a site's plugins print around it.
pub fn submitted_job(output: &str) -> Option<u64> {
    let number = |line: &str| line.trim().split(';').next().and_then(|id| id.parse().ok()).filter(|&id| id > 0);
    output.lines().rev().find_map(number)
}

/// Fields that `squeue` is asked for, the name last: it may hold anything.
pub(crate) const TASK_FIELDS: &str = "%F|%K|%T|%N|%r|%j";

/// A job of an array, as `squeue` lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedTask {
    /// Number of the array.
    pub job: u64,
    /// Index within it; `None` for the rest of an array of which all other jobs stand for themselves.
    pub index: Option<u32>,
    /// State.
    pub state: TaskState,
    /// Where it runs, or ran.
    pub node: Option<String>,
    /// Why it waits.
    pub reason: Option<String>,
    /// Name of the job.
    pub name: String,
}

/// The jobs of an answer of `squeue`; `None` if it is not what was asked for. Waiting jobs may stand in one line, `[4-9,12%4]`.
///
/// Half an answer would look like jobs that are gone: a line that is like those asked for and cannot be read spoils all of it. A line that a
/// site's greeting puts there is passed over, unless there is nothing else.
pub fn listed_tasks(output: &str) -> Option<Vec<ListedTask>> {
    let (mut tasks, mut greetings) = (Vec::new(), 0);
    for line in output.lines().filter(|line| !line.trim().is_empty()) {
        match read_task(line) {
            Some(found) => tasks.extend(found),
            None if line.contains('|') => return None,
            None => greetings += 1,
        }
    }
    (greetings == 0 || !tasks.is_empty()).then_some(tasks)
}

fn read_task(line: &str) -> Option<Vec<ListedTask>> {
    let fields: Vec<&str> = line.trim().splitn(6, '|').collect();
    let [job, indices, state, node, reason, name] = fields[..] else { return None };
    let job = job.parse().ok()?;
    let said =
        |text: &str| Some(text.to_owned()).filter(|text| !["", "None", "(null)", "N/A"].contains(&text.as_str()));
    // A word that is no state means that fields are not where they should be.
    let is_state =
        !state.is_empty() && state.bytes().all(|b| b.is_ascii_uppercase() || b" _+0123456789by".contains(&b));
    if !is_state {
        return None;
    }
    let indices = match indices {
        "N/A" => vec![None],
        some => read_indices(some)?.into_iter().map(Some).collect(),
    };
    let task = |index| ListedTask {
        job,
        index,
        state: TaskState::of(state),
        node: said(node),
        reason: said(reason),
        name: name.to_owned(),
    };
    Some(indices.into_iter().map(task).collect())
}

/// `7`, `4-9`, `[4-9,12,20-30:2%4]`.
fn read_indices(text: &str) -> Option<Vec<u32>> {
    const MOST: usize = 1_000_000;
    let text = text.trim_matches(['[', ']']);
    let text = text.split_once('%').map_or(text, |(indices, _)| indices);
    let mut indices = Vec::new();
    for part in text.split(',') {
        let (range, step) = part.split_once(':').map_or((part, Some(1)), |(range, step)| (range, step.parse().ok()));
        let (from, to) = range.split_once('-').unwrap_or((range, range));
        let (from, to): (u32, u32) = (from.parse().ok()?, to.parse().ok()?);
        let step = step.filter(|&step: &usize| step > 0)?;
        if from > to || (to - from) as usize / step + indices.len() >= MOST {
            return None;
        }
        indices.extend((from..=to).step_by(step));
    }
    Some(indices)
}

/// What `scontrol show config` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings(HashMap<String, String>);

impl Settings {
    /// Reads lines `Name = value`.
    pub fn read(output: &str) -> Self {
        let entry = |line: &str| {
            let (name, value) = line.split_once('=')?;
            Some((name.trim().to_owned(), value.trim().to_owned()))
                .filter(|(name, _)| !name.is_empty() && !name.contains(' '))
        };
        Self(output.lines().filter_map(entry).collect())
    }

    /// The value of a setting.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty() && *value != "(null)")
    }

    /// A number, with or without a unit behind it.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.get(name)?.split_whitespace().next()?.parse().ok()
    }

    /// Whether nothing could be read.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The fields of one record of `scontrol show ... -o`: `Name=value` with blanks between.
pub fn record(line: &str) -> HashMap<&str, &str> {
    line.split_whitespace().filter_map(|field| field.split_once('=')).collect()
}

/// Fields that `sinfo` is asked for.
pub(crate) const NODE_FIELDS: &str = "%N|%T|%c|%m|%f|%G";

/// A node of a partition, as `sinfo` lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedNode {
    /// Name.
    pub name: String,
    /// State, such as `idle` or `mixed`.
    pub state: String,
    /// CPUs.
    pub cpus: u32,
    /// MiB of memory.
    pub mebibytes: u64,
    /// Features.
    pub features: Vec<String>,
    /// Generic resources: name, type where there is one, number.
    pub gres: Vec<(String, String, u32)>,
}

impl ListedNode {
    /// Whether jobs can start on it, now or when others end.
    pub fn is_up(&self) -> bool {
        let state = self.state.trim_end_matches(|c: char| !c.is_ascii_alphabetic());
        !["down", "drained", "draining", "drng", "fail", "failing", "maint", "inval", "unknown", "error"]
            .contains(&state)
    }
}

/// The nodes of an answer of `sinfo --Node`, each once.
pub fn listed_nodes(output: &str) -> Vec<ListedNode> {
    let mut nodes: Vec<ListedNode> = Vec::new();
    for line in output.lines() {
        let fields: Vec<&str> = line.trim().split('|').collect();
        let [name, state, cpus, memory, features, gres] = fields[..] else { continue };
        let (Ok(cpus), Ok(mebibytes)) = (cpus.parse(), memory.trim_end_matches('+').parse()) else { continue };
        if nodes.iter().any(|node| node.name == name) {
            continue;
        }
        let words = |text: &str| -> Vec<String> {
            text.split(',').filter(|word| !word.is_empty() && *word != "(null)").map(str::to_owned).collect()
        };
        nodes.push(ListedNode {
            name: name.to_owned(),
            state: state.to_lowercase(),
            cpus,
            mebibytes,
            features: words(features),
            gres: split_gres(gres).iter().filter_map(|one| read_gres(one)).collect(),
        });
    }
    nodes
}

/// Parts of `gpu:a100:4(S:0,1),nic:2`: commas in brackets do not separate.
fn split_gres(text: &str) -> Vec<String> {
    let (mut parts, mut depth) = (vec![String::new()], 0);
    for c in text.chars() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => parts.push(String::new()),
            _ if depth == 0 => parts.last_mut().expect("there is one").push(c),
            _ => {}
        }
    }
    parts
}

/// Name, type and number of `gpu:a100:4`, `gpu:2`, `gpu:a100` or `gpu`.
pub(crate) fn read_gres(text: &str) -> Option<(String, String, u32)> {
    let parts: Vec<&str> = text.split(':').collect();
    let found = match parts[..] {
        [name] => (name, "", 1),
        [name, last] => match last.parse() {
            Ok(count) => (name, "", count),
            Err(_) => (name, last, 1),
        },
        [name, kind, count] => (name, kind, count.parse().ok()?),
        _ => return None,
    };
    (!found.0.is_empty()).then(|| (found.0.to_owned(), found.1.to_owned(), found.2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slurm::End;

    #[test]
    fn the_job_number_is_found_among_other_lines() {
        assert_eq!(submitted_job("123\n"), Some(123));
        assert_eq!(submitted_job("123;cluster\n"), Some(123));
        assert_eq!(submitted_job("Welcome to the cluster!\n77\n"), Some(77));
        for garbage in ["", "\n", "Submitted batch job 5", "-5", "0", "12a", "\u{fffd}\u{fffd}"] {
            assert_eq!(submitted_job(garbage), None, "{garbage}");
        }
    }

    #[test]
    fn queues_are_read_line_by_line() {
        let tasks = listed_tasks(
            "Welcome!\n1|0|RUNNING|n1|None|ressa-a\n\n1|[4-6,9%2]|PENDING||Resources|ressa-a\n1|1|CANCELLED by 0|n2|None|ressa-a\n",
        )
        .unwrap();
        let indices: Vec<Option<u32>> = tasks.iter().map(|task| task.index).collect();
        assert_eq!(indices, [0, 4, 5, 6, 9, 1].map(Some));
        assert_eq!((tasks[0].state, tasks[0].node.as_deref()), (TaskState::Running, Some("n1")));
        assert_eq!((tasks[1].state, tasks[1].reason.as_deref()), (TaskState::Waiting, Some("Resources")));
        assert_eq!(tasks[5].state, TaskState::Ended(End::Cancelled));
    }

    #[test]
    fn half_an_answer_is_none() {
        assert_eq!(listed_tasks(""), Some(Vec::new()));
        for garbage in [
            "slurm_load_jobs error: whatever",
            "1|0|RUNNING|n1|None|a\n1|1|RUNN",
            "x|0|PENDING||None|other",
            "1|0|n1|RUNNING|None|a",
        ] {
            assert_eq!(listed_tasks(garbage), None, "{garbage}");
        }
    }

    #[test]
    fn ranges_that_cannot_be_are_no_memory_eaten() {
        for text in ["", "a", "5-1", "0-4294967295", "1-10:0", "1-", "0-999999999,5"] {
            assert_eq!(read_indices(text), None, "{text}");
        }
        assert_eq!(read_indices("0-10:5").unwrap(), [0, 5, 10]);
    }

    #[test]
    fn settings_and_records_are_read_as_slurm_writes_them() {
        let settings = Settings::read(
            "Configuration data as of 2026\nKillWait                = 30 sec\nPreemptMode = REQUEUE\nX = (null)\n",
        );
        assert_eq!(
            (settings.number("KillWait"), settings.get("PreemptMode"), settings.get("X")),
            (Some(30), Some("REQUEUE"), None)
        );
        assert_eq!(record("PartitionName=main MaxTime=UNLIMITED State=UP")["MaxTime"], "UNLIMITED");
    }

    #[test]
    fn nodes_are_read_once_each() {
        let nodes = listed_nodes(
            "n1|idle|2|4000|fast,avx|gpu:a100:4(S:0,1),nic:2\nn1|idle|2|4000|fast|gpu:2\nn2|down*|8|1+|(null)|(null)\nrubbish\n",
        );
        assert_eq!(nodes.len(), 2);
        let gres = |name: &str, kind: &str, count| (name.to_owned(), kind.to_owned(), count);
        assert_eq!(nodes[0].gres, [gres("gpu", "a100", 4), gres("nic", "", 2)]);
        assert_eq!((nodes[0].is_up(), nodes[1].is_up(), nodes[1].gres.len()), (true, false, 0));
    }
}
