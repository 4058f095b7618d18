//! Checkpoint folders as bytes: what is in them, whether it is sound, and the same folder with other values.
//!
//! No tensor library: weights are looked at where the file has them, mapped and read-only. `models` makes tensors of what is opened here.

mod card;
mod carry;
mod certificate;
mod clean;
mod companions;
mod container;
mod decoders;
mod draft;
mod encoders;
pub mod error;
mod export;
mod file;
mod finish;
mod folder;
mod header;
mod idefics;
mod ids;
pub mod inspect;
pub mod json;
pub mod known;
mod llava;
mod llava_next;
pub mod names;
mod outline;
mod pickle;
mod pieces;
mod published;
mod quantized;
mod qwen;
mod removable;
mod rewrite;
mod rope;
mod scale;
pub mod scan;
mod smaller;
mod sources;
mod verify;
mod weights;
mod write;

pub use card::{CardScore, Making, card, has_card};
pub use carry::{Carried, LeftOut};
pub use certificate::{
    CERTIFICATE, ContainerClaim, EXAMINED_AT_ONCE, FolderCertificate, PROGRAM, TensorClaim, TowerClaim,
};
pub use clean::{repository, shown_name};
pub use companions::{Companion, ImageSettings, PREPROCESSOR, PROCESSOR, companions, image_processor};
pub use decoders::{LLAMA_LIKE, check_windows, decoder_fields};
pub use draft::Draft;
pub use encoders::EncoderKind;
pub use error::CheckpointError;
pub use export::{CARD, Change, ExportRequest, Exported, export};
pub use file::{Entry, File};
pub use folder::Checkpoint;
pub use idefics::{TileSizes, idefics_text, idefics_vision, is_idefics};
pub use ids::{check_ids, rows};
pub use inspect::{Inspection, inspect, problems};
pub use llava::{feature_layers, is_llava, keeps_first, llava_tokens, llava_vision};
pub use llava_next::{Pinpoints, is_llava_next};
pub use names::Part;
pub use outline::{Outline, misfits, read_config};
pub use published::{PUBLISHED, preset_config, published_config};
pub use quantized::quantized;
pub use qwen::{is_qwen_vl, mrope_sections, qwen_text};
pub use removable::{LeftOfTower, Removable};
pub use rewrite::{Finished, Rewrite};
pub use rope::rope_theta;
pub use safetensors::Dtype;
pub use scale::scale;
pub use smaller::{Smaller, export_smaller, of_layer};
pub use sources::{files_read, stamp};
pub use verify::{Claims, TensorFound, TowerFound, Verification, verify};
pub use weights::{INDEX, Index, SINGLE, WeightFiles, absent_pieces, adapter};
pub use write::{Written, write};
