//! Random weights as safetensors files, written piece by piece: the memory needed does not depend on the model's size.
//!
//! A value is a function of the seed, the tensor's name and the position in it, so files are the same bytes on every machine and whatever
//! the sizes of pieces.

use std::{collections::BTreeMap, fs, io::Write, path::Path};

use ressa_checkpoint::{CheckpointError, INDEX, Index, SINGLE};
use ressa_experiment::job::Compute;
use serde_json::{Map, Value, json};

/// Largest file in bytes; as large as the hub's clients write them.
pub const LARGEST: u64 = 5_000_000_000;

/// Values made at once.
const PIECE: usize = 1 << 20;

/// How the values of a tensor are spread.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Spread {
    mean: f32,
    deviation: f32,
}

/// What the files hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values {
    /// Values drawn from a seed.
    Random(u64),
    /// Zeros, as holes in the files: they take no room on the disk.
    Hollow,
}

/// Names and shapes of tensors in the order in which they are written.
pub type Shapes = [(String, Vec<i64>)];

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Values.
    pub parameters: u64,
    /// Bytes of the values.
    pub bytes: u64,
    /// Files with weights.
    pub files: usize,
}

/// Bytes of a value.
fn width(dtype: Compute) -> u64 {
    if dtype == Compute::Float32 { 4 } else { 2 }
}

fn elements(shape: &[i64]) -> u64 {
    shape.iter().map(|&size| size.max(0) as u64).fold(1, u64::saturating_mul)
}

/// Bytes that all tensors take.
pub fn bytes(shapes: &Shapes, dtype: Compute) -> u64 {
    let each = shapes.iter().map(|(_, shape)| elements(shape).saturating_mul(width(dtype)));
    each.fold(0, u64::saturating_add)
}

/// Writes all tensors: one file, or several of at most `largest` bytes and their list.
pub fn write(
    folder: &Path,
    shapes: &Shapes,
    values: Values,
    dtype: Compute,
    largest: u64,
    progress: crate::Progress<'_>,
) -> Result<Written, CheckpointError> {
    let width = width(dtype);
    let parameters = shapes.iter().map(|(_, shape)| elements(shape)).sum::<u64>();
    let bytes = parameters * width;

    let mut files: Vec<&Shapes> = Vec::new();
    let (mut first, mut filled) = (0, 0);
    for (at, (_, shape)) in shapes.iter().enumerate() {
        let more = elements(shape) * width;
        if filled > 0 && filled + more > largest {
            files.push(&shapes[first..at]);
            (first, filled) = (at, 0);
        }
        filled += more;
    }
    files.push(&shapes[first..]);

    let mut map = BTreeMap::new();
    let mut done = 0;
    for (number, tensors) in files.iter().enumerate() {
        let name = match files.len() {
            1 => SINGLE.to_owned(),
            many => format!("model-{:05}-of-{many:05}.safetensors", number + 1),
        };
        map.extend(tensors.iter().map(|(tensor, _)| (tensor.clone(), Value::from(name.as_str()))));
        let path = folder.join(&name);
        let mut told = |written: u64| {
            done += written;
            progress(done as f64 / bytes.max(1) as f64, &name);
        };
        file(&path, tensors, values, dtype, &mut told).map_err(CheckpointError::io("write", &path))?;
    }
    if files.len() > 1 {
        let metadata: Map<String, Value> = Map::from_iter([
            ("total_parameters".to_owned(), parameters.into()),
            ("total_size".to_owned(), bytes.into()),
        ]);
        let index = Index { metadata, weight_map: map.into_iter().collect() };
        let path = folder.join(INDEX);
        let text = serde_json::to_string_pretty(&index).map_err(|e| CheckpointError::file(&path, e))? + "\n";
        fs::write(&path, text).map_err(CheckpointError::io("write", &path))?;
    }
    Ok(Written { parameters, bytes, files: files.len() })
}

fn file(
    path: &Path,
    tensors: &Shapes,
    values: Values,
    dtype: Compute,
    told: &mut dyn FnMut(u64),
) -> std::io::Result<()> {
    let (width, name) = match dtype {
        Compute::Float32 => (4, "F32"),
        Compute::Bfloat16 => (2, "BF16"),
        Compute::Float16 => (2, "F16"),
    };
    let mut header = Map::new();
    header.insert("__metadata__".to_owned(), json!({ "format": "pt" }));
    let mut at = 0u64;
    for (tensor, shape) in tensors {
        let end = at + shape.iter().map(|&size| size.max(0) as u64).product::<u64>() * width;
        header.insert(tensor.clone(), json!({ "dtype": name, "shape": shape, "data_offsets": [at, end] }));
        at = end;
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    // Tensors start at a multiple of eight bytes.
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut file = fs::File::create(path)?;
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(&header)?;
    let Values::Random(seed) = values else {
        told(at);
        return file.set_len(8 + header.len() as u64 + at);
    };
    let mut bytes = Vec::with_capacity(PIECE * width as usize);
    for (tensor, shape) in tensors {
        let (key, spread) = (key(seed, tensor), spread(tensor, shape));
        let count = shape.iter().map(|&size| size.max(0) as u64).product::<u64>();
        let mut at = 0;
        while at < count {
            let end = count.min(at + PIECE as u64);
            bytes.clear();
            let values = (at..end).map(|position| spread.mean + spread.deviation * bell(key, position));
            match dtype {
                Compute::Float32 => bytes.extend(values.flat_map(f32::to_le_bytes)),
                Compute::Bfloat16 => bytes.extend(values.flat_map(|value| half::bf16::from_f32(value).to_le_bytes())),
                Compute::Float16 => bytes.extend(values.flat_map(|value| half::f16::from_f32(value).to_le_bytes())),
            }
            file.write_all(&bytes)?;
            told(bytes.len() as u64);
            at = end;
        }
    }
    file.flush()
}

/// Scales that keep activations near 1 through any number of blocks.
fn spread(name: &str, shape: &[i64]) -> Spread {
    let fan_in: i64 = shape.iter().skip(1).product();
    match shape.len() {
        0 | 1 if name.ends_with("bias") => Spread { mean: 0.0, deviation: 0.01 },
        0 | 1 => Spread { mean: 1.0, deviation: 0.0 },
        _ => Spread { mean: 0.0, deviation: (fan_in.max(1) as f32).sqrt().recip() },
    }
}

/// Start of a tensor's stream.
fn key(seed: u64, name: &str) -> u64 {
    name.bytes().fold(mix(seed), |state, byte| mix(state ^ u64::from(byte)))
}

/// A nearly normal value of mean 0 and deviation 1: four uniform numbers, summed.
fn bell(key: u64, position: u64) -> f32 {
    let bits = mix(key.wrapping_add(position.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
    let sum = (bits & 0xffff) + (bits >> 16 & 0xffff) + (bits >> 32 & 0xffff) + (bits >> 48);
    // The sum has the mean 4 * 32767.5 and the deviation sqrt(4 / 12) * 65536.
    (sum as f32 - 131_070.0) * (1.0 / 37_837.227)
}

/// SplitMix64's finaliser: every bit of the result depends on every bit given.
fn mix(bits: u64) -> u64 {
    let bits = bits.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}
