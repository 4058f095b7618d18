//! Checkpoint files: safetensors, single or sharded, mapped read-only, every request checked.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs::File,
    path::{Path, PathBuf},
};

use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors, View, tensor::TensorInfo};
use tch::{Device, Kind, Tensor};

use crate::{ModelError, TensorMap, TensorSource, scope::shaped};

/// File name of a checkpoint in one piece.
pub const SINGLE: &str = "model.safetensors";
/// File name of the list of pieces.
pub const INDEX: &str = "model.safetensors.index.json";
/// Largest list of pieces that is read. The published ones are a few hundred kilobytes.
const INDEX_LIMIT: u64 = 64 << 20;

/// Tensors that published checkpoints carry although the network computes or shares them, with the reason.
const KNOWN_LEFTOVERS: [(&str, &str); 5] = [
    ("position_ids", "a range that the network computes"),
    ("rotary_emb.inv_freq", "a constant that the network computes"),
    ("encoder.embed_tokens.weight", "a copy of the shared embedding"),
    ("decoder.embed_tokens.weight", "a copy of the shared embedding"),
    ("lm_head.weight", "a copy of the tied embedding"),
];

/// A checkpoint opened for reading. f32, f16 and bf16 tensors are handed out as f32 copies; nothing is ever written to the files.
#[derive(Debug)]
pub struct Weights {
    files: Vec<(PathBuf, Piece)>,
    place: BTreeMap<String, usize>,
    taken: BTreeSet<String>,
}

/// One mapped file and its checked header.
#[derive(Debug)]
pub(crate) struct Piece {
    map: Mmap,
    /// Where the data begins.
    start: usize,
    tensors: HashMap<String, TensorInfo>,
    /// The header's free-form text.
    pub metadata: HashMap<String, String>,
}

impl Piece {
    /// Maps a file and checks its header: bounded length, known types, tensors back to back, nothing missing at the end.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        let file = File::open(path).map_err(ModelError::io("read", path))?;
        // SAFETY: the map is private and read-only. Someone truncating the file meanwhile would end the process; checkpoint files are
        // replaced by renaming, never rewritten in place.
        let map = unsafe { Mmap::map(&file) }.map_err(ModelError::io("map", path))?;
        let (header, metadata) = SafeTensors::read_metadata(&map).map_err(|e| {
            let pickled = map.starts_with(b"PK\x03\x04") || map.starts_with(b"\x80");
            let reason = if pickled {
                "it is a pickled checkpoint; convert it to safetensors".to_owned()
            } else {
                e.to_string()
            };
            ModelError::file(path, reason)
        })?;
        let tensors = metadata.tensors().into_iter().map(|(name, info)| (name, info.clone())).collect();
        let metadata = metadata.metadata().clone().unwrap_or_default();
        Ok(Self { map, start: size_of::<u64>() + header, tensors, metadata })
    }

    pub fn names(&self) -> impl Iterator<Item = &String> {
        self.tensors.keys()
    }

    /// A copy of a tensor in its own type. The header's check has bounded shape and offsets.
    pub fn read(&self, name: &str) -> Result<Option<Tensor>, ModelError> {
        let Some(info) = self.tensors.get(name) else { return Ok(None) };
        let kind = match info.dtype {
            Dtype::F32 => Kind::Float,
            Dtype::F16 => Kind::Half,
            Dtype::BF16 => Kind::BFloat16,
            Dtype::F64 => Kind::Double,
            Dtype::I64 => Kind::Int64,
            Dtype::I32 => Kind::Int,
            Dtype::U8 => Kind::Uint8,
            Dtype::BOOL => Kind::Bool,
            other => {
                return Err(ModelError::Torch(format!("tensor `{name}` has type `{other:?}`, which is not supported")));
            }
        };
        let (from, to) = info.data_offsets;
        let shape: Vec<i64> = info.shape.iter().map(|&n| n as i64).collect();
        Ok(Some(Tensor::f_from_data_size(&self.map[self.start + from..self.start + to], &shape, kind)?))
    }
}

impl Weights {
    /// Opens the checkpoint in a model folder: `model.safetensors`, or the pieces that `model.safetensors.index.json` names.
    pub fn open(folder: &Path) -> Result<Self, ModelError> {
        let index = folder.join(INDEX);
        if index.exists() {
            return Self::open_sharded(folder, &index);
        }
        let path = folder.join(SINGLE);
        if !path.exists() {
            let pickled =
                folder.join("pytorch_model.bin").exists() || folder.join("pytorch_model.bin.index.json").exists();
            let reason = if pickled {
                "it holds a pickled checkpoint, which is refused; convert it to safetensors".to_owned()
            } else {
                format!("it holds neither `{SINGLE}` nor `{INDEX}`")
            };
            return Err(ModelError::file(folder, reason));
        }
        let piece = Piece::open(&path)?;
        let place = piece.names().map(|name| (name.clone(), 0)).collect();
        Ok(Self { files: vec![(path, piece)], place, taken: BTreeSet::new() })
    }

    fn open_sharded(folder: &Path, index: &Path) -> Result<Self, ModelError> {
        #[derive(serde::Deserialize)]
        struct Index {
            weight_map: BTreeMap<String, String>,
        }
        let length = std::fs::metadata(index).map_err(ModelError::io("read", index))?.len();
        if length > INDEX_LIMIT {
            return Err(ModelError::file(index, format!("{length} bytes are too many for a list of pieces")));
        }
        let text = std::fs::read(index).map_err(ModelError::io("read", index))?;
        let listed: Index = serde_json::from_slice(&text).map_err(|e| ModelError::file(index, e))?;
        let names: BTreeSet<&String> = listed.weight_map.values().collect();
        let mut files = Vec::new();
        let mut place = BTreeMap::new();
        for (at, file) in names.into_iter().enumerate() {
            if Path::new(file).components().count() != 1 || file.starts_with('.') || !file.ends_with(".safetensors") {
                return Err(ModelError::file(
                    index,
                    format!("`{file}` is not the name of a safetensors file in this folder"),
                ));
            }
            let path = folder.join(file);
            let piece = Piece::open(&path)?;
            for name in piece.names() {
                if place.insert(name.clone(), at).is_some() {
                    return Err(ModelError::file(&path, format!("tensor `{name}` is in two pieces")));
                }
            }
            files.push((path, piece));
        }
        if let Some(absent) = listed.weight_map.keys().find(|name| !place.contains_key(*name)) {
            return Err(ModelError::file(index, format!("tensor `{absent}` is in none of the pieces")));
        }
        Ok(Self { files, place, taken: BTreeSet::new() })
    }

    /// Ends the reading: an error names every tensor that nobody asked for, except known leftovers.
    pub fn finish(self) -> Result<(), ModelError> {
        let known = |name: &str| {
            KNOWN_LEFTOVERS.iter().any(|(leftover, _reason)| {
                name.strip_suffix(leftover).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            })
        };
        let left: Vec<String> =
            self.place.into_keys().filter(|name| !self.taken.contains(name) && !known(name)).collect();
        if left.is_empty() { Ok(()) } else { Err(ModelError::Leftover(left)) }
    }
}

impl TensorSource for Weights {
    fn tensor(&mut self, name: &str, shape: &[i64]) -> Result<Tensor, ModelError> {
        let missing = || ModelError::Missing(name.to_owned());
        let (path, piece) = &self.files[*self.place.get(name).ok_or_else(missing)?];
        let tensor = piece.read(name)?.ok_or_else(missing)?;
        if !tensor.is_floating_point() {
            return Err(ModelError::file(path, format!("tensor `{name}` holds whole numbers, not weights")));
        }
        self.taken.insert(name.to_owned());
        Ok(shaped(name, tensor, shape)?.f_to_kind(Kind::Float)?)
    }

    fn contains(&self, name: &str) -> bool {
        self.place.contains_key(name)
    }
}

/// Type of the weights in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// Half the size; eight bits of precision.
    Bf16,
    /// As computed.
    F32,
}

impl Storage {
    /// The name in `config.json`.
    pub fn name(self) -> &'static str {
        match self {
            Storage::Bf16 => "bfloat16",
            Storage::F32 => "float32",
        }
    }
}

/// A tensor's bytes, ready for a file.
struct Bytes {
    dtype: Dtype,
    shape: Vec<usize>,
    data: Vec<u8>,
}

impl View for Bytes {
    fn dtype(&self) -> Dtype {
        self.dtype
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> std::borrow::Cow<'_, [u8]> {
        (&self.data).into()
    }
    fn data_len(&self) -> usize {
        self.data.len()
    }
}

/// Writes tensors into a safetensors file: same tensors, same bytes. Kinds are kept; f32, bf16, i64, u8 and bool can be written.
/// `note` becomes the header's only free-form entry (with more, their order would not be fixed).
pub(crate) fn write(path: &Path, tensors: &TensorMap, note: (&str, String)) -> Result<(), ModelError> {
    let mut views = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        let tensor = tensor.f_detach()?.f_to_device(Device::Cpu)?.f_contiguous()?;
        let dtype = match tensor.kind() {
            Kind::Float => Dtype::F32,
            Kind::BFloat16 => Dtype::BF16,
            Kind::Int64 => Dtype::I64,
            Kind::Uint8 => Dtype::U8,
            Kind::Bool => Dtype::BOOL,
            other => {
                return Err(ModelError::file(path, format!("tensor `{name}` of type `{other:?}` cannot be written")));
            }
        };
        let mut data = vec![0u8; tensor.numel() * tensor.kind().elt_size_in_bytes()];
        tensor.f_copy_data_u8(&mut data, tensor.numel())?;
        views.push((name, Bytes { dtype, shape: tensor.size().iter().map(|&n| n as usize).collect(), data }));
    }
    let metadata = HashMap::from([(note.0.to_owned(), note.1)]);
    safetensors::serialize_to_file(views, Some(metadata), path).map_err(|e| match e {
        safetensors::SafeTensorError::IoError(source) => {
            ModelError::Io { action: "write", path: path.to_owned(), source }
        }
        other => ModelError::file(path, other),
    })
}

/// Converts to the type in which weights are stored.
pub(crate) fn stored(tensors: &TensorMap, storage: Storage) -> Result<TensorMap, ModelError> {
    let kind = match storage {
        Storage::Bf16 => Kind::BFloat16,
        Storage::F32 => Kind::Float,
    };
    tensors.iter().map(|(name, tensor)| Ok((name.clone(), tensor.f_detach()?.f_to_kind(kind)?))).collect()
}

/// Reads every tensor of a file in its own type, with the header's entry `note`.
pub(crate) fn read(path: &Path, note: &str) -> Result<(TensorMap, Option<String>), ModelError> {
    let piece = Piece::open(path)?;
    let mut tensors = TensorMap::new();
    for name in piece.names() {
        if let Some(tensor) = piece.read(name)? {
            tensors.insert(name.clone(), tensor);
        }
    }
    let note = piece.metadata.get(note).cloned();
    Ok((tensors, note))
}
