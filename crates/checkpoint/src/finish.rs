//! The end of every writer of folders: what was written is counted, compared with what was meant, packed where that is asked for, and published.

use std::{collections::BTreeMap, path::Path};

use ressa_experiment::{Pattern, job::Container};
use serde_json::Value;

use crate::{
    CARD, CERTIFICATE, Checkpoint, CheckpointError, Entry, File, FolderCertificate, TensorClaim, card::with_container,
    carry::is_own, certificate::examine, clean, container::pack, draft::Draft, json, misfits,
};

/// What a written folder is to be.
#[derive(Debug)]
pub(crate) struct Ending<'a> {
    /// Where it will be, for errors.
    pub output: &'a Path,
    /// Digests of the tensors whose bytes are new, by published name.
    pub digests: &'a BTreeMap<String, String>,
    /// Patterns that the changed tensors are claimed to follow, by published name.
    pub patterns: &'a BTreeMap<String, Pattern>,
    /// Program and version, for the certificate.
    pub program: &'a str,
    /// How the weights were made, for the certificate.
    pub run: Option<&'a Value>,
    /// How pruned linears are stored.
    pub container: Container,
    /// Negative zeros that were written as zeros for it.
    pub negative_zeros: u64,
    /// Whether the weights must be those that `config.json` describes: both are new.
    pub is_new_model: bool,
}

impl Ending<'_> {
    /// Certifies, packs and publishes a draft whose dense files are written. `card` makes the model card from the certificate; without it the
    /// carried one says what holds about packed linears now.
    ///
    /// # Errors
    /// When what was written does not read back the same, is no model, does not follow a claimed pattern, or cannot be packed.
    pub fn publish(
        &self,
        draft: Draft,
        card: Option<&dyn Fn(&FolderCertificate) -> String>,
        progress: &mut dyn FnMut(f64, &str),
    ) -> Result<FolderCertificate, CheckpointError> {
        progress(0.0, "counting what was written");
        let reread = Checkpoint::open(draft.folder())?;
        let mut certificate = FolderCertificate::count(&reread, self.patterns, self.program.to_owned())?;
        certificate.run = self.run.cloned();
        certificate.run.iter_mut().for_each(clean::value);
        for (name, digest) in self.digests {
            if certificate.tensors.get(name).is_none_or(|claim| claim.blake3 != *digest) {
                let reason = format!("tensor `{name}` does not read back as it was written; the disk may be failing");
                return Err(CheckpointError::file(self.output, reason));
            }
        }
        if let Some(problem) = self.is_new_model.then(|| misfits(&reread)).iter().flatten().next() {
            let reason = format!("what is left is no model: {problem}; please report this");
            return Err(CheckpointError::file(self.output, reason));
        }
        certificate.container = pack(&draft, &reread, self.container, &certificate)?;
        if let Some(container) = &mut certificate.container {
            container.negative_zeros = Some(self.negative_zeros).filter(|many| *many > 0);
        }
        drop(reread);
        if certificate.container.is_some() {
            progress(0.5, "unpacking what was packed");
            reads_back(&Checkpoint::open(draft.folder())?, &certificate)?;
        }
        draft.write(CERTIFICATE, certificate.text().as_bytes())?;
        match card {
            Some(card) => draft.write(CARD, card(&certificate).as_bytes())?,
            None if is_own(draft.folder(), CARD) => {
                let own = json::bytes(&draft.folder().join(CARD), json::CONFIG_LIMIT)?;
                if let Some(text) = with_container(&own, certificate.container.as_ref()) {
                    draft.write(CARD, text.as_bytes())?;
                }
            }
            None => {}
        }
        draft.publish()?;
        Ok(certificate)
    }
}

/// Whether a packed folder unpacks to the tensors that were counted before it was packed.
fn reads_back(packed: &Checkpoint, certificate: &FolderCertificate) -> Result<(), CheckpointError> {
    let tensors: Vec<(&File, &Entry)> = packed.tensors().collect();
    let found = tensors.iter().zip(examine(&tensors, true)).map(|((_, entry), (_, digest))| (&entry.name, digest));
    let found: BTreeMap<&String, String> = found.collect();
    let same = |(name, claim): (&String, &TensorClaim)| found.get(name) == Some(&claim.blake3);
    if found.len() == certificate.tensors.len() && certificate.tensors.iter().all(same) {
        return Ok(());
    }
    let reason = "what was packed does not unpack to the same; the disk may be failing";
    Err(CheckpointError::file(packed.folder(), reason))
}
