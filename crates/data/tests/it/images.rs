//! Image files become the pixels that Pillow and transformers make of them, and hostile ones an error.

use std::path::{Path, PathBuf};

use rand::{RngExt, SeedableRng};
use ressa_data::{
    DataError, Image, ImageProcessor,
    resize::{Filter, Window, resize},
};
use serde_json::Value;

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens")
}

fn bytes(name: &str) -> Vec<u8> {
    std::fs::read(goldens().join(name)).expect("a golden file")
}

fn json(name: &str) -> Value {
    serde_json::from_slice(&bytes(name)).expect("JSON")
}

fn number(value: &Value) -> usize {
    value.as_u64().expect("a number") as usize
}

fn open(name: &str) -> Image {
    Image::open(&goldens().join("images").join(name)).unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn files_of_every_kind_are_read_as_pillow_reads_them() {
    let expected = bytes("images.bin");
    let mut rest = expected.as_slice();
    for (name, size) in json("images.json").as_object().expect("an object") {
        let image = open(name);
        assert_eq!((image.width() as usize, image.height() as usize), (number(&size[0]), number(&size[1])), "{name}");
        let (pixels, after) = rest.split_at(3 * number(&size[0]) * number(&size[1]));
        let difference = image.rgb().iter().zip(pixels).map(|(a, b)| a.abs_diff(*b)).max();
        assert_eq!(difference, Some(0), "largest difference in {name}");
        rest = after;
    }
    assert!(rest.is_empty());
}

#[test]
fn resizing_is_pillows_to_the_bit() {
    let image = open("rgb.png");
    let from = (image.width() as usize, image.height() as usize);
    let expected = bytes("resize.bin");
    let mut rest = expected.as_slice();
    for case in json("resize.json").as_array().expect("a list") {
        let to = (number(&case["size"][0]), number(&case["size"][1]));
        let filter = Filter::from_number(case["resample"].as_u64().expect("a number")).expect("a filter");
        let (pixels, after) = rest.split_at(3 * to.0 * to.1);
        assert!(resize(&image.rgb(), from, to, filter, &Window::whole(to)) == pixels, "{case}");
        rest = after;
    }
    assert!(rest.is_empty());
}

#[test]
fn resizing_keeps_its_properties() {
    let mut dice = rand_chacha::ChaCha8Rng::seed_from_u64(7);
    for round in 0..200 {
        let [width, height, new_width, new_height] = std::array::from_fn(|_| dice.random_range(1..60_usize));
        let (from, to) = ((width, height), (new_width, new_height));
        let filter = Filter::from_number(round % 6).expect("a filter");
        let noise: Vec<u8> = (0..3 * width * height).map(|_| dice.random()).collect();
        assert!(resize(&noise, from, from, filter, &Window::whole(from)) == noise, "identity, {filter:?} {from:?}");

        let grey = vec![dice.random::<u8>(); noise.len()];
        let resized = resize(&grey, from, to, filter, &Window::whole(to));
        assert!(resized == vec![grey[0]; 3 * new_width * new_height], "a constant, {filter:?} {from:?} to {to:?}");

        let whole = resize(&noise, from, to, filter, &Window::whole(to));
        if matches!(filter, Filter::Nearest | Filter::Bilinear | Filter::Box) {
            let (low, high) = (noise.iter().min(), noise.iter().max());
            assert!(whole.iter().min() >= low && whole.iter().max() <= high, "bounds, {filter:?} {from:?} to {to:?}");
        }
        // A window is what would be cut out of the whole.
        let window = Window { x: new_width / 3..new_width, y: new_height / 4..new_height.div_ceil(2) };
        let columns = 3 * window.x.start..3 * window.x.end;
        let cut: Vec<&[u8]> = whole.chunks_exact(3 * new_width).map(|row| &row[columns.clone()]).collect();
        let cut = cut[window.y.clone()].concat();
        assert!(resize(&noise, from, to, filter, &window) == cut, "a window, {filter:?} {from:?} to {to:?}");
    }
}

fn processor(configuration: &Value) -> Result<ImageProcessor, DataError> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("preprocessor_config.json"), configuration.to_string()).expect("written");
    ImageProcessor::load(folder.path())
}

#[test]
fn pixels_are_those_of_transformers_to_the_bit() {
    let image = open("rgb.png");
    let expected = bytes("pixels.bin");
    let mut rest = expected.as_chunks::<4>().0;
    for case in json("pixels.json").as_array().expect("a list") {
        let shape: Vec<usize> = case["shape"].as_array().expect("a list").iter().map(number).collect();
        let processor = processor(&case["configuration"]).unwrap_or_else(|e| panic!("{case}: {e}"));
        assert_eq!(processor.image_size(), (shape[1] as u32, shape[2] as u32), "{case}");
        let mut pixels = Vec::new();
        processor.pixels(&image, &mut pixels).unwrap_or_else(|e| panic!("{case}: {e}"));
        let (values, after) = rest.split_at(shape.iter().product());
        assert_eq!(pixels.len(), values.len());
        for (at, (found, golden)) in pixels.iter().zip(values).enumerate() {
            assert_eq!(found.to_bits(), f32::from_le_bytes(*golden).to_bits(), "value {at} of {case}");
        }
        rest = after;
    }
    assert!(rest.is_empty());
}

#[test]
fn settings_may_stand_in_processor_config() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let text = r#"{"num_query_tokens": 4, "image_processor": {"image_processor_type": "BlipImageProcessorFast", "size": {"height": 6, "width": 5}}}"#;
    std::fs::write(folder.path().join("processor_config.json"), text).expect("written");
    let processor = ImageProcessor::load(folder.path()).expect("settings");
    assert_eq!(processor.image_size(), (6, 5));
}

#[test]
fn wrong_settings_are_named() {
    let message = |text: &str| {
        let error = processor(&serde_json::from_str(text).expect("JSON")).expect_err("an error").to_string();
        error.split_once("`: ").map(|(_, reason)| reason.to_owned()).expect("a path first")
    };
    insta::assert_snapshot!(message(r#"{"image_processor_type": "ViTImageProcessor"}"#), @r#"image processor "ViTImageProcessor" is not known; `BlipImageProcessor`, `CLIPImageProcessor`, `BitImageProcessor`, `SiglipImageProcessor`, `Qwen2VLImageProcessor`, `Idefics3ImageProcessor`, `SmolVLMImageProcessor`, `LlavaNextImageProcessor`, `GotOcr2ImageProcessor` are"#);
    insta::assert_snapshot!(message(r#"{"size": {"shortest_edge": 5}}"#), @r#"`size` is {"shortest_edge":5}; it must be `height` and `width`, or one number for both, of at most 16777216 pixels in all"#);
    insta::assert_snapshot!(message(r#"{"size": 1000000000000}"#), @"`size` is 1000000000000; it must be `height` and `width`, or one number for both, of at most 16777216 pixels in all");
    insta::assert_snapshot!(message(r#"{"resample": 9}"#), @"`resample` is 9; it must be a filter's number in Pillow, from 0 to 5 (3 is bicubic)");
    insta::assert_snapshot!(message(r#"{"image_mean": [0.5, 0.5]}"#), @"`image_mean` is [0.5,0.5]; it must be three numbers");
    insta::assert_snapshot!(message(r#"{"image_std": [0.5, 0.5, 0]}"#), @"`image_std` must be positive");
    insta::assert_snapshot!(message(r#"{"do_resize": 1}"#), @"`do_resize` is 1; it must be true or false");
}

#[test]
fn an_image_that_is_not_resized_must_fit() {
    let processor = processor(&serde_json::json!({"size": 12, "do_resize": false})).expect("settings");
    let error = processor.pixels(&open("rgb.png"), &mut Vec::new()).expect_err("an error");
    insta::assert_snapshot!(error, @"image of 19x14 pixels; the processor of this model reads 12x12 and does not resize to it");
}

#[test]
fn hostile_files_are_refused() {
    let refused = |bytes: &[u8]| Image::from_bytes(bytes, Path::new("F")).expect_err("an error").to_string();
    insta::assert_snapshot!(refused(b""), @"cannot use the image `F`: the file is empty");
    insta::assert_snapshot!(refused(b"a text about an image\n"), @"cannot use the image `F`: it is not a PNG, JPEG, GIF, WebP, BMP or TIFF file");
    let missing = Image::open(Path::new("nowhere/F.png")).expect_err("an error");
    insta::assert_snapshot!(missing, @"cannot read `nowhere/F.png`: No such file or directory (os error 2)");

    // Headers that promise 30,000 x 30,000 pixels, in files of a few hundred bytes.
    let side = 30_000_u32;
    let patched = |name: &str, at: usize, sides: &[u8]| {
        let mut file = bytes(&format!("images/{name}"));
        file[at..at + sides.len()].copy_from_slice(sides);
        file
    };
    let mut bomb = patched("rgb.png", 16, &[side.to_be_bytes(), side.to_be_bytes()].concat());
    let checksum = crc32(&bomb[12..29]);
    bomb[29..33].copy_from_slice(&checksum.to_be_bytes());
    let two = |side: u16| [side.to_be_bytes(), side.to_be_bytes()].concat();
    let jpeg = bytes("images/420.jpg");
    let frame = jpeg.windows(2).position(|pair| pair == [0xff, 0xc0]).expect("a frame header");
    let bombs = [
        ("PNG", bomb),
        ("JPEG", patched("420.jpg", frame + 5, &two(side as u16))),
        ("GIF", patched("plain.gif", 6, &[side as u16, side as u16].map(u16::to_le_bytes).concat())),
        ("BMP", patched("rgb.bmp", 18, &[side.to_le_bytes(), side.to_le_bytes()].concat())),
    ];
    for (kind, file) in bombs {
        let message = refused(&file);
        assert_eq!(
            message, "cannot use the image `F`: it says that it has 30000x30000 pixels; at most 178956970 are decoded",
            "{kind}"
        );
    }
}

/// The checksum of PNG's chunks.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| if sum & 1 == 1 { (sum >> 1) ^ 0xedb8_8320 } else { sum >> 1 })
    })
}

#[test]
fn truncated_files_are_refused() {
    for name in json("images.json").as_object().expect("an object").keys() {
        let file = bytes(&format!("images/{name}"));
        // The frame that is read may end early in an animation, so only its head is sure to be needed.
        let needed = if name.starts_with("animated") { 60 } else { file.len() / 2 };
        for length in 0..needed {
            let cut = Image::from_bytes(&file[..length], Path::new(name));
            assert!(cut.is_err(), "{length} of {} bytes of {name} are no image", file.len());
        }
    }
}
