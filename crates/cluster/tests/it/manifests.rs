//! The same pilots for Kubernetes and HyperQueue.

use serde_json::{Value, json};

use crate::places::pilot;
use ressa_cluster::{Class, Engine, Kubernetes, Profile, hyperqueue_command, indexed_job, sees_results, shell_line};

const TEXT: &str = r#"
engine: kubernetes
kubernetes:
  image: registry.example.org/ressa:1
  claim: results
  mount: /mnt
  results: /mnt/study
  folder: /opt/ressa
  namespace: lab
  node-selector: { accelerator: a100 }
defaults: { cpus: 8, gpus: 2, mem: 64G, time: 4h, array-limit: 4, setup: [". /etc/profile"], signal: TERM@120 }
"#;

fn kubernetes(text: &str) -> (Kubernetes, Class) {
    let profile = Profile::parse(text, "p").unwrap();
    let Engine::Kubernetes(settings) = profile.engine else { panic!() };
    (settings, profile.classes[0].clone())
}

#[test]
fn an_indexed_job_is_what_a_class_says() {
    let (settings, class) = kubernetes(TEXT);
    let manifest = indexed_job(&pilot(), &class, &settings, 8, "ressa-default-00c0ffee0001");
    check(&manifest, "Job", "");
    insta::assert_snapshot!(serde_json::to_string_pretty(&manifest).unwrap(), @r#"
    {
      "apiVersion": "batch/v1",
      "kind": "Job",
      "metadata": {
        "name": "ressa-default-00c0ffee0001",
        "labels": {
          "app": "ressa",
          "ressa-class": "default"
        },
        "namespace": "lab"
      },
      "spec": {
        "completionMode": "Indexed",
        "completions": 8,
        "parallelism": 4,
        "backoffLimitPerIndex": 3,
        "podFailurePolicy": {
          "rules": [
            {
              "action": "Ignore",
              "onPodConditions": [
                {
                  "type": "DisruptionTarget",
                  "status": "True"
                }
              ]
            },
            {
              "action": "Ignore",
              "onExitCodes": {
                "containerName": "pilot",
                "operator": "In",
                "values": [
                  75
                ]
              }
            }
          ]
        },
        "template": {
          "metadata": {
            "labels": {
              "app": "ressa",
              "ressa-class": "default"
            }
          },
          "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 120,
            "containers": [
              {
                "name": "pilot",
                "image": "registry.example.org/ressa:1",
                "command": [
                  "/bin/sh",
                  "-c",
                  ". /etc/profile\ncd /opt/ressa\nexec ressa work --results /mnt/study --device auto --slots 2 --class default --time-limit 14400 --grace 120"
                ],
                "resources": {
                  "requests": {
                    "cpu": "8",
                    "memory": "65536Mi",
                    "nvidia.com/gpu": "2"
                  },
                  "limits": {
                    "nvidia.com/gpu": "2",
                    "memory": "65536Mi"
                  }
                },
                "volumeMounts": [
                  {
                    "name": "results",
                    "mountPath": "/mnt"
                  }
                ]
              }
            ],
            "volumes": [
              {
                "name": "results",
                "persistentVolumeClaim": {
                  "claimName": "results"
                }
              }
            ],
            "nodeSelector": {
              "accelerator": "a100"
            }
          }
        }
      }
    }
    "#);
    assert!(sees_results(&settings, "/data/my results".as_ref()));
}

#[test]
fn names_and_numbers_stay_within_limits() {
    let (settings, class) = kubernetes("engine: kubernetes\nkubernetes: { image: a, claim: b, mount: /c }");
    assert!(!sees_results(&settings, "/data/results".as_ref()), "the results do not lie where the claim is mounted");
    let long = format!("ressa-{}.{}-00c0ffee0001", "a_b".repeat(20), "x".repeat(20));
    for (jobs, expected) in [(0, 1), (1, 1), (1000, 1000), (1_000_000, 100_000)] {
        let manifest = indexed_job(&pilot(), &class, &settings, jobs, &long);
        check(&manifest, "Job", "");
        assert_eq!(manifest["spec"]["completions"], json!(expected));
        let name = manifest["metadata"]["name"].as_str().unwrap();
        assert!(format!("{name}-{}", expected - 1).len() <= 63, "{name}");
        assert!(name.ends_with("00c0ffee0001") && name.starts_with(|c: char| c.is_ascii_lowercase()), "{name}");
        assert!(name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'), "{name}");
    }
}

#[test]
fn a_task_array_is_what_a_class_says() {
    let text = "engine: hyperqueue\ndefaults: { cpus: 8, gpus: 2, mem: 64G, time: 90min, setup: ['. /etc/profile'], options: ['--priority=5'] }";
    let profile = Profile::parse(text, "p").unwrap();
    let words = hyperqueue_command(&pilot(), &profile.classes[0], "gpus/nvidia", 8, "ressa-default-1");
    insta::assert_snapshot!(shell_line(&words), @r#"
    hq submit --name ressa-default-1 --array 0-7 --cpus 8 --resource gpus/nvidia=2 --resource mem=65536 --time-request 90min --time-limit 90min --crash-limit unlimited --cwd /opt/ressa --stdout none --stderr '/data/my results/pilots/ressa-default-1-%{TASK_ID}.log' --priority=5 -- bash -c '. /etc/profile
    exec /opt/ressa/ressa work --results '\''/data/my results'\'' --device auto --slots 2 --class default --time-limit 5400 --grace 300'
    "#);
}

/// Fields of the objects in a manifest, as the reference of the Kubernetes API has them: name, type, whether it is required. A type that
/// begins with a capital letter is an object below.
const FIELDS: &[(&str, &str, &str, bool)] = &[
    ("Job", "apiVersion", "string", true),
    ("Job", "kind", "string", true),
    ("Job", "metadata", "ObjectMeta", true),
    ("Job", "spec", "JobSpec", true),
    ("ObjectMeta", "name", "string", false),
    ("ObjectMeta", "namespace", "string", false),
    ("ObjectMeta", "labels", "map of string", false),
    ("JobSpec", "completionMode", "string", false),
    ("JobSpec", "completions", "integer", false),
    ("JobSpec", "parallelism", "integer", false),
    ("JobSpec", "backoffLimitPerIndex", "integer", false),
    ("JobSpec", "podFailurePolicy", "PodFailurePolicy", false),
    ("JobSpec", "template", "PodTemplateSpec", true),
    ("PodFailurePolicy", "rules", "list of PodFailurePolicyRule", true),
    ("PodFailurePolicyRule", "action", "string", true),
    ("PodFailurePolicyRule", "onPodConditions", "list of OnPodConditions", false),
    ("PodFailurePolicyRule", "onExitCodes", "OnExitCodes", false),
    ("OnPodConditions", "type", "string", true),
    ("OnPodConditions", "status", "string", true),
    ("OnExitCodes", "containerName", "string", false),
    ("OnExitCodes", "operator", "string", true),
    ("OnExitCodes", "values", "list of integer", true),
    ("PodTemplateSpec", "metadata", "ObjectMeta", false),
    ("PodTemplateSpec", "spec", "PodSpec", false),
    ("PodSpec", "restartPolicy", "string", false),
    ("PodSpec", "terminationGracePeriodSeconds", "integer", false),
    ("PodSpec", "containers", "list of Container", true),
    ("PodSpec", "volumes", "list of Volume", false),
    ("PodSpec", "nodeSelector", "map of string", false),
    ("Container", "name", "string", true),
    ("Container", "image", "string", false),
    ("Container", "command", "list of string", false),
    ("Container", "resources", "ResourceRequirements", false),
    ("Container", "volumeMounts", "list of VolumeMount", false),
    ("ResourceRequirements", "requests", "map of string", false),
    ("ResourceRequirements", "limits", "map of string", false),
    ("VolumeMount", "name", "string", true),
    ("VolumeMount", "mountPath", "string", true),
    ("Volume", "name", "string", true),
    ("Volume", "persistentVolumeClaim", "ClaimSource", false),
    ("ClaimSource", "claimName", "string", true),
];

/// Checks a value against the reference, and what the API server checks beyond types.
fn check(value: &Value, kind: &str, place: &str) {
    if let Some(of) = kind.strip_prefix("list of ") {
        let items = value.as_array().unwrap_or_else(|| panic!("{place} is no list"));
        items.iter().enumerate().for_each(|(at, item)| check(item, of, &format!("{place}[{at}]")));
    } else if let Some(of) = kind.strip_prefix("map of ") {
        let entries = value.as_object().unwrap_or_else(|| panic!("{place} is no map"));
        entries.iter().for_each(|(key, item)| check(item, of, &format!("{place}.{key}")));
    } else if kind == "string" {
        assert!(value.is_string(), "{place} is no string");
    } else if kind == "integer" {
        assert!(value.is_i64(), "{place} is no whole number");
    } else {
        let entries = value.as_object().unwrap_or_else(|| panic!("{place} is no {kind}"));
        for (key, item) in entries {
            let (_, _, of, _) = FIELDS
                .iter()
                .find(|(object, field, ..)| *object == kind && field == key)
                .unwrap_or_else(|| panic!("{place}: {kind} has no field {key}"));
            check(item, of, &format!("{place}.{key}"));
        }
        for (_, field, _, _) in FIELDS.iter().filter(|(object, _, _, must)| *object == kind && *must) {
            assert!(entries.contains_key(*field), "{place}: {kind} needs {field}");
        }
    }
    if kind == "Job" {
        check_rules(value);
    }
}

/// What makes the fields of an Indexed Job fit together.
fn check_rules(job: &Value) {
    let spec = &job["spec"];
    let pod = &spec["template"]["spec"];
    assert_eq!((&job["apiVersion"], &job["kind"]), (&json!("batch/v1"), &json!("Job")));
    assert_eq!(spec["completionMode"], json!("Indexed"), "`backoffLimitPerIndex` needs it");
    assert_eq!(pod["restartPolicy"], json!("Never"), "`podFailurePolicy` and `backoffLimitPerIndex` need it");
    let number = |field: &str| spec[field].as_i64().unwrap();
    assert!(
        (1..=100_000).contains(&number("completions")) && (1..=number("completions")).contains(&number("parallelism"))
    );
    for rule in spec["podFailurePolicy"]["rules"].as_array().unwrap() {
        assert!(["Ignore", "Count", "FailIndex", "FailJob"].contains(&rule["action"].as_str().unwrap()));
        assert!(rule["onExitCodes"].is_object() != rule["onPodConditions"].is_array(), "exactly one of the two");
        if let Some(codes) = rule["onExitCodes"]["values"].as_array() {
            let codes: Vec<i64> = codes.iter().map(|code| code.as_i64().unwrap()).collect();
            assert!(codes.is_sorted() && codes.iter().all(|code| (1..=255).contains(code)), "0 is no failure");
            assert_eq!(rule["onExitCodes"]["containerName"], pod["containers"][0]["name"]);
        }
    }
    let ignored = spec["podFailurePolicy"]["rules"].to_string();
    assert!(ignored.contains("DisruptionTarget") && ignored.contains("75"));
    assert_eq!(pod["containers"][0]["volumeMounts"][0]["name"], pod["volumes"][0]["name"]);
}
