//! What stands on standard output: one JSON value for machines, nothing lost without a word, nothing written by who only reads.

use std::{
    fs::{self, File},
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use crate::house::House;

/// The one JSON value on standard output.
fn answer(house: &House, arguments: &[&str]) -> (i32, Value) {
    let ended = house.ressa(&[arguments, &["--json"]].concat());
    let value = serde_json::from_str(&ended.stdout)
        .unwrap_or_else(|error| panic!("{arguments:?}: {error}: {}{}", ended.stdout, ended.stderr));
    (ended.code, value)
}

/// Why something cannot be done: one JSON value on standard error, and no answer.
fn refusal(house: &House, arguments: &[&str]) -> (i32, Value) {
    let ended = house.ressa(&[arguments, &["--json"]].concat());
    assert_eq!(ended.stdout, "", "{arguments:?}");
    let value =
        serde_json::from_str(&ended.stderr).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {}", ended.stderr));
    (ended.code, value)
}

#[test]
fn json_is_one_value_whatever_happens() {
    let house = House::new();
    assert_eq!(answer(&house, &["plan", "small"]).0, 0);
    assert_eq!(answer(&house, &["status", "small"]).0, 0);
    assert_eq!(answer(&house, &["logs"]), (0, json!([])));
    let (code, drawn) = answer(&house, &["data", "--images", "1"]);
    assert!(code == 0 && drawn["output"].as_str().unwrap().ends_with("contact-sheet.png"), "{drawn}");

    // Nothing there, nothing like it, not understood.
    let (code, error) = refusal(&house, &["report", "small"]);
    assert_eq!((code, &error["exit"]), (4, &json!(4)), "{error}");
    assert_eq!(refusal(&house, &["explain", "no such run", "small"]).0, 4);
    assert_eq!(refusal(&house, &["inspect", "nowhere"]).0, 66);
    assert_eq!(refusal(&house, &["inspect", "experiments"]).0, 65);
    let (code, error) = refusal(&house, &["plan", "--no-such-option"]);
    assert!(code == 2 && error["error"].as_str().unwrap().contains("--no-such-option"), "{error}");
    let (code, error) = refusal(&house, &["plan", "small", "prune.metric=wander"]);
    assert!(code == 78 && error["at"].is_string(), "{error}");

    // A sweep that fails, one without a report, and one that is done.
    house.instruct(json!({ "dense": { "fail": "data" } }));
    let (code, failed) = answer(&house, &["sweep", "small"]);
    assert_eq!((code, &failed["exit"], &failed["report"]), (100, &json!(100), &Value::Null));
    assert!(failed["no-report"].is_string(), "{failed}");
    assert_eq!(failed["summary"]["failed"].as_array().unwrap().len(), 1);
    house.instruct(json!({}));
    let (code, done) = answer(&house, &["sweep", "small", "--no-report"]);
    assert_eq!((code, done["summary"]["complete"].as_u64()), (0, Some(7)));
    let worker = house.path("broken-worker");
    fs::write(&worker, "#!/bin/sh\nexit 1\n").unwrap();
    fs::set_permissions(&worker, fs::Permissions::from_mode(0o755)).unwrap();
    let output = house
        .plain(&["--json", "--results", "other", "sweep", "small", "--device", "cpu", "--slots", "2", "--worker"])
        .arg(&worker)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    let error: Value = serde_json::from_str(stderr.lines().last().unwrap_or_default()).unwrap();
    assert!(output.stdout.is_empty() && output.status.code() == Some(1) && error["exit"] == 1, "{stderr}");
    assert_eq!(answer(&house, &["verify", "--all", "--file", "small"]).0, 0);
}

#[test]
fn an_answer_that_cannot_be_written_is_an_error_and_a_reader_that_left_is_none() {
    let house = House::new();
    for arguments in [
        &["plan", "small"][..],
        &["plan", "small", "--json"],
        &["status", "small"],
        &["schema"],
        &["--help"],
        &["logs", "--json"],
        &["sweep", "small", "--no-report"],
    ] {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let output = house.command(arguments).stdin(Stdio::null()).stdout(full).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(110), "{arguments:?}: {stderr}");
        assert!(stderr.contains("cannot write to standard output"), "{arguments:?}: {stderr}");
    }
    for arguments in [&["schema"][..], &["plan", "small", "-v"], &["--help"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = house.command(arguments).stdin(Stdio::null()).stdout(writer).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn who_only_reads_makes_no_folder() {
    let house = House::new();
    for arguments in [
        &["plan", "small"][..],
        &["status", "small"],
        &["explain", "wanda pruned, seed 0", "small"],
        &["logs"],
        &["report", "small"],
    ] {
        house.ressa(arguments);
        assert!(!house.path("results").exists(), "{arguments:?}");
    }
    house.ressa(&["sweep", "small", "--no-report"]);
    let store = house.path("results/store");
    for empty in ["drafts", "damaged", "failures"] {
        let _ = fs::remove_dir(store.join(empty));
    }
    let before = listing(&store);
    for arguments in
        [&["plan", "small"][..], &["status", "small"], &["explain", "wanda pruned, seed 0", "small"], &["logs"]]
    {
        let ended = house.ressa(arguments);
        assert_eq!(ended.code, 0, "{arguments:?}: {}", ended.stderr);
    }
    assert_eq!(listing(&store), before);
}

fn listing(folder: &std::path::Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|item| item.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn experiments_are_found_from_any_folder() {
    let house = House::new();
    house.write("elsewhere/file", "");
    let here = |word: &str| {
        let mut command = house.plain(&["plan", word, "--experiments"]);
        command.arg(house.path("experiments")).current_dir(house.path("elsewhere"));
        command.output().unwrap().status.code()
    };
    assert_eq!((here("small"), here("shapes/small.yaml"), here("shapes/other.yaml")), (Some(0), Some(0), Some(78)));
}

#[test]
fn a_path_that_only_a_shell_expands_is_refused_by_name() {
    let house = House::new();
    for arguments in [
        &["plan", "small", "--results=~/results"][..],
        &["inspect", "$HOME/model"],
        &["data", "--output=~/sheet.png"],
        &["export", "x", "--output=${SCRATCH}/out"],
    ] {
        let ended = house.ressa(arguments);
        assert_eq!(ended.code, 2, "{arguments:?}");
        assert!(ended.stderr.contains("is not expanded here"), "{arguments:?}: {}", ended.stderr);
        assert!(!house.path("~").exists());
    }
    house.write("~odd/file", "");
    assert_eq!(house.ressa(&["status", "small", "--results=~odd"]).code, 0, "there is a folder of that name");
}

#[test]
fn one_cause_is_explained_once() {
    let house = House::new();
    house.instruct(json!({ "evaluate vqav2": { "fail": "data" } }));
    let failed = house.ressa(&["sweep", "small", "--no-report"]);
    assert_eq!(failed.code, 100);
    assert_eq!(failed.stderr.matches("told to fail").count(), 1, "{}", failed.stderr);
    assert_eq!(failed.stdout.matches("told to fail").count(), 1, "{}", failed.stdout);
    assert!(failed.stdout.contains("tries 7 stages again by itself"), "{}", failed.stdout);
    assert!(!failed.stdout.contains("ressa retry"), "{}", failed.stdout);
    house.instruct(json!({}));
    assert_eq!(house.ressa(&["sweep", "small", "--no-report"]).code, 0, "data may have been repaired");
}

#[test]
fn a_disk_that_refuses_is_named_once() {
    let house = House::new();
    house.ressa(&["sweep", "small", "--no-report", "prune.metric=wanda", "restoration=pruned"]);
    // Files where folders of keys must be refuse like a full disk, also for root.
    for shard in 0..=255u8 {
        let path = house.path(&format!("results/store/{shard:02x}"));
        if !path.exists() {
            fs::write(path, "").unwrap();
        }
    }
    let refused = house.ressa(&["sweep", "small", "--no-report"]);
    assert_eq!(refused.code, 110, "{}", refused.stderr);
    assert!(!refused.stdout.contains("cannot write: cannot write"), "{}", refused.stdout);
    assert!(refused.stdout.contains("stopped: cannot write `"), "{}", refused.stdout);
}

#[test]
fn foreign_bytes_beside_a_jobs_answer_go_to_standard_error() {
    let house = House::new();
    house.write("m/config.json", "{}");
    let worker = house.path("chatty-worker");
    let body = "cat >/dev/null\nprintf 'caf\\351: a warning\\nno end {\"reply\":\"done\",\"output\":[]}\\n'\n";
    fs::write(&worker, format!("#!/bin/sh\n{body}")).unwrap();
    fs::set_permissions(&worker, fs::Permissions::from_mode(0o755)).unwrap();
    let mut command =
        house.plain(&["generate", "--json", "--model", "m", "--image", "i.png", "--prompt", "p", "--worker"]);
    let output = command.arg(&worker).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(0), &b"null\n"[..]), "{stderr}");
    assert!(stderr.contains(": a warning\nno end"), "{stderr}");
}

#[test]
fn nohup_is_respected() {
    let house = House::new();
    house.instruct(json!({ "prune": { "sleep": 0.1 } }));
    let ressa = house.command(&["sweep", "small", "--no-report"]);
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' HUP; exec \"$@\"", "sh"]).arg(ressa.get_program()).args(ressa.get_args());
    shell.current_dir(house.folder.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut sweep = shell.spawn().unwrap();
    house.wait_for(2);
    assert!(Command::new("kill").args(["-HUP", &sweep.id().to_string()]).status().unwrap().success());
    assert_eq!(sweep.wait().unwrap().code(), Some(0), "the whole sweep is done");
}

/// In a results folder, reports lie in folders that are called as their experiments are.
#[test]
fn a_folder_of_an_experiments_name_is_not_taken_for_its_file() {
    let house = House::new();
    house.write("results/small/report.html", "");
    house.write("results/unknown/report.html", "");
    let inside = |arguments: &[&str]| {
        let output = house.plain(arguments).current_dir(house.path("results")).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert_eq!(inside(&["plan", "small"]), (Some(0), String::new()));
    assert_eq!(inside(&["status", "small"]), (Some(0), String::new()));
    let (code, said) = inside(&["plan", "unknown"]);
    assert!(code == Some(78) && said.contains("is a folder"), "{said}");
}

/// A file in the place of a folder refuses everybody, the administrator who runs this test among them.
#[test]
fn results_that_cannot_be_written_are_verified_and_shipped_models_found() {
    let house = House::new();
    assert_eq!(house.ressa(&["sweep", "small", "--no-report"]).code, 0);
    for folder in ["logs", "store/drafts", "store/damaged"] {
        fs::remove_dir_all(house.path("results").join(folder)).unwrap();
        house.write(&format!("results/{folder}"), "no folder");
    }
    let verified = house.ressa(&["verify", "--all", "small"]);
    assert_eq!(verified.code, 0, "{}{}", verified.stdout, verified.stderr);
    assert!(
        verified.stdout.contains("10 certificates recounted, 14 scores computed again, 0 wrong"),
        "{}",
        verified.stdout
    );
    let key = house.stored().into_iter().next().unwrap();
    let shipped = house.path("experiments/store").join(&key[..2]);
    fs::create_dir_all(&shipped).unwrap();
    fs::rename(house.path("results/store").join(&key[..2]).join(&key), shipped.join(&key)).unwrap();
    let checked = house.ressa(&["doctor"]);
    let line = checked.stdout.lines().find(|line| line.contains("shipped")).unwrap_or_default();
    assert!(checked.code == 1 && line.contains("1 dense model entries, intact"), "{}", checked.stdout);
}
