//! Images at their own size, and prompts about them, as the folders of Qwen-VL have them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use ressa_checkpoint::File;
use ressa_data::{Image, ImageProcessor, Processor};
use serde_json::{Value, json};

const FOLDERS: [&str; 4] = ["qwen2-vl", "qwen2-vl-parts", "qwen2_5-vl", "qwen2_5-vl-parts"];

pub fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/tests/goldens")
}

/// A folder's settings with changes, without weights.
pub fn changed(name: &str, file: &str, change: &dyn Fn(&mut Value)) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for item in fs::read_dir(goldens().join(name)).unwrap().map(|item| item.unwrap().path()) {
        let own = item.file_name().unwrap().to_str().unwrap();
        if item.extension().is_some_and(|ending| ending == "json") {
            let mut value: Value = serde_json::from_slice(&fs::read(&item).unwrap()).unwrap();
            if own == file {
                change(&mut value);
            }
            fs::write(root.path().join(own), value.to_string()).unwrap();
        }
    }
    root
}

#[test]
fn levels_and_prompts_are_those_of_transformers() {
    for name in FOLDERS {
        let folder = goldens().join(name);
        let processor = Processor::load(&folder).unwrap_or_else(|e| panic!("{name}: {e}"));
        let golden = File::open(&folder.join("golden.safetensors")).unwrap();
        let text: Value = serde_json::from_slice(&fs::read(folder.join("golden.json")).unwrap()).unwrap();
        let cells = processor.images().cells().expect("images keep their sizes");
        for picture in ["wide", "tall"] {
            let image = Image::open(&goldens().join(format!("images/{picture}.png"))).unwrap();
            let size = processor.size_of(&image).unwrap();
            let wanted = golden.entries().iter().find(|entry| entry.name == format!("levels.{picture}")).unwrap();
            assert_eq!(wanted.shape, [3, size.0 as usize, size.1 as usize], "{name} {picture}");
            let levels = processor.images().levels(&image).unwrap();
            let apart = levels.iter().zip(golden.bytes(wanted)).map(|(a, b)| a.abs_diff(*b)).max();
            assert!(apart <= Some(1), "{name} {picture}: {apart:?}");
            let pixels = processor.pixels([&image]).unwrap();
            let patches = cells.cut(&pixels, size);
            assert_eq!(patches.len(), pixels.len() * cells.frames as usize);
            for question in text["questions"].as_array().unwrap() {
                let question = question.as_str().unwrap();
                let prompt = processor.prompt(question, size).unwrap();
                let layout = prompt.layout.expect("there is an image");
                assert_eq!(layout.grids, [cells.grid(size)], "{name}");
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
        let root = changed("qwen2-vl", file, change);
        Processor::load(root.path()).err().map(|error| error.to_string()).unwrap_or_default()
    };
    let settings = "preprocessor_config.json";
    let remove = |field: &'static str| move |value: &mut Value| drop(value.as_object_mut().unwrap().remove(field));
    let refused = |found: String, part: &str| assert!(found.contains(part), "{part}: {found}");
    refused(load(settings, &|value| value["patch_size"] = 5.into()), "`patch_size` is 5");
    refused(load(settings, &|value| value["merge_size"] = 0.into()), "`merge_size` is 0");
    refused(load(settings, &|value| value["max_pixels"] = (1u64 << 40).into()), "`max_pixels`");
    refused(load(settings, &|value| value["min_pixels"] = json!(1 << 20)), "more than `max_pixels`");
    refused(load(settings, &|value| value["image_processor_type"] = "CLIPImageProcessor".into()), "images of one size");
    refused(load("config.json", &|value| value["image_token_id"] = 7.into()), "image token");
    refused(load("config.json", &|value| value["image_token_id"] = "x".into()), "`image_token_id` is \"x\"");
    refused(
        load("config.json", &|value| value["vision_config"]["patch_size"] = json!(-4)),
        "`vision_config.patch_size` is -4",
    );
    refused(
        load(settings, &|value| value["size"] = json!({"height": 30, "width": 30})),
        "`shortest_edge` and `longest_edge`",
    );
    refused(load("tokenizer_config.json", &remove("chat_template")), "chat template");
    refused(load("config.json", &|value| value["model_type"] = "llava".into()), "images of one size");

    let processor = Processor::load(&goldens().join("qwen2-vl")).unwrap();
    let picture = |width: u32, height: u32| {
        Image::from_rgb(width, height, vec![7; 3 * width as usize * height as usize]).unwrap()
    };
    for strip in [picture(30_000, 1), picture(1, 30_000), picture(0, 5)] {
        let error = processor.pixels([&strip]).unwrap_err();
        assert!(error.is_unreadable_image(), "{error}");
        assert!(error.to_string().contains("cannot use an image of"), "{error}");
    }
    let error = processor.common_size([&picture(40, 20), &picture(20, 40)]).unwrap_err().to_string();
    assert!(error.contains("batches of one"), "{error}");
    for text in ["<|image_pad|><|image_pad|>", "a <|image_pad|> b <|image_pad|>"] {
        let error = processor.prompt(text, (24, 24)).unwrap_err().to_string();
        assert!(error.contains("2 image tokens"), "{error}");
    }
    assert!(processor.prompt("what", (0, 24)).is_err());
    // Without the token that announces it, an image has the positions of words.
    let bare = processor.prompt("is <|image_pad|> red", (24, 24)).unwrap().layout.unwrap();
    assert!(bare.grids.is_empty() && bare.features() == 9, "{bare:?}");
}

#[test]
fn sizes_are_under_either_of_their_names_and_a_film_of_pictures_is_none() {
    let root = tempfile::tempdir().unwrap();
    let sized = |settings: Value| {
        fs::write(root.path().join("preprocessor_config.json"), settings.to_string()).unwrap();
        ImageProcessor::load(root.path()).unwrap().size_of(640, 480).unwrap()
    };
    let qwen = "Qwen2VLImageProcessorFast";
    let few = 28 * 28 * 20;
    assert_eq!(sized(json!({"image_processor_type": qwen})), (476, 644));
    let small = sized(json!({"image_processor_type": qwen, "max_pixels": few}));
    assert!(small.0 * small.1 <= few);
    let edges = json!({"shortest_edge": 3136, "longest_edge": few});
    assert_eq!(sized(json!({"image_processor_type": qwen, "size": edges})), small);
    // Its own names count.
    let both = json!({"image_processor_type": qwen, "size": {"shortest_edge": 3136, "longest_edge": 99_999}, "max_pixels": few});
    assert_eq!(sized(both), small);
    fs::write(
        root.path().join("preprocessor_config.json"),
        json!({"image_processor_type": qwen, "do_resize": false}).to_string(),
    )
    .unwrap();
    let kept = ImageProcessor::load(root.path()).unwrap();
    assert_eq!(kept.size_of(56, 84).unwrap(), (84, 56));
    let error = kept.size_of(50, 84).unwrap_err().to_string();
    assert!(error.contains("multiples of 28"), "{error}");
    let error = kept.size_of(28 * 257, 28 * 256).unwrap_err().to_string();
    assert!(error.contains("takes 65792 positions"), "{error}");
}

/// What a folder of Qwen-VL makes of a question with another chat template.
fn asked(template: &str) -> Result<Vec<u32>, String> {
    let root = changed("qwen2-vl", "", &|_| ());
    fs::write(root.path().join("chat_template.jinja"), template).unwrap();
    let told = |error: ressa_data::DataError| error.to_string();
    let prompt = Processor::load(root.path()).map_err(told)?.prompt("what is red?", (24, 24)).map_err(told)?;
    Ok(prompt.layout.map(|layout| layout.ids).into_iter().flatten().chain(prompt.text).collect())
}

#[test]
fn templates_of_any_usual_form_are_followed() {
    let plain = asked("<|image_pad|>a: what is red?, what is red?, 3").unwrap();
    let same = [
        "<|image_pad|>a: {{ messages[0].content[1]['text'] }}, {{ messages[0]['content'][-1].text.strip() }}, {{ 1 + 2 }}",
        "{%- for message in messages -%}{%- for part in message.content if part.type == 'image' -%}<|image_pad|>{%- endfor -%}\
         {%- set texts = message.content|selectattr('type', 'equalto', 'text')|map(attribute='text')|list -%}\
         a: {{ texts[0] ~ ', ' + (texts + texts)[1] }}, {{ texts|length * 3 }}{%- endfor -%}",
        "{% macro shown(part) %}{% if part.type is equalto('image') %}<|image_pad|>a: {% else %}{{ part['text'] }}, \
         {{ part.text|trim }}{% endif %}{% endmacro %}{% for part in messages[0].content %}{{ shown(part) }}{% endfor %}, \
         {{ [1, 2]|last + 1 }}",
        "{% set ns = namespace(seen=0, text='') %}{% for part in messages[0].content[::-1] %}{% set ns.seen = ns.seen + 1 %}\
         {% if loop.first %}{% set ns.text = part.text.split('!')[0] %}{% endif %}{% endfor %}{{ '<|image_pad|>a: ' if ns.seen == 2 }}\
         {{ [ns.text, ns.text]|join(', ') }}, {{ {'three': '3'}.get('three') }}",
        // Several names at once.
        "<|image_pad|>{% for name, text in {'a': messages[0].content[1].text}.items() %}{{ name }}: {{ text }}, {{ text }}{% endfor %}\
         {% set one, (two, rest) = [1, [2, 4]] %}{% with (three, four) = [one + two, rest] %}, {{ three }}{% endwith %}",
    ];
    for template in same {
        assert_eq!(asked(template).as_ref(), Ok(&plain), "{template}");
    }
}

#[test]
fn templates_take_bounded_memory_and_time() {
    let doubling = |operator: &str| {
        format!(
            "{{% set ns = namespace(x='ab') %}}{{% for i in range(60) %}}{{% set ns.x = ns.x {operator} ns.x %}}{{% endfor %}}<|image_pad|>"
        )
    };
    let too_much = "more text than a turn of a conversation has";
    let cases = [
        (doubling("~"), too_much),
        (doubling("+"), too_much),
        ("<|image_pad|>{{ 'a' * 90000000 }}".to_owned(), too_much),
        ("<|image_pad|>{{ ['a'] * 90000000 }}".to_owned(), "chat template"),
        ("<|image_pad|>{{ 'ab'|replace('', 'ab' * 2000)|replace('', 'ab' * 2000)|replace('', 'ab' * 2000) }}".to_owned(), too_much),
        ("<|image_pad|>{{ '{:>9999999999}'.format(3) }}".to_owned(), "unknown method"),
        ("<|image_pad|>{{ '%1000000000d'|format(3) }}".to_owned(), "filter format is unknown"),
        ("<|image_pad|>{{ 'a'|indent(100000000) }}".to_owned(), "filter indent is unknown"),
        ("<|image_pad|>{{ 'abc'.count('') }}".to_owned(), "`count` of an empty text"),
        (
            "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}<|image_pad|>".to_owned(),
            too_much,
        ),
        (
            "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x] %}{% endfor %}<|image_pad|>".to_owned(),
            "too many lists",
        ),
        ("{% for i in range(90000) %}{{ 'a' * 500 }}{% endfor %}<|image_pad|>".to_owned(), too_much),
        ("{% for i in range(9000) %}{{ 'a' * 50 }}{% endfor %}<|image_pad|>".to_owned(), "makes 450013 bytes of a text of 12"),
        ("{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}<|image_pad|>{{ f(0) }}".to_owned(), "recursion"),
        ("{% include 'x' %}<|image_pad|>".to_owned(), "`include` in line 1 is not supported"),
        ("{% for in messages[0].content %}{% endfor %}<|image_pad|>".to_owned(), "chat template"),
        ("{{ raise_exception('no images') }}".to_owned(), "no images"),
    ];
    for (template, part) in cases {
        let error = asked(&template).unwrap_err();
        assert!(error.contains("chat_template.jinja") && error.contains(part), "{template}: {error}");
        assert!(error.len() < 600, "{error}");
    }
}
