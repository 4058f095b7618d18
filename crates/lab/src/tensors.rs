//! Tensors from and to safetensors files of a job.

use std::{collections::BTreeMap, path::Path};

use ressa_checkpoint::{Dtype, File, Written, write};
use ressa_runtime::Device;
use tch::{Kind, Tensor};

use crate::LabError;

/// A file of inputs: tensors are taken by name.
pub(crate) struct Inputs {
    file: File,
    device: Device,
}

impl Inputs {
    pub fn open(path: &Path, device: Device) -> Result<Self, LabError> {
        Ok(Self { file: File::open(path)?, device })
    }

    /// A tensor that must be there.
    pub fn get(&self, name: &str) -> Result<Tensor, LabError> {
        self.find(name)?.ok_or_else(|| {
            let names: Vec<&str> = self.file.entries().iter().map(|entry| entry.name.as_str()).collect();
            LabError::input(self.file.path(), format!("it has no tensor `{name}`; it has {}", names.join(", ")))
        })
    }

    /// A tensor that may be missing, on the device.
    pub fn find(&self, name: &str) -> Result<Option<Tensor>, LabError> {
        let Some(entry) = self.file.entries().iter().find(|entry| entry.name == name) else { return Ok(None) };
        let kind = kind(entry.dtype).ok_or_else(|| {
            LabError::input(self.file.path(), format!("tensor `{name}` has type `{:?}`, which is not supported", entry.dtype))
        })?;
        let shape: Vec<i64> = entry.shape.iter().map(|&n| n as i64).collect();
        let tensor = Tensor::f_from_data_size(self.file.bytes(entry), &shape, kind);
        let tensor = tensor.map_err(ressa_models::ModelError::from)?;
        Ok(Some(tensor.to_device(self.device)))
    }
}

fn kind(dtype: Dtype) -> Option<Kind> {
    Some(match dtype {
        Dtype::F64 => Kind::Double,
        Dtype::F32 => Kind::Float,
        Dtype::F16 => Kind::Half,
        Dtype::BF16 => Kind::BFloat16,
        Dtype::I64 => Kind::Int64,
        Dtype::I32 => Kind::Int,
        Dtype::U8 => Kind::Uint8,
        Dtype::BOOL => Kind::Bool,
        _ => return None,
    })
}

/// Writes tensors in their own types.
pub(crate) fn save(path: &Path, tensors: &BTreeMap<String, Tensor>) -> Result<(), LabError> {
    let mut written = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        let tensor = tensor.detach().to_device(Device::Cpu).contiguous();
        let dtype = match tensor.kind() {
            Kind::Double => Dtype::F64,
            Kind::Float => Dtype::F32,
            Kind::Half => Dtype::F16,
            Kind::BFloat16 => Dtype::BF16,
            Kind::Int64 => Dtype::I64,
            Kind::Uint8 => Dtype::U8,
            Kind::Bool => Dtype::BOOL,
            other => return Err(LabError::Unsupported(format!("a tensor of type `{other:?}` cannot be written"))),
        };
        let mut data = vec![0; tensor.numel() * tensor.kind().elt_size_in_bytes()];
        tensor.f_copy_data_u8(&mut data, tensor.numel()).map_err(ressa_models::ModelError::from)?;
        written.push((name, Written { dtype, shape: tensor.size().iter().map(|&n| n as usize).collect(), data }));
    }
    Ok(write(path, written.iter().map(|(name, tensor)| (name.as_str(), tensor)), ("format", "pt"))?)
}
