//! Qwen2-VL and Qwen2.5-VL in both layouts of their folders, against what transformers computed: any number of images of any size in a row.

use std::{fs, path::PathBuf};

use ressa_experiment::job::SearchOptions;
use ressa_models::{
    Entry, ForwardInputs, Grid, InBlocks, Infer, Layout, LoadOptions, Model, Prompts, Search, Surgery, TextBatch,
    Tower,
    folder::{read_config, read_generation},
    load_model,
};
use ressa_testkit::{Golden, assert_close};
use serde_json::Value;
use tch::{Device, Kind, Tensor};

/// Of the largest golden value.
const TOLERANCE: f64 = 3e-5;
const FOLDERS: [&str; 4] = ["qwen2-vl", "qwen2-vl-parts", "qwen2_5-vl", "qwen2_5-vl-parts"];

struct Case {
    name: &'static str,
    folder: PathBuf,
    model: Model,
    tensors: Golden,
    text: Value,
    cut: Grid,
}

fn cases() -> Vec<Case> {
    let case = |name| {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/goldens").join(name);
        let model = load_model(&folder, &LoadOptions::on(Device::Cpu)).unwrap_or_else(|e| panic!("{name}: {e}"));
        Case {
            name,
            tensors: Golden::open(folder.join("golden.safetensors")),
            text: serde_json::from_slice(&fs::read(folder.join("golden.json")).unwrap()).unwrap(),
            cut: model.config().grid().expect("it reads images of any size"),
            model,
            folder,
        }
    };
    FOLDERS.map(case).into_iter().collect()
}

impl Case {
    /// Pixels `[1, 3, height, width]` of a picture, normalised as the published settings say.
    fn pixels(&self, picture: &str) -> Tensor {
        let of = |values: [f32; 3]| Tensor::from_slice(&values).view([1, 3, 1, 1]);
        let levels = self.tensors.get(&format!("levels.{picture}")).to_kind(Kind::Float).unsqueeze(0);
        (levels / 255.0 - of([0.481_454_66, 0.457_827_5, 0.408_210_73])) / of([0.268_629_54, 0.261_302_6, 0.275_777_1])
    }

    /// The same as patches `[patches, values]`, in the order of the reference.
    fn patches(&self, picture: &str) -> Tensor {
        let (pixels, Grid { patch, merge, frames, values, .. }) = (self.pixels(picture), self.cut);
        let [down, across] = [2, 3].map(|axis: usize| pixels.size()[axis] / (patch * merge));
        let cut = pixels.reshape([3, down, merge, patch, across, merge, patch]).permute([1, 4, 2, 5, 0, 3, 6]);
        let still = cut.unsqueeze(5).expand([-1, -1, -1, -1, -1, frames, -1, -1], false);
        still.reshape([-1, values])
    }

    /// What the padded batch is about.
    fn inputs(&self) -> ForwardInputs {
        let shown: Vec<&str> =
            self.text["shown"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
        ForwardInputs {
            pixel_values: Tensor::cat(&shown.iter().map(|name| self.patches(name)).collect::<Vec<_>>(), 0),
            input_ids: self.tensors.get("input_ids"),
            attention_mask: self.tensors.get("attention_mask"),
            labels: Some(self.tensors.get("labels")),
            qformer_input_ids: None,
            qformer_attention_mask: None,
        }
    }

    /// A prompt about a picture.
    fn prompts(&self, key: &str, pixels: &Tensor) -> Prompts {
        let ids: Vec<u32> = serde_json::from_value(self.text["prompts"][key].clone()).unwrap();
        let image = self.model.config().image_token().unwrap() as u32;
        let (mut layout, text) = Layout::split(&ids, image).unwrap();
        let side = self.cut.patch * self.cut.merge;
        layout.grids = vec![[1, (pixels.size()[2] / side) as u32, (pixels.size()[3] / side) as u32]];
        Prompts {
            image: Tensor::from_slice(&[0i64]),
            qformer: TextBatch::pad(&[Vec::new()], 0, Device::Cpu),
            language: TextBatch::prompts(vec![(Some(layout), text)], 0, Device::Cpu).unwrap(),
        }
    }
}

#[test]
fn a_padded_batch_of_several_images_gives_what_transformers_gives() {
    for case in cases() {
        let found = case.model.forward_grids(&case.inputs(), &case.tensors.get("image_grid_thw")).unwrap();
        // What is computed for padding means nothing.
        let real = case.tensors.get("attention_mask").ne(0).unsqueeze(-1);
        let of_real = |logits: &Tensor| logits.masked_fill(&real.logical_not(), 0.0);
        assert_close(case.name, &of_real(&found.logits), &of_real(&case.tensors.get("logits")), TOLERANCE);
        let loss = found.loss.expect("there are labels").view([1]);
        assert_close(case.name, &loss, &case.tensors.get("loss"), TOLERANCE);
    }
}

#[test]
fn prompts_about_an_image_are_continued_as_by_transformers() {
    let _no_grad = tch::no_grad_guard();
    for case in cases() {
        let (model, config) = (&case.model, read_config(&case.folder).unwrap());
        let generation = read_generation(&case.folder).unwrap();
        for key in case.text["prompts"].as_object().unwrap().keys() {
            let pixels = case.pixels(key.split(": ").next().unwrap());
            let prompts = case.prompts(key, &pixels);
            model.check_prompts(&prompts).unwrap();
            let prefix = model.visual_prefix(&model.encode_images(&pixels), &prompts);
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

#[test]
fn blocks_one_by_one_give_what_the_whole_gives_and_only_equal_images_run_together() {
    let _no_grad = tch::no_grad_guard();
    for case in cases() {
        let model = &case.model;
        let run = |tower, entry: Entry<'_>| {
            let blocks = 0..model.blocks(tower);
            crate::common::parts_are_blocks(case.name, model, tower, &model.enter_from(entry));
            let flow = blocks.fold(model.enter_from(entry), |flow, block| model.run_block(tower, block, &flow));
            model.leave(tower, &flow)
        };
        let key = case.text["prompts"].as_object().unwrap().keys().next().unwrap();
        let pixels = case.pixels(key.split(": ").next().unwrap());
        let prompts = case.prompts(key, &pixels);
        let features = run(Tower::Vision, Entry::Pixels(&pixels));
        assert!(features.equal(&model.encode_images(&pixels)));
        let states = run(Tower::Connector, Entry::Features { features: &features, prompts: &prompts });
        let prefix = model.place_images(states, &prompts.language);
        assert!(prefix.equal(&model.visual_prefix(&features, &prompts)));
        let answers = [vec![9, 10]];
        let answers = ressa_models::AnswerBatch::whole(&answers);
        let entry = Entry::Prefix { prefix: &prefix, prompt: &prompts.language, answers };
        let logits = run(Tower::Language, entry);
        assert!(logits.equal(&model.force(Some(&prefix), &prompts.language, &[vec![9, 10]]).logits));

        // Two images at once are each as alone; the other picture has another size.
        let both = Tensor::cat(&[&pixels, &(&pixels * 0.5)], 0);
        let stacked = model.encode_images(&both).narrow(0, 0, 1);
        assert_close(case.name, &stacked, &features, TOLERANCE);
        let flows = ["wide", "tall"].map(|name| model.enter_from(Entry::Pixels(&case.pixels(name))));
        assert!(model.stack(Tower::Vision, &flows).is_none());
        let roles: Vec<&str> = model
            .linears()
            .into_iter()
            .filter(|(id, _)| id.tower == Tower::Connector)
            .map(|(id, _)| id.role.as_str())
            .collect();
        assert_eq!(roles, ["mlp.0", "mlp.2"]);
    }
}

#[test]
fn inputs_that_do_not_fit_are_named() {
    let case = cases().remove(2);
    let grids = case.tensors.get("image_grid_thw");
    let refused = |change: &dyn Fn(&mut ForwardInputs, &mut Tensor), part: &str| {
        let (mut inputs, mut grids) = (case.inputs(), grids.copy());
        change(&mut inputs, &mut grids);
        let error = case.model.forward_grids(&inputs, &grids).expect_err(part).to_string();
        assert!(error.contains(part), "{error}");
    };
    let set = |grids: &mut Tensor, row: i64, column: i64, value: i64| {
        let _ = grids.get(row).narrow(0, column, 1).fill_(value);
    };
    refused(&|_, grids| set(grids, 0, 0, 2), "2 frames");
    refused(&|_, grids| set(grids, 0, 1, 3), "3 rows");
    refused(&|_, grids| set(grids, 1, 2, 0), "0 columns");
    refused(&|_, grids| set(grids, 1, 2, 1 << 40), "1048576 patches");
    refused(&|_, grids| set(grids, 1, 1, -2), "-2 rows");
    refused(&|_, grids| *grids = grids.narrow(0, 0, 2), "the patches of `image_grid_thw`");
    refused(&|_, grids| *grids = grids.narrow(1, 0, 2), "[images, 3]");
    refused(&|inputs, _| inputs.pixel_values = inputs.pixel_values.narrow(1, 0, 5), "`pixel_values`");
    refused(&|inputs, _| inputs.input_ids = inputs.input_ids.masked_fill(&inputs.input_ids.eq(5), 6), "0 image tokens");
    refused(&|inputs, _| inputs.labels = inputs.labels.as_ref().map(|labels| labels.narrow(1, 0, 3)), "`labels`");
    // As many image tokens as features, but too few in the row of the first two images.
    let counts: Vec<i64> = (0..3).map(|row| (1..3).map(|side| grids.int64_value(&[row, side]) / 2).product()).collect();
    let features: i64 = counts.iter().sum();
    let row = |ids: Vec<i64>, real: i64| {
        let fill = features + 1 - ids.len() as i64;
        let ids = Tensor::cat(&[Tensor::from_slice(&ids), Tensor::zeros([fill], (Kind::Int64, Device::Cpu))], 0);
        (ids, Tensor::arange(features + 1, (Kind::Int64, Device::Cpu)).less(real))
    };
    let rest = [vec![3], vec![5; features as usize - 3]].concat();
    let (first, second) = (row(vec![3, 5, 3, 5, 5], 5), row(rest, features - 2));
    refused(
        &|inputs, _| {
            inputs.labels = None;
            inputs.input_ids = Tensor::stack(&[&first.0, &second.0], 0);
            inputs.attention_mask = Tensor::stack(&[&first.1, &second.1], 0);
        },
        "row 0 are not those of its images",
    );
    let error = case.model.forward(&case.inputs()).expect_err("no grids").to_string();
    assert!(error.contains("`image_grid_thw`: it is missing"), "{error}");
}

#[test]
fn configurations_that_no_network_has_are_named() {
    let path =
        |name: &str| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/goldens").join(name).join("config.json");
    let root = tempfile::tempdir().unwrap();
    let refused = |name: &str, change: &dyn Fn(&mut Value), part: &str| {
        let mut config: Value = serde_json::from_slice(&fs::read(path(name)).unwrap()).unwrap();
        change(&mut config);
        fs::write(root.path().join("config.json"), config.to_string()).unwrap();
        let error = read_config(root.path()).expect_err(part).to_string();
        assert!(error.contains(part), "{error}");
        let outline = ressa_checkpoint::Outline::of(config.as_object().unwrap()).expect_err(part).join("; ");
        assert!(outline.contains(part), "{outline}");
    };
    refused("qwen2-vl", &|c| c["rope_scaling"]["mrope_section"] = serde_json::json!([1, 1, 1]), "whose sum is 4");
    refused(
        "qwen2-vl",
        &|c| drop(c.as_object_mut().unwrap().remove("rope_scaling")),
        "`text_config.rope_scaling.mrope_section` is missing",
    );
    refused("qwen2-vl-parts", &|c| c["text_config"]["rope_scaling"]["rope_type"] = "yarn".into(), "not supported");
    refused("qwen2-vl", &|c| c["vision_config"]["depth"] = 0.into(), "depth");
    refused("qwen2-vl", &|c| c["vision_config"]["num_heads"] = 5.into(), "`num_heads` = 5");
    refused("qwen2_5-vl", &|c| c["vision_config"]["out_hidden_size"] = 99.into(), "width of");
    refused("qwen2_5-vl", &|c| c["hidden_size"] = 33.into(), "33");
}
