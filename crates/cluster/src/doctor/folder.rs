//! The folder that machines share: two processes meet in it, and its clock is compared.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant, SystemTime},
};

use super::Check;
use crate::pilot::salt;

/// Files that both processes try to create.
const RACES: usize = 40;
/// Difference of clocks from which it is said.
const SKEW: Duration = Duration::from_secs(5);
/// How long the other process may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// The other process: takes part in the races, renames a file, and waits for one of ours. `$1` is the number of races.
const OTHER: &str = r#"
i=0; while [ "$i" -lt "$1" ]; do (set -C; : > "race-$i") 2>/dev/null && echo "won $i"; i=$((i+1)); done
echo other > other.tmp && mv other.tmp other
i=0; until [ -e ours ] || [ "$i" -ge 200 ]; do sleep 0.1; i=$((i+1)); done
[ "$(cat ours 2>/dev/null)" = ours ] && echo seen
"#;

/// Checks a folder that several machines are to write in.
pub fn folder_checks(folder: &Path) -> Vec<Check> {
    let scratch = folder.join(format!(".doctor-{:012x}", salt()));
    let outcome = fs::create_dir_all(&scratch).and_then(|()| Ok((meeting(&scratch)?, skew(&scratch)?)));
    let _ = fs::remove_dir_all(&scratch);
    let kind = file_system(folder).map_or(String::new(), |kind| format!(" ({kind})"));
    match outcome {
        Err(error) => {
            let advice = "choose a folder that this user may write to, with --results";
            vec![Check::bad("shared folder", format!("`{}`{kind}: {error}; {advice}", folder.display()))]
        }
        Ok((wrong, skew)) => {
            let meeting = match wrong {
                None => Check::good(
                    "shared folder",
                    format!(
                        "`{}`{kind}: two processes here create, rename and see files as they must",
                        folder.display()
                    ),
                ),
                Some(wrong) => Check::bad(
                    "shared folder",
                    format!("`{}`{kind}: {wrong}; use another file system for --results", folder.display()),
                ),
            };
            let seconds = skew.as_secs_f64();
            let clock = if skew < SKEW {
                Check::good("clock", format!("file system and this machine differ by {seconds:.1} s"))
            } else {
                // Leases do not compare clocks, so it harms no result.
                Check::good(
                    "clock",
                    format!(
                        "file system and this machine differ by {seconds:.0} s: times of logs are not comparable, nothing else"
                    ),
                )
            };
            vec![meeting, clock]
        }
    }
}

/// Two processes in a folder. Returns what is not as it must be.
fn meeting(folder: &Path) -> io::Result<Option<String>> {
    let mut other = Command::new("sh")
        .args(["-c", OTHER, "sh", &RACES.to_string()])
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut won = Vec::new();
    for race in 0..RACES {
        match OpenOptions::new().write(true).create_new(true).open(folder.join(format!("race-{race}"))) {
            Ok(_) => won.push(race),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => {
                let _ = other.kill();
                let _ = other.wait();
                return Err(error);
            }
        }
    }
    let start = Instant::now();
    let other_file = folder.join("other");
    while !other_file.exists() && start.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(20));
    }
    let renamed = fs::read_to_string(&other_file).unwrap_or_default();
    let draft = folder.join("ours.tmp");
    let mut file = File::create(&draft)?;
    file.write_all(b"ours\n")?;
    file.sync_all()?;
    fs::rename(&draft, folder.join("ours"))?;
    let output = String::from_utf8_lossy(&other.wait_with_output()?.stdout).into_owned();
    let theirs: Vec<usize> = output.lines().filter_map(|line| line.strip_prefix("won ")?.parse().ok()).collect();
    let twice = won.iter().filter(|race| theirs.contains(race)).count();
    let never = (0..RACES).filter(|race| !won.contains(race) && !theirs.contains(race)).count();
    Ok(if twice > 0 {
        Some(format!(
            "{twice} of {RACES} files were created by both of two processes: exclusive creation does not work"
        ))
    } else if never > 0 {
        Some(format!("{never} of {RACES} files could be created by neither of two processes"))
    } else if renamed.trim() != "other" {
        Some("a file that another process renamed is not seen, or has another content".to_owned())
    } else if !output.lines().any(|line| line == "seen") {
        Some("another process does not see a file that was renamed here".to_owned())
    } else {
        None
    })
}

/// How far the time that the file system writes is from this machine's.
fn skew(folder: &Path) -> io::Result<Duration> {
    let path = folder.join("clock");
    let before = SystemTime::now();
    fs::write(&path, b"x")?;
    let written = fs::metadata(&path)?.modified()?;
    let after = SystemTime::now();
    // A file system may count whole seconds only, and the kernel's own ticks are a few milliseconds apart.
    let early = before.duration_since(written).unwrap_or_default();
    let late = written.duration_since(after).unwrap_or_default();
    Ok(early.max(late))
}

/// The kind of file system that a folder is on, as `/proc` has it.
fn file_system(folder: &Path) -> Option<String> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let place = folder.ancestors().find_map(|folder| fs::canonicalize(folder).ok())?;
    let mounted = |line: &str| {
        let mut fields = line.split_whitespace();
        let (_, point, kind) = (fields.next()?, fields.next()?, fields.next()?);
        let point = PathBuf::from(point.replace("\\040", " "));
        place.starts_with(&point).then(|| (point.components().count(), kind.to_owned()))
    };
    let kind = mounts.lines().filter_map(mounted).max_by_key(|(depth, _)| *depth)?.1;
    let local = ["ext4", "xfs", "btrfs", "tmpfs", "overlay", "zfs"].contains(&kind.as_str());
    Some(if local { format!("{kind}, local to a machine unless it is exported") } else { kind })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_this_machine_is_well() {
        let folder = tempfile::tempdir().unwrap();
        let checks = folder_checks(folder.path());
        assert!(checks.iter().all(|check| check.good), "{checks:?}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left behind");
    }

    #[test]
    fn a_folder_that_cannot_be_is_named() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), "").unwrap();
        let checks = folder_checks(&folder.path().join("file/results"));
        assert!(matches!(&checks[..], [check] if !check.good && check.found.contains("--results")), "{checks:?}");
    }
}
