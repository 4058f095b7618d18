//! Files of weights as they are written, tensor by tensor: those of the source, or files of a given size.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    fs,
    io::{BufWriter, Write},
    path::Path,
};

use ressa_experiment::job::Container;
use serde_json::{Map, Value};

use crate::{
    Change, Checkpoint, CheckpointError, Entry, File, Index, SINGLE, Smaller,
    certificate::digest,
    container::fit_two_of_four,
    header::{self, alignment},
    json,
};

/// Bytes gathered before they are handed to the system; larger tensors go there directly.
const BUFFER: usize = 1 << 20;

/// A tensor to be written.
pub(crate) struct Tensor<'a> {
    pub file: &'a File,
    /// As the source has it.
    pub whole: &'a Entry,
    /// As it is written: name, shape, and as many bytes as that takes.
    pub entry: Cow<'a, Entry>,
    /// Its published name.
    pub name: Cow<'a, str>,
}

impl<'a> Tensor<'a> {
    /// A tensor as it is in the source.
    pub fn same((file, entry): (&'a File, &'a Entry)) -> Self {
        Self { file, whole: entry, entry: Cow::Borrowed(entry), name: entry.name.as_str().into() }
    }
}

/// One file of weights to be written.
pub(crate) struct Piece<'a> {
    pub name: String,
    /// Length and header.
    pub header: Cow<'a, [u8]>,
    pub tensors: Vec<Tensor<'a>>,
}

/// What files have that those of the source have not.
pub(crate) struct New<'a> {
    /// What is left of tensors; `None` where all of them are.
    smaller: Option<&'a Smaller>,
    /// How linears will be stored.
    container: Container,
    /// Digests of tensors whose bytes are new, by published name.
    pub digests: BTreeMap<String, String>,
    /// Negative zeros that were written as zeros.
    pub negative_zeros: u64,
}

impl<'a> New<'a> {
    /// Nothing yet.
    pub fn of(smaller: Option<&'a Smaller>, container: Container) -> Self {
        Self { smaller, container, digests: BTreeMap::new(), negative_zeros: 0 }
    }
}

/// The name of a file of weights.
pub(crate) fn name_of(file: &File) -> Result<String, CheckpointError> {
    let name = file.path().file_name().and_then(|name| name.to_str());
    Ok(name.ok_or_else(|| CheckpointError::file(file.path(), "its name is not UTF-8"))?.to_owned())
}

impl<'a> Piece<'a> {
    /// A file as it is in the source.
    pub fn same(file: &'a File) -> Result<Self, CheckpointError> {
        let tensors = file.entries().iter().map(|entry| Tensor::same((file, entry))).collect();
        Ok(Self { name: name_of(file)?, header: file.published_header().into(), tensors })
    }

    /// Writes the file. What is new in it is added to `new`; `advance` gets the bytes of each tensor.
    pub fn write<E: From<CheckpointError>>(
        &self,
        folder: &Path,
        new: &mut New<'_>,
        change: Change<'_, E>,
        advance: &mut dyn FnMut(usize),
    ) -> Result<(), E> {
        let path = folder.join(&self.name);
        let unwritten = || CheckpointError::io("write", &path);
        let mut out = BufWriter::with_capacity(BUFFER, fs::File::create(&path).map_err(unwritten())?);
        out.write_all(&self.header).map_err(unwritten())?;
        for Tensor { file, whole, entry, name } in &self.tensors {
            let changed = change(file, whole)?;
            if let Some(bytes) = changed.as_ref().filter(|bytes| bytes.len() != whole.bytes()) {
                let reason = format!("tensor `{}` was given {} bytes", whole.name, bytes.len());
                return Err(CheckpointError::file(file.path(), reason).into());
            }
            let stored = file.read(whole);
            let changed = changed.filter(|bytes| **bytes != *stored);
            let mut is_new = changed.is_some() || entry.shape != whole.shape;
            let mut bytes = changed.map_or(stored, Cow::Owned);
            if let Some(smaller) = new.smaller {
                bytes = smaller.rest(whole, bytes);
            }
            if new.container == Container::TwoFour
                && let Some((fitted, negative_zeros)) = fit_two_of_four(name, entry, &bytes)
            {
                new.negative_zeros += negative_zeros;
                (bytes, is_new) = (Cow::Owned(fitted), true);
            }
            if is_new {
                new.digests.insert(name.to_string(), digest(&bytes));
            }
            out.write_all(&bytes).map_err(unwritten())?;
            advance(entry.bytes());
        }
        let file = out.into_inner().map_err(|e| unwritten()(e.into_error()))?;
        Ok(file.sync_all().map_err(unwritten())?)
    }
}

/// Free-form texts of a checkpoint's headers, as those of one.
pub(crate) fn texts(checkpoint: &Checkpoint) -> BTreeMap<String, String> {
    let mut texts = BTreeMap::new();
    for file in checkpoint.files() {
        texts.extend(file.metadata().iter().map(|(name, text)| (name.clone(), text.clone())));
    }
    header::published(&texts).filter(|_| !texts.is_empty()).unwrap_or(texts)
}

/// Tensors in their order, cut into files of at most `most` bytes of tensors.
pub(crate) fn cut<'a>(
    tensors: impl Iterator<Item = Tensor<'a>>,
    texts: &BTreeMap<String, String>,
    most: u64,
) -> Vec<Piece<'a>> {
    let mut groups: Vec<Vec<Tensor<'_>>> = vec![Vec::new()];
    let mut size = 0;
    for tensor in tensors {
        let bytes = tensor.entry.bytes() as u64;
        if size > 0 && size + bytes > most {
            groups.push(Vec::new());
            size = 0;
        }
        size += bytes;
        groups.last_mut().expect("never empty").push(tensor);
    }
    let many = groups.len();
    let pieces = groups.into_iter().enumerate().map(|(position, mut tensors)| {
        // Wide elements first, as the format's own library does: every tensor then lies at a multiple of its elements' size.
        tensors.sort_by_key(|tensor| std::cmp::Reverse(alignment(tensor.entry.dtype)));
        let header = header::write(tensors.iter().map(|tensor| &*tensor.entry), texts);
        let name =
            if many == 1 { SINGLE.to_owned() } else { format!("model-{:05}-of-{many:05}.safetensors", position + 1) };
        Piece { name, header: header.into(), tensors }
    });
    pieces.collect()
}

/// The bytes of a list of these pieces.
pub(crate) fn index(checkpoint: &Checkpoint, pieces: &[Piece<'_>]) -> Vec<u8> {
    let tensors = || pieces.iter().flat_map(|piece| piece.tensors.iter().map(move |tensor| (piece, tensor)));
    let total: usize = tensors().map(|(_, tensor)| tensor.entry.bytes()).sum();
    let mut metadata = checkpoint.index().map(|index| index.metadata.clone()).unwrap_or_default();
    metadata.insert("total_size".to_owned(), total.into());
    let places: BTreeMap<&String, &String> =
        tensors().map(|(piece, tensor)| (&tensor.entry.name, &piece.name)).collect();
    let weight_map: Map<String, Value> =
        places.into_iter().map(|(name, piece)| (name.clone(), piece.clone().into())).collect();
    json::text(&Index { metadata, weight_map }).into_bytes()
}
