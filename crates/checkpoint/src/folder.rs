//! The weights of a model folder: one file, or the pieces that an index names.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use crate::{
    CheckpointError, Entry, File, INDEX, Index, WeightFiles,
    names::{canonical, is_of_text},
};

/// The opened weights of a folder.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    folder: PathBuf,
    files: Vec<File>,
    /// Name to file and entry.
    places: BTreeMap<String, (usize, usize)>,
    index: Option<Index>,
}

impl Checkpoint {
    /// Opens the weights that [`WeightFiles::find`] finds. Headers are read, weights are not; of packed linears, the bitmasks and offsets are read and
    /// checked, at each opening. Tensors below `model.` have the names that the published checkpoints give them.
    ///
    /// # Errors
    /// As there; a damaged header, a tensor that is there twice or in none of the pieces.
    pub fn open(folder: &Path) -> Result<Self, CheckpointError> {
        let (files, index) = match WeightFiles::find(folder)? {
            WeightFiles::Whole(file) => (vec![File::open(&file)?], None),
            WeightFiles::Pieces { index, files } => {
                let open = |file: &PathBuf| File::open(file);
                (files.iter().map(open).collect::<Result<_, CheckpointError>>()?, Some(index))
            }
        };
        let (files, alone) = named(files);
        let places = placed(&files)?;
        let listed = || index.iter().flat_map(|index| index.weight_map.keys());
        let is_part = |name: &str| files.iter().filter_map(File::image).any(|image| image.has(name));
        let is_absent = |name: &&String| {
            let is_there = match canonical(name).filter(|_| !alone) {
                Some(name) => places.contains_key(&name),
                None => places.contains_key(*name),
            };
            !is_there && !is_part(name)
        };
        if let Some(absent) = listed().find(is_absent) {
            let reason = format!("tensor `{absent}` is in none of the pieces");
            return Err(CheckpointError::file(folder.join(INDEX), reason));
        }
        Ok(Self { folder: folder.to_owned(), files, places, index })
    }

    /// Opens one safetensors file as if it were the whole checkpoint.
    pub fn of_file(path: &Path) -> Result<Self, CheckpointError> {
        let (files, _) = named(vec![File::open(path)?]);
        let folder = path.parent().unwrap_or(Path::new("")).to_owned();
        Ok(Self { folder, places: placed(&files)?, files, index: None })
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its files, in the order of their names.
    pub fn files(&self) -> &[File] {
        &self.files
    }

    /// The list of pieces, where the checkpoint is in pieces.
    pub fn index(&self) -> Option<&Index> {
        self.index.as_ref()
    }

    /// Name of the layout in which linears are stored without their zeros, and how many are; none where all are dense.
    pub fn container(&self) -> Option<(&'static str, usize)> {
        let mut layouts = self.files.iter().filter_map(File::image).flat_map(|image| image.layouts());
        let first = layouts.next()?;
        let (mut many, mut name) = (1, first.name());
        for layout in layouts {
            many += 1;
            if layout != first {
                name = "several layouts";
            }
        }
        Some((name, many))
    }

    /// Names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &String> {
        self.places.keys()
    }

    /// A tensor with the file that holds it.
    pub fn get(&self, name: &str) -> Option<(&File, &Entry)> {
        let &(file, entry) = self.places.get(name)?;
        Some((&self.files[file], &self.files[file].entries()[entry]))
    }

    /// Every tensor with its file, in the order of files and bytes.
    pub fn tensors(&self) -> impl Iterator<Item = (&File, &Entry)> {
        self.files.iter().flat_map(|file| file.entries().iter().map(move |entry| (file, entry)))
    }
}

/// Files with the names that the published checkpoints have; and whether they are of a language model alone, which has its own.
fn named(files: Vec<File>) -> (Vec<File>, bool) {
    let alone = files.iter().flat_map(File::entries).all(|entry| is_of_text(&entry.name));
    (if alone { files } else { files.into_iter().map(File::of_composed_model).collect() }, alone)
}

/// Where each tensor is, and that none is twice.
fn placed(files: &[File]) -> Result<BTreeMap<String, (usize, usize)>, CheckpointError> {
    let mut places = BTreeMap::new();
    for (at, file) in files.iter().enumerate() {
        for (entry, tensor) in file.entries().iter().enumerate() {
            if let Some((other, _)) = places.insert(tensor.name.clone(), (at, entry)) {
                let how = if other == at { "there twice, once below `model.`" } else { "in two pieces" };
                return Err(CheckpointError::file(file.path(), format!("tensor `{}` is {how}", tensor.name)));
            }
        }
    }
    Ok(places)
}
