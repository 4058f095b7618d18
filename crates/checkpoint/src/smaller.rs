//! A folder of a smaller model: the same tensors without the rows, columns and blocks that were removed, and a configuration that says so.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use ressa_experiment::{Pattern, Tower};
use serde_json::{Map, Value};

use crate::{
    CERTIFICATE, Checkpoint, CheckpointError, Entry, ExportRequest, Exported, File, FolderCertificate, INDEX, Index,
    SINGLE,
    carry::Carry,
    certificate::digest,
    clean,
    container::pack,
    draft::Draft,
    export::{BUFFER, CARD, Change, reads_back},
    header, json,
    names::block,
    removable::{LeftOfTower, shrink},
};

const CONFIG: &str = "config.json";

/// What is left of a model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Smaller {
    /// Numbers by tower.
    pub towers: BTreeMap<Tower, LeftOfTower>,
    /// Rows that are left of a tensor, in ascending order, by name; elements of a vector.
    pub rows: BTreeMap<String, Vec<usize>>,
    /// Columns that are left of a matrix.
    pub columns: BTreeMap<String, Vec<usize>>,
    /// Tensors of a whole stack that are in its first block, whichever that is.
    pub tables: BTreeSet<String>,
}

impl Smaller {
    /// The name that a tensor has in the smaller model; `None` where it is not in it.
    fn name(&self, name: &str) -> Option<String> {
        let stacks = || self.towers.values().flat_map(|tower| &tower.stacks);
        let Some(place) = block(name).filter(|_| !self.tables.contains(name)) else { return Some(name.to_owned()) };
        let Some((_, left)) = stacks().find(|(path, _)| path.as_str() == place.stack) else {
            return Some(name.to_owned());
        };
        let number = left.iter().position(|index| *index == place.index)?;
        Some(renumbered(name, number))
    }

    /// The shape that a tensor has in the smaller model.
    fn shape(&self, entry: &Entry) -> Vec<usize> {
        let mut shape = entry.shape.clone();
        for (side, left) in [&self.rows, &self.columns].into_iter().enumerate() {
            if let (Some(left), Some(size)) = (left.get(&entry.name), shape.get_mut(side)) {
                *size = left.len();
            }
        }
        shape
    }

    /// The bytes that are left of a tensor.
    fn rest<'b>(&self, entry: &Entry, bytes: Cow<'b, [u8]>) -> Cow<'b, [u8]> {
        let (rows, columns) = (self.rows.get(&entry.name), self.columns.get(&entry.name));
        let Some(&outputs) = entry.shape.first().filter(|_| rows.is_some() || columns.is_some()) else { return bytes };
        let row = bytes.len() / outputs.max(1);
        let all: Vec<usize> = (0..outputs).collect();
        let mut rest = Vec::with_capacity(bytes.len());
        for &at in rows.unwrap_or(&all) {
            let row = &bytes[at * row..(at + 1) * row];
            match columns.zip(entry.shape.get(1)) {
                Some((columns, &inputs)) => {
                    let element = row.len() / inputs.max(1);
                    columns.iter().for_each(|&at| rest.extend_from_slice(&row[at * element..(at + 1) * element]));
                }
                None => rest.extend_from_slice(row),
            }
        }
        rest.into()
    }
}

/// A name with another number for its block.
fn renumbered(name: &str, number: usize) -> String {
    let Some(place) = block(name) else { return name.to_owned() };
    let behind = name[place.stack.len() + 1..].find('.').map_or("", |at| &name[place.stack.len() + 1 + at..]);
    format!("{}.{number}{behind}", place.stack)
}

/// Writes the folder of the smaller model, as [`crate::export`] writes that of the whole one. `change` gives the bytes of whole tensors.
///
/// # Errors
/// As [`crate::export`]; a configuration that cannot say what is left.
pub fn export_smaller<E: From<CheckpointError>>(
    request: &ExportRequest<'_>,
    smaller: &Smaller,
    change: Change<'_, E>,
    card: Option<&dyn Fn(&FolderCertificate) -> String>,
    progress: &mut dyn FnMut(f64, &str),
) -> Result<Exported, E> {
    let checkpoint = Checkpoint::open(request.source)?;
    let config = config(request.source, smaller)?;
    let draft = Draft::begin(request.output)?;
    let pieces = pieces(&checkpoint, smaller, request.max_shard_size)?;
    let total: usize = pieces.iter().flat_map(|piece| &piece.tensors).map(|tensor| tensor.entry.bytes()).sum();
    let (mut written, mut digests) = (0, BTreeMap::new());
    for piece in &pieces {
        let message = format!("writing {}", piece.name);
        written += piece.write(draft.folder(), smaller, change, &mut digests)?;
        progress(0.9 * written as f64 / total.max(1) as f64, &message);
    }
    if pieces.len() > 1 || checkpoint.index().is_some() {
        draft.write(INDEX, &index(&checkpoint, &pieces))?;
    }
    draft.write(CONFIG, &config)?;
    let files = checkpoint.files().iter().filter_map(|file| file.path().file_name()).map(PathBuf::from);
    let mut except: BTreeSet<PathBuf> = files.chain([INDEX.into(), CONFIG.into()]).collect();
    except.extend(card.is_some().then(|| CARD.into()));
    let carried = Carry { except: &except, changed: true }.carry(request.source, &draft)?;

    progress(0.9, "counting what was written");
    let reread = Checkpoint::open(draft.folder())?;
    let left = |(name, pattern): (&String, &Pattern)| Some((smaller.name(name)?, *pattern));
    let patterns: BTreeMap<String, Pattern> = request.patterns.iter().filter_map(left).collect();
    let mut certificate = FolderCertificate::count(&reread, &patterns, request.program.to_owned())?;
    certificate.run.clone_from(&request.run);
    certificate.run.iter_mut().for_each(clean::value);
    let odd = digests
        .iter()
        .find(|(name, digest)| certificate.tensors.get(*name).is_none_or(|found| found.blake3 != **digest));
    if let Some((name, _)) = odd {
        let reason = format!("tensor `{name}` does not read back as it was written; the disk may be failing");
        return Err(CheckpointError::file(request.output, reason).into());
    }
    if let Some(problem) = crate::misfits(&reread).first() {
        return Err(CheckpointError::file(
            request.output,
            format!("what is left is no model: {problem}; please report this"),
        )
        .into());
    }
    certificate.container = pack(&draft, &reread, request.container, &certificate)?;
    drop(reread);
    if certificate.container.is_some() {
        progress(0.95, "unpacking what was packed");
        reads_back(&Checkpoint::open(draft.folder())?, &certificate)?;
    }
    draft.write(CERTIFICATE, certificate.text().as_bytes())?;
    if let Some(card) = card {
        draft.write(CARD, card(&certificate).as_bytes())?;
    }
    draft.publish()?;
    let weights = pieces.iter().map(|piece| request.output.join(&piece.name)).collect();
    Ok(Exported { weights, carried, certificate, changed: digests.len() as u64 })
}

/// The configuration of what is left.
fn config(source: &Path, smaller: &Smaller) -> Result<Vec<u8>, CheckpointError> {
    let path = source.join(CONFIG);
    let mut config: Map<String, Value> = json::read(&path, json::CONFIG_LIMIT)?;
    for (tower, left) in &smaller.towers {
        shrink(&mut config, *tower, left).map_err(|why| CheckpointError::file(&path, why))?;
    }
    let bytes = json::text(&config).into_bytes();
    Ok(clean::settings(Path::new(CONFIG), &bytes, true).unwrap_or(bytes))
}

/// A tensor to be written.
struct Tensor<'a> {
    file: &'a File,
    whole: &'a Entry,
    /// Its name as the file has it, its new shape, and as many bytes as that takes.
    entry: Entry,
    /// Its published name.
    name: String,
}

/// A file of weights to be written.
struct Piece<'a> {
    name: String,
    tensors: Vec<Tensor<'a>>,
    metadata: BTreeMap<String, String>,
}

/// The tensors that are left, in the files that they have in the source, or in files of at most `most` bytes.
fn pieces<'a>(
    checkpoint: &'a Checkpoint,
    smaller: &Smaller,
    most: Option<u64>,
) -> Result<Vec<Piece<'a>>, CheckpointError> {
    let mut pieces: Vec<Piece<'a>> = Vec::new();
    let mut size = 0;
    for file in checkpoint.files() {
        let written = header::names(file.header()).map_err(|reason| CheckpointError::file(file.path(), reason))?;
        let metadata = header::published(file.metadata()).unwrap_or_else(|| file.metadata().clone());
        let name = file.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut is_new = true;
        for whole in file.entries() {
            let Some(name_left) = smaller.name(&whole.name) else { continue };
            let as_written =
                written.get(&whole.range.start).filter(|names| names.len() == 1).map_or(&whole.name, |names| &names[0]);
            let number = block(&name_left).map(|place| place.index);
            let renamed = if name_left == whole.name {
                as_written.clone()
            } else {
                renumbered(as_written, number.unwrap_or_default())
            };
            let shape = smaller.shape(whole);
            let elements: usize = shape.iter().product();
            let bytes = elements * whole.bytes() / whole.elements().max(1);
            let entry = Entry { name: renamed, dtype: whole.dtype, shape, range: 0..bytes };
            if is_new && most.is_none()
                || pieces.is_empty()
                || most.is_some_and(|most| size > 0 && size + bytes as u64 > most)
            {
                pieces.push(Piece { name: name.clone(), tensors: Vec::new(), metadata: metadata.clone() });
                size = 0;
            }
            is_new = false;
            size += bytes as u64;
            if let Some(piece) = pieces.last_mut() {
                piece.tensors.push(Tensor { file, whole, entry, name: name_left });
            }
        }
    }
    let many = pieces.len();
    for (at, piece) in pieces.iter_mut().enumerate().filter(|_| most.is_some()) {
        // Wide elements first, so that every tensor lies at a multiple of its elements' size.
        piece.tensors.sort_by_key(|tensor| std::cmp::Reverse(tensor.entry.dtype.bitsize()));
        piece.name =
            if many == 1 { SINGLE.to_owned() } else { format!("model-{:05}-of-{many:05}.safetensors", at + 1) };
    }
    Ok(pieces)
}

impl Piece<'_> {
    /// Writes the file, and answers with its bytes of tensors.
    fn write<E: From<CheckpointError>>(
        &self,
        folder: &Path,
        smaller: &Smaller,
        change: Change<'_, E>,
        digests: &mut BTreeMap<String, String>,
    ) -> Result<usize, E> {
        let path = folder.join(&self.name);
        let unwritten = || CheckpointError::io("write", &path);
        let mut out = BufWriter::with_capacity(BUFFER, fs::File::create(&path).map_err(unwritten())?);
        let header = header::write(self.tensors.iter().map(|tensor| &tensor.entry), &self.metadata);
        out.write_all(&header).map_err(unwritten())?;
        let mut written = 0;
        for Tensor { file, whole, entry, name } in &self.tensors {
            let changed = change(file, whole)?;
            let is_changed = changed.is_some() || entry.shape != whole.shape;
            let bytes = changed.map_or_else(|| Cow::Borrowed(file.bytes(whole)), Cow::Owned);
            if bytes.len() != whole.bytes() {
                let reason = format!("tensor `{}` was given {} bytes", whole.name, bytes.len());
                return Err(CheckpointError::file(file.path(), reason).into());
            }
            let rest = smaller.rest(whole, bytes);
            if is_changed {
                digests.insert(name.clone(), digest(&rest));
            }
            out.write_all(&rest).map_err(unwritten())?;
            written += entry.bytes();
        }
        let file = out.into_inner().map_err(|e| unwritten()(e.into_error()))?;
        file.sync_all().map_err(unwritten())?;
        Ok(written)
    }
}

/// The list of pieces.
fn index(checkpoint: &Checkpoint, pieces: &[Piece<'_>]) -> Vec<u8> {
    let mut metadata = checkpoint.index().map(|index| index.metadata.clone()).unwrap_or_default();
    let total: usize = pieces.iter().flat_map(|piece| &piece.tensors).map(|tensor| tensor.entry.bytes()).sum();
    metadata.insert("total_size".to_owned(), total.into());
    let places: BTreeMap<&String, &String> =
        pieces.iter().flat_map(|piece| piece.tensors.iter().map(|tensor| (&tensor.entry.name, &piece.name))).collect();
    let weight_map: Map<String, Value> =
        places.into_iter().map(|(name, piece)| (name.clone(), piece.clone().into())).collect();
    json::text(&Index { metadata, weight_map }).into_bytes()
}

/// Names of tensors that a smaller model has other rows of: the weight of a layer and its bias.
pub fn of_layer(layer: &str) -> [String; 2] {
    [format!("{layer}.weight"), format!("{layer}.bias")]
}

#[cfg(test)]
mod tests {
    use safetensors::Dtype;

    use super::*;

    #[test]
    fn what_is_left_of_a_matrix() {
        let entry = Entry { name: "a.weight".to_owned(), dtype: Dtype::BF16, shape: vec![2, 3], range: 0..12 };
        let smaller = |rows: Option<Vec<usize>>, columns: Option<Vec<usize>>| Smaller {
            rows: rows.map(|rows| ("a.weight".to_owned(), rows)).into_iter().collect(),
            columns: columns.map(|columns| ("a.weight".to_owned(), columns)).into_iter().collect(),
            ..Smaller::default()
        };
        let bytes: Vec<u8> = (0..12).collect();
        let cut = smaller(Some(vec![1]), Some(vec![0, 2]));
        assert_eq!(cut.shape(&entry), [1, 2]);
        assert_eq!(*cut.rest(&entry, bytes.as_slice().into()), [6, 7, 10, 11]);
        let columns = smaller(None, Some(vec![1]));
        assert_eq!(*columns.rest(&entry, bytes.as_slice().into()), [2, 3, 8, 9]);
        assert_eq!(*smaller(None, None).rest(&entry, bytes.as_slice().into()), *bytes);
    }

    #[test]
    fn blocks_are_numbered_anew_and_tables_stay_in_the_first() {
        let table = "language_model.encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight";
        let stacks = BTreeMap::from([("language_model.encoder.block".to_owned(), vec![1, 3])]);
        let left = LeftOfTower { stacks, ..LeftOfTower::default() };
        let smaller = Smaller {
            towers: BTreeMap::from([(Tower::Language, left)]),
            tables: BTreeSet::from([table.to_owned()]),
            ..Smaller::default()
        };
        let named = |name: &str| smaller.name(name);
        let q = |block: usize| format!("language_model.encoder.block.{block}.layer.0.SelfAttention.q.weight");
        assert_eq!(named(&q(0)), None);
        assert_eq!([named(&q(1)), named(&q(3))], [Some(q(0)), Some(q(1))]);
        assert_eq!(named(table).as_deref(), Some(table));
        let other = "language_model.decoder.block.0.layer.0.SelfAttention.q.weight";
        assert_eq!(named(other).as_deref(), Some(other));
        assert_eq!(
            renumbered("model.text_model.layers.12.mlp.up_proj.weight", 3),
            "model.text_model.layers.3.mlp.up_proj.weight"
        );
    }
}
