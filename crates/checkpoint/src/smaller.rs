//! A folder of a smaller model: the same tensors without the rows, columns and blocks that were removed, and a configuration that says so.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use ressa_experiment::{Pattern, Tower};
use serde_json::{Map, Value};

use crate::{
    Change, Checkpoint, CheckpointError, Entry, ExportRequest, Exported, File, FolderCertificate, PROCESSOR, clean,
    export::{CONFIG, Plan},
    header, json,
    names::block,
    pieces::{Piece, Tensor, cut, index, name_of, texts},
    removable::{LeftOfTower, QUERIES, shrink},
};

/// What is left of a model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Smaller {
    /// Numbers by tower.
    pub towers: BTreeMap<Tower, LeftOfTower>,
    /// Rows that are left of a tensor, in ascending order, by name; elements of a vector.
    pub rows: BTreeMap<String, Vec<usize>>,
    /// Columns that are left of a matrix; of `query_tokens` `[1, queries, width]`, queries.
    pub columns: BTreeMap<String, Vec<usize>>,
    /// Tensors of a whole stack that are in its first block, whichever that is.
    pub tables: BTreeSet<String>,
}

impl Smaller {
    /// Whether learned queries were removed: a model of the full size that computes the same does not exist then.
    pub fn has_fewer_queries(&self) -> bool {
        self.towers.values().any(|left| left.queries.is_some())
    }

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
    pub(crate) fn rest<'b>(&self, entry: &Entry, bytes: Cow<'b, [u8]>) -> Cow<'b, [u8]> {
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
    let mut settings = vec![(CONFIG, config(request.source, smaller)?)];
    settings.extend(processor(request.source, smaller)?.map(|bytes| (PROCESSOR, bytes)));
    let pieces = pieces(&checkpoint, smaller, request.max_shard_size)?;
    let in_pieces = request.max_shard_size.map_or(checkpoint.index().is_some(), |_| pieces.len() > 1);
    let index = in_pieces.then(|| index(&checkpoint, &pieces));
    let left = |(name, pattern): (&String, &Pattern)| Some((smaller.name(name)?, *pattern));
    let patterns: BTreeMap<String, Pattern> = request.patterns.iter().filter_map(left).collect();
    let plan = Plan { pieces, index, smaller: Some((smaller, settings)), patterns: &patterns };
    plan.write(request, &checkpoint, change, card, progress)
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

/// The processor's settings where they say how many queries stand for an image in a prompt, and there are fewer now.
fn processor(source: &Path, smaller: &Smaller) -> Result<Option<Vec<u8>>, CheckpointError> {
    let Some(queries) = smaller.towers.values().find_map(|left| left.queries) else { return Ok(None) };
    let Some(mut settings) = json::optional(&source.join(PROCESSOR))? else { return Ok(None) };
    let Some(number) = settings.get_mut(QUERIES).filter(|number| !number.is_null()) else { return Ok(None) };
    *number = queries.into();
    let bytes = json::text(&settings).into_bytes();
    Ok(Some(clean::settings(Path::new(PROCESSOR), &bytes, true).unwrap_or(bytes)))
}

/// The tensors that are left, in the files that they have in the source, or in files of at most `most` bytes.
fn pieces<'a>(
    checkpoint: &'a Checkpoint,
    smaller: &Smaller,
    most: Option<u64>,
) -> Result<Vec<Piece<'a>>, CheckpointError> {
    let left = |file| Ok((file, left_in(file, smaller)?));
    let files: Vec<(&File, Vec<Tensor<'_>>)> =
        checkpoint.files().iter().map(left).collect::<Result<_, CheckpointError>>()?;
    if let Some(most) = most {
        return Ok(cut(files.into_iter().flat_map(|(_, tensors)| tensors), &texts(checkpoint), most));
    }
    let piece = |(file, tensors): (&File, Vec<Tensor<'a>>)| {
        let texts = header::published(file.metadata()).unwrap_or_else(|| file.metadata().clone());
        let header = header::write(tensors.iter().map(|tensor| &*tensor.entry), &texts);
        Ok(Piece { name: name_of(file)?, header: header.into(), tensors })
    };
    files.into_iter().filter(|(_, tensors)| !tensors.is_empty()).map(piece).collect()
}

/// The tensors of a file that are left, with their new names and sizes.
fn left_in<'a>(file: &'a File, smaller: &Smaller) -> Result<Vec<Tensor<'a>>, CheckpointError> {
    let written = header::names(file.header()).map_err(|reason| CheckpointError::file(file.path(), reason))?;
    let tensor = |whole: &'a Entry| {
        let name = smaller.name(&whole.name)?;
        let as_written =
            written.get(&whole.range.start).filter(|names| names.len() == 1).map_or(&whole.name, |names| &names[0]);
        let renamed = match block(&name).filter(|_| name != whole.name) {
            Some(place) => renumbered(as_written, place.index),
            None => as_written.clone(),
        };
        let shape = smaller.shape(whole);
        let bytes = shape.iter().product::<usize>() * whole.bytes() / whole.elements().max(1);
        let entry = Entry { name: renamed, dtype: whole.dtype, shape, range: 0..bytes };
        Some(Tensor { file, whole, entry: Cow::Owned(entry), name: name.into() })
    };
    Ok(file.entries().iter().filter_map(tensor).collect())
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
