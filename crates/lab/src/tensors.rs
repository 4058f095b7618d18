//! Tensors from and to safetensors files of a job.

use std::{collections::BTreeMap, path::Path};

use ressa_checkpoint::File;
use ressa_models::weights;
use ressa_runtime::Device;
use tch::Tensor;

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
        let kind = weights::kind(entry.dtype).ok_or_else(|| {
            LabError::input(
                self.file.path(),
                format!("tensor `{name}` has type `{:?}`, which is not supported", entry.dtype),
            )
        })?;
        let shape: Vec<i64> = entry.shape.iter().map(|&n| n as i64).collect();
        let tensor = Tensor::f_from_data_size(&self.file.read(entry), &shape, kind);
        let tensor = tensor.map_err(ressa_models::ModelError::from)?;
        Ok(Some(tensor.to_device(self.device)))
    }
}

/// Writes tensors in their own types.
pub(crate) fn save(path: &Path, tensors: &BTreeMap<String, Tensor>) -> Result<(), LabError> {
    Ok(weights::write(path, tensors, ("format", "pt".to_owned()))?)
}
