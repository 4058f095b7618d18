//! The same folder with other values: names, types, order, header and pieces stay those of the source unless a size of pieces is asked for.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use ressa_experiment::{Pattern, job::Container};
use serde_json::{Map, Value};

use crate::{
    CERTIFICATE, Checkpoint, CheckpointError, Entry, File, FolderCertificate, INDEX, Index, SINGLE,
    card::with_container,
    carry::{Carried, Carry, is_own},
    certificate::{digest, examine},
    clean,
    container::pack,
    draft::Draft,
    header::{self, alignment},
    json,
    weights::INDEX_LIMIT,
};

/// File name of the model card.
pub const CARD: &str = "README.md";
/// Bytes gathered before they are handed to the system; larger tensors go there directly.
pub(crate) const BUFFER: usize = 1 << 20;

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

/// New bytes of a tensor, in its type and shape; `None` where it stays as it is.
pub type Change<'a, E> = &'a mut dyn FnMut(&File, &Entry) -> Result<Option<Vec<u8>>, E>;

/// Writes the folder. Tensors are asked for once each, in the order of the files, and none is kept: memory holds one changed tensor.
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
    let draft = Draft::begin(request.output)?;
    let pieces = match request.max_shard_size {
        None => checkpoint.files().iter().map(Piece::same).collect::<Result<Vec<_>, _>>()?,
        Some(most) => cut(&checkpoint, most),
    };
    let mut digests = BTreeMap::new();
    let total: usize = checkpoint.tensors().map(|(_, entry)| entry.bytes()).sum();
    let mut written = 0;
    for piece in &pieces {
        let message = format!("writing {}", piece.name);
        piece.write(draft.folder(), change, &mut digests, &mut |bytes| {
            written += bytes;
            progress(0.9 * written as f64 / total.max(1) as f64, &message);
        })?;
    }
    let mut except: BTreeSet<PathBuf> =
        checkpoint.files().iter().filter_map(|f| f.path().file_name()).map(PathBuf::from).collect();
    if let Some(index) = index(&checkpoint, &pieces, request.max_shard_size.is_some(), total)? {
        draft.write(INDEX, &index)?;
    }
    if checkpoint.index().is_some() {
        except.insert(INDEX.into());
    }
    if card.is_some() {
        except.insert(CARD.into());
    }
    let changed = !digests.is_empty() || checkpoint.container().is_some();
    let carried = Carry { except: &except, changed }.carry(request.source, &draft)?;

    progress(0.9, "counting what was written");
    let reread = Checkpoint::open(draft.folder())?;
    let mut certificate = FolderCertificate::count(&reread, request.patterns, request.program.to_owned())?;
    certificate.run.clone_from(&request.run);
    certificate.run.iter_mut().for_each(clean::value);
    for (name, digest) in &digests {
        if certificate.tensors.get(name).is_none_or(|claim| claim.blake3 != *digest) {
            let reason = format!("tensor `{name}` does not read back as it was written; the disk may be failing");
            return Err(CheckpointError::file(request.output, reason).into());
        }
    }
    certificate.container = pack(&draft, &reread, request.container, &certificate)?;
    drop(reread);
    if certificate.container.is_some() {
        progress(0.95, "unpacking what was packed");
        reads_back(&Checkpoint::open(draft.folder())?, &certificate)?;
    }
    draft.write(CERTIFICATE, certificate.text().as_bytes())?;
    match card {
        Some(card) => draft.write(CARD, card(&certificate).as_bytes())?,
        None if is_own(draft.folder(), CARD) => {
            let path = draft.folder().join(CARD);
            let own = json::bytes(&path, json::CONFIG_LIMIT)?;
            if let Some(text) = with_container(&own, certificate.container.as_ref()) {
                draft.write(CARD, text.as_bytes())?;
            }
        }
        None => {}
    }
    draft.publish()?;
    let weights = pieces.iter().map(|piece| request.output.join(&piece.name)).collect();
    Ok(Exported { weights, carried, certificate, changed: digests.len() as u64 })
}

/// One file of weights to be written.
struct Piece<'a> {
    name: String,
    /// Length and header.
    header: Cow<'a, [u8]>,
    tensors: Vec<(&'a File, &'a Entry)>,
}

impl<'a> Piece<'a> {
    /// A file as it is in the source.
    fn same(file: &'a File) -> Result<Self, CheckpointError> {
        let name = file.path().file_name().and_then(|name| name.to_str());
        let name = name.ok_or_else(|| CheckpointError::file(file.path(), "its name is not UTF-8"))?.to_owned();
        let tensors = file.entries().iter().map(|entry| (file, entry)).collect();
        Ok(Self { name, header: file.published_header().into(), tensors })
    }

    fn write<E: From<CheckpointError>>(
        &self,
        folder: &Path,
        change: Change<'_, E>,
        digests: &mut BTreeMap<String, String>,
        advance: &mut dyn FnMut(usize),
    ) -> Result<(), E> {
        let path = folder.join(&self.name);
        let unwritten = || CheckpointError::io("write", &path);
        let file = fs::File::create(&path).map_err(unwritten())?;
        let mut out = BufWriter::with_capacity(BUFFER, file);
        out.write_all(&self.header).map_err(unwritten())?;
        for &(file, entry) in &self.tensors {
            let bytes = match change(file, entry)? {
                None => Cow::Borrowed(file.bytes(entry)),
                Some(bytes) if bytes.len() != entry.bytes() => {
                    let reason = format!("tensor `{}` was given {} bytes", entry.name, bytes.len());
                    return Err(CheckpointError::file(file.path(), reason).into());
                }
                Some(bytes) if bytes == file.bytes(entry) => Cow::Borrowed(file.bytes(entry)),
                Some(bytes) => {
                    digests.insert(entry.name.clone(), digest(&bytes));
                    Cow::Owned(bytes)
                }
            };
            out.write_all(&bytes).map_err(unwritten())?;
            advance(entry.bytes());
        }
        let file = out.into_inner().map_err(|e| unwritten()(e.into_error()))?;
        Ok(file.sync_all().map_err(unwritten())?)
    }
}

/// Tensors in their order, cut into files of at most `most` bytes of tensors.
fn cut(checkpoint: &Checkpoint, most: u64) -> Vec<Piece<'_>> {
    let mut groups: Vec<Vec<(&File, &Entry)>> = vec![Vec::new()];
    let mut size = 0;
    for (file, entry) in checkpoint.tensors() {
        let bytes = entry.bytes() as u64;
        if size > 0 && size + bytes > most {
            groups.push(Vec::new());
            size = 0;
        }
        size += bytes;
        groups.last_mut().expect("never empty").push((file, entry));
    }
    let mut metadata = BTreeMap::new();
    for file in checkpoint.files() {
        metadata.extend(file.metadata().iter().map(|(name, text)| (name.clone(), text.clone())));
    }
    if let Some(published) = header::published(&metadata).filter(|_| !metadata.is_empty()) {
        metadata = published;
    }
    let many = groups.len();
    let pieces = groups.into_iter().enumerate().map(|(position, mut tensors)| {
        // Wide elements first, as the format's own library does: every tensor then lies at a multiple of its elements' size.
        tensors.sort_by_key(|(_, entry)| std::cmp::Reverse(alignment(entry.dtype)));
        let header = header::write(tensors.iter().map(|(_, entry)| *entry), &metadata);
        let name =
            if many == 1 { SINGLE.to_owned() } else { format!("model-{:05}-of-{many:05}.safetensors", position + 1) };
        Piece { name, header: header.into(), tensors }
    });
    pieces.collect()
}

/// Whether a packed folder unpacks to the tensors that were counted before it was packed.
pub(crate) fn reads_back(packed: &Checkpoint, certificate: &FolderCertificate) -> Result<(), CheckpointError> {
    let tensors: Vec<(&File, &Entry)> = packed.tensors().collect();
    let found = tensors.iter().zip(examine(&tensors, true)).map(|((_, entry), (_, digest))| (&entry.name, digest));
    let found: BTreeMap<&String, String> = found.collect();
    let same = |(name, claim): (&String, &crate::TensorClaim)| found.get(name) == Some(&claim.blake3);
    if found.len() == certificate.tensors.len() && certificate.tensors.iter().all(same) {
        return Ok(());
    }
    let reason = "what was packed does not unpack to the same; the disk may be failing";
    Err(CheckpointError::file(packed.folder(), reason))
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

/// The bytes of the list of pieces: the source's own, or a new one where the pieces are new; none for a checkpoint in one file.
fn index(
    checkpoint: &Checkpoint,
    pieces: &[Piece<'_>],
    new: bool,
    total: usize,
) -> Result<Option<Vec<u8>>, CheckpointError> {
    if !new {
        return checkpoint.index().map(|_| index_of(checkpoint)).transpose();
    }
    if pieces.len() == 1 {
        return Ok(None);
    }
    let mut metadata = checkpoint.index().map(|index| index.metadata.clone()).unwrap_or_default();
    metadata.insert("total_size".to_owned(), total.into());
    let places: BTreeMap<&String, &String> =
        pieces.iter().flat_map(|piece| piece.tensors.iter().map(|(_, entry)| (&entry.name, &piece.name))).collect();
    let weight_map: Map<String, Value> =
        places.into_iter().map(|(name, piece)| (name.clone(), piece.clone().into())).collect();
    Ok(Some(json::text(&Index { metadata, weight_map }).into_bytes()))
}
