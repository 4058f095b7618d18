//! What becomes of a block: its pruned weights go into the new folder, and the block runs with them.

use std::collections::{BTreeMap, HashMap};

use ressa_checkpoint::Rewrite;
use ressa_models::{LayerId, ModelError, VisionLanguage};
use ressa_prune::{
    PruneError,
    select::Selection,
    solver::LayerSolution,
    walk::{Blocks, Outcome, Place, layers_of},
};
use ressa_runtime::{Device, count_nonzero, is_finite};
use tch::Tensor;

use super::masks::{MaskHash, layer_digest};
use crate::{LabError, streamed::Streamed};

/// A folder whose blocks are written into another one.
pub(super) struct Output<'a> {
    /// The folder.
    pub from: Streamed,
    rewrite: &'a Rewrite,
    /// Whether numbers of weights are met, not only approached.
    pub exact: bool,
    /// Digests of the masks of the block under way.
    digests: HashMap<String, [u8; 32]>,
    /// Digests of the tensors that were written since [`Output::written`] was last asked for.
    tensors: BTreeMap<String, String>,
    bytes: u64,
}

impl<'a> Output<'a> {
    pub fn new(from: Streamed, rewrite: &'a Rewrite) -> Self {
        Self { from, rewrite, exact: true, digests: HashMap::new(), tensors: BTreeMap::new(), bytes: 0 }
    }

    /// Adds the masks of a block to `hash`, in the order of its layers.
    ///
    /// # Errors
    /// A layer was left out.
    pub fn add_masks(&mut self, place: Place, hash: &mut MaskHash) -> Result<(), LabError> {
        for (id, _) in layers_of(self.from.network(), place) {
            let unsolved = || LabError::Unsupported(format!("`{}` was left out", id.name));
            hash.add_digest(&self.digests.remove(&id.name).ok_or_else(unsolved)?);
        }
        Ok(())
    }

    /// Digests of what was written since this was last asked for, by name, and how many bytes that was.
    pub fn written(&mut self) -> (BTreeMap<String, String>, u64) {
        (std::mem::take(&mut self.tensors), std::mem::take(&mut self.bytes))
    }

    fn write(&mut self, layer: &LayerId, weight: &Tensor) -> Result<(), LabError> {
        let name = format!("{}.weight", layer.name);
        if !is_finite(weight) {
            return Err(PruneError::NotFiniteWeight { layer: layer.name.clone() }.into());
        }
        let plain = weight.f_to_device(Device::Cpu).and_then(|weight| weight.f_contiguous()).map_err(torch)?;
        let length = plain.numel() * plain.kind().elt_size_in_bytes();
        // SAFETY: a contiguous tensor on the host is `length` bytes at its pointer; `plain` keeps them alive, and nobody writes into it.
        let bytes = unsafe { std::slice::from_raw_parts(plain.data_ptr().cast::<u8>(), length) };
        let digest = self.rewrite.put(&name, if length == 0 { &[] } else { bytes })?;
        self.bytes += length as u64;
        self.tensors.insert(name, digest);
        Ok(())
    }
}

impl Blocks for Output<'_> {
    type Error = LabError;

    fn model(&self) -> &dyn VisionLanguage {
        self.from.model()
    }

    fn device(&self) -> Device {
        self.from.device()
    }

    fn expect(&self, place: Place) {
        self.from.expect(place);
    }

    fn bring(&mut self, place: Place) -> Result<(), LabError> {
        self.from.bring(place)
    }

    fn leave(&mut self, place: Place) -> Result<(), LabError> {
        self.from.leave(place)
    }
}

impl Outcome for Output<'_> {
    fn weight(&self, layer: &LayerId) -> Result<Tensor, LabError> {
        self.from.stored(layer)
    }

    fn take(
        &mut self,
        layer: &LayerId,
        asked: Selection,
        solution: LayerSolution,
        carries: bool,
    ) -> Result<(), LabError> {
        let LayerSolution { keep, weight, .. } = solution;
        let sparse = match weight {
            Some(sparse) => sparse,
            None => {
                let removed = keep.f_logical_not().map_err(torch)?;
                self.from.stored(layer)?.f_masked_fill(&removed, 0.0).map_err(torch)?
            }
        };
        self.from.release(layer);
        if self.exact {
            promise(&layer.name, &keep, asked)?;
        }
        self.digests.insert(layer.name.clone(), layer_digest(&layer.name, &keep)?);
        drop(keep);
        self.write(layer, &sparse)?;
        if carries {
            self.from.replace(layer, &sparse)?;
        }
        Ok(())
    }
}

/// Whether a mask prunes what was asked for, to one weight.
fn promise(layer: &str, keep: &Tensor, selection: Selection) -> Result<(), LabError> {
    let (rows, columns) = keep.size2().map_err(torch)?;
    let pruned = rows * columns - count_nonzero(keep) as i64;
    match selection.pruned_in(rows, columns) {
        Some(expected) if expected != pruned => Err(LabError::Unsupported(format!(
            "`{layer}`: the mask prunes {pruned} weights, {expected} were asked for; please report this"
        ))),
        _ => Ok(()),
    }
}

fn torch(error: tch::TchError) -> LabError {
    ModelError::from(error).into()
}
