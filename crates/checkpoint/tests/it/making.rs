//! Makes safetensors files byte by byte, sound or not.

use std::{fs, path::Path};

/// A tensor to be written.
pub struct Piece {
    pub name: &'static str,
    pub dtype: &'static str,
    pub shape: Vec<usize>,
    pub bytes: Vec<u8>,
}

/// f32 values.
pub fn f32s(name: &'static str, shape: &[usize], values: impl IntoIterator<Item = f32>) -> Piece {
    let bytes: Vec<u8> = values.into_iter().flat_map(f32::to_le_bytes).collect();
    assert_eq!(bytes.len(), 4 * shape.iter().product::<usize>());
    Piece { name, dtype: "F32", shape: shape.to_vec(), bytes }
}

/// The upper halves of f32 values.
pub fn bf16s(name: &'static str, shape: &[usize], values: impl IntoIterator<Item = f32>) -> Piece {
    let bytes: Vec<u8> = values.into_iter().flat_map(|value| ((value.to_bits() >> 16) as u16).to_le_bytes()).collect();
    assert_eq!(bytes.len(), 2 * shape.iter().product::<usize>());
    Piece { name, dtype: "BF16", shape: shape.to_vec(), bytes }
}

/// Values that repeat only after long, none of them zero.
pub fn values(many: usize) -> impl Iterator<Item = f32> {
    (0..many).map(|n| ((n * 7919 + 13) % 997) as f32 / 100.0 - 5.005)
}

/// A file of tensors back to back. The header is exactly `head` with the tensors after it, then `padding` blanks.
pub fn file(head: &str, padding: usize, pieces: &[Piece]) -> Vec<u8> {
    let mut at = 0;
    let mut header: Vec<String> = if head.is_empty() { Vec::new() } else { vec![head.to_owned()] };
    for piece in pieces {
        let end = at + piece.bytes.len();
        let (name, dtype, shape) = (piece.name, piece.dtype, &piece.shape);
        header.push(format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{at},{end}]}}"#));
        at = end;
    }
    let mut bytes = with_header(&format!("{{{}}}{}", header.join(","), " ".repeat(padding)));
    bytes.extend(pieces.iter().flat_map(|piece| &piece.bytes));
    bytes
}

/// A header of any text, with its true length before it.
pub fn with_header(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

/// Writes a file in a folder.
pub fn put(folder: &Path, name: &str, bytes: impl AsRef<[u8]>) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// Every file below a folder with its bytes, by path.
pub fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    fn walk(root: &Path, folder: &Path, found: &mut Vec<(String, Vec<u8>)>) {
        for item in fs::read_dir(folder).unwrap() {
            let path = item.unwrap().path();
            if path.is_dir() {
                walk(root, &path, found);
            } else {
                let name = path.strip_prefix(root).unwrap().display().to_string();
                found.push((name, fs::read(&path).unwrap()));
            }
        }
    }
    let mut found = Vec::new();
    walk(folder, folder, &mut found);
    found.sort();
    found
}
