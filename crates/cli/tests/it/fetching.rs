//! `ressa fetch` against a hub on the loopback interface: environment, output, exit codes, Ctrl-C.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use crate::{
    house::program,
    server::{Hub, REPO, checkpoint, commit, tag},
};

/// The program with a home of its own, so that no cache or token of this machine is seen.
fn command(hub: &Hub, arguments: &[&str]) -> Command {
    let mut command = program();
    command.arg("fetch").args(arguments).current_dir(hub.folder.path()).stdin(Stdio::null());
    command.env("HF_HOME", hub.folder.path()).env("HF_ENDPOINT", hub.settings().endpoint);
    command
}

fn ended(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

fn snapshot(hub: &Hub) -> PathBuf {
    hub.settings().cache.join("models--some-lab--tiny-blip/snapshots").join(commit(1))
}

#[test]
fn the_last_line_is_the_folder_and_the_second_time_costs_nothing() {
    let hub = Hub::serve(checkpoint());
    let (code, stdout, stderr) = ended(&command(&hub, &[REPO]).output().unwrap());
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(stdout, format!("{}\n", snapshot(&hub).display()));
    assert!(stderr.contains("7 files fetched"), "{stderr}");
    let again = command(&hub, &[REPO, "--json"]).output().unwrap();
    let answer: serde_json::Value = serde_json::from_slice(&again.stdout).unwrap();
    assert_eq!(answer["folder"].as_str(), snapshot(&hub).to_str());
    assert!(answer["files"].as_array().unwrap().iter().all(|file| file["was-cached"] == true), "{answer}");
    hub.asked();
    let offline = command(&hub, &[REPO]).env("HF_HUB_OFFLINE", "1").output().unwrap();
    assert_eq!((ended(&offline).0, hub.asked().len()), (0, 0));
}

#[test]
fn every_reason_has_its_exit_code() {
    let hub = Hub::serve(checkpoint());
    hub.change(|hub| hub.token = Some("hf_right".to_owned()));
    let code = |arguments: &[&str]| ended(&command(&hub, arguments).output().unwrap()).0;
    assert_eq!(code(&["not a name"]), 2);
    assert_eq!(code(&[REPO]), 66);
    fs::write(hub.folder.path().join("token"), "hf_right\n").unwrap();
    assert_eq!(code(&["some-lab/other"]), 66);
    assert_eq!(code(&[REPO, "--revision", "v2"]), 66);
    let offline = command(&hub, &[REPO]).env("HF_HUB_OFFLINE", "1").output().unwrap();
    assert_eq!(ended(&offline).0, 66);
    let blocked = command(&hub, &[REPO]).env("HF_HUB_CACHE", "token/hub").output().unwrap();
    assert_eq!(ended(&blocked).0, 110, "{}", ended(&blocked).2);
    let (code, stdout, stderr) = ended(&command(&hub, &[REPO, "--dry-run"]).output().unwrap());
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.contains("model-00002-of-00002.safetensors") && stdout.contains("505.3 kB to fetch"), "{stdout}");
}

#[test]
fn what_ctrl_c_interrupts_goes_on_where_it_was() {
    const SHARD: &str = "model-00001-of-00002.safetensors";
    let hub = Hub::serve(checkpoint());
    hub.change(|hub| {
        hub.breaks = [(SHARD.to_owned(), vec![100_000])].into();
        hub.stalls = true;
    });
    let part = snapshot(&hub).join("../../blobs").join(tag(&checkpoint()[SHARD])).with_extension("part");
    let arrived = || fs::metadata(&part).map_or(0, |found| found.len());
    let running = command(&hub, &[REPO]).stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while arrived() < 50_000 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(Command::new("kill").args(["-INT", &running.id().to_string()]).status().unwrap().success());
    let (code, _, stderr) = ended(&running.wait_with_output().unwrap());
    assert!(code == 130 && stderr.contains("goes on from there"), "{code} {stderr}");
    let range = format!("bytes={}-", arrived());
    hub.asked();
    assert_eq!(ended(&command(&hub, &[REPO]).output().unwrap()).0, 0);
    let asked = hub.asked();
    assert!(asked.iter().any(|a| a.path.ends_with(SHARD) && a.range.as_ref() == Some(&range)), "{range} {asked:?}");
    assert!(fs::read(snapshot(&hub).join(SHARD)).unwrap() == checkpoint()[SHARD]);
}
