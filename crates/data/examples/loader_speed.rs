//! How fast image files become pixels: decoded, resized and laid out as the published FlanT5-XL folder asks, on a number of threads.
//!
//! `cargo run --release -p ressa-data --example loader_speed -- FOLDER THREADS` prints `images N seconds S` for the JPEG files of a folder.
//! `scripts/bench_loader.py` runs it beside Pillow and `transformers`.

#![allow(clippy::print_stdout)]

use std::{error::Error, fs, path::PathBuf, time::Instant};

use ressa_data::{Image, ImageProcessor, parallel};

/// `preprocessor_config.json` of Salesforce/blip2-flan-t5-xl.
const SETTINGS: &str = r#"{
    "do_convert_rgb": true, "do_normalize": true, "do_rescale": true, "do_resize": true,
    "image_mean": [0.48145466, 0.4578275, 0.40821073], "image_processor_type": "BlipImageProcessor",
    "image_std": [0.26862954, 0.26130258, 0.27577711], "resample": 3, "rescale_factor": 0.00392156862745098,
    "size": {"height": 224, "width": 224}
}"#;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(folder), Some(threads)) = (arguments.next(), arguments.next()) else {
        return Err("usage: loader_speed FOLDER THREADS".into());
    };
    let mut paths: Vec<PathBuf> =
        fs::read_dir(&folder)?.map(|item| Ok(item?.path())).collect::<Result<_, std::io::Error>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "jpg" || extension == "jpeg"));
    paths.sort();
    let settings = std::env::temp_dir().join(format!("loader_speed.{}", std::process::id()));
    fs::create_dir_all(&settings)?;
    fs::write(settings.join("preprocessor_config.json"), SETTINGS)?;
    let processor = ImageProcessor::load(&settings);
    fs::remove_dir_all(&settings)?;
    let processor = processor?;

    let start = Instant::now();
    parallel(paths.len(), threads.parse()?, |position| {
        let mut pixels = Vec::new();
        processor.pixels(&Image::open(&paths[position])?, &mut pixels)
    })?;
    println!("images {} seconds {:.4}", paths.len(), start.elapsed().as_secs_f64());
    Ok(())
}
