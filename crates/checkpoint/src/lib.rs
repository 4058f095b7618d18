//! Checkpoint folders as bytes: what is in them, whether it is sound, and the same folder with other values.
//!
//! No tensor library: weights are looked at where the file has them, mapped and read-only. `models` makes tensors of what is opened here.

mod card;
mod carry;
mod certificate;
mod draft;
pub mod error;
mod export;
mod file;
mod folder;
mod header;
pub mod inspect;
mod json;
pub mod names;
mod outline;
mod pickle;
mod published;
mod rewrite;
mod scale;
pub mod scan;
mod sources;
mod verify;
mod write;

pub use card::{CardScore, Making, card};
pub use carry::{Carried, LeftOut};
pub use certificate::{CERTIFICATE, EXAMINED_AT_ONCE, FolderCertificate, PROGRAM, TensorClaim, TowerClaim};
pub use draft::Draft;
pub use error::CheckpointError;
pub use export::{CARD, Change, ExportRequest, Exported, export};
pub use file::{Entry, File};
pub use folder::{Checkpoint, INDEX, Index, SINGLE};
pub use inspect::{Inspection, inspect};
pub use names::Part;
pub use outline::{Outline, misfits, read_config};
pub use published::{PUBLISHED, published_config};
pub use rewrite::{Finished, Rewrite};
pub use safetensors::Dtype;
pub use scale::scale;
pub use sources::files_read;
pub use verify::{Claims, TensorFound, TowerFound, Verification, verify};
pub use write::{Written, write};
