//! Where a network's tensors come from: a checkpoint, a map in memory, or nowhere yet.

use std::{cell::RefCell, collections::BTreeMap, fmt::Display, rc::Rc};

use tch::{Device, Kind, Tensor};

use crate::{ModelError, weights::Rounding};

/// Tensors by the names they have in a checkpoint.
pub type TensorMap = BTreeMap<String, Tensor>;

/// Answers a network's requests for its tensors.
pub trait TensorSource {
    /// The tensor of this name, which must have this shape, as `kind`.
    fn tensor(&mut self, name: &str, shape: &[i64], kind: Kind) -> Result<Tensor, ModelError>;

    /// A matrix whose user converts it when it is used: may come in the type in which it is stored.
    fn matrix(&mut self, name: &str, shape: &[i64], kind: Kind) -> Result<Tensor, ModelError> {
        self.tensor(name, shape, kind)
    }

    /// Whether the tensor is there. Decides about optional parts.
    fn contains(&self, name: &str) -> bool;

    /// Whether both tensors are there and hold the same values.
    fn same(&self, name: &str, other: &str) -> bool;
}

/// A source seen from one module: names are completed with the module's path.
#[derive(Clone)]
pub struct Scope<'a> {
    source: Rc<RefCell<&'a mut dyn TensorSource>>,
    path: String,
    kind: Kind,
    rounding: Rounding,
}

impl<'a> Scope<'a> {
    /// The outermost scope of a network that computes in `kind`.
    pub fn root(source: &'a mut dyn TensorSource, kind: Kind, rounding: Rounding) -> Self {
        Self { source: Rc::new(RefCell::new(source)), path: String::new(), kind, rounding }
    }

    /// The module below this one called `part`; `part` may itself be a path.
    pub fn at(&self, part: impl Display) -> Scope<'a> {
        Self { source: Rc::clone(&self.source), path: self.name(part), ..self.clone() }
    }

    /// The same module, computed in f32 where the network computes in f16: what the reference keeps from overflowing.
    pub fn wide(&self) -> Scope<'a> {
        let kind = if self.kind == Kind::Half { Kind::Float } else { self.kind };
        Self { kind, ..self.clone() }
    }

    /// The tensor `leaf` of this module, in the type of the computation.
    pub fn tensor(&self, leaf: &str, shape: &[i64]) -> Result<Tensor, ModelError> {
        self.source.borrow_mut().tensor(&self.name(leaf), shape, self.kind)
    }

    /// The matrix `leaf` of this module; the user converts it, see [`TensorSource::matrix`].
    pub fn matrix(&self, leaf: &str, shape: &[i64]) -> Result<Tensor, ModelError> {
        self.source.borrow_mut().matrix(&self.name(leaf), shape, self.kind)
    }

    /// Whether this module has a tensor `leaf`.
    pub fn contains(&self, leaf: &str) -> bool {
        self.source.borrow().contains(&self.name(leaf))
    }

    /// Whether this module has tensors `leaf` and `other` and they hold the same values.
    pub fn same(&self, leaf: &str, other: &str) -> bool {
        self.source.borrow().same(&self.name(leaf), &self.name(other))
    }

    /// This module's path.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The type of the computation.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether libtorch's fused kernels may be used although they round elsewhere than the reference: always in f32.
    pub fn fused(&self) -> bool {
        self.kind == Kind::Float || self.rounding == Rounding::Fused
    }

    fn name(&self, part: impl Display) -> String {
        if self.path.is_empty() { part.to_string() } else { format!("{}.{part}", self.path) }
    }
}

/// Checks a shape on behalf of a source.
pub(crate) fn shaped(name: &str, tensor: Tensor, shape: &[i64]) -> Result<Tensor, ModelError> {
    let found = tensor.size();
    if found == shape {
        return Ok(tensor);
    }
    Err(ModelError::Shape { name: name.to_owned(), found, wanted: shape.to_vec() })
}

impl TensorSource for &TensorMap {
    fn tensor(&mut self, name: &str, shape: &[i64], kind: Kind) -> Result<Tensor, ModelError> {
        Ok(self.matrix(name, shape, kind)?.f_to_kind(kind)?)
    }

    fn matrix(&mut self, name: &str, shape: &[i64], _kind: Kind) -> Result<Tensor, ModelError> {
        let tensor = self.get(name).ok_or_else(|| ModelError::Missing(name.to_owned()))?;
        shaped(name, tensor.shallow_clone(), shape)
    }

    fn contains(&self, name: &str) -> bool {
        self.contains_key(name)
    }

    fn same(&self, name: &str, other: &str) -> bool {
        self.get(name).zip(self.get(other)).is_some_and(|(a, b)| a.size() == b.size() && a.equal(b))
    }
}

/// Records what a network asks for and answers with zeros that take no memory. Optional parts are there.
#[derive(Debug, Default)]
pub struct Shapes(Vec<(String, Vec<i64>)>);

impl Shapes {
    /// Names and shapes in the order in which they were asked for.
    pub fn into_inner(self) -> Vec<(String, Vec<i64>)> {
        self.0
    }
}

impl TensorSource for Shapes {
    fn tensor(&mut self, name: &str, shape: &[i64], kind: Kind) -> Result<Tensor, ModelError> {
        self.0.push((name.to_owned(), shape.to_vec()));
        Ok(Tensor::f_zeros([1], (kind, Device::Cpu))?.f_expand(shape, false)?)
    }

    fn contains(&self, _name: &str) -> bool {
        true
    }

    fn same(&self, _name: &str, _other: &str) -> bool {
        false
    }
}

/// Hands a source's tensors on and keeps each of them, on a device.
pub(crate) struct Keep<'a> {
    pub source: &'a mut dyn TensorSource,
    pub device: Device,
    pub kept: TensorMap,
}

impl Keep<'_> {
    fn keep(&mut self, name: &str, tensor: &Tensor) -> Result<Tensor, ModelError> {
        let tensor = tensor.f_to_device(self.device)?;
        self.kept.insert(name.to_owned(), tensor.shallow_clone());
        Ok(tensor)
    }
}

impl TensorSource for Keep<'_> {
    fn tensor(&mut self, name: &str, shape: &[i64], kind: Kind) -> Result<Tensor, ModelError> {
        let tensor = self.source.tensor(name, shape, kind)?;
        self.keep(name, &tensor)
    }

    fn matrix(&mut self, name: &str, shape: &[i64], kind: Kind) -> Result<Tensor, ModelError> {
        let tensor = self.source.matrix(name, shape, kind)?;
        self.keep(name, &tensor)
    }

    fn contains(&self, name: &str) -> bool {
        self.source.contains(name)
    }

    fn same(&self, name: &str, other: &str) -> bool {
        self.source.same(name, other)
    }
}
