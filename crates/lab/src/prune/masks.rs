//! One number for all masks: what two runs compare to know that they chose the same weights.

use tch::{Device, Kind, Tensor};

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
    let flags = keep.f_to_kind(Kind::Bool).and_then(|keep| keep.f_to_device(Device::Cpu)).map_err(torch)?;
    let flags = flags.f_contiguous().map_err(torch)?;
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(layer.len() as u64).to_le_bytes()).update(layer.as_bytes());
    hasher.update(&rows.to_le_bytes()).update(&columns.to_le_bytes());
    if flags.numel() > 0 {
        // SAFETY: a contiguous bool tensor on the host is `numel` bytes at its pointer, each 0 or 1; `flags` keeps them alive.
        let flags = unsafe { std::slice::from_raw_parts(flags.data_ptr().cast::<u8>(), flags.numel()) };
        for part in flags.chunks(1 << 16) {
            hasher.update(&packed(part));
        }
    }
    Ok(*hasher.finalize().as_bytes())
}

/// Flags, 0 or 1 each, as bits: the first is the lowest bit of the first byte.
fn packed(flags: &[u8]) -> Vec<u8> {
    let (eights, rest) = flags.as_chunks::<8>();
    // The product brings flag `i` of eight to bit `56 + i`.
    let pack = |eight: &[u8; 8]| (u64::from_le_bytes(*eight).wrapping_mul(0x0102_0408_1020_4080) >> 56) as u8;
    let mut bytes: Vec<u8> = eights.iter().map(pack).collect();
    if !rest.is_empty() {
        bytes.push(rest.iter().enumerate().fold(0, |byte, (bit, &flag)| byte | (flag << bit)));
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::packed;

    #[test]
    fn flags_are_packed_lowest_bit_first() {
        let flags: Vec<u8> = (0..203u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 31) as u8).collect();
        let expected: Vec<u8> =
            flags.chunks(8).map(|f| f.iter().enumerate().fold(0, |byte, (bit, &flag)| byte | (flag << bit))).collect();
        assert_eq!(packed(&flags), expected);
    }
}
