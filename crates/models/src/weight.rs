//! How the effective value of one tensor of a network comes about: as it is stored, under a mask, or with an update that trains.

use std::cell::OnceCell;

use tch::{Device, Kind, Tensor};

use crate::{KeepMask, ModelError, Scope, update::Update};

/// Which of its forms a weight has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As it is stored.
    Dense,
    /// Zero where a keep mask removes.
    Masked,
    /// A function of the stored value, the mask if there is one, and what an update trains.
    Updated,
}

/// A tensor of a network. Owns where it is, its type, its mask, what trains on it, and what becomes of all that when it is written.
///
/// The stored value is shared between models and never written to.
#[derive(Debug)]
pub struct Weight {
    /// Path in the checkpoint, such as `vision_model.encoder.layers.0.mlp.fc1.weight`.
    name: String,
    base: Tensor,
    /// Type of its network's computation.
    kind: Kind,
    keep: Option<KeepMask>,
    /// The masked value of a weight that is only masked, from its first use on.
    sparse: OnceCell<Tensor>,
    update: Option<Box<dyn Update>>,
}

impl Weight {
    /// A weight as it is stored.
    pub fn new(name: impl Into<String>, base: Tensor) -> Self {
        let kind = base.kind();
        Self { name: name.into(), base, kind, keep: None, sparse: OnceCell::new(), update: None }
    }

    /// The tensor `leaf` of a module, in the type of the computation.
    pub(crate) fn load(scope: &Scope<'_>, leaf: &str, shape: &[i64]) -> Result<Self, ModelError> {
        Ok(Self::new(scope.at(leaf).path(), scope.tensor(leaf, shape)?))
    }

    /// The matrix `leaf` of a module, which may stay in the type in which it is stored.
    pub(crate) fn load_matrix(scope: &Scope<'_>, leaf: &str, shape: &[i64]) -> Result<Self, ModelError> {
        Ok(Self { kind: scope.kind(), ..Self::new(scope.at(leaf).path(), scope.matrix(leaf, shape)?) })
    }

    /// Path in the checkpoint.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What masks and updates call it: its path, without the `.weight` of a linear or a norm.
    pub fn key(&self) -> &str {
        self.name.strip_suffix(".weight").unwrap_or(&self.name)
    }

    /// The stored value, without mask and update.
    pub fn base(&self) -> &Tensor {
        &self.base
    }

    /// Its form.
    pub fn form(&self) -> Form {
        match (&self.update, &self.keep) {
            (Some(_), _) => Form::Updated,
            (None, Some(_)) => Form::Masked,
            (None, None) => Form::Dense,
        }
    }

    /// The keep mask.
    pub fn keep(&self) -> Option<&KeepMask> {
        self.keep.as_ref()
    }

    /// The update.
    pub fn update(&self) -> Option<&dyn Update> {
        self.update.as_deref()
    }

    /// Type of its network's computation; the value may be stored in another one.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Where it is.
    pub fn device(&self) -> Device {
        self.base.device()
    }

    /// The effective value without an update in the type in which it is stored; nothing where an update makes it.
    pub fn stored(&self) -> Option<Tensor> {
        let masked = |keep: &KeepMask| self.base.masked_fill(&keep.remove().view_as(&self.base), 0.0);
        match (&self.update, &self.keep) {
            (Some(_), _) => None,
            (None, None) => Some(self.base.shallow_clone()),
            (None, Some(keep)) if self.base.requires_grad() => Some(masked(keep)),
            // Every forward would otherwise make it again.
            (None, Some(keep)) => Some(self.sparse.get_or_init(|| masked(keep)).shallow_clone()),
        }
    }

    /// The effective value in `kind`: `W`, `W∘M`, or what the update makes of them. Exactly zero wherever a mask covers all of it.
    /// Differentiable in what the update trains, and in the stored value if that is being trained.
    pub fn effective(&self, kind: Kind) -> Tensor {
        match &self.update {
            Some(update) => update.form(&self.base, self.keep.as_ref(), kind),
            None => self.stored().unwrap_or_else(|| self.base.shallow_clone()).to_kind(kind),
        }
    }

    /// The effective value as it is written: formed in f32 where an update makes it, else as it is stored.
    pub fn exact(&self) -> Tensor {
        match self.stored() {
            Some(stored) => stored,
            None => self.effective(Kind::Float),
        }
    }

    /// Replaces the stored value; shape as before. Mask and update stay.
    ///
    /// # Errors
    /// A value of another shape.
    pub fn set_base(&mut self, base: Tensor) -> Result<(), ModelError> {
        self.base = crate::scope::shaped(&self.name, base, &self.base.size())?;
        self.sparse.take();
        Ok(())
    }

    /// Sets or removes the keep mask, bool, true where an element survives. It goes where the weight is.
    ///
    /// # Errors
    /// A mask of another shape.
    pub fn set_keep(&mut self, keep: Option<&Tensor>) -> Result<(), ModelError> {
        let packed = match keep {
            Some(keep) => {
                let keep = crate::scope::shaped(self.key(), keep.shallow_clone(), &self.base.size())?;
                Some(KeepMask::pack(self.key(), &keep.f_to_device(self.base.device())?)?)
            }
            None => None,
        };
        self.set_packed(packed)
    }

    /// As [`Weight::set_keep`], with a mask that is packed already; that of a vector is a matrix of one row.
    ///
    /// # Errors
    /// A mask of another shape.
    pub fn set_packed(&mut self, keep: Option<KeepMask>) -> Result<(), ModelError> {
        let fits = |keep: &KeepMask| match self.base.size().as_slice() {
            &[elements] => keep.size() == [1, elements],
            size => keep.size().as_slice() == size,
        };
        if let Some(keep) = &keep
            && !fits(keep)
        {
            let (name, found) = (self.key().to_owned(), keep.size().to_vec());
            return Err(ModelError::Shape { name, found, wanted: self.base.size() });
        }
        self.keep = keep.map(|keep| keep.to_device(self.base.device())).transpose()?;
        self.sparse.take();
        Ok(())
    }

    /// Sets or removes the update. Its parameters go where the weight is.
    ///
    /// # Errors
    /// An update that does not fit; the weight keeps what it had.
    pub fn set_update(&mut self, update: Option<Box<dyn Update>>) -> Result<(), ModelError> {
        let update = match update {
            Some(update) => {
                update.fits(self.key(), &self.base.size())?;
                Some(update.to_device(self.base.device())?)
            }
            None => None,
        };
        self.update = update;
        self.sparse.take();
        Ok(())
    }

    /// Takes mask and update of another weight of the same stored value.
    pub(crate) fn wear(&mut self, other: &Weight) {
        self.keep = other.keep.as_ref().map(KeepMask::shallow_clone);
        self.sparse = other.sparse.get().map(Tensor::shallow_clone).map(OnceCell::from).unwrap_or_default();
        self.update = other.update().map(|update| update.shallow_clone());
    }

    /// Makes the effective value the stored one and drops mask and update: for models whose weights are final. In f32 where an update made
    /// it, so that whoever stores it in another type rounds once.
    ///
    /// # Errors
    /// When the device has no memory left.
    pub fn bake(&mut self) -> Result<(), ModelError> {
        let value = tch::no_grad(|| self.exact().detach());
        (self.keep, self.sparse, self.update) = (None, OnceCell::new(), None);
        // What is shared with another model must not be written to, hence the replacement.
        self.base = value;
        Ok(())
    }
}
