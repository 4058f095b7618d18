//! `ressa schema`: the JSON Schema of experiment files, for editors.

use crate::{
    exit::{Exit, Outcome},
    text::say_json,
};

/// Prints the schema.
pub fn run() -> Outcome {
    say_json(&ressa_experiment::schema::schema());
    Ok(Exit::Done)
}
