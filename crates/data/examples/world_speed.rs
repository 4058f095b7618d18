//! How long the training images take: `cargo run --release -p ressa-data --example world_speed [images]`.

use std::time::Instant;

use ressa_data::World;
use ressa_experiment::config::DataConfig;

#[allow(clippy::print_stdout)]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let images = std::env::args().nth(1).map_or(Ok(6000), |text| text.parse())?;
    let world = World::new(&DataConfig::default())?;
    for threads in [1, 2] {
        let start = Instant::now();
        let made = world.training_images(images, threads);
        println!("{} images on {threads} thread(s): {:.2} s", made.len(), start.elapsed().as_secs_f64());
    }
    Ok(())
}
