//! The manifest: what a published folder is, written last.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// File name of the manifest.
pub const MANIFEST: &str = "manifest.json";

/// Record of a published stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The stage's key.
    pub key: String,
    /// Kind of stage.
    pub kind: String,
    /// Version of the stage's code.
    pub version: u32,
    /// The stage's own configuration.
    pub configuration: serde_json::Value,
    /// Keys it read.
    pub inputs: serde_json::Value,
    /// What it read from outside the store, with where that was; null where there was nothing. The configuration names contents, not places.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub readings: serde_json::Value,
    /// What it found: scores, certificate.
    pub result: serde_json::Value,
    /// Every other file of the folder.
    pub files: BTreeMap<String, FileDigest>,
    /// Wall seconds; of a stage that resumed, with those of its interrupted attempts.
    pub seconds: f64,
    /// CPU seconds of the process during the last attempt.
    pub cpu_seconds: f64,
    /// What it ran on.
    pub environment: Environment,
}

impl Manifest {
    /// Whether two outputs of a stage are the same for everything that reads them.
    pub fn is_same_output(&self, other: &Self) -> bool {
        self.files == other.files && self.result == other.result
    }
}

/// Size and digest of a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileDigest {
    /// Size.
    pub bytes: u64,
    /// Digest.
    pub blake3: String,
}

/// What a stage ran on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Environment {
    /// Version of the program.
    pub ressa: String,
    /// Source revision it was built from, with `+dirty` where files differed.
    pub revision: String,
    /// Version of libtorch.
    pub libtorch: String,
    /// Device.
    pub device: String,
    /// Intra-operation threads.
    pub threads: u32,
    /// Name of the GPU, as its driver says it; empty on a CPU and where no driver says it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub accelerator: String,
    /// Whether products of f32 may use TF32.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub tf32: bool,
    /// Whether trainings use deterministic algorithms.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub deterministic: bool,
}

impl Environment {
    /// What decides beside the device how operations round: libtorch's version, followed by ` tf32` where f32 products use it.
    pub fn arithmetic(&self) -> String {
        format!("{}{}", self.libtorch, if self.tf32 { " tf32" } else { "" })
    }

    /// What times are comparable on: `cpu`, the name of the GPU, or `cuda` where it is not known; empty in records that do not say it.
    pub fn machine(&self) -> &str {
        match (self.accelerator.as_str(), self.device.as_str()) {
            ("", device) => device.split(':').next().unwrap_or_default(),
            (name, _) => name,
        }
    }
}
