//! Pickles: recognised, never read. Unpickling runs code.

use std::path::Path;

/// Endings that pickled weights, and weights of other frameworks, have.
const ENDINGS: [&str; 11] = ["bin", "pt", "pth", "pkl", "pickle", "ckpt", "h5", "msgpack", "onnx", "npz", "gguf"];

/// Whether bytes begin like a pickle, or like the archive in which PyTorch wraps one.
pub(crate) fn is_pickle(bytes: &[u8]) -> bool {
    bytes.starts_with(b"PK\x03\x04") || matches!(bytes, [0x80, 2..=5, ..] if !is_length(bytes))
}

/// The length of a safetensors header can begin with the same two bytes; then zeros and a brace follow.
fn is_length(bytes: &[u8]) -> bool {
    bytes.len() > 8 && bytes[4..8] == [0; 4] && bytes[8] == b'{'
}

/// Whether a file's name says that it holds weights in another form than safetensors.
pub(crate) fn is_foreign_weights(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ENDINGS.iter().any(|known| ending.eq_ignore_ascii_case(known)))
}
