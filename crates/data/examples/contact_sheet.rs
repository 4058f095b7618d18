//! Paints the contact sheet: `cargo run --release -p ressa-data --example contact_sheet FILE.png`.

use ressa_data::contact_sheet;
use ressa_experiment::config::DataConfig;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("usage: contact_sheet FILE.png")?;
    std::fs::write(path, contact_sheet(&DataConfig::default(), 9)?)?;
    Ok(())
}
