//! One number for all masks: what two runs compare to know that they chose the same weights.

use tch::{Kind, Tensor};

use crate::LabError;

/// A digest over keep masks, added in the order of execution. It does not depend on how they were made or stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MaskHash([u8; 32]);

impl MaskHash {
    /// Adds a layer's mask, bool `[out, in]`.
    ///
    /// # Errors
    /// A mask that is no matrix.
    pub fn add(&mut self, layer: &str, keep: &Tensor) -> Result<(), LabError> {
        self.add_digest(&layer_digest(layer, keep)?);
        Ok(())
    }

    /// Adds what [`layer_digest`] gave.
    pub fn add_digest(&mut self, digest: &[u8; 32]) {
        self.0 = *blake3::Hasher::new().update(&self.0).update(digest).finalize().as_bytes();
    }

    /// 64 hexadecimal digits.
    pub fn hex(&self) -> String {
        blake3::Hash::from_bytes(self.0).to_hex().to_string()
    }

    /// Reads what [`MaskHash::hex`] wrote.
    pub fn from_hex(text: &str) -> Option<Self> {
        blake3::Hash::from_hex(text).ok().map(|hash| Self(*hash.as_bytes()))
    }
}

/// A digest of a layer's name, its shape, and its mask as bits, row after row.
///
/// # Errors
/// A mask that is no matrix.
pub fn layer_digest(layer: &str, keep: &Tensor) -> Result<[u8; 32], LabError> {
    let torch = |e: tch::TchError| LabError::from(ressa_models::ModelError::from(e));
    let (rows, columns) = keep.size2().map_err(torch)?;
    let flags = keep.f_to_kind(Kind::Uint8).and_then(|keep| keep.f_to_device(tch::Device::Cpu)).map_err(torch)?;
    let flags = Vec::<u8>::try_from(flags.f_flatten(0, -1).map_err(torch)?).map_err(torch)?;
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(layer.len() as u64).to_le_bytes()).update(layer.as_bytes());
    hasher.update(&rows.to_le_bytes()).update(&columns.to_le_bytes());
    let pack = |flags: &[u8]| flags.iter().enumerate().fold(0, |byte, (bit, &flag)| byte | (flag << bit));
    for part in flags.chunks(1 << 16) {
        hasher.update(&part.chunks(8).map(pack).collect::<Vec<u8>>());
    }
    Ok(*hasher.finalize().as_bytes())
}
