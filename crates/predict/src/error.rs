//! Why nothing can be predicted.

/// What keeps a prediction from being made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PredictError {
    /// The file of cards is not what it should be.
    #[error("`experiments/devices.yaml`: {reason}")]
    Cards {
        /// Where and what.
        reason: String,
    },
    /// No card has this name.
    #[error("no card is called `{name}`; `experiments/devices.yaml` has {known}")]
    UnknownCard {
        /// The name.
        name: String,
        /// All names.
        known: String,
    },
    /// The sizes of a model are not known.
    #[error(
        "the sizes of `{folder}` are not known: it has no `config.json`; bring the folder, or call it by a published name ({known})"
    )]
    UnknownModel {
        /// Folder of the checkpoint.
        folder: String,
        /// Published names.
        known: String,
    },
    /// A configuration that no supported network can have.
    #[error("`{folder}`: {reason}")]
    Model {
        /// Folder of the checkpoint.
        folder: String,
        /// What is wrong with its configuration.
        reason: String,
    },
}
