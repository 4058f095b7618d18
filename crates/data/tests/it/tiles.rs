//! Images as tiles, and prompts about them, as the folders of Idefics3, SmolVLM and InternVL have them.

use std::{fs, path::PathBuf};

use ressa_checkpoint::File;
use ressa_data::{Image, Processor};
use serde_json::{Value, json};

use crate::any_size::{changed, goldens};

const FOLDERS: [&str; 7] =
    ["smolvlm", "smolvlm-thirds", "idefics3", "idefics3-whole", "internvl", "internvl-llama", "internvl-one"];

fn folder(name: &str) -> PathBuf {
    goldens().join(name)
}

#[test]
fn tiles_and_prompts_are_those_of_transformers() {
    for name in FOLDERS {
        let processor = Processor::load(&folder(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        let golden = File::open(&folder(name).join("golden.safetensors")).unwrap();
        let text: Value = serde_json::from_slice(&fs::read(folder(name).join("golden.json")).unwrap()).unwrap();
        let tiles = processor.images().tiles().expect("images become tiles");
        for picture in ["wide", "tall"] {
            let image = Image::open(&goldens().join(format!("images/{picture}.png"))).unwrap();
            let size = processor.size_of(&image).unwrap();
            assert_eq!(json!(tiles.grid(size)), text["grids"][picture], "{name} {picture}");
            let wanted = golden.entries().iter().find(|entry| entry.name == format!("levels.{picture}")).unwrap();
            let side = tiles.side as usize;
            assert_eq!(wanted.shape, [tiles.count(size), 3, side, side], "{name} {picture}");
            // Model-ready values of whole levels, back to those: to the bit, as Pillow resizes.
            let pixels = processor.pixels([&image]).unwrap();
            let levels: Vec<u8> =
                tiles.cut(&pixels, size).iter().map(|value| ((value * 0.5 + 0.5) * 255.0).round() as u8).collect();
            assert!(levels == golden.bytes(wanted), "{name} {picture}");
            for question in text["questions"].as_array().unwrap() {
                let question = question.as_str().unwrap();
                let prompt = processor.prompt(question, size).unwrap();
                let layout = prompt.layout.expect("there is an image");
                assert!(layout.grids.is_empty());
                let whole: Vec<u32> = layout.ids.iter().chain(&prompt.text).copied().collect();
                let key = format!("{picture}: {question}");
                assert_eq!(json!(whole), text["prompts"][key.as_str()], "{name} {key}");
            }
        }
    }
}

#[test]
fn what_does_not_fit_is_named() {
    let load = |file: &str, change: &dyn Fn(&mut Value)| {
        let root = changed("smolvlm", file, change);
        let template = folder("smolvlm").join("chat_template.jinja");
        fs::copy(template, root.path().join("chat_template.jinja")).unwrap();
        Processor::load(root.path()).err().map(|error| error.to_string()).unwrap_or_default()
    };
    let refused = |found: String, part: &str| assert!(found.contains(part), "{part}: {found}");
    let settings = "preprocessor_config.json";
    refused(load(settings, &|value| value["max_image_size"] = json!({"longest_edge": 20})), "20x20");
    refused(load(settings, &|value| value["max_image_size"] = json!(16)), "`max_image_size` is 16");
    refused(load(settings, &|value| value["size"] = json!({"longest_edge": 1 << 30})), "between 1 and 4096");
    let whole = |value: &mut Value| {
        value["image_processor_type"] = "CLIPImageProcessor".into();
        value["size"] = 16.into();
    };
    refused(load(settings, &whole), "makes no tiles");
    refused(load("processor_config.json", &|value| value["image_seq_len"] = 5.into()), "`image_seq_len` is 5");
    refused(load("processor_config.json", &|value| value["image_seq_len"] = Value::Null), "`image_seq_len`");
    refused(load("config.json", &|value| value["scale_factor"] = 3.into()), "`scale_factor`");
    refused(load("config.json", &|value| value["model_type"] = "llava".into()), "reads images whole");
    let renamed = |value: &mut Value| value["fake_image_token"] = "<none>".into();
    refused(load("tokenizer_config.json", &renamed), "no token \"<none>\"");
    let bare = changed("smolvlm", "", &|_| ());
    refused(Processor::load(bare.path()).err().expect("no template").to_string(), "chat template");

    let processor = Processor::load(&folder("smolvlm")).unwrap();
    let picture = |width: u32, height: u32| {
        Image::from_rgb(width, height, vec![7; 3 * width as usize * height as usize]).unwrap()
    };
    let error = processor.pixels([&picture(0, 5)]).unwrap_err();
    assert!(error.is_unreadable_image() && error.to_string().contains("no pixels"), "{error}");
    for (strip, size) in [(picture(30_000, 1), (32, 48)), (picture(1, 30_000), (64, 16))] {
        assert_eq!(processor.size_of(&strip).unwrap(), size, "what the reference does too");
        assert_eq!(processor.pixels([&strip]).unwrap().len() as u32, 3 * size.0 * size.1);
    }
    for images in [2, 1000] {
        let error = processor.prompt(&"<image>".repeat(images), (16, 16)).unwrap_err().to_string();
        assert!(error.contains(&format!("{images} image tokens")) && error.len() < 500, "{error}");
    }
    assert!(processor.prompt("is <image> red", (16, 16)).is_ok());
    // Images that keep their sizes have as many tiles as they like: those of one are looked at before they are written out.
    let kept = changed("smolvlm", settings, &|value| value["do_resize"] = false.into());
    fs::copy(folder("smolvlm").join("chat_template.jinja"), kept.path().join("chat_template.jinja")).unwrap();
    let kept = Processor::load(kept.path()).unwrap();
    let error = kept.prompt("is it red", (16 * 257, 16 * 256)).unwrap_err().to_string();
    assert!(error.contains("4096x4112 pixels has 65537 tiles") && error.contains("at most 65536"), "{error}");
}

#[test]
fn what_does_not_fit_internvl_is_named() {
    let load = |file: &str, change: &dyn Fn(&mut Value)| {
        let root = changed("internvl", file, change);
        let template = folder("internvl").join("chat_template.jinja");
        fs::copy(template, root.path().join("chat_template.jinja")).unwrap();
        Processor::load(root.path()).err().map(|error| error.to_string()).unwrap_or_default()
    };
    let refused = |found: String, part: &str| assert!(found.contains(part), "{part}: {found}");
    let settings = "preprocessor_config.json";
    refused(load(settings, &|value| value["size"] = json!({"height": 20, "width": 20})), "20x20 pixels (`size`)");
    refused(load(settings, &|value| value["size"] = json!({"height": 20, "width": 10})), "a square");
    refused(load(settings, &|value| value["max_patches"] = 0.into()), "`max_patches` is 0");
    refused(
        load(settings, &|value| value["min_patches"] = 7.into()),
        "`min_patches` is 7, more than `max_patches` = 6",
    );
    let other = |value: &mut Value| {
        value["image_processor_type"] = "Idefics3ImageProcessor".into();
        value["size"] = json!({"longest_edge": 24});
        value["max_image_size"] = json!({"longest_edge": 8});
    };
    refused(load(settings, &other), "`image_processor_type` is `GotOcr2ImageProcessor`");
    let whole = |value: &mut Value| {
        value["max_patches"] = 1.into();
        value["do_resize"] = false.into();
    };
    refused(load(settings, &whole), "`do_resize` is false");
    refused(load("processor_config.json", &|value| value["image_seq_length"] = 5.into()), "`image_seq_length` is 5");
    refused(load("config.json", &|value| value["downsample_ratio"] = 0.3.into()), "`downsample_ratio` is 0.3");
    refused(load("config.json", &|value| value["model_type"] = "idefics3".into()), "makes no tiles of images as");
    let renamed = |value: &mut Value| value["end_image_token"] = "<none>".into();
    refused(load("tokenizer_config.json", &renamed), "no token \"<none>\"");
    let strips = Processor::load(&folder("internvl")).unwrap();
    for (width, height, size) in [(30_000, 1, (16, 48)), (1, 30_000, (56, 8))] {
        let strip = Image::from_rgb(width, height, vec![7; 30_000 * 3]).unwrap();
        assert_eq!(strips.size_of(&strip).unwrap(), size, "six tiles in a line, and the whole image");
    }
}
