//! Writing a safetensors file of a few tensors at once.

use std::{borrow::Cow, collections::HashMap, io, path::Path};

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

    /// Whole numbers of a shape.
    pub fn whole(shape: Vec<usize>, values: &[i64]) -> Self {
        Self { dtype: Dtype::I64, shape, data: values.iter().flat_map(|value| value.to_le_bytes()).collect() }
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
        SafeTensorError::IoError(source) => CheckpointError::io("write", path)(plain(&source)),
        other => CheckpointError::file(path, other),
    })
}

/// What the system said, without the passing name under which the file is written before it gets its own.
fn plain(error: &io::Error) -> io::Error {
    let text = error.to_string();
    io::Error::new(error.kind(), text.split(" at path ").next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_file_and_no_passing_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nowhere/x.safetensors");
        let tensor = Written::floats(vec![1], &[1.0]);
        let error = write(&path, [("a", &tensor)], ("format", "pt")).unwrap_err();
        assert!(error.is_storage());
        let told = error.to_string();
        let shown = path.display().to_string();
        assert_eq!(told.matches("nowhere").count(), 1, "{told}");
        assert!(told.contains(&shown), "{told}");
    }
}
