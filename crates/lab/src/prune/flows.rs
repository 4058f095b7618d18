//! Activations of all samples between two blocks: always in files, so that an interrupted work can go on, and in memory where they fit.

use std::{
    fs,
    io::Write,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use ressa_checkpoint::CheckpointError;
use ressa_models::{Flow, ModelError};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use crate::LabError;

/// Which files hold the activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    /// Number in the name of the hidden states' file.
    hidden: usize,
    /// Number in the name of the file of what goes along with them.
    companions: usize,
    /// Samples.
    count: usize,
}

/// Activations of all samples at the entry of a block.
pub(super) struct Flows {
    hidden: Shelf,
    companions: Shelf,
}

impl Flows {
    /// Samples.
    pub fn len(&self) -> usize {
        self.hidden.places.len()
    }

    /// The activations of a sample.
    pub fn get(&self, at: usize) -> Result<Flow, LabError> {
        let mut hidden = self.hidden.get(at)?;
        let broken = || LabError::input(&self.hidden.path, "it holds no hidden states; remove it and start again");
        Ok(Flow::from_parts(hidden.pop().ok_or_else(broken)?, self.companions.get(at)?))
    }

    /// Reads what [`Flows::place`] named.
    pub fn open(folder: &Path, place: Place, keep: bool) -> Result<Self, LabError> {
        let open = |name: String| Shelf::open(&folder.join(name), place.count, keep);
        Ok(Self { hidden: open(hidden(place.hidden))?, companions: open(companions(place.companions))? })
    }

    /// Where they are.
    pub fn place(&self) -> Place {
        Place { hidden: self.hidden.number, companions: self.companions.number, count: self.len() }
    }

    /// Bytes in both files.
    pub fn bytes(&self) -> u64 {
        self.hidden.end + self.companions.end
    }
}

fn hidden(number: usize) -> String {
    format!("hidden-{number}")
}

fn companions(number: usize) -> String {
    format!("companions-{number}")
}

/// Removes the files of activations that `place` does not name.
pub(super) fn sweep(folder: &Path, place: Option<Place>) -> Result<(), LabError> {
    let unread = || CheckpointError::io("read", folder);
    let named = place.map(|place| [hidden(place.hidden), companions(place.companions)]);
    for item in fs::read_dir(folder).map_err(unread())? {
        let item = item.map_err(unread())?;
        let name = item.file_name().to_string_lossy().into_owned();
        let is_shelf = name.starts_with("hidden-") || name.starts_with("companions-");
        if is_shelf && named.as_ref().is_none_or(|named| !named.contains(&name)) {
            fs::remove_file(item.path()).map_err(CheckpointError::io("write", item.path()))?;
        }
    }
    Ok(())
}

/// The next activations while they are made, sample by sample.
pub(super) struct NextFlows {
    folder: PathBuf,
    number: usize,
    keep: bool,
    hidden: Shelf,
    /// New ones; `None` while those of the block before are handed on.
    companions: Option<Shelf>,
}

impl NextFlows {
    /// Starts the files of a number that no older ones have.
    pub fn begin(folder: &Path, number: usize, keep: bool) -> Result<Self, LabError> {
        let hidden = Shelf::create(&folder.join(hidden(number)), number, keep)?;
        Ok(Self { folder: folder.to_owned(), number, keep, hidden, companions: None })
    }

    /// Adds the next sample's activations; `before` is what they came from, if it was a flow of the same tower.
    pub fn push(&mut self, before: Option<&Flow>, next: &Flow) -> Result<(), LabError> {
        let same = before.is_some_and(|before| {
            let (old, new) = (before.companions(), next.companions());
            old.len() == new.len() && old.iter().zip(new).all(|(old, new)| old.data_ptr() == new.data_ptr())
        });
        if !same && self.companions.is_none() && self.hidden.places.is_empty() {
            let path = self.folder.join(companions(self.number));
            self.companions = Some(Shelf::create(&path, self.number, self.keep)?);
        }
        if let Some(companions) = &mut self.companions {
            companions.push(next.companions())?;
        } else if !same {
            return Err(LabError::Unsupported(
                "a block changes for some samples what it hands on for others".to_owned(),
            ));
        }
        self.hidden.push(std::slice::from_ref(&next.hidden))
    }

    /// Flushes the files. Takes what goes along from the activations before where it stayed as it was.
    pub fn finish(mut self, before: Option<Flows>) -> Result<(Flows, u64), LabError> {
        let mut written = self.hidden.seal()?;
        let companions = match (self.companions, before) {
            (Some(mut new), _) => {
                written += new.seal()?;
                new
            }
            (None, Some(before)) => before.companions,
            (None, None) => Shelf::create(&self.folder.join(companions(self.number)), self.number, self.keep)?,
        };
        Ok((Flows { hidden: self.hidden, companions }, written))
    }
}

/// Lists of tensors in one file, one after the other, and in memory if they are kept.
struct Shelf {
    path: PathBuf,
    number: usize,
    file: fs::File,
    /// Beginning and length of each list.
    places: Vec<(u64, u64)>,
    end: u64,
    kept: Option<Vec<Vec<Tensor>>>,
}

impl Shelf {
    fn create(path: &Path, number: usize, keep: bool) -> Result<Self, LabError> {
        let options = fs::OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path);
        let file = options.map_err(CheckpointError::io("write", path))?;
        let kept = keep.then(Vec::new);
        Ok(Self { path: path.to_owned(), number, file, places: Vec::new(), end: 0, kept })
    }

    fn open(path: &Path, count: usize, keep: bool) -> Result<Self, LabError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let number = name.rsplit('-').next().and_then(|number| number.parse().ok()).unwrap_or_default();
        let file = fs::File::open(path).map_err(CheckpointError::io("read", path))?;
        let length = file.metadata().map_err(CheckpointError::io("read", path))?.len();
        let mut shelf = Self { path: path.to_owned(), number, file, places: Vec::new(), end: 0, kept: None };
        while shelf.end < length {
            let mut size = [0; 8];
            shelf.file.read_exact_at(&mut size, shelf.end).map_err(CheckpointError::io("read", path))?;
            let (start, size) = (shelf.end + 8, u64::from_le_bytes(size));
            if size > length - start {
                return Err(shelf.broken());
            }
            shelf.places.push((start, size));
            shelf.end = start + size;
        }
        if shelf.places.len() != count {
            return Err(shelf.broken());
        }
        if keep {
            shelf.kept = Some((0..count).map(|at| shelf.get(at)).collect::<Result<_, _>>()?);
        }
        Ok(shelf)
    }

    fn broken(&self) -> LabError {
        LabError::input(&self.path, "activations of an unfinished work are damaged; remove the folder and start again")
    }

    fn push(&mut self, tensors: &[Tensor]) -> Result<(), LabError> {
        let mut record = vec![0; 8];
        for tensor in tensors {
            let plain = tensor.detach().to_device(Device::Cpu).contiguous();
            let (code, size) = (code(plain.kind())?, plain.size());
            record.extend([code, size.len() as u8]);
            size.iter().for_each(|size| record.extend(size.to_le_bytes()));
            let from = record.len();
            record.resize(from + plain.numel() * plain.kind().elt_size_in_bytes(), 0);
            if plain.numel() > 0 {
                plain.f_copy_data_u8(&mut record[from..], plain.numel()).map_err(ModelError::from)?;
            }
        }
        let length = record.len() as u64 - 8;
        record[..8].copy_from_slice(&length.to_le_bytes());
        self.file.write_all(&record).map_err(CheckpointError::io("write", &self.path))?;
        self.places.push((self.end + 8, length));
        self.end += record.len() as u64;
        if let Some(kept) = &mut self.kept {
            kept.push(tensors.iter().map(Tensor::shallow_clone).collect());
        }
        Ok(())
    }

    fn get(&self, at: usize) -> Result<Vec<Tensor>, LabError> {
        if let Some(kept) = &self.kept {
            return Ok(kept[at].iter().map(Tensor::shallow_clone).collect());
        }
        let (start, length) = self.places[at];
        let mut record = vec![0; length as usize];
        self.file.read_exact_at(&mut record, start).map_err(CheckpointError::io("read", &self.path))?;
        let mut rest = record.as_slice();
        let mut tensors = Vec::new();
        while let [code, dims, after @ ..] = rest {
            let kind = KINDS.get(usize::from(*code)).copied().ok_or_else(|| self.broken())?;
            let (sizes, after) = after.split_at_checked(usize::from(*dims) * 8).ok_or_else(|| self.broken())?;
            let sizes: Vec<i64> = sizes.as_chunks::<8>().0.iter().map(|size| i64::from_le_bytes(*size)).collect();
            let elements = sizes.iter().try_fold(1i64, |all, &size| all.checked_mul(size)).filter(|&all| all >= 0);
            let bytes = elements.ok_or_else(|| self.broken())? as usize * kind.elt_size_in_bytes();
            let (values, after) = after.split_at_checked(bytes).ok_or_else(|| self.broken())?;
            tensors.push(Tensor::f_from_data_size(values, &sizes, kind).map_err(ModelError::from)?);
            rest = after;
        }
        Ok(tensors)
    }

    /// Makes the file survive a loss of power. Answers with its length.
    fn seal(&mut self) -> Result<u64, LabError> {
        self.file.sync_data().map_err(CheckpointError::io("write", &self.path))?;
        Ok(self.end)
    }
}

/// Types of activations, by their number in the file.
const KINDS: [Kind; 5] = [Kind::Float, Kind::BFloat16, Kind::Half, Kind::Int64, Kind::Bool];

fn code(kind: Kind) -> Result<u8, LabError> {
    let at = KINDS.iter().position(|known| *known == kind);
    at.map(|at| at as u8)
        .ok_or_else(|| LabError::Unsupported(format!("activations of type `{kind:?}` cannot be stored")))
}
