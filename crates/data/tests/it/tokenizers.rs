//! Tokenizer files of hub folders give the ids that transformers' fast tokenizers give.

use std::path::Path;

use ressa_data::{Processor, Side};
use serde_json::{Value, json};

fn goldens() -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/tokenizers.json");
    serde_json::from_slice(&std::fs::read(path).expect("a golden file")).expect("JSON")
}

fn folder(golden: &Value) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (name, value) in golden["files"].as_object().expect("files") {
        std::fs::write(folder.path().join(name), value.to_string()).expect("written");
    }
    std::fs::write(folder.path().join("preprocessor_config.json"), "{}").expect("written");
    folder
}

fn golden(name: &str) -> Value {
    goldens().into_iter().find(|golden| golden["name"] == name).expect("a golden of that name")
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().expect("a list").iter().map(|id| id.as_u64().expect("an id") as u32).collect()
}

#[test]
fn every_family_gives_the_ids_of_transformers() {
    for golden in goldens() {
        let folder = folder(&golden);
        let processor = Processor::load(folder.path()).unwrap_or_else(|e| panic!("{}: {e}", golden["name"]));
        for case in golden["cases"].as_array().expect("cases") {
            let text = case["text"].as_str().expect("a text");
            let name = format!("{}: {text:?}", golden["name"]);
            assert_eq!(processor.tokenize(text, true).expect("ids"), ids(&case["ids"]), "{name}");
            assert_eq!(processor.tokenize(text, false).expect("ids"), ids(&case["bare"]), "{name}");
            assert_eq!(processor.tokenize_within(text, true, 8).expect("ids"), ids(&case["cut"]), "{name}");
            assert_eq!(processor.detokenize(&ids(&case["ids"]), true).expect("a text"), case["decoded"], "{name}");
            assert_eq!(processor.detokenize(&ids(&case["ids"]), false).expect("a text"), case["raw"], "{name}");
        }
        assert_eq!(u64::from(processor.pad()), golden["pad"], "{}", golden["name"]);
        let side = if golden["padding_side"] == "left" { Side::Left } else { Side::Right };
        assert_eq!(processor.padding_side(), side, "{}", golden["name"]);
        assert_eq!(
            processor.max_length().map(|length| length as u64),
            golden["max_length"].as_u64(),
            "{}",
            golden["name"]
        );
    }
}

#[test]
fn image_placeholders_come_before_everything() {
    let folder = folder(&golden("llama-image"));
    let text = "a photo";
    let legacy = Processor::load(folder.path()).expect("a folder from before placeholders");
    assert_eq!(legacy.placeholders(), None);
    let prompt = legacy.encode_prompt(text).expect("ids");
    assert_eq!(legacy.encode_prompt_with_image(text).expect("ids"), prompt);

    std::fs::write(folder.path().join("processor_config.json"), r#"{"num_query_tokens": 3}"#).expect("written");
    let processor = Processor::load(folder.path()).expect("a folder with placeholders");
    let image = processor.tokenize("<image>", false).expect("ids");
    assert_eq!(processor.placeholders(), Some((image[0], 3)));
    assert_eq!(processor.encode_prompt(text).expect("ids"), prompt);
    assert_eq!(processor.encode_prompt_with_image(text).expect("ids"), [vec![image[0]; 3], prompt].concat());
}

#[test]
fn one_tokenizer_serves_a_matching_model_and_none_is_needed_for_blip2() {
    let matching = folder(&golden("bert"));
    let processor = Processor::load(matching.path()).expect("a folder");
    let expected = processor.tokenize("the sky", true).expect("ids");
    assert_eq!(processor.tokenize_qformer("the sky", true).expect("ids"), expected);
    assert_eq!(processor.encode_qformer("the sky").expect("ids"), expected);

    let blip2 = folder(&golden("opt"));
    let processor = Processor::load(blip2.path()).expect("a folder");
    assert!(processor.encode_qformer("the sky").expect("nothing").is_empty());
    let message = processor.tokenize_qformer("the sky", true).expect_err("an error").to_string();
    insta::assert_snapshot!(message.replace(&blip2.path().display().to_string(), "MODEL"), @"`MODEL/qformer_tokenizer`: it is not there: the Q-Former of this model reads no text");
}

#[test]
fn broken_tokenizers_are_named() {
    let message = |name: &str, change: &dyn Fn(&Path)| {
        let folder = folder(&golden(name));
        change(folder.path());
        let message = Processor::load(folder.path()).err().expect("an error").to_string();
        message.replace(&folder.path().display().to_string(), "MODEL")
    };
    let write = |folder: &Path, name: &str, text: &str| std::fs::write(folder.join(name), text).expect("written");

    insta::assert_snapshot!(message("t5", &|folder| {
        write(folder, "spiece.model", "");
        std::fs::remove_file(folder.join("tokenizer.json")).expect("removed");
    }), @"`MODEL/tokenizer.json` is not a usable tokenizer: it is not there, only `spiece.model`; write it with transformers: `AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)`");
    insta::assert_snapshot!(message("t5", &|folder| write(folder, "tokenizer_config.json", "[")), @"`MODEL/tokenizer_config.json` is not a usable tokenizer: it is not a JSON object: invalid type: sequence, expected a map at line 1 column 0");
    insta::assert_snapshot!(message("plain", &|folder| write(folder, "tokenizer_config.json", r#"{"padding_side": "up"}"#)), @r#"`MODEL/tokenizer_config.json` is not a usable tokenizer: `padding_side` is "up"; it must be "left" or "right""#);
    insta::assert_snapshot!(message("llama", &|folder| write(folder, "tokenizer_config.json", r#"{"tokenizer_class": "LlamaTokenizer", "bos_token": "<begin>"}"#)), @r#"`MODEL/tokenizer_config.json` is not a usable tokenizer: `bos_token` is "<begin>", which the tokenizer does not know"#);
    insta::assert_snapshot!(message("llama", &|folder| write(folder, "tokenizer_config.json", r#"{"tokenizer_class": "LlamaTokenizer"}"#)), @"`MODEL/tokenizer_config.json` is not a usable tokenizer: `pad_token` is missing, and the model's configuration names no `pad_token_id`");
    let shifted = json!({"added_tokens_decoder": {"5": {"content": "<image>", "special": true}}, "pad_token": "<pad>"});
    let text = message("opt", &|folder| write(folder, "tokenizer_config.json", &shifted.to_string()));
    assert!(text.starts_with(r#"`MODEL/tokenizer.json` is not a usable tokenizer: token "<image>" has id "#), "{text}");
    assert!(text.ends_with("here, but id 5 where the folder lists its added tokens"), "{text}");

    // The model's configuration knows the padding id where the tokenizer's files are silent.
    let silent = folder(&golden("llama"));
    write(silent.path(), "tokenizer_config.json", r#"{"tokenizer_class": "LlamaTokenizer"}"#);
    write(silent.path(), "config.json", r#"{"text_config": {"pad_token_id": 7}}"#);
    assert_eq!(Processor::load(silent.path()).expect("a folder").pad(), 7);
}
