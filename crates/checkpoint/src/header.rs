//! The header of a safetensors file: read with every claim checked, and written.
//!
//! Format: a little-endian u64 length, that many bytes of JSON, then the tensors back to back without gaps. Format and limits:
//! <https://github.com/huggingface/safetensors>. Read here rather than by that crate so that an error names the tensor.

use std::{collections::BTreeMap, fmt};

use ressa_experiment::places::without_places;
use safetensors::Dtype;
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::{Map, Value, json};

use crate::Entry;

/// Bytes that say how long the header is.
pub(crate) const PREFIX: usize = size_of::<u64>();
/// Longest header that is read, as in the format's own library.
const LIMIT: u64 = 100_000_000;
/// Name of the free-form entry.
const METADATA: &str = "__metadata__";
/// The free-form text that says which library's tensors these are.
const FORMAT: &str = "format";
/// What `transformers` knows there; the first is PyTorch.
const FORMATS: [&str; 4] = ["pt", "tf", "flax", "mlx"];

/// A checked header.
#[derive(Debug)]
pub(crate) struct Header {
    /// Where the first tensor begins in the file.
    pub data: usize,
    /// Tensors in the order of their bytes.
    pub entries: Vec<Entry>,
    /// Free-form texts; none where the header has no entry for them.
    pub metadata: Option<BTreeMap<String, String>>,
}

/// A header as written, names in their order and possibly twice.
struct Written {
    tensors: Vec<(String, Info)>,
    metadata: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct Info {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (u64, u64),
}

/// Reads and checks the header at the beginning of a file; an error says in words what is wrong with the file.
pub(crate) fn read(file: &[u8]) -> Result<Header, String> {
    if let Some(other) = known_other(file) {
        return Err(other.to_owned());
    }
    let Some(prefix) = file.first_chunk::<PREFIX>() else {
        return Err(format!("{} bytes are too few for a safetensors file; copy it again", file.len()));
    };
    let length = u64::from_le_bytes(*prefix);
    if length > LIMIT {
        return Err(format!(
            "its header claims {length} bytes, more than any safetensors file has; it is damaged or another format"
        ));
    }
    let data = PREFIX + length as usize;
    let Some(text) = file.get(PREFIX..data) else {
        return Err(format!(
            "its header claims {length} bytes, the file has {}; it was not copied whole",
            file.len() - PREFIX
        ));
    };
    let written: Written = serde_json::from_slice(text)
        .map_err(|e| format!("its header cannot be read ({e}); it is damaged or another format"))?;
    let entries = placed(written.tensors, data, file.len())?;
    Ok(Header { data, entries, metadata: written.metadata })
}

/// Formats that are met under this name.
fn known_other(file: &[u8]) -> Option<&'static str> {
    if crate::pickle::is_pickle(file) {
        return Some("it is a pickled checkpoint, which is refused; convert it to safetensors");
    }
    if file.starts_with(b"version https://git-lfs") {
        return Some("it is a Git LFS pointer, not the file itself; fetch it with `git lfs pull` or `ressa fetch`");
    }
    if file.starts_with(b"<!DOCTYPE") || file.starts_with(b"<html") {
        return Some("it is a web page, not the file itself; download it again");
    }
    None
}

fn placed(tensors: Vec<(String, Info)>, data: usize, file: usize) -> Result<Vec<Entry>, String> {
    let available = (file - data) as u64;
    let mut entries = Vec::with_capacity(tensors.len());
    for (name, info) in tensors {
        let Info { dtype, shape, data_offsets: (from, to) } = info;
        let Ok(dtype) = Dtype::deserialize(Value::String(dtype.clone())) else {
            return Err(format!("tensor `{name}` has type `{dtype}`, which the format does not have"));
        };
        let elements = shape.iter().try_fold(1usize, |product, &size| product.checked_mul(size));
        let Some(bits) = elements.and_then(|elements| elements.checked_mul(dtype.bitsize())) else {
            return Err(format!("tensor `{name}` has shape {shape:?}, more elements than can be counted"));
        };
        if to < from || to > available {
            return Err(format!(
                "tensor `{name}` claims bytes {from} to {to} of {available}; the file is damaged or was not copied whole"
            ));
        }
        if bits % 8 != 0 || (to - from) != (bits / 8) as u64 {
            let needed = bits.div_ceil(8);
            return Err(format!(
                "tensor `{name}` of type {dtype} and shape {shape:?} needs {needed} bytes, its place has {}",
                to - from
            ));
        }
        let range = data + from as usize..data + to as usize;
        entries.push(Entry { name, dtype, shape, range });
    }
    // Empty tensors share their place with the next one; names make the order fixed.
    entries.sort_by(|a, b| (a.range.start, a.range.end, &a.name).cmp(&(b.range.start, b.range.end, &b.name)));
    let mut end = data;
    let mut before = "the header";
    for Entry { name, range, .. } in &entries {
        if range.start < end {
            return Err(format!("tensor `{name}` overlaps `{before}`; the file is damaged"));
        }
        if range.start > end {
            let gap = range.start - end;
            return Err(format!("{gap} bytes before tensor `{name}` belong to nothing; the file is damaged"));
        }
        (end, before) = (range.end, name);
    }
    match file - end {
        0 => Ok(entries),
        left => Err(format!("{left} bytes after the last tensor belong to nothing; the file is damaged")),
    }
}

impl<'de> Deserialize<'de> for Written {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(WrittenVisitor)
    }
}

struct WrittenVisitor;

impl<'de> Visitor<'de> for WrittenVisitor {
    type Value = Written;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with an entry per tensor")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Written, A::Error> {
        let mut written = Written { tensors: Vec::new(), metadata: None };
        let mut seen = std::collections::HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            if !seen.insert(name.clone()) {
                return Err(serde::de::Error::custom(format_args!("`{name}` is there twice")));
            }
            if name == METADATA {
                written.metadata = map.next_value()?;
                continue;
            }
            let info = map.next_value().map_err(|e| serde::de::Error::custom(format_args!("tensor `{name}`: {e}")))?;
            written.tensors.push((name, info));
        }
        Ok(written)
    }
}

/// Names of the tensors of a header as it is written, by where their bytes begin in the file.
pub(crate) fn names(written: &[u8]) -> Result<BTreeMap<usize, Vec<String>>, String> {
    let text = written.get(PREFIX..).unwrap_or_default();
    let header: Written = serde_json::from_slice(text).map_err(|e| format!("its header cannot be read ({e})"))?;
    let mut names: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for (name, info) in header.tensors {
        names.entry(written.len() + info.data_offsets.0 as usize).or_default().push(name);
    }
    Ok(names)
}

/// The free-form texts with which others open a file: `transformers` refuses metadata without `format`, and takes a file without any; texts
/// that name a place on this machine are left out. `None` where they stay as they are.
pub(crate) fn published(metadata: &BTreeMap<String, String>) -> Option<BTreeMap<String, String>> {
    let mut kept = metadata.clone();
    kept.retain(|_, text| without_places(text) == *text);
    if !kept.get(FORMAT).is_some_and(|format| FORMATS.contains(&format.as_str())) {
        kept.insert(FORMAT.to_owned(), FORMATS[0].to_owned());
    }
    (kept != *metadata).then_some(kept)
}

/// What a tensor's place is to be a multiple of, in bytes.
pub(crate) fn alignment(dtype: Dtype) -> usize {
    dtype.bitsize().div_ceil(8).next_power_of_two()
}

/// The length and the header of a file with other free-form texts; tensors, their order and their places behind the header stay.
pub(crate) fn with_metadata(written: &[u8], metadata: &BTreeMap<String, String>) -> Option<Vec<u8>> {
    let mut header: Map<String, Value> = serde_json::from_slice(written.get(PREFIX..)?).ok()?;
    header.insert(METADATA.to_owned(), json!(metadata));
    Some(padded(&Value::Object(header)))
}

/// The beginning of a new file: length and header for tensors that lie back to back in the order given. Padded with blanks so that the
/// tensors begin at a multiple of eight bytes.
pub(crate) fn write<'a>(tensors: impl Iterator<Item = &'a Entry>, metadata: &BTreeMap<String, String>) -> Vec<u8> {
    let mut header = Map::new();
    if !metadata.is_empty() {
        header.insert(METADATA.to_owned(), json!(metadata));
    }
    let mut at = 0;
    for entry in tensors {
        let end = at + entry.bytes();
        let info = json!({ "dtype": entry.dtype, "shape": entry.shape, "data_offsets": [at, end] });
        header.insert(entry.name.clone(), info);
        at = end;
    }
    padded(&Value::Object(header))
}

/// Length and text of a header, filled up with blanks.
fn padded(header: &Value) -> Vec<u8> {
    let mut text = header.to_string().into_bytes();
    text.resize(text.len().next_multiple_of(PREFIX), b' ');
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.append(&mut text);
    bytes
}
