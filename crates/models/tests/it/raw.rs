//! The raw forward pass against the training pass, which packs its rows and pads nothing between.

use ressa_models::{
    Blip2Config, ForwardInputs, Infer, Model, ModelError, Surgery, config::TextConfig, presets::random,
};
use ressa_testkit::assert_close;
use serde_json::{Value, json};
use tch::{Kind, Tensor};

use crate::common::{VOCABULARY, answers, instructions, models, pixels, prompts};

const TOLERANCE: f64 = 1e-5;
const IGNORED: i64 = -100;
const QUERIES: usize = 3;

/// Rows of ids as a tensor, filled up with `fill` on a side.
fn table(rows: &[Vec<i64>], fill: i64, left: bool) -> Tensor {
    let width = rows.iter().map(Vec::len).max().unwrap_or(0);
    let row = |row: &Vec<i64>| {
        let filled = vec![fill; width - row.len()];
        Tensor::from_slice(&if left { [filled, row.clone()].concat() } else { [row.clone(), filled].concat() })
    };
    Tensor::stack(&rows.iter().map(row).collect::<Vec<_>>(), 0)
}

/// The image of each row, its instruction and its answer as another implementation would be given them.
fn inputs(model: &Model, left: bool) -> ForwardInputs {
    let (images, texts) = instructions();
    let config = model.config();
    let image = config.image_token().expect("presets have one");
    let end = model.special_tokens().eos[0];
    let wide = |ids: &[u32]| ids.iter().map(|&id| i64::from(id)).collect::<Vec<_>>();
    let mut ids = Vec::new();
    let mut labels = Vec::new();
    for (text, answer) in texts.iter().zip(answers()) {
        let prompt = [vec![image; QUERIES], wide(text)].concat();
        let answer = [wide(&answer), vec![end]].concat();
        if matches!(config.text_config(), TextConfig::T5(_)) {
            ids.push(prompt);
            labels.push(answer);
        } else {
            labels.push([vec![IGNORED; prompt.len()], answer.clone()].concat());
            ids.push([prompt, answer].concat());
        }
    }
    let ones: Vec<Vec<i64>> = ids.iter().map(|row| vec![1; row.len()]).collect();
    let instruction = table(&texts.iter().map(|text| wide(text)).collect::<Vec<_>>(), 0, false);
    let real: Vec<Vec<i64>> = texts.iter().map(|text| vec![1; text.len()]).collect();
    ForwardInputs {
        pixel_values: pixels(2).index_select(0, &Tensor::from_slice(&images)),
        input_ids: table(&ids, 0, left),
        attention_mask: table(&ones, 0, left),
        labels: Some(table(&labels, IGNORED, left)),
        qformer_input_ids: Some(instruction),
        qformer_attention_mask: Some(table(&real, 0, false)),
    }
}

#[test]
fn padding_on_either_side_gives_what_packed_rows_give() {
    let _no_grad = tch::no_grad_guard();
    let (images, texts) = instructions();
    for (name, model) in models() {
        let batch = prompts(&images, &texts);
        let features = model.encode_images(&pixels(2));
        let prefix = model.visual_prefix(&features, &batch);
        let forced = model.force(Some(&prefix), &batch.language, &answers());
        // Rotary positions count padding, so a LLaMA padded on the left is another function; T5's labels are padded on the right.
        let sides: &[bool] =
            if matches!(model.config().text_config(), TextConfig::Opt(_)) { &[false, true] } else { &[false] };
        for &left in sides {
            let given = inputs(&model, left);
            let found = model.forward(&given).unwrap();
            assert_close(&format!("{name} prefix"), &found.language_model_inputs, &prefix, TOLERANCE);
            let expected = features.index_select(0, &Tensor::from_slice(&images));
            assert_close(&format!("{name} features"), &found.vision_last_hidden_state, &expected, TOLERANCE);
            let loss = found.loss.expect("there are labels").to_kind(Kind::Double);
            assert_close(&format!("{name} loss"), &loss, &forced.loss(), TOLERANCE);
            let shifted = !matches!(model.config().text_config(), TextConfig::T5(_));
            let counts = given.labels.expect("as given").ne(IGNORED).nonzero();
            let (rows, at) = (counts.select(1, 0), counts.select(1, 1) - i64::from(shifted));
            let logits = found.logits.index(&[Some(&rows), Some(&at)]);
            let packed = forced.mask.nonzero();
            let expected = forced.logits.index(&[Some(packed.select(1, 0)), Some(packed.select(1, 1))]);
            assert_close(&format!("{name} logits, padded left: {left}"), &logits, &expected, TOLERANCE);
        }
    }
}

#[test]
fn folders_without_an_image_token_put_the_image_first() {
    let _no_grad = tch::no_grad_guard();
    for (name, model) in models() {
        let mut config: Blip2Config = model.config().blip2().expect("a BLIP-2 model").clone();
        assert!(config.rest.shift_remove("image_token_index").is_some());
        let legacy = random(&config, 7).unwrap();
        let given = inputs(&model, false);
        let expected = model.forward(&given).unwrap();
        // Inputs made for the newer folder are understood.
        assert!(legacy.forward(&given).unwrap().logits.equal(&expected.logits), "{name}");
        // Inputs of that time have no placeholders.
        let cut = |tensor: &Tensor| tensor.narrow(1, QUERIES as i64, tensor.size()[1] - QUERIES as i64);
        let mut old = inputs(&model, false);
        (old.input_ids, old.attention_mask) = (cut(&old.input_ids), cut(&old.attention_mask));
        if !matches!(config.text_config, TextConfig::T5(_)) {
            old.labels = old.labels.as_ref().map(cut);
        }
        let found = legacy.forward(&old).unwrap();
        assert_close(name, &found.logits, &expected.logits, TOLERANCE);
        assert_close(name, &found.loss.expect("labels"), &expected.loss.expect("labels"), TOLERANCE);
    }
}

#[test]
fn inputs_that_do_not_fit_are_named() {
    for (name, model) in models() {
        let refused = |spoil: &dyn Fn(&mut ForwardInputs)| {
            let mut given = inputs(&model, false);
            spoil(&mut given);
            match model.forward(&given) {
                Err(ModelError::Input { name, reason }) => format!("{name}: {reason}"),
                Err(other) => panic!("{name}: {other}"),
                Ok(_) => panic!("{name}: taken"),
            }
        };
        let ids = |ids: Tensor| move |given: &mut ForwardInputs| given.input_ids = ids.shallow_clone();
        let sound = inputs(&model, false).input_ids;
        let fitting = sound.size();
        for (spoiled, expected) in [
            (refused(&|given| given.pixel_values = pixels(2)), "input_ids: shape"),
            (refused(&|given| given.pixel_values = pixels(2).narrow(1, 0, 1)), "pixel_values: shape [2, 1, 16, 16]"),
            (refused(&|given| given.pixel_values = given.pixel_values.narrow(2, 0, 7)), "holds no patch of 8 x 8"),
            (refused(&|given| given.pixel_values = given.pixel_values.to_kind(Kind::Int64)), "type Int64"),
            (refused(&ids(sound.to_kind(Kind::Float))), "input_ids: type Float"),
            (refused(&ids(sound.masked_fill(&sound.eq(5), VOCABULARY))), "id 40 is not in the vocabulary of 40"),
            (refused(&ids(sound.masked_fill(&sound.eq(5), -1))), "id -1 is not"),
            (refused(&ids(sound.select(0, 0))), "input_ids: shape"),
            (refused(&ids(sound.zeros_like())), "0 image tokens"),
            (
                refused(&|given| given.attention_mask = given.attention_mask.narrow(1, 0, 4)),
                "attention_mask: shape [5, 4]",
            ),
            (
                refused(&|given| given.labels = Some(Tensor::zeros(&fitting, (Kind::Int64, tch::Device::Cpu)) + 77)),
                "id 77",
            ),
        ] {
            assert!(spoiled.contains(expected), "{name}: {spoiled}");
        }
        if name == "vicuna" {
            assert!(refused(&|given| given.qformer_input_ids = None).contains("it is missing"));
            let long = Tensor::ones([5, 25], (Kind::Int64, tch::Device::Cpu));
            let refused = refused(&|given| {
                (given.qformer_input_ids, given.qformer_attention_mask) = (Some(long.shallow_clone()), None);
            });
            assert!(refused.contains("25 tokens are more than the 24 positions"), "{refused}");
        }
    }
}

/// The same network, whichever release of the reference wrote its configuration.
#[test]
fn configurations_of_other_releases_are_the_same_model() {
    let _no_grad = tch::no_grad_guard();
    for (name, model) in models() {
        let mut written = model.config().to_json().unwrap();
        let token = written["image_token_index"].take();
        let fields = written.as_object_mut().unwrap();
        fields.shift_remove("image_token_index");
        fields.insert("image_token_id".to_owned(), token);
        let text = written["text_config"].as_object_mut().unwrap();
        for later in [("dtype", json!("float32")), ("num_decoder_layers_note", Value::Null)] {
            text.insert(later.0.to_owned(), later.1);
        }
        match model.config().text_config() {
            TextConfig::T5(_) => {
                text.insert("tie_word_embeddings".to_owned(), json!(true));
                text.insert("scale_decoder_outputs".to_owned(), json!(false));
            }
            TextConfig::Llama(_) | TextConfig::Qwen2(_) | TextConfig::Mistral(_) => {
                let theta = text.shift_remove("rope_theta").unwrap();
                text.insert("rope_parameters".to_owned(), json!({ "rope_type": "default", "rope_theta": theta }));
            }
            TextConfig::Opt(_) => assert_eq!(text.shift_remove("model_type"), Some(json!("opt"))),
        }
        let config: Blip2Config = serde_json::from_value(written).unwrap();
        let again = Model::from_tensors(&config, &model.tensors()).unwrap();
        let given = inputs(&model, false);
        assert!(again.forward(&given).unwrap().logits.equal(&model.forward(&given).unwrap().logits), "{name}");
    }
}
