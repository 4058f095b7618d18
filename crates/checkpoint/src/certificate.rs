//! The certificate of a folder: what each tensor was found to be when the folder was written, read back from disk.

use std::{collections::BTreeMap, path::Path};

use ressa_experiment::{Pattern, Tower};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    Checkpoint, CheckpointError, Entry, File, json,
    names::{PROJECTION, counted_in},
    scan::{Counts, crowded_groups, in_turn, is_counted, scan, threads},
};

/// The program as it signs certificates.
pub const PROGRAM: &str = concat!("ressa ", env!("CARGO_PKG_VERSION"));
/// File name of the certificate.
pub const CERTIFICATE: &str = "ressa_certificate.json";
/// Version of its form.
const FORMAT: u32 = 1;
/// Largest certificate that is read; the largest published models need below a megabyte.
const LIMIT: u64 = 64 << 20;

/// What is claimed about a folder's weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FolderCertificate {
    /// Version of this form.
    pub format: u32,
    /// Program that counted.
    pub counted_by: String,
    /// How the weights were made, where a run made them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<Value>,
    /// Whether the projection into the language model was pruned with the connector, and counts as part of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub projection: bool,
    /// How the files hold the weights, where linears are packed. What is said of tensors is said of the unpacked ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<ContainerClaim>,
    /// Prunable weights of each tower.
    pub towers: BTreeMap<Tower, TowerClaim>,
    /// Every tensor.
    pub tensors: BTreeMap<String, TensorClaim>,
}

/// How the files of a folder hold its linears.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContainerClaim {
    /// Name of the layout, as `config.json` has it.
    pub format: String,
    /// Linears that are packed.
    pub packed: u64,
    /// Linears that could be.
    pub linears: u64,
    /// Bytes of the files of weights.
    pub bytes: u64,
    /// Bytes that they have when all is dense.
    pub dense_bytes: u64,
    /// Negative zeros that became zeros, so that no group of four stores more than two elements; none where no group needed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub negative_zeros: Option<u64>,
    /// Digest of each file of weights as it is stored, by name.
    pub sha256: BTreeMap<String, String>,
}

/// Prunable weights of a tower.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TowerClaim {
    /// Zeros.
    pub zeros: u64,
    /// Weights.
    pub elements: u64,
    /// Zeros as a fraction.
    pub sparsity: f64,
}

/// One tensor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TensorClaim {
    /// Type, as the file writes it.
    pub dtype: String,
    /// Sizes.
    pub shape: Vec<usize>,
    /// Zeros of either sign; none for types that are not floats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zeros: Option<u64>,
    /// N:M pattern that no group violates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pattern: Option<Pattern>,
    /// Digest of its bytes.
    pub blake3: String,
}

impl FolderCertificate {
    /// Counts a folder. `patterns` are the claims of whoever pruned it; where there is none, the pattern that is found is recorded. A projection that
    /// they name was pruned with the connector.
    ///
    /// # Errors
    /// When a claimed pattern does not hold.
    pub fn count(
        checkpoint: &Checkpoint,
        patterns: &BTreeMap<String, Pattern>,
        counted_by: String,
    ) -> Result<Self, CheckpointError> {
        let tensors: Vec<(&File, &Entry)> = checkpoint.tensors().collect();
        let found = examine(&tensors, true);
        let projection = patterns.contains_key(PROJECTION);
        let (towers, claims) = Default::default();
        let container = None;
        let mut certificate =
            Self { format: FORMAT, counted_by, run: None, projection, container, towers, tensors: claims };
        for ((file, entry), (counts, blake3)) in tensors.into_iter().zip(found) {
            let tower = counted_in(&entry.name, &entry.shape, projection);
            let claimed = patterns.get(&entry.name).copied();
            if let Some(pattern @ Pattern::NOfM { keep, of }) = claimed.filter(|_| is_counted(entry.dtype)) {
                let crowded = crowded_groups(file, entry, keep, of);
                file.release(entry);
                if crowded > 0 {
                    let reason = format!("`{}`: {crowded} groups keep more than `{pattern}` allows", entry.name);
                    return Err(CheckpointError::file(file.path(), reason));
                }
            }
            if let (Some(counts), Some(tower)) = (counts, tower) {
                let sums = certificate.towers.entry(tower).or_default();
                sums.zeros += counts.zeros;
                sums.elements += counts.elements;
            }
            let found = counts.filter(|_| tower.is_some()).and_then(|counts| counts.pattern(entry.shape[1]));
            let claim = TensorClaim {
                dtype: entry.dtype.to_string(),
                shape: entry.shape.clone(),
                zeros: counts.map(|counts| counts.zeros),
                pattern: claimed.filter(|pattern| *pattern != Pattern::Unstructured).or(found),
                blake3,
            };
            certificate.tensors.insert(entry.name.clone(), claim);
        }
        for sums in certificate.towers.values_mut() {
            sums.sparsity = sums.zeros as f64 / sums.elements.max(1) as f64;
        }
        Ok(certificate)
    }

    /// The pattern that every prunable matrix of a tower follows.
    pub fn pattern(&self, tower: Tower) -> Option<Pattern> {
        let mut patterns = self
            .tensors
            .iter()
            .filter(|(name, claim)| counted_in(name, &claim.shape, self.projection) == Some(tower))
            .map(|(_, claim)| claim.pattern);
        let first = patterns.next().flatten();
        first.filter(|_| patterns.all(|pattern| pattern == first))
    }

    /// Reads the certificate of a folder; `None` when it has none.
    pub fn read(folder: &Path) -> Result<Option<Self>, CheckpointError> {
        let path = folder.join(CERTIFICATE);
        if !path.exists() {
            return Ok(None);
        }
        let certificate: Self = json::read(&path, LIMIT)?;
        if certificate.format != FORMAT {
            let reason = format!("it is of form {}, this program knows form {FORMAT}", certificate.format);
            return Err(CheckpointError::file(path, reason));
        }
        Ok(Some(certificate))
    }

    /// The text of its file.
    pub fn text(&self) -> String {
        json::text(self)
    }
}

/// Bytes of tensors that are looked at together when a folder is counted; a larger tensor is alone.
pub const EXAMINED_AT_ONCE: usize = 256 << 20;

/// Counts and digests of tensors, in their order; digests are empty unless asked for. A part of the tensors after the other, so that each is
/// read from the disk, or unpacked, once and little of the files is in memory at a time.
pub(crate) fn examine(tensors: &[(&File, &Entry)], digest: bool) -> Vec<(Option<Counts>, String)> {
    let mut found = Vec::with_capacity(tensors.len());
    let mut rest = tensors;
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = |(_, entry): &&(&File, &Entry)| {
            bytes += entry.bytes();
            bytes <= EXAMINED_AT_ONCE
        };
        let (part, after) = rest.split_at(rest.iter().take_while(fits).count().max(1));
        let read = in_turn(part.len(), threads(), |at| part[at].0.read(part[at].1));
        let given: Vec<(&Entry, &[u8])> =
            part.iter().zip(&read).map(|((_, entry), bytes)| (*entry, &**bytes)).collect();
        let counts = scan(&given, threads());
        let digests = match digest {
            true => in_turn(given.len(), threads(), |at| self::digest(given[at].1)),
            false => vec![String::new(); given.len()],
        };
        found.extend(counts.into_iter().zip(digests));
        drop(read);
        part.iter().for_each(|(file, entry)| file.release(entry));
        rest = after;
    }
    found
}

/// Bytes of a SHA-256 digest as they are written.
pub(crate) fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Digest of bytes.
pub(crate) fn digest(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}
