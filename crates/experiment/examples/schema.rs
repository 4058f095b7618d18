//! Prints the JSON Schema of experiment files.
#![allow(clippy::print_stdout)]

fn main() -> Result<(), serde_json::Error> {
    println!("{}", serde_json::to_string_pretty(&ressa_experiment::schema::schema())?);
    Ok(())
}
