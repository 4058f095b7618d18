//! What profiles may say, and what is said about what they may not.

use std::path::Path;

use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme};
use ressa_cluster::{Engine, Memory, Models, Profile, Signal};

fn shipped(name: &str) -> Profile {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().join("profiles");
    Profile::read(&folder.join(format!("{name}.yaml")), name).unwrap()
}

/// The mistake of a profile as people see it.
fn refused(text: &str) -> String {
    let error = Profile::parse(text, "cluster").unwrap_err();
    let mut shown = String::new();
    let diagnostic: &dyn Diagnostic = &error;
    GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor())
        .with_width(110)
        .render_report(&mut shown, diagnostic)
        .unwrap();
    shown
}

#[test]
fn shipped_profiles_are_sound() {
    let slurm = shipped("slurm");
    assert_eq!((slurm.name.as_str(), &slurm.engine), ("slurm", &Engine::Slurm));
    assert_eq!(slurm.class_of("adapt", true).name, "default");
    let resources = &slurm.classes[0].resources;
    assert_eq!(
        (resources.memory, resources.minutes, resources.usable_seconds()),
        (Some(Memory::Job(4096)), Some(240), Some(14040))
    );
    assert!(matches!(shipped("kubernetes").engine, Engine::Kubernetes(_)));
    assert!(matches!(shipped("hyperqueue").engine, Engine::HyperQueue { .. }));
}

#[test]
fn what_is_commented_out_is_sound_too() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().join("profiles/slurm.yaml");
    let text = std::fs::read_to_string(path).unwrap();
    // Every key that is commented out, but those that exclude what is there.
    let uncommented: Vec<String> = text
        .lines()
        .filter(|line| !["# workers:", "# devices-per-worker"].iter().any(|key| line.trim_start().starts_with(key)))
        .map(|line| match line.trim_start().strip_prefix("# ") {
            Some(rest) if line.starts_with("  # ") => format!("  {rest}"),
            Some(rest) if rest.starts_with("classes:") || rest.starts_with("  ") && rest.contains("takes") => {
                rest.to_owned()
            }
            _ => line.to_owned(),
        })
        .collect();
    let profile = Profile::parse(&uncommented.join("\n"), "slurm").unwrap();
    let names: Vec<&str> = profile.classes.iter().map(|class| class.name.as_str()).collect();
    assert_eq!(names, ["small", "train", "default"]);
    assert_eq!(profile.classes[2].resources.slots(), Some(2));
}

#[test]
fn the_first_class_that_takes_a_stage_gets_it() {
    let text = "
engine: slurm
defaults: { time: 1h, gpus: 1, mem-per-gpu: 40G, workers-per-gpu: 2, cpus: 4 }
classes:
  small: { takes: [evaluate, merge], models: embedded, gpus: 0, mem: 2G, cpus: 8 }
  train: { takes: [adapt], gres: 'gpu:a100:4', time: 1-00:00:00, devices-per-worker: 2, workers-per-gpu: 1, signal: TERM@600 }
  score: { takes: [evaluate] }
";
    let profile = Profile::parse(text, "p").unwrap();
    let class = |kind, embedded| profile.class_of(kind, embedded).name.as_str();
    assert_eq!(
        [class("evaluate", true), class("evaluate", false), class("merge", false)],
        ["small", "score", "default"]
    );
    assert_eq!([class("adapt", true), class("dense", true)], ["train", "default"]);

    let resources = |name: &str| profile.class(name).unwrap().resources.clone();
    let (small, train, score) = (resources("small"), resources("train"), resources("score"));
    assert_eq!(
        (small.gpus, small.memory, small.slots(), small.expected_slots()),
        (0, Some(Memory::Job(2048)), None, 8)
    );
    assert_eq!((train.gpus, train.memory, train.slots()), (4, Some(Memory::PerGpu(40960)), Some(2)));
    assert_eq!((train.minutes, train.signal, train.lead), (Some(1440), Signal::Term, 600));
    assert_eq!((score.gpus, score.slots(), score.mebibytes()), (1, Some(2), Some(40960)));
    assert_eq!(profile.class("small").unwrap().models, Models::Embedded);
}

#[test]
fn ways_to_say_the_same_replace_each_other_between_class_and_defaults() {
    let text = "
engine: slurm
defaults: { time: 1h, cpus: 4, workers: 2, mem-per-cpu: 1G }
classes:
  plain: { takes: [merge] }
  device: { takes: [adapt], gpus: 2, mem: 8G }
";
    let profile = Profile::parse(text, "p").unwrap();
    let slots = |name: &str| profile.class(name).unwrap().resources.slots();
    assert_eq!((slots("plain"), slots("device"), slots("default")), (Some(2), Some(2), Some(2)));
    assert_eq!(profile.class("plain").unwrap().resources.mebibytes(), Some(4096));
    assert_eq!(profile.class("device").unwrap().resources.memory, Some(Memory::Job(8192)));
}

#[test]
fn mistakes_are_pointed_at() {
    insta::assert_snapshot!(refused("engine: slurm\ndefaults: { time: 4h, partion: gpu }\n"), @"
    profile::unknown-key

      × `defaults` has no key `partion`
       ╭─[cluster.yaml:2:23]
     1 │ engine: slurm
     2 │ defaults: { time: 4h, partion: gpu }
       ·                       ───┬───
       ·                          ╰── unknown key
       ╰────
      help: did you mean `partition`?
    ");
    insta::assert_snapshot!(refused("engine: slurm\ndefaults: { time: 4 }\n"), @"
    profile::wrong-type

      × `defaults.time` must be text such as `4h`, not a number
       ╭─[cluster.yaml:2:19]
     1 │ engine: slurm
     2 │ defaults: { time: 4 }
       ·                   ┬
       ·                   ╰── expected text such as `4h`
       ╰────
    ");
    insta::assert_snapshot!(refused("engine: slurm\ndefaults: { time: \"4:00\" }\n"), @r#"
    profile::bad-value

      × `defaults.time`: `4:00` is not a time
       ╭─[cluster.yaml:2:19]
     1 │ engine: slurm
     2 │ defaults: { time: "4:00" }
       ·                   ───┬───
       ·                      ╰── expected a number with its unit
       ╰────
      help: write `90s`, `45min`, `4h`, `1h30min`, `2d` or `04:00:00`
    "#);
    insta::assert_snapshot!(refused("engine: slurm\ndefaults:\n  time: 4h\n  mem: 64G\n  mem-per-gpu: 40G\n"), @"
    profile::bad-value

      × `mem` and `mem-per-gpu` exclude each other: Slurm takes one of them
       ╭─[cluster.yaml:5:16]
     4 │   mem: 64G
     5 │   mem-per-gpu: 40G
       ·                ─┬─
       ·                 ╰── a second one
       ╰────
      help: keep one of `mem`, `mem-per-cpu`, `mem-per-gpu`
    ");
    insta::assert_snapshot!(refused("engine: slurm\ndefaults: { time: 4h }\nclasses:\n  a: { takes: [adapt] }\n  b: { takes: [merge, adapt] }\n"), @"
    profile::bad-value

      × class `b` gets no `adapt`: class `a` takes them first
       ╭─[cluster.yaml:5:15]
     4 │   a: { takes: [adapt] }
     5 │   b: { takes: [merge, adapt] }
       ·               ───────┬───────
       ·                      ╰── never reached
       ╰────
      help: take the kind out of one of the two
    ");
}

#[test]
fn every_contradiction_is_refused_with_what_to_do() {
    let slurm = |keys: &str| format!("engine: slurm\ndefaults: {{ time: 1h, {keys} }}");
    let cases = [
        ("engine: slurm".to_owned(), "`time` is missing"),
        ("".to_owned(), "is empty"),
        ("defaults: {}".to_owned(), "needs `engine`"),
        ("engine: pbs".to_owned(), "choices"),
        ("engine: &a slurm".to_owned(), "stands under `defaults:`"),
        ("engine: kubernetes".to_owned(), "profiles/kubernetes.yaml"),
        (
            "engine: slurm\ndefaults: { time: 1h }\nkubernetes: { image: a, claim: b, mount: /c }".to_owned(),
            "engine: kubernetes",
        ),
        ("engine: kubernetes\nkubernetes: { image: a, claim: b, mount: c }".to_owned(), "not absolute"),
        ("engine: hyperqueue\ndefaults: { partition: gpu }".to_owned(), "says nothing to `engine: hyperqueue`"),
        (slurm("mem: 64"), "text such as `64G`"),
        (slurm("mem: lots"), "not a size of memory"),
        (slurm("mem-per-gpu: 4G"), "without GPUs"),
        (slurm("gpus: 1, gres: 'gpu:1'"), "said twice"),
        (slurm("gres: 'gpu:a100:many'"), "not a number of GPUs"),
        (slurm("signal: USR1@60"), "USR2@300"),
        (slurm("signal: USR2@1"), "5 to 65535"),
        (slurm("signal: USR2@3600"), "too short"),
        (slurm("workers-per-gpu: 2"), "without GPUs"),
        (slurm("gpus: 2, workers: 2"), "workers-per-gpu"),
        (slurm("gpus: 4, devices-per-worker: 3"), "divisor"),
        (slurm("gpus: 4, devices-per-worker: 2, workers-per-gpu: 2"), "one of the two"),
        (slurm("partition: 'a b'"), "not a word"),
        (slurm("account: \"a\\n#SBATCH --uid=0\""), "not a word"),
        (slurm("setup: [\"a\\nb\"]"), "more than one line"),
        (slurm("options: ['--time=1h']"), "set by the script itself"),
        (slurm("options: ['-p gpu']"), "not an option"),
        (slurm("max-jobs: 0"), "at least 1"),
        (
            "engine: slurm\ndefaults: { time: 1h }\nclasses: { default: { takes: [adapt] } }".to_owned(),
            "choose another name",
        ),
        (
            "engine: slurm\ndefaults: { time: 1h }\nclasses: { A b: { takes: [adapt] } }".to_owned(),
            "cannot be a file name",
        ),
        (
            "engine: slurm\ndefaults: { time: 1h }\nclasses: { a: { takes: [adopt] } }".to_owned(),
            "did you mean `adapt`",
        ),
        ("engine: slurm\ndefaults: { time: 1h }\nbad-node: { faster-than: 30 }".to_owned(), "text such as"),
    ];
    for (text, expected) in cases {
        let shown = refused(&text);
        assert!(shown.contains(expected), "{text}\n{shown}");
        assert!(shown.starts_with("profile::"), "{shown}");
    }
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = Profile::read(Path::new("/nowhere/p.yaml"), "profiles/p.yaml").unwrap_err();
    assert_eq!(error.to_string(), "no profile `profiles/p.yaml`");
    assert_eq!(error.code().unwrap().to_string(), "profile::missing");
}
