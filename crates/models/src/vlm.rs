//! What the rest of the program needs of a vision-language model, whatever its family: four jobs, each a trait of its own.

use crate::{InBlocks, Retrieve, Surgery};

/// A model that does all four jobs: [`crate::Infer`], [`Retrieve`], [`InBlocks`] and [`Surgery`]. What needs fewer asks for fewer.
///
/// Implementors are cheap to clone ([`Surgery::shallow_clone`]): weights are shared, masks and adapters are not.
pub trait VisionLanguage: Retrieve + InBlocks + Surgery {}

impl<M: Retrieve + InBlocks + Surgery> VisionLanguage for M {}
