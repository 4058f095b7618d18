//! Times decoding and preprocessing of image files: `preprocess_speed MODEL_DIR FILE...` (best of ten, in milliseconds).
#![allow(clippy::print_stdout)]

use std::{error::Error, path::Path, time::Instant};

use ressa_data::{Image, ImageProcessor};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let model = arguments.next().ok_or("usage: preprocess_speed MODEL_DIR FILE...")?;
    let processor = ImageProcessor::load(Path::new(&model))?;
    for file in arguments {
        let (mut decode, mut prepare) = (f64::INFINITY, f64::INFINITY);
        for _ in 0..10 {
            let start = Instant::now();
            let image = Image::open(Path::new(&file))?;
            decode = decode.min(start.elapsed().as_secs_f64());
            let start = Instant::now();
            let mut pixels = Vec::new();
            processor.pixels(&image, &mut pixels)?;
            prepare = prepare.min(start.elapsed().as_secs_f64());
        }
        println!("{file}: decode {:.2} ms, pixels {:.2} ms", 1000.0 * decode, 1000.0 * prepare);
    }
    Ok(())
}
