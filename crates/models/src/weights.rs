//! Checkpoint files as tensors: mapped by libtorch, every request checked, nothing copied that need not be.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use ressa_checkpoint::{Checkpoint, Dtype, Entry, File, Written, names::is_prunable, quantized};
use ressa_experiment::job::Compute;
use ressa_runtime::memory::{self, Advice};
use tch::{Device, Kind, Tensor};

use crate::{ModelError, TensorMap, TensorSource, scope::shaped};

pub use ressa_checkpoint::{INDEX, SINGLE};

/// Tensors that published checkpoints carry although they are copies, with the reason and the tensors below the same module that they may be
/// copies of.
const COPIES: [(&str, &str, &[&str]); 3] = [
    ("encoder.embed_tokens.weight", "a copy of T5's shared embedding", &["shared.weight"]),
    ("decoder.embed_tokens.weight", "a copy of T5's shared embedding", &["shared.weight"]),
    (
        "lm_head.weight",
        "a copy of the tied embedding",
        &["shared.weight", "model.embed_tokens.weight", "model.decoder.embed_tokens.weight"],
    ),
];

/// Where a model goes and how it computes there.
#[derive(Clone, Copy, Debug)]
pub struct LoadOptions {
    /// Where it computes.
    pub device: Device,
    /// Type of the computation. In f16 the parts that the reference keeps from overflowing compute in f32: T5's `wo`, BLIP-2's Q-Former,
    /// the query tokens.
    pub compute: Compute,
    /// On the host, bf16 and f16 weights are converted to f32 when loaded if their f32 copy takes no more bytes than this; otherwise they
    /// stay mapped in their own type and each layer converts its own when it runs. The numbers are the same.
    pub convert_up_to: u64,
    /// How results of fewer than 32 bits are rounded.
    pub rounding: Rounding,
}

/// Where a computation in bf16 or f16 rounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rounding {
    /// After the same operations as the reference, so that results can be compared with it.
    #[default]
    Reference,
    /// Where libtorch's fused kernels do: fewer roundings, fewer and faster kernels.
    Fused,
}

impl LoadOptions {
    /// Computing in f32 on a device. Up to 2 GiB are converted.
    pub fn on(device: Device) -> Self {
        Self { device, compute: Compute::Float32, convert_up_to: 2 << 30, rounding: Rounding::Reference }
    }

    /// The type of the computation as libtorch has it.
    pub fn kind(&self) -> Kind {
        match self.compute {
            Compute::Float32 => Kind::Float,
            Compute::Bfloat16 => Kind::BFloat16,
            Compute::Float16 => Kind::Half,
        }
    }
}

/// A checkpoint opened for reading. Its files are mapped by libtorch, privately: tensors keep their map alive, whatever becomes of this
/// value, and nothing can ever be written to the files. Someone truncating a file meanwhile would end the process; checkpoint files are
/// replaced by renaming, never rewritten in place.
#[derive(Debug)]
pub struct Weights {
    checkpoint: Checkpoint,
    /// Each file's bytes, in the order of the checkpoint's files.
    maps: Vec<Tensor>,
    device: Device,
    /// Whether matrices of fewer than 32 bits stay as they are stored.
    as_stored: bool,
    /// Whether all matrices stay as they are stored and nobody looks at their values before they are used.
    streamed: bool,
    taken: BTreeSet<String>,
}

impl Weights {
    /// Opens the checkpoint in a model folder: `model.safetensors`, or the pieces that `model.safetensors.index.json` names.
    pub fn open(folder: &Path, options: &LoadOptions) -> Result<Self, ModelError> {
        let checkpoint = Checkpoint::open(folder)?;
        if let Some(reason) = quantized(&checkpoint) {
            return Err(ModelError::file(folder, reason));
        }
        let maps = checkpoint.files().iter().map(map).collect::<Result<_, _>>()?;
        let elements: u64 = checkpoint.tensors().map(|(_, entry)| entry.elements() as u64).sum();
        let as_stored = options.device == Device::Cpu
            && options.compute == Compute::Float32
            && elements.saturating_mul(4) > options.convert_up_to;
        Ok(Self { checkpoint, maps, device: options.device, as_stored, streamed: false, taken: BTreeSet::new() })
    }

    /// As [`Weights::open`], for a network of which one block is used after the other: on the host every matrix, on another device every
    /// prunable one, stays mapped in its own type, and its values are not read, and so not checked to be finite, before they are used.
    pub fn open_streamed(folder: &Path, options: &LoadOptions) -> Result<Self, ModelError> {
        Ok(Self { streamed: true, ..Self::open(folder, options)? })
    }

    /// A handle on the maps.
    pub fn pages(&self) -> Pages {
        Pages { maps: self.maps.iter().map(Tensor::shallow_clone).collect() }
    }

    /// Ends the reading: an error names every tensor that nobody asked for, except known leftovers, and every copy that is none.
    pub fn finish(self) -> Result<(), ModelError> {
        let mut left = Vec::new();
        for name in self.checkpoint.names().filter(|name| !self.taken.contains(*name)) {
            if ressa_checkpoint::names::leftover(name).is_some() {
                continue;
            }
            let known = COPIES.iter().find_map(|(leftover, _reason, originals)| {
                let module = name.strip_suffix(leftover)?;
                (module.is_empty() || module.ends_with('.')).then_some((module, originals))
            });
            let Some((module, originals)) = known else {
                left.push(name.clone());
                continue;
            };
            let original = originals.iter().map(|o| format!("{module}{o}")).find(|o| self.taken.contains(o));
            match original {
                Some(original) if !self.same(name, &original) => {
                    return Err(ModelError::Copy { name: name.clone(), original });
                }
                None if !originals.is_empty() => left.push(name.clone()),
                _ => {}
            }
        }
        if left.is_empty() { Ok(()) } else { Err(ModelError::Leftover(left)) }
    }

    /// A tensor over the map, in its own type.
    fn stored(&self, name: &str) -> Result<Tensor, ModelError> {
        let (file, entry) = self.checkpoint.get(name).ok_or_else(|| ModelError::Missing(name.to_owned()))?;
        let kind = kind(entry.dtype)
            .ok_or_else(|| ModelError::Dtype { name: name.to_owned(), found: format!("{:?}", entry.dtype) })?;
        // A packed tensor is unpacked into the map now.
        file.bytes(entry);
        let at = self.checkpoint.files().iter().position(|other| other.path() == file.path()).unwrap_or_default();
        Ok(view(&self.maps[at], entry, kind)?)
    }

    fn checked(&mut self, name: &str, shape: &[i64]) -> Result<Tensor, ModelError> {
        let tensor = shaped(name, self.stored(name)?, shape)?;
        if !tensor.is_floating_point() {
            let found = self.checkpoint.get(name).map(|(_, entry)| format!("{:?}", entry.dtype)).unwrap_or_default();
            return Err(ModelError::Dtype { name: name.to_owned(), found });
        }
        let count = not_finite(&tensor);
        if count > 0 {
            return Err(ModelError::NotFinite { name: name.to_owned(), count });
        }
        self.taken.insert(name.to_owned());
        Ok(tensor)
    }
}

impl TensorSource for Weights {
    fn tensor(&mut self, name: &str, shape: &[i64], kind: Kind) -> Result<Tensor, ModelError> {
        Ok(self.checked(name, shape)?.f_to_device(self.device)?.f_to_kind(kind)?)
    }

    fn matrix(&mut self, name: &str, shape: &[i64], kind: Kind) -> Result<Tensor, ModelError> {
        let lengths: Vec<usize> = shape.iter().map(|&n| usize::try_from(n).unwrap_or_default()).collect();
        if self.streamed && (self.device == Device::Cpu || is_prunable(name, &lengths)) {
            let tensor = shaped(name, self.stored(name)?, shape)?;
            if tensor.is_floating_point() {
                self.taken.insert(name.to_owned());
                return Ok(tensor);
            }
        }
        let tensor = self.checked(name, shape)?;
        if self.as_stored && matches!(tensor.kind(), Kind::BFloat16 | Kind::Half) {
            return Ok(tensor);
        }
        Ok(tensor.f_to_device(self.device)?.f_to_kind(kind)?)
    }

    fn contains(&self, name: &str) -> bool {
        self.checkpoint.get(name).is_some()
    }

    fn same(&self, name: &str, other: &str) -> bool {
        let both = self.stored(name).ok().zip(self.stored(other).ok());
        both.is_some_and(|(a, b)| a.kind() == b.kind() && a.size() == b.size() && a.equal(&b))
    }
}

/// The maps that a network's tensors lie over, to say which pages are needed.
#[derive(Debug)]
pub struct Pages {
    maps: Vec<Tensor>,
}

impl Pages {
    /// Whether a tensor lies over a map: it takes no memory but for pages that are given back.
    pub fn hold(&self, tensor: &Tensor) -> bool {
        self.range(tensor).is_some()
    }

    /// The pages of a tensor will be needed soon. Nothing happens for a tensor with memory of its own.
    pub fn prefetch(&self, tensor: &Tensor) {
        if let Some((start, length)) = self.range(tensor) {
            // SAFETY: reading ahead changes nothing.
            unsafe { memory::advise(start, length, Advice::Soon) };
        }
    }

    /// The pages of a tensor need not stay in memory. Nothing happens for a tensor with memory of its own.
    pub fn release(&self, tensor: &Tensor) {
        if let Some((start, length)) = self.range(tensor) {
            // SAFETY: the range lies in a map of a checkpoint's file, into which nothing is ever written: no operation of this program
            // changes a weight in place.
            unsafe { memory::advise(start, length, Advice::Done) };
        }
    }

    /// No page need stay in memory.
    pub fn release_all(&self) {
        self.maps.iter().for_each(|map| self.release(map));
    }

    /// Beginning and length of a tensor that lies over a map.
    fn range(&self, tensor: &Tensor) -> Option<(*const u8, usize)> {
        if tensor.device() != Device::Cpu || !tensor.is_contiguous() {
            return None;
        }
        let (start, length) = (tensor.data_ptr() as usize, tensor.numel() * tensor.kind().elt_size_in_bytes());
        let inside = |map: &Tensor| {
            let from = map.data_ptr() as usize;
            from <= start && start + length <= from + map.numel()
        };
        (length > 0 && self.maps.iter().any(inside)).then_some((start as *const u8, length))
    }
}

/// The type that libtorch has for a file's.
pub fn kind(dtype: Dtype) -> Option<Kind> {
    Some(match dtype {
        Dtype::F32 => Kind::Float,
        Dtype::F16 => Kind::Half,
        Dtype::BF16 => Kind::BFloat16,
        Dtype::F64 => Kind::Double,
        Dtype::I64 => Kind::Int64,
        Dtype::I32 => Kind::Int,
        Dtype::U8 => Kind::Uint8,
        Dtype::BOOL => Kind::Bool,
        _ => return None,
    })
}

/// A file's bytes as a tensor that owns the map.
fn map(file: &File) -> Result<Tensor, ModelError> {
    let path = file.place();
    let name = path.to_str().ok_or_else(|| ModelError::file(&path, "its path is not UTF-8, which libtorch needs"))?;
    Ok(Tensor::f_from_file(name, false, file.map().len() as i64, (Kind::Uint8, Device::Cpu))?)
}

/// A tensor over a file's bytes; a copy where they are not aligned to its elements. The header's check has bounded shape and place.
fn view(bytes: &Tensor, entry: &Entry, kind: Kind) -> Result<Tensor, tch::TchError> {
    let shape: Vec<i64> = entry.shape.iter().map(|&n| n as i64).collect();
    let range = bytes.f_narrow(0, entry.range.start as i64, entry.range.len() as i64)?;
    let aligned = entry.range.start.is_multiple_of(kind.elt_size_in_bytes());
    if aligned {
        return range.f_view_dtype(kind)?.f_view(shape.as_slice());
    }
    let mut copy = range.f_empty_like()?;
    copy.f_copy_(&range)?;
    copy.f_view_dtype(kind)?.f_view(shape.as_slice())
}

/// Values of a tensor in the host's memory, contiguous, whose exponent has all bits set: infinities and what is no number.
fn not_finite(tensor: &Tensor) -> u64 {
    let kind = tensor.kind();
    let length = tensor.numel() * kind.elt_size_in_bytes();
    if length == 0 {
        return 0;
    }
    // SAFETY: the tensor is contiguous and on the host, so its elements are `length` bytes from its pointer on; it outlives the slice.
    let bytes = unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast::<u8>(), length) };
    match kind {
        Kind::BFloat16 => count(bytes, |b: [u8; 2]| u16::from_le_bytes(b) & 0x7f80 == 0x7f80),
        Kind::Half => count(bytes, |b: [u8; 2]| u16::from_le_bytes(b) & 0x7c00 == 0x7c00),
        Kind::Double => count(bytes, |b: [u8; 8]| !f64::from_le_bytes(b).is_finite()),
        _ => count(bytes, |b: [u8; 4]| u32::from_le_bytes(b) & 0x7f80_0000 == 0x7f80_0000),
    }
}

/// Elements of `N` bytes for which something holds, counted in blocks small enough for a narrow counter, which is what makes it fast.
fn count<const N: usize>(bytes: &[u8], holds: impl Fn([u8; N]) -> bool) -> u64 {
    const BLOCK: usize = 1 << 14;
    let (elements, _) = bytes.as_chunks::<N>();
    elements.chunks(BLOCK).map(|block| u64::from(block.iter().map(|&e| u16::from(holds(e))).sum::<u16>())).sum()
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

/// Writes tensors into a safetensors file: same tensors, same bytes. Kinds are kept; f64, f32, f16, bf16, i64, u8 and bool can be written.
/// `note` becomes the header's only free-form entry (with more, their order would not be fixed).
///
/// # Errors
/// A tensor of another kind; the file cannot be written.
pub fn write(path: &Path, tensors: &TensorMap, note: (&str, String)) -> Result<(), ModelError> {
    let mut written = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        let tensor = tensor.f_detach()?.f_to_device(Device::Cpu)?.f_contiguous()?;
        let dtype = match tensor.kind() {
            Kind::Double => Dtype::F64,
            Kind::Float => Dtype::F32,
            Kind::Half => Dtype::F16,
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
        written.push((name, Written { dtype, shape: tensor.size().iter().map(|&n| n as usize).collect(), data }));
    }
    let named = written.iter().map(|(name, tensor)| (name.as_str(), tensor));
    Ok(ressa_checkpoint::write(path, named, (note.0, &note.1))?)
}

/// Converts to the type in which weights are stored.
pub(crate) fn stored(tensors: &TensorMap, storage: Storage) -> Result<TensorMap, ModelError> {
    let kind = match storage {
        Storage::Bf16 => Kind::BFloat16,
        Storage::F32 => Kind::Float,
    };
    tensors.iter().map(|(name, tensor)| Ok((name.clone(), tensor.f_detach()?.f_to_kind(kind)?))).collect()
}

/// Reads every tensor of a file in its own type, copied, with the header's entry `note`.
///
/// # Errors
/// A file that is not safetensors, or holds a type that libtorch does not have.
pub fn read(path: &Path, note: &str) -> Result<(TensorMap, Option<String>), ModelError> {
    let file = File::open(path)?;
    let mut tensors = BTreeMap::new();
    for entry in file.entries() {
        let found = || ModelError::Dtype { name: entry.name.clone(), found: format!("{:?}", entry.dtype) };
        let shape: Vec<i64> = entry.shape.iter().map(|&n| n as i64).collect();
        let tensor = Tensor::f_from_data_size(&file.read(entry), &shape, kind(entry.dtype).ok_or_else(found)?)?;
        tensors.insert(entry.name.clone(), tensor);
    }
    Ok((tensors, file.metadata().get(note).cloned()))
}
