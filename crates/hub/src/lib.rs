//! Checkpoints from the Hugging Face hub, into the cache that its other clients use.
//!
//! Transfers, redirects and the layout of the cache (`blobs`, `snapshots`, `refs`) are the `hf-hub` crate's. What it leaves open is here:
//! which files of a repository are a checkpoint, one commit for all of them, trying again, going on after a broken transfer, proving what
//! arrived, and doing without the network. Nothing here reads the environment: [`Settings`] say where and as whom.

mod cache;
mod error;
mod fetch;
mod listing;
mod name;
mod settings;
mod transfer;

pub use cache::cached;
pub use error::HubError;
pub use fetch::{Event, FetchedFile, Snapshot, WantedFile, fetch, wanted};
pub use name::is_repository_name;
pub use settings::Settings;
