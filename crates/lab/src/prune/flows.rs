//! Activations of all samples between two blocks: in memory where they fit, and in files, so that an interrupted work can be resumed.

use std::{
    cell::Cell,
    fs,
    io::Write,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use ressa_checkpoint::CheckpointError;
use ressa_models::{Flow, ModelError};
use ressa_prune::walk::Flows;
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
    /// How many there are.
    count: usize,
}

/// Activations that last.
pub(super) struct Lasting {
    folder: PathBuf,
    /// Where the network computes.
    computes: Device,
    /// Where they are kept; nowhere but in the files if they are too large.
    kept: Option<Device>,
    /// Those in memory, and those that enter the next tower.
    flows: Vec<Flow>,
    added: Vec<Flow>,
    /// Those in the files, and the next ones while they are made.
    stored: Option<Stored>,
    next: Option<NextStored>,
    /// What went along with those that were stored last.
    companions: Vec<Vec<Tensor>>,
    /// Number of the next files.
    number: usize,
    read: Cell<u64>,
    written: u64,
}

impl Lasting {
    /// None, or what `place` names. Files of the folder that it does not name are removed.
    ///
    /// # Errors
    /// Files that cannot be read.
    pub fn open(folder: &Path, place: Option<Place>, computes: Device, kept: Option<Device>) -> Result<Self, LabError> {
        sweep(folder, place)?;
        let stored = place.map(|place| Stored::open(folder, place)).transpose()?;
        let mut lasting = Self {
            folder: folder.to_owned(),
            computes,
            kept,
            flows: Vec::new(),
            added: Vec::new(),
            number: place.map_or(0, |place| place.hidden.max(place.companions)) + 1,
            stored,
            next: None,
            companions: Vec::new(),
            read: Cell::new(0),
            written: 0,
        };
        if let (Some(kept), Some(stored)) = (kept, &lasting.stored) {
            lasting.flows =
                (0..stored.len()).map(|at| Ok(stored.get(at)?.to_device(kept))).collect::<Result<_, LabError>>()?;
            lasting.companions = along(&lasting.flows);
        }
        Ok(lasting)
    }

    /// Writes the activations down, so that they survive a loss of power, and says where. Older files stay until [`sweep`].
    ///
    /// # Errors
    /// They cannot be written.
    pub fn store(&mut self) -> Result<Option<Place>, LabError> {
        if self.kept.is_some() && !self.flows.is_empty() {
            let mut next = self.begin()?;
            for (at, flow) in self.flows.iter().enumerate() {
                next.push(self.companions.get(at).map(Vec::as_slice), flow)?;
            }
            self.written += next.written();
            self.companions = along(&self.flows);
            self.stored = Some(next.finish(self.stored.take())?);
        }
        self.stored.as_ref().map(|stored| stored.seal().map(|()| stored.place())).transpose()
    }

    /// Bytes that were read from files and written to them since this was last asked for.
    pub fn traffic(&mut self) -> (u64, u64) {
        (self.read.take(), std::mem::take(&mut self.written))
    }

    /// Lets go of activations that nobody will read.
    pub fn forget(&mut self) {
        self.flows.clear();
        self.companions.clear();
        (self.stored, self.next) = (None, None);
    }

    fn begin(&mut self) -> Result<NextStored, LabError> {
        self.number += 1;
        NextStored::begin(&self.folder, self.number)
    }

    fn push(&mut self, before: Option<&Flow>, flow: &Flow) -> Result<(), LabError> {
        let mut next = match self.next.take() {
            Some(next) => next,
            None => self.begin()?,
        };
        next.push(before.map(Flow::companions), flow)?;
        self.next = Some(next);
        Ok(())
    }
}

fn along(flows: &[Flow]) -> Vec<Vec<Tensor>> {
    flows.iter().map(|flow| flow.companions().iter().map(Tensor::shallow_clone).collect()).collect()
}

impl Flows for Lasting {
    type Error = LabError;

    fn len(&self) -> usize {
        match self.kept {
            Some(_) => self.flows.len(),
            None => self.stored.as_ref().map_or(0, Stored::len),
        }
    }

    fn get(&self, at: usize) -> Result<Flow, LabError> {
        match (&self.stored, self.kept) {
            (Some(stored), None) => {
                self.read.set(self.read.get() + stored.size(at));
                Ok(stored.get(at)?.to_device(self.computes))
            }
            _ => Ok(self.flows[at].to_device(self.computes)),
        }
    }

    fn clear(&mut self) -> Result<(), LabError> {
        self.added.clear();
        self.next = None;
        Ok(())
    }

    fn add(&mut self, flow: Flow) -> Result<(), LabError> {
        match self.kept {
            Some(kept) => self.added.push(flow.to_device(kept)),
            None => self.push(None, &flow)?,
        }
        Ok(())
    }

    fn put(&mut self, at: usize, before: &Flow, next: Flow) -> Result<(), LabError> {
        match self.kept {
            // At once: two of all would be twice the memory.
            Some(kept) => self.flows[at] = next.to_device(kept),
            None => self.push(Some(before), &next)?,
        }
        Ok(())
    }

    fn turn(&mut self) -> Result<(), LabError> {
        if !self.added.is_empty() {
            self.flows = std::mem::take(&mut self.added);
        }
        if let Some(next) = self.next.take() {
            self.written += next.written();
            self.stored = Some(next.finish(self.stored.take())?);
        }
        Ok(())
    }
}

/// Activations in two files.
struct Stored {
    hidden: TensorLog,
    companions: TensorLog,
}

impl Stored {
    fn open(folder: &Path, place: Place) -> Result<Self, LabError> {
        let open = |name: String| TensorLog::open(&folder.join(name), place.count);
        Ok(Self { hidden: open(hidden(place.hidden))?, companions: open(companions(place.companions))? })
    }

    fn len(&self) -> usize {
        self.hidden.places.len()
    }

    fn get(&self, at: usize) -> Result<Flow, LabError> {
        let mut hidden = self.hidden.get(at)?;
        let broken = || LabError::input(&self.hidden.path, "it holds no hidden states; remove it and start again");
        Ok(Flow::from_parts(hidden.pop().ok_or_else(broken)?, self.companions.get(at)?))
    }

    fn size(&self, at: usize) -> u64 {
        self.hidden.places[at].1 + self.companions.places[at].1
    }

    fn place(&self) -> Place {
        Place { hidden: self.hidden.number, companions: self.companions.number, count: self.len() }
    }

    /// Makes both files survive a loss of power.
    fn seal(&self) -> Result<(), LabError> {
        self.hidden.seal()?;
        self.companions.seal()
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

/// The next activations while they are written.
struct NextStored {
    folder: PathBuf,
    number: usize,
    hidden: TensorLog,
    /// New ones; `None` while those of the block before are handed on.
    companions: Option<TensorLog>,
}

impl NextStored {
    /// Starts the files of a number that no older ones have.
    fn begin(folder: &Path, number: usize) -> Result<Self, LabError> {
        let hidden = TensorLog::create(&folder.join(hidden(number)), number)?;
        Ok(Self { folder: folder.to_owned(), number, hidden, companions: None })
    }

    /// Adds the next activations; `before` is what went along with those that they came from, in the same tower.
    fn push(&mut self, before: Option<&[Tensor]>, next: &Flow) -> Result<(), LabError> {
        let same = before.is_some_and(|old| {
            let new = next.companions();
            old.len() == new.len() && old.iter().zip(new).all(|(old, new)| old.data_ptr() == new.data_ptr())
        });
        if !same && self.companions.is_none() && self.hidden.places.is_empty() {
            let path = self.folder.join(companions(self.number));
            self.companions = Some(TensorLog::create(&path, self.number)?);
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

    fn written(&self) -> u64 {
        self.hidden.end + self.companions.as_ref().map_or(0, |companions| companions.end)
    }

    /// Takes what goes along from the activations before where it stayed as it was.
    fn finish(self, before: Option<Stored>) -> Result<Stored, LabError> {
        let companions = match (self.companions, before) {
            (Some(new), _) => new,
            (None, Some(before)) => before.companions,
            (None, None) => TensorLog::create(&self.folder.join(companions(self.number)), self.number)?,
        };
        Ok(Stored { hidden: self.hidden, companions })
    }
}

/// Lists of tensors in one file, one after the other.
struct TensorLog {
    path: PathBuf,
    number: usize,
    file: fs::File,
    /// Beginning and length of each list.
    places: Vec<(u64, u64)>,
    end: u64,
}

impl TensorLog {
    fn create(path: &Path, number: usize) -> Result<Self, LabError> {
        let options = fs::OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path);
        let file = options.map_err(CheckpointError::io("write", path))?;
        Ok(Self { path: path.to_owned(), number, file, places: Vec::new(), end: 0 })
    }

    fn open(path: &Path, count: usize) -> Result<Self, LabError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let number = name.rsplit('-').next().and_then(|number| number.parse().ok()).unwrap_or_default();
        let file = fs::File::open(path).map_err(CheckpointError::io("read", path))?;
        let length = file.metadata().map_err(CheckpointError::io("read", path))?.len();
        let mut shelf = Self { path: path.to_owned(), number, file, places: Vec::new(), end: 0 };
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
        Ok(shelf)
    }

    fn broken(&self) -> LabError {
        LabError::input(&self.path, "activations of an unfinished run are damaged; remove the folder and start again")
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
        Ok(())
    }

    fn get(&self, at: usize) -> Result<Vec<Tensor>, LabError> {
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

    /// Makes the file survive a loss of power.
    fn seal(&self) -> Result<(), LabError> {
        Ok(self.file.sync_data().map_err(CheckpointError::io("write", &self.path))?)
    }
}

/// Types of activations, by their number in the file.
const KINDS: [Kind; 5] = [Kind::Float, Kind::BFloat16, Kind::Half, Kind::Int64, Kind::Bool];

fn code(kind: Kind) -> Result<u8, LabError> {
    let at = KINDS.iter().position(|known| *known == kind);
    at.map(|at| at as u8)
        .ok_or_else(|| LabError::Unsupported(format!("activations of type `{kind:?}` cannot be stored")))
}
