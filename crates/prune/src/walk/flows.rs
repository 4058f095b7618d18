//! Where activations live between two blocks.

use std::marker::PhantomData;

use ressa_models::Flow;
use tch::Device;

use crate::error::PruneError;

/// Activations at the entry of a block, each of one sample or of several of the same shape ([`super::Layout`]).
pub trait Flows {
    /// Why they cannot be read or written.
    type Error: From<PruneError>;

    /// How many there are.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One of them, on the device that computes.
    ///
    /// # Errors
    /// It cannot be read.
    fn get(&self, at: usize) -> Result<Flow, Self::Error>;

    /// Forgets all; what is added next enters a tower.
    ///
    /// # Errors
    /// The next ones cannot be begun.
    fn clear(&mut self) -> Result<(), Self::Error>;

    /// Adds what enters a tower. It counts after [`Flows::turn`].
    ///
    /// # Errors
    /// It cannot be written.
    fn add(&mut self, flow: Flow) -> Result<(), Self::Error>;

    /// Puts what left the block in the place of what entered it. Done once for each, in their order; [`Flows::get`] may give the old or the new
    /// one until [`Flows::turn`].
    ///
    /// # Errors
    /// It cannot be written.
    fn put(&mut self, at: usize, before: &Flow, next: Flow) -> Result<(), Self::Error>;

    /// All have been put or added.
    ///
    /// # Errors
    /// They cannot be made to last.
    fn turn(&mut self) -> Result<(), Self::Error>;
}

/// Activations in memory.
#[derive(Debug)]
pub struct InMemory<E = PruneError> {
    flows: Vec<Flow>,
    added: Vec<Flow>,
    device: Device,
    error: PhantomData<E>,
}

impl<E> InMemory<E> {
    /// None yet, of a model that computes on `device`, in the memory of that device.
    pub fn new(device: Device) -> Self {
        Self { flows: Vec::new(), added: Vec::new(), device, error: PhantomData }
    }
}

impl<E: From<PruneError>> Flows for InMemory<E> {
    type Error = E;

    fn len(&self) -> usize {
        self.flows.len()
    }

    fn get(&self, at: usize) -> Result<Flow, E> {
        Ok(self.flows[at].shallow_clone())
    }

    fn clear(&mut self) -> Result<(), E> {
        self.added.clear();
        Ok(())
    }

    fn add(&mut self, flow: Flow) -> Result<(), E> {
        self.added.push(flow.to_device(self.device));
        Ok(())
    }

    fn put(&mut self, at: usize, _: &Flow, next: Flow) -> Result<(), E> {
        // At once: two of all would be twice the memory.
        self.flows[at] = next;
        Ok(())
    }

    fn turn(&mut self) -> Result<(), E> {
        if !self.added.is_empty() {
            self.flows = std::mem::take(&mut self.added);
        }
        Ok(())
    }
}
