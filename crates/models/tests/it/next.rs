//! LLaVA-NeXT against what transformers computed: images as tiles at one of several resolutions, without their padding, any number of them in a
//! row. Made by `scripts/export_next_goldens.py`.

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use ressa_experiment::job::SearchOptions;
use ressa_models::{
    AnswerBatch, Entry, ForwardInputs, InBlocks, Infer, Layout, LoadOptions, Model, Mosaic, Observer, Prompts, Search,
    Surgery, TextBatch, TokenKind, Tower,
    folder::{read_config, read_generation},
    load_model,
};
use ressa_testkit::{Golden, assert_close};
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

use crate::folders::Moments;

/// Of the largest golden value.
const TOLERANCE: f64 = 3e-5;
const FOLDERS: [&str; 3] = ["llava-next", "llava-next-layers", "llava-next-full"];

struct Case {
    name: &'static str,
    folder: PathBuf,
    model: Model,
    tensors: Golden,
    text: Value,
}

fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/goldens").join(name)
}

fn read(folder: &std::path::Path, file: &str) -> Value {
    serde_json::from_slice(&fs::read(folder.join(file)).unwrap()).unwrap()
}

fn case(name: &'static str) -> Case {
    let folder = folder(name);
    Case {
        name,
        tensors: Golden::open(folder.join("golden.safetensors")),
        text: read(&folder, "golden.json"),
        model: load_model(&folder, &LoadOptions::on(Device::Cpu)).unwrap_or_else(|e| panic!("{name}: {e}")),
        folder,
    }
}

impl Case {
    /// Tiles `[tiles, 3, side, side]` of a picture, the whole first.
    fn tiles(&self, picture: &str) -> Tensor {
        let settings = read(&self.folder, "preprocessor_config.json");
        let channels = |name: &str| {
            let values: Vec<f32> = serde_json::from_value(settings[name].clone()).unwrap();
            Tensor::from_slice(&values).view([3, 1, 1])
        };
        let grey = self.tensors.get(&format!("levels.{picture}")).to_kind(Kind::Float) / 255.0;
        (grey - channels("image_mean")) / channels("image_std")
    }

    fn mosaic(&self, picture: &str) -> Mosaic {
        let own: [u32; 2] = serde_json::from_value(self.text["sizes"][picture].clone()).unwrap();
        self.model.config().pinpoints().expect("it reads tiles").mosaic(own).unwrap()
    }

    /// The same on a canvas: rows of tiles, the whole image below, and what says how much is cut.
    fn canvas(&self, picture: &str) -> Tensor {
        let (tiles, mosaic) = (self.tiles(picture), self.mosaic(picture));
        let side = self.model.config().image_size();
        let (height, width) = mosaic.canvas(side as u32);
        // What no tile covers is seen by nobody.
        let canvas = Tensor::full([1, 3, i64::from(height), i64::from(width)], 77.0, (Kind::Float, Device::Cpu));
        let [rows, columns] = mosaic.tiles.map(i64::from);
        let places = [(rows, 0)].into_iter().chain((0..rows).flat_map(|row| (0..columns).map(move |at| (row, at))));
        for (tile, (row, column)) in places.enumerate() {
            let place = canvas.narrow(2, row * side, side).narrow(3, column * side, side);
            place.get(0).shallow_clone().copy_(&tiles.get(tile as i64));
        }
        canvas
    }

    /// What the padded batch is about.
    fn inputs(&self) -> (ForwardInputs, Tensor) {
        let shown: Vec<String> = serde_json::from_value(self.text["shown"].clone()).unwrap();
        let images: Vec<Tensor> = shown.iter().map(|name| self.tiles(name)).collect();
        let most = images.iter().map(|tiles| tiles.size()[0]).max().unwrap();
        let filled = images.iter().map(|tiles| tiles.constant_pad_nd([0, 0, 0, 0, 0, 0, 0, most - tiles.size()[0]]));
        let sizes = shown.iter().flat_map(|name| serde_json::from_value::<[i64; 2]>(self.text["sizes"][name].clone()));
        let inputs = ForwardInputs {
            pixel_values: Tensor::stack(&filled.collect::<Vec<_>>(), 0),
            input_ids: self.tensors.get("input_ids"),
            attention_mask: self.tensors.get("attention_mask"),
            labels: Some(self.tensors.get("labels")),
            qformer_input_ids: None,
            qformer_attention_mask: None,
        };
        (inputs, Tensor::from_slice(&sizes.collect::<Vec<_>>().concat()).view([-1, 2]))
    }

    /// A prompt about a picture.
    fn prompts(&self, key: &str, picture: &str) -> Prompts {
        let ids: Vec<u32> = serde_json::from_value(self.text["prompts"][key].clone()).unwrap();
        let image = self.model.config().image_token().unwrap() as u32;
        let (layout, text) = Layout::split(&ids, image).unwrap();
        let layout = Layout { mosaic: Some(self.mosaic(picture)), ..layout };
        Prompts {
            image: Tensor::from_slice(&[0i64]),
            qformer: TextBatch::pad(&[Vec::new()], 0, Device::Cpu),
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
        let (inputs, sizes) = case.inputs();
        let found = case.model.forward_sizes(&inputs, &sizes).unwrap();
        // What is computed for padding means nothing.
        let real = case.tensors.get("attention_mask").ne(0).unsqueeze(-1);
        let of_real = |logits: &Tensor| logits.masked_fill(&real.logical_not(), 0.0);
        assert_close(case.name, &of_real(&found.logits), &of_real(&case.tensors.get("logits")), TOLERANCE);
        assert_close(case.name, &found.loss.expect("labels").view([1]), &case.tensors.get("loss"), TOLERANCE);
        // The same with the tiles of all images one after the other.
        let shown: Vec<String> = serde_json::from_value(case.text["shown"].clone()).unwrap();
        let tiles: Vec<Tensor> = shown.iter().map(|name| case.tiles(name)).collect();
        let together = ForwardInputs { pixel_values: Tensor::cat(&tiles, 0), ..inputs };
        assert!(case.model.forward_sizes(&together, &sizes).unwrap().logits.equal(&found.logits));
    }
}

#[test]
fn prompts_about_an_image_are_continued_as_by_transformers() {
    let _no_grad = tch::no_grad_guard();
    for case in FOLDERS.map(case) {
        let (model, config) = (&case.model, read_config(&case.folder).unwrap());
        let generation = read_generation(&case.folder).unwrap();
        for (key, picture) in case.keys() {
            let prompts = case.prompts(key, picture);
            model.check_prompts(&prompts).unwrap();
            let features = model.encode_images(&case.canvas(picture));
            let prefix = model.visual_prefix(&features, &prompts);
            let forced = model.force(Some(&prefix), &prompts.language, &[vec![]]);
            let wanted = case.tensors.get(&format!("logits.{key}"));
            assert_close(key, &forced.logits.get(0).narrow(0, 0, 1), &wanted, TOLERANCE);
            for (name, options) in case.text["searches"].as_object().unwrap() {
                let options: SearchOptions = serde_json::from_value(options.clone()).unwrap();
                let search = Search::resolve(&options, &generation, config.text_config()).unwrap();
                let found = model.answer(&features, &prompts, &search).unwrap();
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
        let (pixels, prompts) = (case.canvas(picture), case.prompts(key, picture));
        let features = run(Tower::Vision, Entry::Pixels(&pixels));
        let states = run(Tower::Connector, Entry::Features { features: &features, prompts: &prompts });
        let prefix = model.place_images(states, &prompts.language);
        let nothing = [Vec::new()];
        let answers = AnswerBatch::whole(&nothing);
        let entry = || Entry::Prefix { prefix: &prefix, prompt: &prompts.language, answers };
        let logits = run(Tower::Language, entry());
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
        let kinds = model.token_kinds(Tower::Language, 0, &model.enter_from(entry()));
        let visual = kinds.iter().filter(|kind| **kind == TokenKind::Visual).count();
        assert_eq!(visual, case.mosaic(picture).features(), "ends of lines are the image's");
        // Two images at once are each as alone, from the first block on; a picture of another shape is in no batch with them.
        let half = &pixels * 0.5;
        let both = Tensor::cat(&[&pixels, &half], 0);
        assert_close(case.name, &model.encode_images(&both).narrow(0, 0, 1), &features, TOLERANCE);
        let alone = [&pixels, &half].map(|pixels| model.enter_from(Entry::Pixels(pixels)));
        let stacked = model.stack(Tower::Vision, &alone).expect("one shape");
        let last =
            (0..model.blocks(Tower::Vision)).fold(stacked, |flow, block| model.run_block(Tower::Vision, block, &flow));
        let second = model.leave(Tower::Vision, &last).narrow(0, 1, 1);
        assert_close(case.name, &second, &model.encode_images(&half), TOLERANCE);
        let flows = ["wide", "tall"].map(|name| model.enter_from(Entry::Pixels(&case.canvas(name))));
        let alike = flows[0].hidden.size() == flows[1].hidden.size();
        assert_eq!(model.stack(Tower::Vision, &flows).is_some(), alike);
    }
}

#[test]
fn inputs_that_do_not_fit_are_named() {
    let case = case("llava-next");
    let refused = |change: &dyn Fn(&mut ForwardInputs, &mut Tensor), part: &str| {
        let (mut inputs, mut sizes) = case.inputs();
        change(&mut inputs, &mut sizes);
        let error = case.model.forward_sizes(&inputs, &sizes).expect_err(part).to_string();
        assert!(error.contains(part), "{error}");
    };
    refused(&|inputs, _| inputs.pixel_values = inputs.pixel_values.get(0).get(0), "[tiles, 3, 16, 16]");
    refused(&|inputs, _| inputs.pixel_values = inputs.pixel_values.narrow(4, 0, 12), "[images, tiles, 3, 16, 16]");
    refused(&|inputs, _| inputs.pixel_values = inputs.pixel_values.narrow(1, 0, 2), "[5, 3, 5] tiles");
    refused(&|inputs, _| inputs.pixel_values = inputs.pixel_values.narrow(0, 0, 2), "[5, 3, 5] tiles");
    refused(&|inputs, _| inputs.pixel_values = inputs.pixel_values.to_kind(Kind::Int64), "floating-point");
    refused(&|_, sizes| *sizes = sizes.narrow(1, 0, 1), "[images, 2]");
    refused(&|_, sizes| *sizes = sizes.to_kind(Kind::Float), "whole numbers");
    refused(&|_, sizes| *sizes = sizes.zeros_like(), "image 0 of [0, 0]");
    refused(&|_, sizes| *sizes = &*sizes * -1, "no pixels");
    refused(&|_, sizes| *sizes = sizes.f_fill_(1 << 40).unwrap(), "no pixels");
    refused(&|inputs, _| inputs.input_ids = inputs.input_ids.masked_fill(&inputs.input_ids.eq(4), 6), "0 image tokens");
    refused(
        &|inputs, _| inputs.input_ids = inputs.input_ids.masked_fill(&inputs.input_ids.eq(10), 1000),
        "not in the vocabulary",
    );
    let (inputs, _) = case.inputs();
    assert!(case.model.forward(&inputs).unwrap_err().to_string().contains("`image_sizes`"));
    let other = load_model(&folder("llava-default"), &LoadOptions::on(Device::Cpu)).unwrap();
    assert!(other.forward_sizes(&inputs, &case.inputs().1).unwrap_err().to_string().contains("images of one size"));
}

#[test]
fn configurations_that_no_network_has_are_named() {
    let root = tempfile::tempdir().unwrap();
    let refused = |name: &str, change: &dyn Fn(&mut Value), part: &str, outlined: bool| {
        let mut config = read(&folder(name), "config.json");
        change(&mut config);
        fs::write(root.path().join("config.json"), config.to_string()).unwrap();
        let error = read_config(root.path()).expect_err(part).to_string();
        assert!(error.contains(part), "{error}");
        let outline = ressa_checkpoint::Outline::of(config.as_object().unwrap());
        assert!(outline.is_err_and(|problems| problems.join("; ").contains(part)) == outlined, "{part}");
    };
    refused("llava-next", &|c| c["image_grid_pinpoints"] = json!([[16, 24]]), "multiples of a tile's 16", true);
    refused("llava-next", &|c| c["image_grid_pinpoints"] = json!("(1x1)"), "`image_grid_pinpoints` must be", true);
    refused("llava-next", &|c| c["vision_feature_layer"] = json!([]), "`vision_feature_layer` is []", true);
    refused("llava-next", &|c| c["vision_config"]["patch_size"] = json!(0), "patch_size", true);
    refused("llava-next", &|c| c["vision_config"]["model_type"] = json!("sam"), "\"sam\"", true);
    let layers = json!([-2, 4]);
    refused("llava-next", &|c| c["vision_feature_layer"] = layers.clone(), "`vision_feature_layer` is 4", false);
    let strategy = |name: &'static str| move |c: &mut Value| c["vision_feature_select_strategy"] = name.into();
    refused("llava-next", &strategy("full"), "17 features of the 16", false);
    refused("llava-next-full", &strategy("default"), "15 features of the 16", false);
    // Without a list, that of the class, which is of other tiles.
    refused("llava-next", &|c| c["image_grid_pinpoints"] = Value::Null, "[336, 672]", true);
}
