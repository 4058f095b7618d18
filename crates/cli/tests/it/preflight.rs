//! What can be known before a sweep is said before it: by `plan`, which then ends as the sweep would, and by the sweep before it makes anything.

use std::{fs, path::Path};

use crate::house::House;

fn refused(house: &House, overrides: &[&str], code: i32, said: &str) {
    let plan = house.ressa(&[&["plan", "small"], overrides].concat());
    assert_eq!(plan.code, code, "{overrides:?}: {}{}", plan.stdout, plan.stderr);
    assert!(plan.stdout.contains(said), "{overrides:?}: {}", plan.stdout);
    let sweep = house.ressa(&[&["sweep", "small"], overrides].concat());
    assert_eq!(sweep.code, code, "{overrides:?}: {}", sweep.stderr);
    assert!(sweep.stderr.contains(said), "{overrides:?}: {}", sweep.stderr);
    assert!(house.stored().is_empty(), "{overrides:?}: something was made");
}

#[test]
fn settings_that_the_model_cannot_follow_are_refused() {
    let house = House::new();
    let roles = "`q_proj` names no layer of this model; its layers are `k`, `o`, `q`, `v`, `wi_0`, `wi_1`, `wo`";
    refused(&house, &["restore.language.targets=q_proj"], 78, roles);
    refused(&house, &["restore.vision.targets=q"], 78, "`q` names no layer of this model; its layers are `fc1`");
    let width = "which groups of 3 do not divide";
    let third = "0.6666666666666667";
    let sparsities = [format!("prune.vision.sparsity={third}"), format!("prune.language.sparsity={third}")];
    refused(&house, &["prune.pattern=1:3", &sparsities[0], &sparsities[1]], 78, width);
    refused(&house, &["restore.language.bias=all"], 78, "this language model has no bias to train");
    let alone =
        house.ressa(&["plan", "small", "prune.pattern=2:4", "prune.vision.sparsity=0", "prune.language.sparsity=0"]);
    assert_eq!(alone.code, 78);
    assert!(alone.stderr.contains("`2:4` prunes nothing: the sparsity of every tower is 0"), "{}", alone.stderr);
}

/// What is not asked for any more cannot keep a plan from being run: everything is there.
#[test]
fn a_rank_beyond_a_matrix_is_said_and_trained() {
    let house = House::new();
    let said = "restore.language.rank: a rank of 512 is larger than the shorter side of `k`, 96";
    let plan = house.ressa(&["plan", "small", "restore.language.rank=512"]);
    assert_eq!(plan.code, 0);
    assert!(plan.stdout.contains(said), "{}", plan.stdout);
    let sweep = house.ressa(&["sweep", "small", "restore.language.rank=512"]);
    assert_eq!(sweep.code, 0, "{}", sweep.stderr);
    assert!(sweep.stderr.contains(said), "{}", sweep.stderr);
    let plan = house.ressa(&["plan", "small", "restore.language.rank=512"]);
    assert!(!plan.stdout.contains(said), "all is made: {}", plan.stdout);
}

/// A fraction that rounds to no group, or that an earlier step has gone beyond, is a step without effect.
#[test]
fn removals_that_remove_nothing_are_said() {
    let house = House::new();
    let with = |steps: &str| {
        house.write(
            "experiments/shapes/small.yaml",
            &format!(
                "extends: ../base/model.yaml\nname: small\nreplicate: {{ seed: [0] }}\nrestore.method: none\n\
                 structure: {{ score: magnitude, block-score: magnitude }}\nsteps:\n{steps}"
            ),
        );
        let (code, plan) = plan(&house);
        assert_eq!(code, 0, "{plan:#}");
        let notes = plan["notes"].as_array().unwrap().iter();
        let text = |note: &serde_json::Value, field: &str| note[field].as_str().unwrap_or_default().to_owned();
        notes.map(|note| format!("{}: {}", text(note, "setting"), text(note, "what"))).collect::<Vec<_>>()
    };
    assert_eq!(with("  - structure: { name: a, language.blocks: 0.5, vision.channels: 0.5 }\n"), [""; 0]);
    let few = with("  - structure: { name: a, language.heads: 0.1, vision.channels: 320 }\n");
    assert_eq!(
        few,
        [
            "structure.language.heads: 0.1 of 6 heads is less than one: 0.1 removes nothing",
            "structure.vision.channels: there are 320 channels, and as many are to remain: 320 removes nothing",
        ]
    );
    let spellings =
        "  - structure: { name: a, vision.channels: 0.5 }\n  - structure: { name: b, vision.channels: 300 }\n";
    let said = "structure.vision.channels: an earlier step leaves 160 of 320 channels: 300 removes nothing";
    assert_eq!(with(spellings), [said]);
    assert_eq!(with(&spellings.replace("300", "100")), [""; 0]);
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for item in fs::read_dir(from).unwrap() {
        let item = item.unwrap();
        match item.file_type().unwrap().is_dir() {
            true => copy(&item.path(), &to.join(item.file_name())),
            false => drop(fs::copy(item.path(), to.join(item.file_name())).unwrap()),
        }
    }
}

/// Benchmarks and corpora of a few entries, with a published model that is not there.
fn published() -> House {
    let house = House::new();
    copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/tests/published"), &house.path("data"));
    let model = "extends: ../base/model.yaml\nname: small\n\
        model: { preset: null, checkpoint: checkpoints/instructblip-flan-t5-xl }\n\
        data: { source: folder, root: data, calibration: { corpora: [cc3m] }, restoration: { corpora: [cc3m] } }\n\
        prune: { metric: wanda, calibration: { images: 128, questions: 0, captions: 1 } }\n\
        restore: { questions: 0, contrastive: 0 }\n\
        evaluate: { tasks: [gqa] }\nreplicate: { seed: [0] }\n";
    house.write("experiments/shapes/small.yaml", model);
    house
}

fn plan(house: &House) -> (i32, serde_json::Value) {
    let plan = house.ressa(&["plan", "small", "--json"]);
    (plan.code, serde_json::from_str(&plan.stdout).unwrap())
}

#[test]
fn every_image_that_will_be_read_is_looked_for() {
    let house = published();
    let missing = |plan: &serde_json::Value| -> Vec<String> {
        let files = plan["missing"].as_array().unwrap().iter();
        let of_data = files.filter_map(|file| file["path"].as_str()).filter(|path| path.contains("/data/"));
        of_data.map(str::to_owned).collect()
    };
    let (code, all) = plan(&house);
    assert_eq!((code, missing(&all)), (66, Vec::new()), "the checkpoint is missing, the data are there");
    let images: Vec<_> =
        fs::read_dir(house.path("data/gqa/images")).unwrap().map(|item| item.unwrap().path()).collect();
    images.iter().for_each(|image| fs::remove_file(image).unwrap());
    let (code, without) = plan(&house);
    assert!(code == 66 && !missing(&without).is_empty(), "{without:#}");
    assert!(missing(&without).iter().all(|path| path.contains("data/gqa/images/")), "{without:#}");
    let sweep = house.ressa(&["sweep", "small"]);
    assert_eq!(sweep.code, 66);
}

/// Captions are read without their images, and what is missing of them says nothing of the benchmark.
#[test]
fn a_pool_lacks_its_annotations_alone() {
    let house = published();
    let text = fs::read_to_string(house.path("experiments/shapes/small.yaml")).unwrap();
    let text = text.replace("tasks: [gqa]", "tasks: [gqa], retrieved: { captions: 1, corpora: [vg] }");
    house.write("experiments/shapes/small.yaml", &text);
    fs::remove_dir_all(house.path("data/vg/images")).unwrap();
    let lacking = |plan: &serde_json::Value| -> Vec<String> {
        let files = plan["missing"].as_array().unwrap().iter();
        let of_data = files.filter_map(|file| file["path"].as_str()).filter(|path| path.contains("/data"));
        of_data.map(|path| path.rsplit_once("/data").unwrap().1.to_owned()).collect()
    };
    assert_eq!(lacking(&plan(&house).1), [""; 0]);
    fs::remove_file(house.path("data/vg/annotations/vg_caption.json")).unwrap();
    assert_eq!(lacking(&plan(&house).1), ["/vg/annotations/vg_caption.json"]);
}

#[test]
fn a_model_that_cannot_compare_is_said_before_anything_runs() {
    let house = published();
    let text = fs::read_to_string(house.path("experiments/shapes/small.yaml")).unwrap();
    let retrieved = "tasks: [gqa], retrieved: { captions: 1, corpora: [vg], checkpoint: checkpoints/matcher }";
    house.write("experiments/shapes/small.yaml", &text.replace("tasks: [gqa]", retrieved));
    fs::create_dir_all(house.path("checkpoints/matcher")).unwrap();
    let problems = |tensor: &str| {
        let header = format!(r#"{{"{tensor}":{{"dtype":"F32","shape":[1,1],"data_offsets":[0,4]}}}}"#);
        let file = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 4]].concat();
        fs::write(house.path("checkpoints/matcher/model.safetensors"), file).unwrap();
        let (_, plan) = plan(&house);
        let problems = plan["problems"].as_array().unwrap().clone();
        problems.into_iter().filter(|problem| problem["setting"] == "evaluate.retrieved.checkpoint").collect::<Vec<_>>()
    };
    let found = problems("language_projection.weight");
    assert!(found.len() == 1 && found[0]["what"].as_str().unwrap().contains("checkpoints/matcher"), "{found:?}");
    assert_eq!(problems("vision_projection.weight"), [serde_json::Value::Null; 0]);
}

#[test]
fn fewer_samples_than_asked_are_said() {
    let (_, plan) = plan(&published());
    let notes = plan["notes"].as_array().unwrap();
    let found = notes.iter().find(|note| note["setting"] == "prune.calibration.images").expect("a note");
    let what = found["what"].as_str().unwrap();
    assert!(what.starts_with("only ") && what.contains(" of 128 samples are there (corpora: cc3m)"), "{what}");
}
