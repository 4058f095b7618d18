//! Images as tiles at one of several resolutions, and prompts about them, as the folders of LLaVA-NeXT have them.

use std::{fs, path::PathBuf};

use ressa_checkpoint::File;
use ressa_data::{Image, Processor, mosaic};
use ressa_experiment::prompt::Mosaic;
use serde_json::{Value, json};

use crate::any_size::{changed, goldens};

const FOLDERS: [&str; 3] = ["llava-next", "llava-next-layers", "llava-next-full"];

fn folder(name: &str) -> PathBuf {
    goldens().join(name)
}

#[test]
fn tiles_and_prompts_are_those_of_transformers() {
    for name in FOLDERS {
        let processor = Processor::load(&folder(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        let golden = File::open(&folder(name).join("golden.safetensors")).unwrap();
        let text: Value = serde_json::from_slice(&fs::read(folder(name).join("golden.json")).unwrap()).unwrap();
        let pinpoints = processor.images().pinpoints().expect("images become tiles");
        for picture in ["wide", "tall"] {
            let image = Image::open(&goldens().join(format!("images/{picture}.png"))).unwrap();
            let size = processor.size_of(&image).unwrap();
            let side = pinpoints.pixels as usize;
            let found = Mosaic::on(size, pinpoints.pixels, pinpoints.side);
            let wanted = golden.entries().iter().find(|entry| entry.name == format!("levels.{picture}")).unwrap();
            assert_eq!(wanted.shape, [found.count(), 3, side, side], "{name} {picture}");
            // Model-ready values of whole levels, back to those: to the bit, as Pillow resizes.
            let tiles = mosaic::cut(&processor.pixels([&image]).unwrap(), size, found, pinpoints.pixels);
            let table = processor.images().table();
            let levels = tiles.chunks_exact(side * side).enumerate().flat_map(|(plane, values)| {
                let level = move |value: &f32| table[plane % 3].iter().position(|known| known == value).unwrap() as u8;
                values.iter().map(level)
            });
            assert!(levels.eq(golden.bytes(wanted).iter().copied()), "{name} {picture}");
            for question in text["questions"].as_array().unwrap() {
                let question = question.as_str().unwrap();
                let prompt = processor.prompt(question, size).unwrap();
                let layout = prompt.layout.expect("there is an image");
                assert_eq!((layout.mosaic, layout.features()), (Some(found), found.features()));
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
        let root = changed("llava-next", file, change);
        let template = folder("llava-next").join("chat_template.jinja");
        fs::copy(template, root.path().join("chat_template.jinja")).unwrap();
        Processor::load(root.path()).err().map(|error| error.to_string()).unwrap_or_default()
    };
    let refused = |found: String, part: &str| assert!(found.contains(part), "{part}: {found}");
    let (settings, config) = ("preprocessor_config.json", "config.json");
    refused(load(settings, &|value| value["crop_size"] = json!({"height": 20, "width": 20})), "20x20");
    refused(load(settings, &|value| value["size"] = json!({"height": 16, "width": 20})), "20x16");
    refused(load(settings, &|value| value["image_grid_pinpoints"] = json!([[16, 32]])), "are not those of the model");
    refused(load(settings, &|value| value["image_grid_pinpoints"] = json!([[16, 20]])), "multiples");
    refused(load(settings, &|value| value["image_grid_pinpoints"] = Value::Null), "[336, 672]");
    refused(load(settings, &|value| value["image_processor_type"] = "CLIPImageProcessor".into()), "makes no tiles");
    refused(load(config, &|value| value["image_grid_pinpoints"] = Value::Null), "[336, 672]");
    refused(load(config, &|value| value["vision_config"]["image_size"] = json!(17)), "`image_grid_pinpoints` has");
    refused(
        load(config, &|value| value["vision_config"]["image_size"] = Value::Null),
        "`vision_config.image_size` is null",
    );
    refused(load(config, &|value| value["vision_config"]["patch_size"] = json!(5)), "`patch_size` is 4");
    refused(load(config, &|value| value["model_type"] = "llava".into()), "reads images whole");
    refused(load(config, &|value| value["image_token_index"] = Value::Null), "`image_token_index`");
    let processor = "processor_config.json";
    refused(load(processor, &|value| value["num_additional_image_tokens"] = json!(0)), "`num_additional_image_tokens`");
    refused(load(processor, &|value| value["vision_feature_select_strategy"] = "full".into()), "`full`");

    let processor = Processor::load(&folder("llava-next")).unwrap();
    let picture = |width: u32, height: u32| {
        Image::from_rgb(width, height, vec![7; 3 * width as usize * height as usize]).unwrap()
    };
    let error = processor.pixels([&picture(0, 5)]).unwrap_err();
    assert!(error.is_unreadable_image() && error.to_string().contains("no pixels"), "{error}");
    // As in the reference, the whole image is left of a strip, and the ends of its lines where those are not padding.
    for (strip, size) in [(picture(30_000, 1), (34, 32)), (picture(1, 30_000), (32, 36))] {
        assert_eq!(processor.size_of(&strip).unwrap(), size);
        assert_eq!(processor.pixels([&strip]).unwrap().len() as u32, 3 * size.0 * size.1);
    }
    let features = |size| processor.prompt("what is red ?", size).unwrap().layout.unwrap().features();
    assert_eq!([features((34, 32)), features((32, 36))], [16, 20]);
    for images in [2, 1000] {
        let error = processor.prompt(&"<image>".repeat(images), (32, 16)).unwrap_err().to_string();
        assert!(error.contains(&format!("{images} image tokens")) && error.len() < 500, "{error}");
    }
    assert!(processor.prompt("is <image> red", (32, 16)).is_ok());
}
