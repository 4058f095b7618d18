//! Golden files: tensors that a reference implementation computed.

use std::{collections::BTreeMap, path::Path};

use tch::Tensor;

/// Tensors by name, from a safetensors file.
#[derive(Debug)]
pub struct Golden {
    tensors: BTreeMap<String, Tensor>,
}

impl Golden {
    /// Reads a file. Fails the test with the path if it cannot.
    pub fn open(path: impl AsRef<Path>) -> Self {
        let path = path.as_ref();
        let tensors = Tensor::read_safetensors(path)
            .unwrap_or_else(|e| panic!("golden file `{}` cannot be read: {e}", path.display()));
        Self { tensors: tensors.into_iter().collect() }
    }

    /// The tensor `name`. Fails the test with the names that there are.
    pub fn get(&self, name: &str) -> Tensor {
        let names = || self.tensors.keys().cloned().collect::<Vec<_>>().join(", ");
        self.tensors.get(name).unwrap_or_else(|| panic!("no golden `{name}`; there are {}", names())).shallow_clone()
    }

    /// Whether there is a tensor `name`.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Names and tensors.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// Fails unless `actual` is the golden `name` up to `tolerance` (see [`crate::assert_close`]).
    #[track_caller]
    pub fn check(&self, name: &str, actual: &Tensor, tolerance: f64) {
        crate::assert_close(name, actual, &self.get(name), tolerance);
    }
}
