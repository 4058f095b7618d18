//! The weights of a model folder: one file, or the pieces that an index names.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{CheckpointError, Entry, File, json};

/// File name of a checkpoint in one piece.
pub const SINGLE: &str = "model.safetensors";
/// File name of the list of pieces.
pub const INDEX: &str = "model.safetensors.index.json";
/// Largest list of pieces that is read. The published ones are a few hundred kilobytes.
const INDEX_LIMIT: u64 = 64 << 20;

/// Bytes of each tensor that a fingerprint looks at.
const BEGINNING: usize = 64;

/// The list of pieces, as written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Index {
    /// Free-form entries, among them `total_size`.
    #[serde(default)]
    pub metadata: Map<String, Value>,
    /// Piece of each tensor.
    pub weight_map: Map<String, Value>,
}

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
    /// Opens `model.safetensors`, or the pieces that `model.safetensors.index.json` names. Headers are read, weights are not.
    pub fn open(folder: &Path) -> Result<Self, CheckpointError> {
        let listed = folder.join(INDEX);
        let (files, index) = if listed.exists() {
            let (files, index) = pieces(folder, &listed)?;
            (files, Some(index))
        } else {
            (vec![File::open(&single(folder)?)?], None)
        };
        let places = placed(&files)?;
        if let Some(absent) = index.iter().flat_map(|index| index.weight_map.keys()).find(|n| !places.contains_key(*n))
        {
            return Err(CheckpointError::file(listed, format!("tensor `{absent}` is in none of the pieces")));
        }
        Ok(Self { folder: folder.to_owned(), files, places, index })
    }

    /// Opens one safetensors file as if it were the whole checkpoint.
    pub fn of_file(path: &Path) -> Result<Self, CheckpointError> {
        let files = vec![File::open(path)?];
        let folder = path.parent().unwrap_or(Path::new("")).to_owned();
        Ok(Self { folder, places: placed(&files)?, files, index: None })
    }

    /// What tells this checkpoint from another: a digest of the names, sizes and headers of its files, of where each tensor begins, and of
    /// `config.json`. Cheap: most values are not looked at.
    ///
    /// # Errors
    /// A configuration that cannot be read.
    pub fn fingerprint(&self) -> Result<String, CheckpointError> {
        let mut hasher = blake3::Hasher::new();
        for file in &self.files {
            let name = file.path().file_name().unwrap_or_default().to_string_lossy();
            hasher.update(name.as_bytes()).update(&[0]).update(&(file.map().len() as u64).to_le_bytes());
            hasher.update(file.header());
            for entry in file.entries() {
                let bytes = file.bytes(entry);
                hasher.update(&bytes[..BEGINNING.min(bytes.len())]);
                // The system reads more than was asked for, of every tensor.
                file.release(entry);
            }
        }
        let config = self.folder.join("config.json");
        if config.exists() {
            hasher.update(&std::fs::read(&config).map_err(CheckpointError::io("read", &config))?);
        }
        Ok(hasher.finalize().to_hex().to_string())
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

/// Where each tensor is, and that none is twice.
fn placed(files: &[File]) -> Result<BTreeMap<String, (usize, usize)>, CheckpointError> {
    let mut places = BTreeMap::new();
    for (at, file) in files.iter().enumerate() {
        for (entry, tensor) in file.entries().iter().enumerate() {
            if places.insert(tensor.name.clone(), (at, entry)).is_some() {
                let reason = format!("tensor `{}` is in two pieces", tensor.name);
                return Err(CheckpointError::file(file.path(), reason));
            }
        }
    }
    Ok(places)
}

fn single(folder: &Path) -> Result<PathBuf, CheckpointError> {
    let path = folder.join(SINGLE);
    if path.exists() {
        return Ok(path);
    }
    if !folder.is_dir() {
        return Err(CheckpointError::file(folder, "there is no such folder"));
    }
    let pickled = ["pytorch_model.bin", "pytorch_model.bin.index.json"].iter().any(|name| folder.join(name).exists());
    let reason = if pickled {
        "it holds a pickled checkpoint, which is refused; convert it to safetensors".to_owned()
    } else {
        format!("it holds neither `{SINGLE}` nor `{INDEX}`")
    };
    Err(CheckpointError::file(folder, reason))
}

fn pieces(folder: &Path, listed: &Path) -> Result<(Vec<File>, Index), CheckpointError> {
    let index: Index = json::read(listed, INDEX_LIMIT)?;
    let mut names = BTreeSet::new();
    for file in index.weight_map.values() {
        let name = file.as_str().unwrap_or_default();
        if Path::new(name).components().count() != 1 || name.starts_with('.') || !name.ends_with(".safetensors") {
            let reason = format!("`{file}` is not the name of a safetensors file in this folder");
            return Err(CheckpointError::file(listed, reason));
        }
        names.insert(name);
    }
    if names.is_empty() {
        return Err(CheckpointError::file(listed, "it names no pieces"));
    }
    let absent: Vec<&str> = names.iter().filter(|name| !folder.join(name).exists()).copied().collect();
    if !absent.is_empty() {
        let reason = format!("{} of its {} pieces are missing: {}", absent.len(), names.len(), absent.join(", "));
        return Err(CheckpointError::file(listed, reason));
    }
    let files = names.into_iter().map(|name| File::open(&folder.join(name))).collect::<Result<_, _>>()?;
    Ok((files, index))
}
