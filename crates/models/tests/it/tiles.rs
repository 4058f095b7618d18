//! Idefics3, SmolVLM and InternVL against what transformers computed: images as tiles, any number of them in a row, with padding inside of tiles or
//! without. Made by `scripts/export_tile_goldens.py`.

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use ressa_checkpoint::TileSizes;
use ressa_experiment::job::SearchOptions;
use ressa_models::{
    AnswerBatch, Entry, ForwardInputs, InBlocks, Infer, Layout, LoadOptions, Model, Observer, Prompts, Search, Surgery,
    TextBatch, Tower,
    folder::{read_config, read_generation},
    load_model,
};
use ressa_testkit::{Golden, assert_close};
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

use crate::folders::Moments;

/// Of the largest golden value.
const TOLERANCE: f64 = 3e-5;
const FOLDERS: [&str; 7] =
    ["smolvlm", "smolvlm-thirds", "idefics3", "idefics3-whole", "internvl", "internvl-llama", "internvl-one"];

struct Case {
    name: &'static str,
    folder: PathBuf,
    model: Model,
    tensors: Golden,
    text: Value,
    tile: TileSizes,
}

fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/goldens").join(name)
}

fn case(name: &'static str) -> Case {
    let folder = folder(name);
    let model = load_model(&folder, &LoadOptions::on(Device::Cpu)).unwrap_or_else(|e| panic!("{name}: {e}"));
    Case {
        name,
        tensors: Golden::open(folder.join("golden.safetensors")),
        text: serde_json::from_slice(&fs::read(folder.join("golden.json")).unwrap()).unwrap(),
        tile: model.config().tile().expect("it reads tiles"),
        model,
        folder,
    }
}

fn none() -> TextBatch {
    TextBatch::pad(&[Vec::new()], 0, Device::Cpu)
}

impl Case {
    /// Tiles `[tiles, 3, side, side]` of a picture.
    fn tiles(&self, picture: &str) -> Tensor {
        (self.tensors.get(&format!("levels.{picture}")).to_kind(Kind::Float) / 255.0 - 0.5) / 0.5
    }

    /// The same on a canvas: rows of tiles, the whole image below.
    fn canvas(&self, picture: &str) -> Tensor {
        let tiles = self.tiles(picture);
        let [rows, columns] = [0, 1].map(|axis: usize| self.text["grids"][picture][axis].as_i64().unwrap());
        let side = self.tile.side as i64;
        if rows == 0 {
            return tiles;
        }
        let grid = tiles.narrow(0, 0, rows * columns).view([rows, columns, 3, side, side]);
        let grid = grid.permute([2, 0, 3, 1, 4]).reshape([1, 3, rows * side, columns * side]);
        let whole = tiles.narrow(0, rows * columns, 1);
        // What no tile covers is seen by nobody.
        let unseen = Tensor::full([1, 3, side, (columns - 1) * side], 77.0, (Kind::Float, Device::Cpu));
        Tensor::cat(&[grid, Tensor::cat(&[whole, unseen], 3)], 2)
    }

    /// What the padded batch is about.
    fn inputs(&self) -> ForwardInputs {
        let shown: Vec<Vec<String>> = serde_json::from_value(self.text["shown"].clone()).unwrap();
        let rows = shown.iter().map(|row| Tensor::cat(&row.iter().map(|name| self.tiles(name)).collect::<Vec<_>>(), 0));
        let rows: Vec<Tensor> = rows.collect();
        let most = rows.iter().map(|row| row.size()[0]).max().unwrap();
        let filled = rows.iter().map(|row| row.constant_pad_nd([0, 0, 0, 0, 0, 0, 0, most - row.size()[0]]));
        let pixel_values = match self.model.config().has_tiles_in_one() {
            true => Tensor::cat(&rows, 0),
            false => Tensor::stack(&filled.collect::<Vec<_>>(), 0),
        };
        ForwardInputs {
            pixel_values,
            input_ids: self.tensors.get("input_ids"),
            attention_mask: self.tensors.get("attention_mask"),
            labels: Some(self.tensors.get("labels")),
            qformer_input_ids: None,
            qformer_attention_mask: None,
        }
    }

    /// A batch whose tiles are padded, and which of their pixels are real.
    fn padded(&self) -> (ForwardInputs, Tensor) {
        let get = |name: &str| self.tensors.get(&format!("padded.{name}"));
        let inputs = ForwardInputs {
            pixel_values: get("pixel_values"),
            attention_mask: Tensor::ones_like(&get("input_ids")),
            input_ids: get("input_ids"),
            labels: None,
            qformer_input_ids: None,
            qformer_attention_mask: None,
        };
        (inputs, get("pixel_attention_mask"))
    }

    /// A prompt about a picture.
    fn prompts(&self, key: &str) -> Prompts {
        let ids: Vec<u32> = serde_json::from_value(self.text["prompts"][key].clone()).unwrap();
        let image = self.model.config().image_token().unwrap() as u32;
        let (layout, text) = Layout::split(&ids, image).unwrap();
        Prompts {
            image: Tensor::from_slice(&[0i64]),
            qformer: none(),
            language: TextBatch::prompts(vec![(Some(layout), text)], 0, Device::Cpu).unwrap(),
        }
    }

    fn keys(&self) -> impl Iterator<Item = (&str, &str)> {
        self.text["prompts"].as_object().unwrap().keys().map(|key| (key.as_str(), key.split(": ").next().unwrap()))
    }
}

#[test]
fn padded_batches_give_what_transformers_gives() {
    for case in FOLDERS.map(case) {
        let found = case.model.forward_tiles(&case.inputs(), None).unwrap();
        // What is computed for padding means nothing.
        let real = case.tensors.get("attention_mask").ne(0).unsqueeze(-1);
        let of_real = |logits: &Tensor| logits.masked_fill(&real.logical_not(), 0.0);
        assert_close(case.name, &of_real(&found.logits), &of_real(&case.tensors.get("logits")), TOLERANCE);
        assert_close(case.name, &found.loss.expect("labels").view([1]), &case.tensors.get("loss"), TOLERANCE);
        if case.model.config().has_tiles_in_one() {
            let mask = Tensor::ones([1], (Kind::Int64, Device::Cpu));
            let error = case.model.forward_tiles(&case.inputs(), Some(&mask)).expect_err("no padding").to_string();
            assert!(error.contains("`pixel_attention_mask`"), "{error}");
            continue;
        }
        let (inputs, mask) = case.padded();
        let found = case.model.forward_tiles(&inputs, Some(&mask)).unwrap();
        assert_close(case.name, &found.logits, &case.tensors.get("padded.logits"), TOLERANCE);
    }
}

#[test]
fn prompts_about_an_image_are_continued_as_by_transformers() {
    let _no_grad = tch::no_grad_guard();
    for case in FOLDERS.map(case) {
        let (model, config) = (&case.model, read_config(&case.folder).unwrap());
        let generation = read_generation(&case.folder).unwrap();
        for (key, picture) in case.keys() {
            let prompts = case.prompts(key);
            model.check_prompts(&prompts).unwrap();
            let prefix = model.visual_prefix(&model.encode_images(&case.canvas(picture)), &prompts);
            let forced = model.force(Some(&prefix), &prompts.language, &[vec![]]);
            let wanted = case.tensors.get(&format!("logits.{key}"));
            assert_close(key, &forced.logits.get(0).narrow(0, 0, 1), &wanted, TOLERANCE);
            for (name, options) in case.text["searches"].as_object().unwrap() {
                let options: SearchOptions = serde_json::from_value(options.clone()).unwrap();
                let search = Search::resolve(&options, &generation, config.text_config()).unwrap();
                let found = model.generate(&prefix, &prompts.language, &search).unwrap();
                let wanted: Vec<u32> = serde_json::from_value(case.text["generated"][name][key].clone()).unwrap();
                assert_eq!(found[0].tokens, wanted, "{} {name} {key}", case.name);
            }
        }
    }
}

/// Block by block, as calibration runs them.
#[test]
fn every_linear_reads_what_it_reads_in_transformers() {
    let _no_grad = tch::no_grad_guard();
    for case in FOLDERS.map(case) {
        let model = &case.model;
        let first = case.canvas(case.keys().next().unwrap().1);
        crate::common::parts_are_blocks(case.name, model, Tower::Vision, &model.enter_from(Entry::Pixels(&first)));
        let (mut seen, mut guards) = (BTreeMap::new(), Vec::new());
        for (id, linear) in model.linears() {
            let moments = Arc::new(Mutex::new(Moments::default()));
            guards.push(linear.tap(Arc::clone(&moments) as Arc<Mutex<dyn Observer>>));
            seen.insert(id.name.clone(), moments);
        }
        let run = |tower, entry: Entry<'_>| {
            let blocks = 0..model.blocks(tower);
            let flow = blocks.fold(model.enter_from(entry), |flow, block| model.run_block(tower, block, &flow));
            model.leave(tower, &flow)
        };
        let (key, picture) = case.keys().next().unwrap();
        let (pixels, prompts) = (case.canvas(picture), case.prompts(key));
        let features = run(Tower::Vision, Entry::Pixels(&pixels));
        let states = run(Tower::Connector, Entry::Features { features: &features, prompts: &prompts });
        let prefix = model.place_images(states, &prompts.language);
        let nothing = [Vec::new()];
        let answers = AnswerBatch::whole(&nothing);
        let logits = run(Tower::Language, Entry::Prefix { prefix: &prefix, prompt: &prompts.language, answers });
        let theirs: Vec<&str> =
            case.tensors.iter().filter_map(|(key, _)| key.strip_prefix("stats.")?.strip_suffix(".rows")).collect();
        assert_eq!(theirs, seen.keys().map(String::as_str).collect::<Vec<_>>(), "{}", case.name);
        for (linear, moments) in &seen {
            moments.lock().unwrap().check(case.name, linear, &case.tensors, TOLERANCE);
        }
        drop(guards);
        assert!(features.equal(&model.encode_images(&pixels)));
        assert!(prefix.equal(&model.visual_prefix(&features, &prompts)));
        assert!(logits.equal(&model.force(Some(&prefix), &prompts.language, &[vec![]]).logits));
        // Two images at once are each as alone; a picture of another shape is in no batch with them.
        let both = Tensor::cat(&[&pixels, &(&pixels * 0.5)], 0);
        assert_close(case.name, &model.encode_images(&both).narrow(0, 0, 1), &features, TOLERANCE);
        let flows = ["wide", "tall"].map(|name| model.enter_from(Entry::Pixels(&case.canvas(name))));
        let alike = flows[0].hidden.size() == flows[1].hidden.size();
        assert_eq!(model.stack(Tower::Vision, &flows).is_some(), alike);
    }
}

#[test]
fn inputs_that_do_not_fit_are_named() {
    let case = case("smolvlm");
    let refused = |change: &dyn Fn(&mut ForwardInputs, &mut Tensor), part: &str| {
        let (mut inputs, mut mask) = case.padded();
        change(&mut inputs, &mut mask);
        let error = case.model.forward_tiles(&inputs, Some(&mask)).expect_err(part).to_string();
        assert!(error.contains(part), "{error}");
    };
    refused(&|inputs, _| inputs.pixel_values = inputs.pixel_values.get(0), "[rows, tiles, 3, 16, 16]");
    refused(&|inputs, _| inputs.pixel_values = inputs.pixel_values.narrow(4, 0, 12), "16 x 16 pixels");
    refused(&|inputs, _| inputs.pixel_values = inputs.pixel_values.narrow(1, 0, 2), "`pixel_attention_mask`");
    refused(&|_, mask| *mask = mask.zeros_like(), "rectangle");
    refused(&|_, mask| *mask = mask.logical_not(), "rectangle");
    refused(&|inputs, _| inputs.pixel_values = inputs.pixel_values.zeros_like(), "12 image tokens");
    refused(&|inputs, _| inputs.input_ids = inputs.input_ids.masked_fill(&inputs.input_ids.eq(4), 6), "0 image tokens");
    refused(
        &|inputs, _| inputs.input_ids = inputs.input_ids.masked_fill(&inputs.input_ids.eq(9), 1000),
        "not in the vocabulary",
    );
    // As many image tokens as features, but one too few in the first of two rows.
    let (mut inputs, _) = case.padded();
    let row = |images: usize| [vec![4i64; images], vec![9; 13 - images]].concat();
    inputs.input_ids = Tensor::from_slice(&[row(3), row(5)].concat()).view([2, 13]);
    inputs.attention_mask = Tensor::ones_like(&inputs.input_ids);
    let tile = inputs.pixel_values.narrow(1, 0, 1);
    inputs.pixel_values = Tensor::cat(&[&tile, &tile], 0);
    let error = case.model.forward_tiles(&inputs, None).expect_err("in pieces").to_string();
    assert!(error.contains("rows [3, 5]"), "{error}");
}

#[test]
fn configurations_that_no_network_has_are_named() {
    let root = tempfile::tempdir().unwrap();
    let refused = |name: &str, change: &dyn Fn(&mut Value), part: &str| {
        let mut config: Value = serde_json::from_slice(&fs::read(folder(name).join("config.json")).unwrap()).unwrap();
        change(&mut config);
        fs::write(root.path().join("config.json"), config.to_string()).unwrap();
        let error = read_config(root.path()).expect_err(part).to_string();
        assert!(error.contains(part), "{error}");
        let outline = ressa_checkpoint::Outline::of(config.as_object().unwrap()).expect_err(part).join("; ");
        assert!(outline.contains(part), "{outline}");
    };
    refused("smolvlm", &|c| c["scale_factor"] = 3.into(), "`scale_factor`");
    refused("internvl", &|c| c["downsample_ratio"] = json!(0.125), "`downsample_ratio`");
    refused("internvl", &|c| c["vision_config"]["use_qk_norm"] = true.into(), "`vision_config.use_qk_norm`");
    refused("internvl", &|c| c["vision_config"]["image_size"] = json!([8, 4]), "image_size");
    refused("internvl", &|c| c["text_config"]["model_type"] = "gemma".into(), "`gemma`");
    refused("smolvlm", &|c| c["scale_factor"] = 0.into(), "`scale_factor`");
    refused("idefics3", &|c| c["vision_config"]["num_attention_heads"] = 3.into(), "`num_attention_heads` = 3");
    refused("idefics3", &|c| c["vision_config"] = json!(3), "`vision_config`");
    refused("idefics3", &|c| c["text_config"]["model_type"] = "gemma".into(), "`gemma`");
    refused("llava-siglip", &|c| c["vision_config"]["model_type"] = "idefics3".into(), "idefics3");
    let sliding = json!(["full_attention", "sliding_attention"]);
    refused("llava-siglip", &|c| c["text_config"]["layer_types"] = sliding.clone(), "sliding windows");
    refused("llava-dinov2-gated", &|c| c["text_config"]["sliding_window"] = 8.into(), "`text_config.sliding_window`");
}
