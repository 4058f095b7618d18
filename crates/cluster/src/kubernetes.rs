//! The same pilots as a Kubernetes Indexed Job, for `kubectl apply`.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::{
    pilot::{GAVE_BACK, Pilot, quoted},
    profile::{Class, Kubernetes},
};

/// Pods whose retries are counted one by one: more than these no Job may have.
pub const MAX_COMPLETIONS: u32 = 100_000;
/// Longest name of a pod's host.
const LONGEST_NAME: usize = 63;
const CONTAINER: &str = "pilot";
const VOLUME: &str = "results";

/// The manifest of a Job with `jobs` pods, of which `at_once` run at once.
///
/// A pod that is evicted, and one that gave its work back, is replaced without being counted; one that fails by itself is started
/// `retries` times, and takes no other pod's tries.
pub fn indexed_job(pilot: &Pilot, class: &Class, settings: &Kubernetes, jobs: u32, token: &str) -> Value {
    let resources = &class.resources;
    let jobs = jobs.clamp(1, MAX_COMPLETIONS);
    let name = pod_name(token, jobs);
    let inside = Pilot {
        program: PathBuf::from(&settings.program),
        results: settings.results.as_ref().map_or_else(|| pilot.results.clone(), PathBuf::from),
        folder: settings.folder.as_ref().map_or_else(|| pilot.folder.clone(), PathBuf::from),
        // The programs stand side by side in the image; paths of this machine say nothing there.
        global: Vec::new(),
        logs: pilot.logs.clone(),
    };
    let mut lines: Vec<String> = resources.setup.clone();
    lines.push(format!("cd {}", quoted(&inside.folder.display().to_string())));
    lines.push(format!("exec {}", inside.command(class)));
    let labels = json!({ "app": "ressa", "ressa-class": label(&class.name) });
    let mut metadata = Map::from_iter([("name".to_owned(), json!(name)), ("labels".to_owned(), labels.clone())]);
    if let Some(namespace) = &settings.namespace {
        metadata.insert("namespace".to_owned(), json!(namespace));
    }
    let mut pod = Map::from_iter([
        ("restartPolicy".to_owned(), json!("Never")),
        // What a pilot has to save a training and give it back.
        ("terminationGracePeriodSeconds".to_owned(), json!(resources.lead)),
        (
            "containers".to_owned(),
            json!([{
                "name": CONTAINER,
                "image": settings.image,
                "command": ["/bin/sh", "-c", lines.join("\n")],
                "resources": requests(class, settings),
                "volumeMounts": [{ "name": VOLUME, "mountPath": settings.mount }],
            }]),
        ),
        ("volumes".to_owned(), json!([{ "name": VOLUME, "persistentVolumeClaim": { "claimName": settings.claim } }])),
    ]);
    if !settings.node_selector.is_empty() {
        pod.insert("nodeSelector".to_owned(), json!(settings.node_selector));
    }
    json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "spec": {
            "completionMode": "Indexed",
            "completions": jobs,
            "parallelism": resources.array_limit.unwrap_or(jobs).min(jobs),
            "backoffLimitPerIndex": settings.retries,
            "podFailurePolicy": { "rules": [
                { "action": "Ignore", "onPodConditions": [{ "type": "DisruptionTarget", "status": "True" }] },
                { "action": "Ignore", "onExitCodes": { "containerName": CONTAINER, "operator": "In", "values": [GAVE_BACK] } },
            ] },
            "template": { "metadata": { "labels": labels }, "spec": pod },
        },
    })
}

/// Whether pods see the results folder: it lies where the claim is mounted.
pub fn sees_results(settings: &Kubernetes, results: &Path) -> bool {
    settings.results.as_ref().map_or(results, Path::new).starts_with(&settings.mount)
}

fn requests(class: &Class, settings: &Kubernetes) -> Value {
    let resources = &class.resources;
    let mut asked = Map::new();
    if let Some(cpus) = resources.cpus {
        asked.insert("cpu".to_owned(), json!(cpus.to_string()));
    }
    if let Some(size) = resources.mebibytes() {
        asked.insert("memory".to_owned(), json!(format!("{size}Mi")));
    }
    let mut limits = Map::new();
    if resources.gpus > 0 {
        // Devices are not shared, so a request and a limit are the same.
        limits.insert(settings.gpu_resource.clone(), json!(resources.gpus.to_string()));
        asked.insert(settings.gpu_resource.clone(), json!(resources.gpus.to_string()));
    }
    if let Some(size) = asked.get("memory") {
        limits.insert("memory".to_owned(), size.clone());
    }
    json!({ "requests": asked, "limits": limits })
}

/// A name of which pods can be made by adding `-INDEX`: letters, digits and hyphens, at most 63 with the largest index.
fn pod_name(token: &str, jobs: u32) -> String {
    let most = LONGEST_NAME - format!("-{}", jobs - 1).len();
    let name = plain(token);
    // The end is what makes it unique.
    let start = name.len().saturating_sub(most);
    name[start..].trim_start_matches(|c: char| !c.is_ascii_lowercase()).to_owned()
}

fn label(name: &str) -> String {
    plain(name).chars().take(LONGEST_NAME).collect::<String>().trim_matches('-').to_owned()
}

/// Letters, digits and hyphens.
fn plain(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' }).collect()
}
