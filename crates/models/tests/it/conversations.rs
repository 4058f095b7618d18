//! Models that put their image into a conversation, against what transformers computed; made by `scripts/export_composed_goldens.py`.

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use ressa_experiment::job::{Compute, SearchOptions};
use ressa_models::{
    ForwardInputs, InBlocks, Infer, Layout, LoadOptions, Model, Prompts, Sample, Search, Surgery, TextBatch, Tower,
    folder::{read_config, read_config_file, read_generation},
    load_model, load_streamed,
};
use ressa_testkit::{Golden, assert_close};
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

use crate::folders::Moments;

/// Largest difference as a share of the largest value.
const TOLERANCE: f64 = 3e-5;

const FOLDERS: [&str; 8] = [
    "llava-default",
    "llava-full",
    "llava-tied",
    "llava-siglip",
    "llava-siglip-default",
    "llava-dinov2",
    "llava-dinov2-gated",
    "llava-layers",
];

fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/goldens").join(name)
}

fn golden(name: &str) -> (Golden, Value, Model) {
    let text = fs::read(folder(name).join("golden.json")).unwrap();
    let model = load_model(&folder(name), &LoadOptions::on(Device::Cpu)).unwrap();
    (Golden::open(folder(name).join("golden.safetensors")), serde_json::from_slice(&text).unwrap(), model)
}

fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).expect("token ids")
}

fn rows(value: &Value) -> Vec<Vec<u32>> {
    value.as_array().expect("rows").iter().map(ids).collect()
}

/// The golden's prompts: what stands before, and each row's own text.
fn prompts(text: &Value) -> Prompts {
    let token = text["image_token"].as_u64().unwrap() as u32;
    let texts = rows(&text["prompts"]).into_iter().map(|row| {
        let whole = [ids(&text["before"]), row].concat();
        let (layout, text) = Layout::split(&whole, token).expect("an image");
        (Some(layout), text)
    });
    let language = TextBatch::prompts(texts.collect(), 0, Device::Cpu).expect("one layout");
    let images: Vec<i64> = (0..language.ids.size()[0]).collect();
    Prompts {
        image: Tensor::from_slice(&images),
        qformer: TextBatch::pad(&vec![Vec::new(); images.len()], 0, Device::Cpu),
        language,
    }
}

#[test]
fn padded_batches_give_the_logits_of_transformers() {
    for name in FOLDERS {
        let (tensors, _, model) = golden(name);
        let get = |part: &str| tensors.get(part);
        let inputs = ForwardInputs {
            pixel_values: get("pixel_values"),
            input_ids: get("input_ids"),
            attention_mask: get("attention_mask"),
            labels: Some(get("labels")),
            qformer_input_ids: None,
            qformer_attention_mask: None,
        };
        let found = model.forward(&inputs).unwrap();
        // What a padded position predicts is nobody's.
        let real = get("attention_mask").to_kind(Kind::Float).unsqueeze(-1);
        assert_close(name, &(found.logits * &real), &(get("logits") * &real), TOLERANCE);
        tensors.check("loss", &found.loss.expect("there are labels").view([1]), TOLERANCE);
    }
}

#[test]
fn every_linear_reads_what_it_reads_in_transformers() {
    let _no_grad = tch::no_grad_guard();
    for name in FOLDERS {
        let (tensors, text, model) = golden(name);
        let mut seen = BTreeMap::new();
        let mut guards = Vec::new();
        for (id, linear) in model.linears() {
            let moments = Arc::new(Mutex::new(Moments::default()));
            guards.push(linear.tap(Arc::clone(&moments) as Arc<Mutex<dyn ressa_models::Observer>>));
            seen.insert(id.name.clone(), moments);
        }
        // Block by block, as calibration runs them: of every row its image, its prompt and its answer.
        let batch = prompts(&text);
        let before = ids(&text["before"]).len() as i64;
        for row in 0..batch.language.ids.size()[0] {
            let own = tensors.get("attention_mask").select(0, row).sum(Kind::Int64).int64_value(&[]);
            let whole = tensors.get("input_ids").select(0, row).narrow(0, before, own - before);
            let read: Vec<i64> = Vec::try_from(whole).unwrap();
            let length = rows(&text["prompts"])[row as usize].len();
            let sample = Sample {
                pixels: tensors.get("pixel_values").narrow(0, row, 1),
                prompt: Prompts {
                    image: Tensor::from_slice(&[0i64]),
                    qformer: TextBatch::pad(&[Vec::new()], 0, Device::Cpu),
                    language: TextBatch::pad(&[rows(&text["prompts"])[row as usize].clone()], 0, Device::Cpu)
                        .behind(batch.language.layout().cloned().map(Arc::new)),
                },
                answer: read[length..].iter().map(|&id| id as u32).collect(),
            };
            for tower in Tower::ALL {
                // The towers below run without being looked at.
                let quiet: Vec<_> = seen.values().map(|moments| moments.lock().unwrap().pause(true)).collect();
                let entry = model.enter(tower, &sample);
                for (moments, was) in seen.values().zip(quiet) {
                    moments.lock().unwrap().pause(was);
                }
                (0..model.blocks(tower)).fold(entry, |flow, block| model.run_block(tower, block, &flow));
            }
        }
        let theirs: Vec<&str> =
            tensors.iter().filter_map(|(key, _)| key.strip_prefix("stats.")?.strip_suffix(".rows")).collect();
        assert_eq!(theirs, seen.keys().map(String::as_str).collect::<Vec<_>>(), "{name}");
        for (linear, moments) in &seen {
            moments.lock().unwrap().check(name, linear, &tensors, TOLERANCE);
        }
    }
}

#[test]
fn answers_are_those_of_transformers() {
    let _no_grad = tch::no_grad_guard();
    for name in FOLDERS {
        let (tensors, text, model) = golden(name);
        let (config, generation) = (read_config(&folder(name)).unwrap(), read_generation(&folder(name)).unwrap());
        let batch = prompts(&text);
        let prefix = model.visual_prefix(&model.encode_images(&tensors.get("pixel_values")), &batch);
        for (search, golden) in text["generate"].as_object().unwrap() {
            let options: SearchOptions = serde_json::from_value(golden["options"].clone()).unwrap();
            let resolved = Search::resolve(&options, &generation, config.text_config()).unwrap();
            let found = model.generate(&prefix, &batch.language, &resolved).unwrap();
            let found: Vec<Vec<u32>> = found.into_iter().map(|answer| answer.tokens).collect();
            assert_eq!(found, rows(&golden["tokens"]), "{name} {search}");
            // Twice the same questions: each image is read once, however many ask about it.
            let twice = twice(&batch, &rows(&text["prompts"]));
            let features = model.encode_images(&tensors.get("pixel_values"));
            let again = model.answer(&features, &twice, &resolved).unwrap();
            let again: Vec<Vec<u32>> = again.into_iter().map(|answer| answer.tokens).collect();
            assert_eq!(again, [found.clone(), found].concat(), "{name} {search}: prefixes read once");
        }
    }
}

/// Every prompt twice, about the same image.
fn twice(batch: &Prompts, prompts: &[Vec<u32>]) -> Prompts {
    let rows: Vec<(Option<Layout>, Vec<u32>)> =
        [prompts, prompts].concat().into_iter().map(|row| (batch.language.layout().cloned(), row)).collect();
    Prompts {
        image: Tensor::cat(&[&batch.image, &batch.image], 0),
        qformer: TextBatch::pad(&vec![Vec::new(); rows.len()], 0, Device::Cpu),
        language: TextBatch::prompts(rows, 0, Device::Cpu).expect("one layout"),
    }
}

/// Answers of other lengths, several on an image: reading its prefix once changes no logit that counts.
#[test]
fn forced_answers_share_what_stands_before_them() {
    let _no_grad = tch::no_grad_guard();
    for name in FOLDERS {
        let (tensors, text, model) = golden(name);
        let batch = twice(&prompts(&text), &rows(&text["prompts"]));
        let features = model.encode_images(&tensors.get("pixel_values"));
        let answers: Vec<Vec<u32>> = vec![vec![20, 21], vec![23], vec![25, 24, 22], vec![22], vec![21, 25], vec![24]];
        let apart = model.force(Some(&model.visual_prefix(&features, &batch)), &batch.language, &answers);
        let shared = model.force_about(&features, &batch, &answers);
        assert!(shared.targets.equal(&apart.targets) && shared.mask.equal(&apart.mask));
        let counts = apart.mask.unsqueeze(-1);
        assert_close(name, &(shared.logits * &counts), &(apart.logits * &counts), 1e-5);
    }
}

/// Forced answers, blocks run one by one, and a folder whose matrices stay on the disk give the same numbers.
#[test]
fn blocks_and_streamed_folders_give_what_a_forward_pass_gives() {
    let _no_grad = tch::no_grad_guard();
    for name in FOLDERS {
        let (tensors, text, model) = golden(name);
        let batch = prompts(&text);
        let features = model.encode_images(&tensors.get("pixel_values"));
        let prefix = model.visual_prefix(&features, &batch);
        let answers = vec![vec![20, 21], vec![23], vec![25, 24, 22]];
        let forced = model.force(Some(&prefix), &batch.language, &answers);
        let (streamed, _pages) = load_streamed(&folder(name), Compute::Float32, Device::Cpu).unwrap();
        let again = streamed.visual_prefix(&streamed.encode_images(&tensors.get("pixel_values")), &batch);
        assert_close(name, &streamed.force(Some(&again), &batch.language, &answers).logits, &forced.logits, 1e-6);
        let entry = model.enter_from(ressa_models::Entry::Prefix {
            prefix: &prefix,
            prompt: &batch.language,
            answers: ressa_models::AnswerBatch::whole(&answers),
        });
        let pixels = ressa_models::Entry::Pixels(&tensors.get("pixel_values"));
        crate::common::parts_are_blocks(name, &model, Tower::Vision, &model.enter_from(pixels));
        crate::common::parts_are_blocks(name, &model, Tower::Language, &entry);
        let kinds = model.token_kinds(Tower::Language, 0, &entry);
        let visual = kinds.iter().filter(|kind| **kind == ressa_models::TokenKind::Visual).count();
        assert_eq!(visual, model.image_tokens(), "{name}: words before the image are text");
        let last = (0..model.blocks(Tower::Language))
            .fold(entry, |flow, block| model.run_block(Tower::Language, block, &flow));
        assert_close(name, &model.leave(Tower::Language, &last), &forced.logits, 1e-6);
    }
}

#[test]
fn images_of_another_size_are_refused() {
    let (_, _, model) = golden("llava-default");
    let image = [41; 9].iter().chain(&[1, 2, 3]).copied().collect::<Vec<i64>>();
    let ids = Tensor::from_slice(&image).view([1, -1]);
    for size in [[30, 30], [10, 10], [16, 16], [15, 20]] {
        let given = ForwardInputs {
            pixel_values: Tensor::zeros([1, 3, size[0], size[1]], (Kind::Float, Device::Cpu)),
            attention_mask: ids.ones_like(),
            input_ids: ids.shallow_clone(),
            labels: None,
            qformer_input_ids: None,
            qformer_attention_mask: None,
        };
        let error = model.forward(&given).unwrap_err().to_string();
        assert!(error.contains("pixel_values") && error.contains("`vision_config.image_size`"), "{size:?}: {error}");
    }
}

#[test]
fn fields_of_another_type_are_named() {
    let refused = |like: &str, change: &dyn Fn(&mut Value)| {
        let mut config: Value = serde_json::from_slice(&fs::read(folder(like).join("config.json")).unwrap()).unwrap();
        change(&mut config);
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("config.json");
        fs::write(&path, config.to_string()).unwrap();
        let error = read_config_file(&path).unwrap_err().to_string();
        assert!(error.contains("config.json"), "{error}");
        error
    };
    let cases = [
        (
            refused("llava-default", &|c| c["vision_feature_layer"] = json!([-2, "last"])),
            "`vision_feature_layer` is [-2,\"last\"]; it must be",
        ),
        (
            refused("llava-default", &|c| c["projector_hidden_act"] = "swish2".into()),
            "`projector_hidden_act`: unknown variant",
        ),
        (
            refused("llava-default", &|c| c["vision_feature_select_strategy"] = "some".into()),
            "`vision_feature_select_strategy` is \"some\"; it must be",
        ),
        (
            refused("llava-default", &|c| c["text_config"]["hidden_size"] = "x".into()),
            "`text_config.hidden_size`: invalid type",
        ),
        (
            refused("llava-default", &|c| c["text_config"]["model_type"] = "bert".into()),
            "`text_config.model_type` is `bert`",
        ),
        (refused("qwen2-vl", &|c| c["vision_config"]["depth"] = json!(-1)), "`vision_config.depth`: invalid value"),
        (refused("qwen2-vl", &|c| c["vision_config"]["num_heads"] = json!(0)), "`vision_config.num_heads` is 0"),
        (refused("qwen2-vl", &|c| c["hidden_size"] = json!(0)), ": `hidden_size` is 0"),
        (refused("qwen2-vl", &|c| c["hidden_size"] = "x".into()), "`hidden_size`: invalid type"),
    ];
    for (error, part) in cases {
        assert!(error.contains(part), "{part}: {error}");
    }
}
