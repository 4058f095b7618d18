//! Processor files say what the processor does.

use ressa_data::{Content, Family, Image, Processor, World, write_processor_files};
use ressa_experiment::{Task, config::DataConfig};
use serde_json::Value;

fn processor(family: Family) -> (tempfile::TempDir, Processor) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    write_processor_files(folder.path(), family, 10).expect("files are written");
    let processor = Processor::load(folder.path()).expect("files are read");
    (folder, processor)
}

#[test]
fn both_families_share_word_ids() {
    let question = "what color is the square";
    let (_a, t5) = processor(Family::T5);
    let (_b, llama) = processor(Family::Llama);
    let answer = t5.encode_answer(question).expect("known words");
    assert_eq!(answer, llama.encode_answer(question).expect("known words"));

    let [mut ended, mut begun, mut wrapped] = [answer.clone(), vec![Family::Llama.bos()], vec![2]];
    ended.push(Family::T5.eos());
    begun.extend(&answer);
    wrapped.extend(&answer);
    wrapped.push(3);
    assert_eq!(t5.encode_prompt(question).expect("known words"), ended);
    assert_eq!(llama.encode_prompt(question).expect("known words"), begun);
    assert_eq!(t5.encode_qformer(question).expect("known words"), wrapped);
    assert_eq!((t5.leading_specials().ok(), llama.leading_specials().ok()), (Some(0), Some(1)));
    assert_eq!((t5.pad(), llama.pad(), t5.qformer_pad()), (0, 0, 0));
    assert_eq!(t5.decode(&ended).expect("known ids"), question);
    assert_eq!(llama.decode(&begun).expect("known ids"), question);
}

#[test]
fn special_tokens_sit_where_the_families_say() {
    for family in [Family::T5, Family::Llama] {
        let (folder, _) = processor(family);
        let text = std::fs::read_to_string(folder.path().join("tokenizer.json")).expect("a file");
        let tokenizer: Value = serde_json::from_str(&text).expect("JSON");
        let id = |token: &str| tokenizer["model"]["vocab"][token].as_u64();
        assert_eq!(id("<pad>"), Some(0));
        assert_eq!(id("</s>"), Some(u64::from(family.eos())));
        assert_eq!(id("<image>"), Some(u64::from(family.image())));
        let size = tokenizer["model"]["vocab"].as_object().map(serde_json::Map::len);
        assert!(size.is_some_and(|size| size <= ressa_data::tokenizer::VOCABULARY_SIZE), "{size:?}");
    }
}

#[test]
fn pixels_are_normalised_per_channel() {
    let (_folder, processor) = processor(Family::T5);
    let mut planes = vec![0; 3 * 48 * 48];
    planes[48 * 48..2 * 48 * 48].fill(255);
    let image = Image::from_planes(48, 48, planes).expect("three planes");
    let pixels = processor.pixels([&image, &image]).expect("the right size");
    assert_eq!(pixels.len(), 2 * 3 * 48 * 48);
    // What the shipped models were trained on, to the bit: one rounding, from double precision.
    for (index, level) in [(0, 0.0), (48 * 48, 255.0), (2 * 48 * 48, 0.0)] {
        let expected = ((level * (1.0 / 255.0) - 0.35) / 0.3) as f32;
        assert_eq!(pixels[index].to_bits(), expected.to_bits());
    }
    // An image of another size is resized, as a photograph would be.
    let small = Image::from_planes(2, 1, vec![255; 6]).expect("three planes");
    let pixels = processor.pixels([&small]).expect("any size");
    assert_eq!(pixels.len(), 3 * 48 * 48);
    assert!(pixels.iter().all(|value| (value - 0.65 / 0.3).abs() < 1e-6));
}

#[test]
fn every_prompt_of_every_benchmark_is_known() {
    let (_folder, processor) = processor(Family::T5);
    let unknown = 2;
    let world = World::new(&DataConfig::default()).expect("shapes");
    for task in Task::PAPER {
        for item in world.benchmark(task, 40).items() {
            let texts = match item.content.clone() {
                Content::Question { text, answers, .. } => [vec![text], answers].concat(),
                Content::Caption { instruction, references, .. } => [vec![instruction], references].concat(),
                Content::Retrieval { caption } => vec![caption],
                Content::Choice { .. } => panic!("no task of the embedded world has options"),
            };
            for text in texts {
                assert!(!processor.encode_prompt(&text).expect("words").contains(&unknown), "{text}");
            }
        }
    }
}

#[test]
fn broken_folders_are_named() {
    let (folder, _) = processor(Family::T5);
    let broken = folder.path().join("tokenizer_config.json");
    std::fs::write(&broken, r#"{"pad_token": "<nothing>"}"#).expect("written");
    std::fs::remove_file(folder.path().join("special_tokens_map.json")).expect("removed");
    let message = Processor::load(folder.path()).err().expect("an error").to_string();
    insta::assert_snapshot!(message.replace(&folder.path().display().to_string(), "MODEL"), @r#"`MODEL/tokenizer_config.json` is not a usable tokenizer: `pad_token` is "<nothing>", which the tokenizer does not know"#);
    std::fs::remove_file(folder.path().join("tokenizer.json")).expect("removed");
    let message = Processor::load(folder.path()).err().expect("an error").to_string();
    insta::assert_snapshot!(message.replace(&folder.path().display().to_string(), "MODEL"), @"cannot read `MODEL/tokenizer.json`: No such file or directory (os error 2)");
}

/// What is not of one model: each file is named with the other that it does not fit.
#[test]
fn a_processor_that_is_not_the_models_is_refused() {
    let said = |config: Value, shared: Value| {
        let folder = tempfile::tempdir().unwrap();
        write_processor_files(folder.path(), Family::T5, 4).unwrap();
        let write = |name: &str, value: &Value| {
            std::fs::write(folder.path().join(name), value.to_string()).unwrap();
        };
        write("config.json", &config);
        if !shared.is_null() {
            write("processor_config.json", &shared);
        }
        match Processor::load(folder.path()) {
            Ok(_) => "read".to_owned(),
            Err(error) => error.to_string().replace(&folder.path().display().to_string(), "MODEL"),
        }
    };
    use serde_json::json;
    let config = |words: u64, side: u64| {
        json!({
            "model_type": "instructblip", "num_query_tokens": 4, "vision_config": {"image_size": side},
            "text_config": {"model_type": "t5", "vocab_size": words}, "qformer_config": {"vocab_size": 128},
        })
    };
    assert_eq!(said(config(128, 48), Value::Null), "read");
    let vocabulary = said(config(20, 48), Value::Null);
    assert!(vocabulary.contains("the model's vocabulary ends at 19 (`text_config.vocab_size`"), "{vocabulary}");
    let size = said(config(128, 224), Value::Null);
    assert!(size.contains("it makes pictures of 48x48 pixels, and the model reads 224x224"), "{size}");
    let mut image = config(128, 48);
    image["image_token_index"] = json!(9);
    let image = said(image, Value::Null);
    assert!(image.contains("its image token has id 3, and `image_token_index` in config.json is 9"), "{image}");
    let queries = said(config(128, 48), json!({"num_query_tokens": 5}));
    assert!(queries.contains("`num_query_tokens` is 5; the model in config.json has 4"), "{queries}");
    let many = said(config(128, 48), json!({"num_query_tokens": 4_294_967_296_u64}));
    assert!(many.contains("it must be a number of tokens up to 65536"), "{many}");
    let nested = json!({"num_query_tokens": 4, "image_processor": {"image_processor_type": "BlipImageProcessorPil", "size": 48}});
    let nested = said(config(128, 48), nested);
    assert!(nested.contains("`preprocessor_config.json` beside it make different pixels"), "{nested}");
}
