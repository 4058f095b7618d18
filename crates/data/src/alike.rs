//! Whether two model folders read images and texts alike: what one makes of them can then be given to the other, as a student's batches to its teacher.

use std::path::Path;

use ressa_checkpoint::json;
use serde_json::Value;

use crate::{
    DataError, ImageProcessor,
    text::{tokens_made, words_of},
};

/// Files of vocabularies.
const TOKENIZERS: [&str; 2] = ["tokenizer.json", "qformer_tokenizer/tokenizer.json"];
/// Entries of such a file that say how batches are cut and filled, which no token's number depends on.
const OF_BATCHES: [&str; 2] = ["truncation", "padding"];

/// What the second folder reads otherwise than the first, in words; `None` where it reads alike. How prompts are put together is not looked at. Vocabularies may
/// be padded to different widths; what both models have embeddings for has to be all tokens.
///
/// # Errors
/// A folder whose settings cannot be read.
pub fn reads_otherwise(one: &Path, other: &Path) -> Result<Option<String>, DataError> {
    for name in TOKENIZERS {
        if vocabulary(&one.join(name)) != vocabulary(&other.join(name)) {
            return Ok(Some(format!("its `{name}` makes other tokens")));
        }
    }
    let (own, others) = (words_of(one)?, words_of(other)?);
    if let Some(words) = others.filter(|_| own != others) {
        let tokens = tokens_made(one)?;
        if words < tokens {
            return Ok(Some(format!(
                "its vocabulary of {words} words ends before the {tokens} tokens of the tokenizer"
            )));
        }
    }
    let [first, second] = [ImageProcessor::load(one)?, ImageProcessor::load(other)?];
    Ok((!first.makes_the_same(&second)).then(|| "its image preprocessing makes other pixels".to_owned()))
}

/// What a tokenizer file says of words; `None` where there is none.
fn vocabulary(path: &Path) -> Option<Value> {
    let bytes = json::bytes(path, json::TOKENIZER_LIMIT).ok()?;
    // What is no JSON is compared as it is.
    let Ok(mut value) = serde_json::from_slice::<Value>(&bytes) else {
        return Some(Value::String(String::from_utf8_lossy(&bytes).into_owned()));
    };
    if let Value::Object(fields) = &mut value {
        OF_BATCHES.iter().for_each(|name| drop(fields.remove(*name)));
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::*;
    use crate::{Family, write_processor_files};

    #[test]
    fn what_decides_about_tokens_and_pixels_is_compared() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, value: Value| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, value.to_string()).unwrap();
        };
        let pixels = |size: u32| {
            json!({ "image_processor_type": "BlipImageProcessor", "size": { "height": size, "width": size },
                "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5] })
        };
        write("one/tokenizer.json", json!({ "model": { "a": 1 }, "padding": null }));
        write("one/preprocessor_config.json", pixels(32));
        // Another version of transformers: settings elsewhere, a template of its own, another filling of batches.
        write("two/tokenizer.json", json!({ "padding": { "length": 8 }, "model": { "a": 1 } }));
        write("two/processor_config.json", json!({ "image_processor": pixels(32) }));
        write("two/chat_template.json", json!("{{ messages }}"));
        let compared = || reads_otherwise(&folder.path().join("one"), &folder.path().join("two")).unwrap();
        assert_eq!(compared(), None);
        write("two/tokenizer.json", json!({ "model": { "a": 2 } }));
        assert!(compared().unwrap().contains("tokenizer.json"));
        write("two/tokenizer.json", json!({ "model": { "a": 1 } }));
        write("two/processor_config.json", json!({ "image_processor": pixels(48) }));
        assert!(compared().unwrap().contains("pixels"));
        write("two/processor_config.json", json!({ "image_processor": pixels(32) }));
        write("two/qformer_tokenizer/tokenizer.json", json!({}));
        assert!(compared().unwrap().contains("qformer_tokenizer"));
    }

    #[test]
    fn vocabularies_are_padded_as_they_like_behind_the_tokens() {
        let folder = tempfile::tempdir().unwrap();
        let folders = ["one", "two"].map(|name| folder.path().join(name));
        let of_words = |folder: &Path, words: u64| {
            let text = json!({ "model_type": "t5", "vocab_size": words });
            let config = json!({ "model_type": "instructblip", "text_config": text });
            fs::write(folder.join("config.json"), config.to_string()).unwrap();
        };
        for folder in &folders {
            fs::create_dir(folder).unwrap();
            write_processor_files(folder, Family::T5, 4).unwrap();
            of_words(folder, 512);
        }
        let tokens = tokens_made(&folders[0]).unwrap();
        let compared = |words| {
            of_words(&folders[1], words);
            reads_otherwise(&folders[0], &folders[1]).unwrap()
        };
        assert_eq!([512, tokens, 1024].map(compared), [None, None, None]);
        let what = format!("its vocabulary of {} words ends before the {tokens} tokens of the tokenizer", tokens - 1);
        assert_eq!(compared(tokens - 1), Some(what));
        // Added tokens that the student has no embedding for are nobody's.
        of_words(&folders[0], 10);
        assert_eq!(tokens_made(&folders[0]).unwrap(), 10);
    }
}
