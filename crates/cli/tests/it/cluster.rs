//! Sweeps whose workers a cluster's engine starts: a Slurm made of four shell scripts, which starts the jobs of an array as processes.

use std::{fs, os::unix::fs::PermissionsExt, process::Stdio};

use ressa_runlog::LogEvent;

use crate::house::{Ended, House, fake_worker};

const PROFILE: &str = "
engine: slurm
defaults: { time: 30min, workers: 1, max-jobs: 2 }
classes:
  train: { takes: [adapt], mem: 2G }
";

/// Reads the array of a script and starts its jobs, as a node's daemon would.
const SBATCH: &str = r#"
here=$(dirname "$0"); script=""
for word in "$@"; do script=$word; done
echo "$*" >> "$here/submitted"
job=$(( $(wc -l < "$here/submitted") + 40 ))
last=$(sed -n 's/^#SBATCH --array=0-\([0-9]*\).*/\1/p' "$script")
for task in $(seq 0 "$last"); do
  SLURM_JOB_ID=$job SLURM_ARRAY_JOB_ID=$job SLURM_ARRAY_TASK_ID=$task SLURMD_NODENAME=node$task \
    setsid bash "$script" > "$here/job-$job-$task" 2>&1 < /dev/null &
done
echo "$job"
"#;

impl House {
    fn write_slurm(&self) {
        self.write("profiles/small.yaml", PROFILE);
        let scripts = [
            ("sbatch", SBATCH),
            ("squeue", ""),
            ("scancel", ""),
            ("scontrol", "echo 'MaxArraySize            = 1001'"),
        ];
        for (name, script) in scripts {
            self.write(&format!("bin/{name}"), &format!("#!/bin/bash\n{script}"));
            fs::set_permissions(self.path(&format!("bin/{name}")), fs::Permissions::from_mode(0o755)).unwrap();
        }
    }

    fn with_slurm(&self, arguments: &[&str]) -> Ended {
        let mut command = self.plain(arguments);
        command.arg("--worker").arg(fake_worker());
        let path = format!("{}:{}", self.path("bin").display(), std::env::var("PATH").unwrap());
        let output = command.env("PATH", path).stdin(Stdio::null()).output().unwrap();
        let house = self.folder.path().canonicalize().unwrap().display().to_string();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace(&house, "HOUSE");
        Ended { code: output.status.code().unwrap_or(-1), stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }

    fn log(&self) -> Vec<LogEvent> {
        let store = ressa_store::Store::reading(self.path("results/store"), Vec::new());
        ressa_runlog::history(&store).unwrap().0.into_iter().map(|entry| entry.event).collect()
    }
}

#[test]
fn stages_are_made_by_jobs_of_the_class_that_takes_them() {
    let house = House::new();
    house.write_slurm();
    let swept = house.with_slurm(&["sweep", "small", "--no-report", "--profile", "small", "--device", "cpu"]);
    assert_eq!(swept.code, 0, "{}{}", swept.stdout, swept.stderr);
    assert_eq!(house.stored().len(), 29);
    let scripts = fs::read_dir(house.path("results/pilots")).unwrap().map(|item| item.unwrap().path());
    let scripts: Vec<String> = scripts
        .filter(|path| path.extension().is_some_and(|end| end == "sh"))
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    assert!(scripts.len() >= 2, "{scripts:?}");
    // A job's number is in the name of its workers.
    let train = fs::read_to_string(house.path("bin/submitted")).unwrap();
    let train = train.lines().position(|line| line.contains("ressa-train")).unwrap() + 41;
    let mut trained = 0;
    for event in house.log() {
        if let LogEvent::Published { worker, record, .. } = event {
            let is_of_train = worker.starts_with(&format!("{train}_"));
            assert_eq!(is_of_train, &*record.kind == "adapt", "{worker}: {}", record.kind);
            trained += usize::from(is_of_train);
        }
    }
    assert_eq!(trained, 4);
}

#[test]
fn a_dry_run_prints_a_script_for_each_class_and_does_nothing() {
    let house = House::new();
    house.write_slurm();
    let shown = house.with_slurm(&["sweep", "small", "--profile", "small", "--dry-run"]);
    assert_eq!(shown.code, 0, "{}", shown.stderr);
    assert_eq!(shown.stdout.matches("#!/bin/bash").count(), 2);
    assert!(
        shown.stdout.contains("# class train: 4 stages; 1 job at first once its stages can begin"),
        "{}",
        shown.stdout
    );
    assert!(shown.stdout.contains("#SBATCH --mem=2048M") && shown.stdout.contains("--class train"), "{}", shown.stdout);
    assert!(!house.path("bin/submitted").exists() && !house.path("results/store/log").exists());
    let lines: Vec<&str> = shown.stdout.lines().filter(|line| line.starts_with("exec ")).collect();
    assert!(lines.iter().all(|line| line.contains("work --results HOUSE/results ")), "{lines:?}");
}

#[test]
fn what_cannot_work_is_said_before_anything_begins() {
    let house = House::new();
    house.write_slurm();
    let unknown = house.with_slurm(&["sweep", "small", "--profile", "large"]);
    assert_eq!(unknown.code, 2);
    assert_eq!(
        unknown.stderr,
        "error: no profile `large`: neither a file nor one of `profiles` (small); copy one, and name its file with --profile\n"
    );
    house.write("profiles/odd.yaml", "engine: slurm\ndefaults: { time: soon }\n");
    let odd = house.with_slurm(&["sweep", "small", "--profile", "odd"]);
    assert!(
        odd.code == 78 && odd.stderr.contains("profiles/odd.yaml") && odd.stderr.contains("soon"),
        "{}",
        odd.stderr
    );
    // Slurm refuses for good: nobody comes, and the sweep does not wait for ever.
    house.write("bin/sbatch", "#!/bin/sh\necho 'sbatch: error: invalid partition specified: gpu' >&2\nexit 1\n");
    fs::set_permissions(house.path("bin/sbatch"), fs::Permissions::from_mode(0o755)).unwrap();
    let refused = house.with_slurm(&["sweep", "small", "--profile", "small", "--device", "cpu"]);
    assert_eq!(refused.code, 1, "{}", refused.stderr);
    assert!(
        refused.stderr.contains("none comes") && refused.stderr.contains("invalid partition"),
        "{}",
        refused.stderr
    );
}

#[test]
fn manifests_of_other_engines_are_printed() {
    let house = House::new();
    house.write(
        "profiles/pods.yaml",
        "engine: kubernetes\nkubernetes: { image: ressa, claim: results, mount: /mnt, results: /mnt/study }\ndefaults: { max-jobs: 3, work-per-job: 1s, workers: 1 }\n",
    );
    let shown = house.ressa(&["sweep", "small", "--profile", "pods", "--dry-run"]);
    assert_eq!(shown.code, 0, "{}", shown.stderr);
    let manifest: serde_json::Value = serde_json::from_str(shown.stdout.trim_start_matches("---\n")).unwrap();
    assert_eq!((&manifest["kind"], &manifest["spec"]["completionMode"]), (&"Job".into(), &"Indexed".into()));
    house
        .write("profiles/pods.yaml", "engine: kubernetes\nkubernetes: { image: ressa, claim: results, mount: /mnt }\n");
    let unseen = house.ressa(&["sweep", "small", "--profile", "pods", "--dry-run"]);
    assert!(unseen.code == 78 && unseen.stderr.contains("pods would not see"), "{}", unseen.stderr);
    house.write("profiles/queue.yaml", "engine: hyperqueue\ndefaults: { time: 1h, cpus: 2 }\n");
    let shown = house.ressa(&["sweep", "small", "--profile", "queue", "--dry-run"]);
    assert!(shown.code == 0 && shown.stdout.starts_with("hq submit --name ressa "), "{}{}", shown.stdout, shown.stderr);
}
