//! The same folder with other values: names, types, order, header and pieces stay those of the source unless a size of pieces is asked for.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use ressa_experiment::{Pattern, job::Container};
use serde_json::{Value, json};

use crate::{
    Checkpoint, CheckpointError, Entry, File, FolderCertificate, INDEX, Index, Smaller,
    carry::{Carried, Carry},
    clean,
    draft::Draft,
    finish::Ending,
    json,
    pieces::{self, New, Piece, Tensor, cut, texts},
    weights::INDEX_LIMIT,
};

/// File name of the model card.
pub const CARD: &str = "README.md";
/// File name of a model's configuration.
pub(crate) const CONFIG: &str = "config.json";

/// What is to be written, and where.
#[derive(Debug)]
pub struct ExportRequest<'a> {
    /// The folder that everything but the changed values is taken from.
    pub source: &'a Path,
    /// The folder to be made; absent or empty.
    pub output: &'a Path,
    /// Largest file of weights in bytes (a larger tensor has a file of its own); `None` keeps the files of the source.
    pub max_shard_size: Option<u64>,
    /// How pruned linears are stored.
    pub container: Container,
    /// Patterns that the changed tensors are claimed to follow, by tensor name.
    pub patterns: &'a BTreeMap<String, Pattern>,
    /// Program and version that write this, for the certificate.
    pub program: &'a str,
    /// How the weights were made, for the certificate.
    pub run: Option<Value>,
}

/// What was written.
#[derive(Debug)]
pub struct Exported {
    /// Files of weights.
    pub weights: Vec<PathBuf>,
    /// The other files.
    pub carried: Carried,
    /// Counted on what was written, read back.
    pub certificate: FolderCertificate,
    /// Tensors whose bytes differ from the source's.
    pub changed: u64,
}

impl Exported {
    /// What is said of it in JSON.
    pub fn summary(&self) -> Value {
        json!({
            "weights": self.weights,
            "bytes": self.weights.iter().filter_map(|path| Some(path.metadata().ok()?.len())).sum::<u64>(),
            "changed": self.changed,
            "towers": self.certificate.towers,
            "container": self.certificate.container,
            "copied": self.carried.copied,
            "left_out": self.carried.left_out,
        })
    }
}

/// New bytes of a tensor, in its type and shape; `None` where it stays as it is.
pub type Change<'a, E> = &'a mut dyn FnMut(&File, &Entry) -> Result<Option<Vec<u8>>, E>;

/// Writes the folder. Tensors are asked for once each, in the order of the files, and none is kept: memory holds one changed tensor and, of a
/// packed source, one unpacked tensor.
/// `card` makes the model card from the certificate; without it the source's own is carried along. A container is made of the dense files, one
/// after the other, before the folder is published.
///
/// # Errors
/// When the source is damaged, the output cannot be written or has something in it, what was written does not read back the same, a
/// claimed pattern does not hold, or nothing can be packed in the container that is asked for. The output is then not there.
pub fn export<E: From<CheckpointError>>(
    request: &ExportRequest<'_>,
    change: Change<'_, E>,
    card: Option<&dyn Fn(&FolderCertificate) -> String>,
    progress: &mut dyn FnMut(f64, &str),
) -> Result<Exported, E> {
    let checkpoint = Checkpoint::open(request.source)?;
    let (pieces, index) = match request.max_shard_size {
        None => {
            let pieces = checkpoint.files().iter().map(Piece::same).collect::<Result<Vec<_>, _>>()?;
            (pieces, checkpoint.index().map(|_| index_of(&checkpoint)).transpose()?)
        }
        Some(most) => {
            let pieces = cut(checkpoint.tensors().map(Tensor::same), &texts(&checkpoint), most);
            let index = (pieces.len() > 1).then(|| pieces::index(&checkpoint, &pieces));
            (pieces, index)
        }
    };
    let plan = Plan { pieces, index, smaller: None, patterns: request.patterns };
    plan.write(request, &checkpoint, change, card, progress)
}

/// Files of settings: their names and what they hold.
pub(crate) type Settings = Vec<(&'static str, Vec<u8>)>;

/// A folder to be written.
pub(crate) struct Plan<'a> {
    pub pieces: Vec<Piece<'a>>,
    /// The list of pieces; none for a checkpoint in one file.
    pub index: Option<Vec<u8>>,
    /// What is left of the model, and the files of settings that say so, where it is a smaller one.
    pub smaller: Option<(&'a Smaller, Settings)>,
    /// Patterns by the names that tensors have in the folder.
    pub patterns: &'a BTreeMap<String, Pattern>,
}

impl Plan<'_> {
    /// Writes the folder, of the whole model or of a smaller one.
    pub fn write<E: From<CheckpointError>>(
        &self,
        request: &ExportRequest<'_>,
        checkpoint: &Checkpoint,
        change: Change<'_, E>,
        card: Option<&dyn Fn(&FolderCertificate) -> String>,
        progress: &mut dyn FnMut(f64, &str),
    ) -> Result<Exported, E> {
        let draft = Draft::begin(request.output)?;
        let total: usize = self.pieces.iter().flat_map(|piece| &piece.tensors).map(|tensor| tensor.entry.bytes()).sum();
        let mut new = New::of(self.smaller.as_ref().map(|(left, _)| *left), request.container);
        let mut written = 0;
        for piece in &self.pieces {
            let message = format!("writing {}", piece.name);
            piece.write(draft.folder(), &mut new, change, &mut |bytes| {
                written += bytes;
                progress(0.9 * written as f64 / total.max(1) as f64, &message);
            })?;
        }
        let files = checkpoint.files().iter().filter_map(|file| file.path().file_name()).map(PathBuf::from);
        let mut except: BTreeSet<PathBuf> = files.collect();
        if let Some(index) = &self.index {
            draft.write(INDEX, index)?;
        }
        if checkpoint.index().is_some() {
            except.insert(INDEX.into());
        }
        for (name, settings) in self.smaller.iter().flat_map(|(_, settings)| settings) {
            draft.write(name, settings)?;
            except.insert((*name).into());
        }
        if card.is_some() {
            except.insert(CARD.into());
        }
        let changed = !new.digests.is_empty() || checkpoint.container().is_some() || self.smaller.is_some();
        let carried = Carry { except: &except, changed }.carry(request.source, &draft)?;
        let ending = Ending {
            output: request.output,
            digests: &new.digests,
            patterns: self.patterns,
            program: request.program,
            run: request.run.as_ref(),
            container: request.container,
            negative_zeros: new.negative_zeros,
            is_new_model: self.smaller.is_some(),
        };
        let certificate = ending.publish(draft, card, &mut |share, message| progress(0.9 + 0.1 * share, message))?;
        let weights = self.pieces.iter().map(|piece| request.output.join(&piece.name)).collect();
        Ok(Exported { weights, carried, certificate, changed: new.digests.len() as u64 })
    }
}

/// The bytes of a folder's list of pieces, without what it says about this machine. Of packed linears, it names the dense ones.
pub(crate) fn index_of(checkpoint: &Checkpoint) -> Result<Vec<u8>, CheckpointError> {
    if let (Some(index), Some(_)) = (checkpoint.index(), checkpoint.container()) {
        let (mut total, mut places) = (0, BTreeMap::new());
        for file in checkpoint.files() {
            let name = file.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
            // Under the names that the file has itself.
            for entry in File::open(file.path())?.entries() {
                total += entry.bytes();
                places.insert(entry.name.clone(), Value::from(name.clone()));
            }
        }
        let mut metadata = index.metadata.clone();
        metadata.insert("total_size".to_owned(), total.into());
        return Ok(json::text(&Index { metadata, weight_map: places.into_iter().collect() }).into_bytes());
    }
    let bytes = json::bytes(&checkpoint.folder().join(INDEX), INDEX_LIMIT)?;
    Ok(clean::settings(Path::new(INDEX), &bytes, false).unwrap_or(bytes))
}
