//! The batch script.

use std::{fs, process::Command};

use crate::places::{pilot, slurm};
use ressa_cluster::{Array, Pilot, Profile, sbatch_script};

#[test]
fn a_script_holds_settings_and_the_results_folder() {
    let profile = slurm("time: 4h, cpus: 2");
    let array = Array { jobs: 8, at_once: None };
    insta::assert_snapshot!(sbatch_script(&pilot(), &profile.classes[0], array, "ressa-default-1", &[]), @r#"
    #!/bin/bash
    # Pilots of `ressa sweep`, class `default`: each joins the sweep of the results folder and is told there what to do.
    #SBATCH --job-name=ressa-default-1
    #SBATCH --array=0-7
    #SBATCH --nodes=1
    #SBATCH --ntasks=1
    #SBATCH --cpus-per-task=2
    #SBATCH --time=04:00:00
    #SBATCH --signal=B:USR2@300
    #SBATCH --requeue
    #SBATCH --open-mode=append
    #SBATCH --chdir=/opt/ressa
    #SBATCH --output="/data/my results/pilots/ressa-default-1-%a.log"
    unset SLURM_MEM_PER_CPU SLURM_MEM_PER_GPU
    exec /opt/ressa/ressa work --results '/data/my results' --device cpu --class default --time-limit 14400 --grace 300
    "#);
}

#[test]
fn everything_that_a_class_says_is_in_its_script() {
    let text = r#"
engine: slurm
defaults: { time: 1-12:00:00, account: lab, qos: high, exclude: [n13], setup: ["module load cuda"], options: ["--exclusive"] }
classes:
  train:
    takes: [adapt]
    partition: gpu,big
    gres: "gpu:a100:4"
    cpus: 32
    mem-per-gpu: 80G
    constraint: "a100&ib"
    workers-per-gpu: 2
    signal: TERM@600
    requeue: false
    array-limit: 4
"#;
    let profile = Profile::parse(text, "p").unwrap();
    let pilot = Pilot {
        program: "/opt/it's/ressa".into(),
        global: ["--worker", "/opt/a b/worker"].map(str::to_owned).to_vec(),
        results: "/data/50 %".into(),
        folder: "/opt/#1".into(),
        logs: "/data/50 %/pilots".into(),
    };
    let array = Array { jobs: 20, at_once: Some(4) };
    let script =
        sbatch_script(&pilot, &profile.classes[0], array, "ressa-train-1", &["n2".to_owned(), "n3".to_owned()]);
    insta::assert_snapshot!(script, @r#"
    #!/bin/bash
    # Pilots of `ressa sweep`, class `train`: each joins the sweep of the results folder and is told there what to do.
    #SBATCH --job-name=ressa-train-1
    #SBATCH --array=0-19%4
    #SBATCH --nodes=1
    #SBATCH --ntasks=1
    #SBATCH --partition=gpu,big
    #SBATCH --account=lab
    #SBATCH --qos=high
    #SBATCH --constraint=a100&ib
    #SBATCH --gres=gpu:a100:4
    #SBATCH --cpus-per-task=32
    #SBATCH --mem-per-gpu=81920M
    #SBATCH --time=1-12:00:00
    #SBATCH --signal=B:TERM@600
    #SBATCH --no-requeue
    #SBATCH --open-mode=append
    #SBATCH --exclude=n13,n2,n3
    #SBATCH --chdir="/opt/#1"
    #SBATCH --output="/data/50 %%/pilots/ressa-train-1-%a.log"
    #SBATCH --exclusive
    unset SLURM_MEM_PER_NODE SLURM_MEM_PER_CPU
    module load cuda
    exec '/opt/it'\''s/ressa' --worker '/opt/a b/worker' work --results '/data/50 %' --device auto --slots 8 --class train --time-limit 129600 --grace 600
    "#);
}

/// The last line runs the pilot in the place of the shell, with its words as they are.
#[test]
fn the_pilot_takes_the_place_of_the_shell() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("stand in");
    fs::write(
        &program,
        "#!/bin/sh\necho $$; for word in \"$@\"; do echo \"$word\"; done; echo \"${SLURM_MEM_PER_CPU-unset}\"\n",
    )
    .unwrap();
    Command::new("chmod").arg("+x").arg(&program).status().unwrap();
    let pilot = Pilot { program, results: "/data/it's 50 %".into(), ..pilot() };
    let script = folder.path().join("script");
    let profile = slurm("time: 4h, cpus: 2, workers: 2, mem: 1G, setup: ['echo $$']");
    fs::write(&script, sbatch_script(&pilot, &profile.classes[0], Array { jobs: 1, at_once: None }, "t", &[])).unwrap();
    let environment = [("SLURM_ARRAY_JOB_ID", "12"), ("SLURM_ARRAY_TASK_ID", "3"), ("SLURM_MEM_PER_CPU", "7")];
    let output = Command::new("bash").arg(&script).envs(environment).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[0], lines[1], "one process");
    assert_eq!(
        lines[2..],
        [
            "work",
            "--results",
            "/data/it's 50 %",
            "--device",
            "cpu",
            "--slots",
            "2",
            "--class",
            "default",
            "--time-limit",
            "14400",
            "--grace",
            "300",
            "unset"
        ]
    );
}
