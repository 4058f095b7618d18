//! What the families that read images as tiles have in common.

use ressa_checkpoint::{TileSizes, tiled_text, tiled_vision};
use serde_json::{Map, Value};

use crate::{config::TextConfig, patch_encoder::EncoderConfig};

/// Image encoder, language model and tile of a configuration.
///
/// # Errors
/// In words: the part that is missing or not supported.
pub(super) fn read(fields: &Map<String, Value>) -> Result<(EncoderConfig, TextConfig, TileSizes), String> {
    let (kind, encoder) = tiled_vision(fields)?;
    let text = tiled_text(fields)?;
    Ok((
        EncoderConfig::read(kind, &encoder).map_err(|e| format!("`vision_config`: {e}"))?,
        serde_json::from_value(Value::Object(text)).map_err(|e| e.to_string())?,
        TileSizes::of(fields)?,
    ))
}
