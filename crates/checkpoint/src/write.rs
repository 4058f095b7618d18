//! Writing a safetensors file of a few tensors at once.

use std::{borrow::Cow, collections::HashMap, path::Path};

use safetensors::{Dtype, SafeTensorError, View};

use crate::CheckpointError;

/// A tensor to be written.
#[derive(Clone, Debug, PartialEq)]
pub struct Written {
    /// Type of its elements.
    pub dtype: Dtype,
    /// Sizes.
    pub shape: Vec<usize>,
    /// Elements, little-endian.
    pub data: Vec<u8>,
}

impl Written {
    /// f32 values of a shape.
    pub fn floats(shape: Vec<usize>, values: &[f32]) -> Self {
        Self { dtype: Dtype::F32, shape, data: values.iter().flat_map(|value| value.to_le_bytes()).collect() }
    }
}

impl View for &Written {
    fn dtype(&self) -> Dtype {
        self.dtype
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        (&self.data).into()
    }
    fn data_len(&self) -> usize {
        self.data.len()
    }
}

/// Writes tensors into a file: same tensors, same bytes. `note` becomes the header's only free-form entry (with more, their order would
/// not be fixed).
pub fn write<'a>(
    path: &Path,
    tensors: impl IntoIterator<Item = (&'a str, &'a Written)>,
    note: (&str, &str),
) -> Result<(), CheckpointError> {
    let metadata = HashMap::from([(note.0.to_owned(), note.1.to_owned())]);
    safetensors::serialize_to_file(tensors, Some(metadata), path).map_err(|e| match e {
        SafeTensorError::IoError(source) => CheckpointError::io("write", path)(source),
        other => CheckpointError::file(path, other),
    })
}
