//! Packing the files of a dense folder, one after the other; memory holds a row.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, BufWriter, Write},
};

use ressa_experiment::job::Container;
use safetensors::Dtype;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{
    Checkpoint, CheckpointError, Entry, File, FolderCertificate, INDEX, Index,
    certificate::{ContainerClaim, hex},
    clean,
    container::{BITMASK, COMPRESSED, Layout, OFFSETS, SHAPE, WEIGHT, places},
    draft::Draft,
    export::CONFIG,
    header::{self, alignment},
    json,
    names::{counted_in, is_prunable},
    quantized, read_config,
    scan::{is_counted, is_zero},
};

/// Packs what a draft holds and says so in its list of pieces and its `config.json`. `dense` is the draft, opened, whose tensors the
/// certificate counts.
///
/// # Errors
/// When nothing in it can be packed; when it cannot be written.
pub(crate) fn pack(
    draft: &Draft,
    dense: &Checkpoint,
    container: Container,
    certificate: &FolderCertificate,
) -> Result<Option<ContainerClaim>, CheckpointError> {
    let layout = match container {
        Container::Dense => return Ok(None),
        Container::Bitmask => Layout::Bitmask,
        Container::TwoFour => Layout::TwoFour,
    };
    if let Some(reason) = quantized(dense) {
        return Err(CheckpointError::file(dense.folder(), reason));
    }
    let files: Vec<(File, Vec<Option<Survey>>)> =
        dense.files().iter().map(|file| survey_file(file, layout)).collect::<Result<_, _>>()?;
    let linears = files.iter().flat_map(|(file, _)| file.entries()).zip(dense.tensors());
    let linears = linears.filter(|(_, (_, entry))| counted_in(&entry.name, &entry.shape, true).is_some()).count();
    let packed = files.iter().flat_map(|(_, surveys)| surveys.iter().flatten()).count();
    if packed == 0 {
        return Err(CheckpointError::file(dense.folder(), nothing(dense, layout)));
    }
    let mut claim = ContainerClaim {
        format: layout.name().to_owned(),
        packed: packed as u64,
        linears: linears as u64,
        bytes: 0,
        dense_bytes: 0,
        negative_zeros: None,
        sha256: BTreeMap::new(),
    };
    let (mut places, mut targets, mut total) = (BTreeMap::new(), Vec::new(), 0);
    for (file, surveys) in &files {
        let parts = parts(file, surveys, layout);
        let name = file.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
        for part in &parts {
            places.insert(part.entry.name.clone(), Value::from(name.clone()));
            total += part.entry.bytes();
        }
        let modules = file.entries().iter().zip(surveys).filter(|(_, survey)| survey.is_some());
        targets.extend(modules.filter_map(|(entry, _)| entry.name.strip_suffix(WEIGHT).map(str::to_owned)));
        let (bytes, digest) = write(draft, file, &parts)?;
        claim.bytes += bytes;
        claim.dense_bytes += file.map().len() as u64;
        claim.sha256.insert(name, digest);
    }
    if let Some(index) = dense.index() {
        let mut metadata = index.metadata.clone();
        metadata.insert("total_size".to_owned(), total.into());
        let index = Index { metadata, weight_map: places.into_iter().collect() };
        draft.write(INDEX, json::text(&index).as_bytes())?;
    }
    let mut config = read_config(draft.folder())?;
    clean::forget_zeros(&mut config);
    let (zeros, elements) = certificate.tensors.values().fold((0, 0), |(zeros, elements), tensor| {
        let counted = if tensor.zeros.is_some() { tensor.shape.iter().product::<usize>() as u64 } else { 0 };
        (zeros + tensor.zeros.unwrap_or(0), elements + counted)
    });
    let sparsity = json!({
        "format": layout.name(),
        "global_sparsity": zeros as f64 / elements.max(1) as f64,
        "sparsity_structure": layout.structure(),
        "targets": targets,
        "ignore": [],
    });
    let entry = json!({ "quant_method": "compressed-tensors", "format": "dense", "sparsity_config": sparsity });
    config.insert("quantization_config".to_owned(), entry);
    draft.write(CONFIG, json::text(&config).as_bytes())?;
    Ok(Some(claim))
}

/// Why no linear is packed.
fn nothing(dense: &Checkpoint, layout: Layout) -> String {
    let linears = || dense.tensors().filter(|(_, entry)| is_prunable(&entry.name, &entry.shape));
    match (layout, linears().next()) {
        (_, None) => "it has no prunable linears to pack; write it with `--format dense`".to_owned(),
        (Layout::Bitmask, Some(_)) => {
            "none of its linears has so many zeros that it would be smaller with a bitmask; write it with `--format dense`"
                .to_owned()
        }
        (Layout::TwoFour, Some((file, entry))) => {
            let crowded = crate::scan::crowded_groups(file, entry, 2, 4);
            let name = &entry.name;
            format!(
                "none of its linears follows 2:4 (`{name}`: {crowded} groups of four keep more than two); write it with \
                 `--format bitmask` or `--format dense`"
            )
        }
    }
}

/// The values of a matrix that is packed.
#[derive(Debug)]
struct Survey {
    /// By row.
    kept: Vec<usize>,
}

/// A file under the names that it has itself, and of each tensor, in their order, what is packed.
fn survey_file(file: &File, layout: Layout) -> Result<(File, Vec<Option<Survey>>), CheckpointError> {
    let written = File::open(file.path())?;
    let surveys = written.entries().iter().zip(file.entries()).map(|(entry, named)| {
        let survey = is_packable(&named.name, entry).then(|| survey(file.bytes(named), entry, layout)).flatten();
        file.release(named);
        survey
    });
    let surveys = surveys.collect();
    Ok((written, surveys))
}

/// Whether a tensor, which has this name in the model, is a linear that may be packed.
fn is_packable(name: &str, entry: &Entry) -> bool {
    counted_in(name, &entry.shape, true).is_some() && is_counted(entry.dtype) && entry.elements() > 0
}

/// Elements, each of `size` bytes, for which something holds.
fn count(group: &[u8], size: usize, holds: fn(&[u8]) -> bool) -> usize {
    group.chunks_exact(size).filter(|value| holds(value)).count()
}

/// The values of a matrix; `None` where it does not follow the layout or would not be smaller.
fn survey(bytes: &[u8], entry: &Entry, layout: Layout) -> Option<Survey> {
    let (rows, columns, size) = (entry.shape[0], entry.shape[1], entry.dtype.bitsize() / 8);
    if layout == Layout::TwoFour {
        let crowded = |group: &[u8]| count(group, size, is_value) > 2;
        let fits = columns.is_multiple_of(4) && !bytes.chunks_exact(4 * size).any(crowded);
        return fits.then(|| Survey { kept: vec![columns / 2; rows] });
    }
    let kept: Vec<usize> = bytes.chunks_exact(columns * size).map(|row| count(row, size, is_value)).collect();
    let packed = kept.iter().sum::<usize>() * size + rows * (columns.div_ceil(8) + 8) + 16;
    (packed < bytes.len()).then_some(Survey { kept })
}

/// A linear that follows 2:4 and has groups of four with more than two elements that are stored, because negative zeros are: with zeros in the place of
/// the negative ones of these groups, and how many they are. `None` for every other tensor, which stays as it is.
pub(crate) fn fit_two_of_four(name: &str, entry: &Entry, bytes: &[u8]) -> Option<(Vec<u8>, u64)> {
    if !is_packable(name, entry) || !entry.shape[1].is_multiple_of(4) {
        return None;
    }
    let size = entry.dtype.bitsize() / 8;
    let groups = || bytes.chunks_exact(4 * size);
    let is_crowded = |group: &[u8]| count(group, size, is_value) > 2;
    if !groups().any(is_crowded) || groups().any(|group| count(group, size, |value| !is_zero(value)) > 2) {
        return None;
    }
    let (mut fitted, mut changed) = (bytes.to_vec(), 0);
    for group in fitted.chunks_exact_mut(4 * size).filter(|group| is_crowded(group)) {
        for value in group.chunks_exact_mut(size).filter(|value| is_value(value) && is_zero(value)) {
            value.fill(0);
            changed += 1;
        }
    }
    Some((fitted, changed))
}

/// Whether an element is stored. A negative zero is: what is read back has the same bits.
fn is_value(element: &[u8]) -> bool {
    element.iter().any(|&byte| byte != 0)
}

/// A tensor of a packed file.
struct Part<'a> {
    /// Its place counts from nowhere; its length holds.
    entry: Entry,
    holds: Holds,
    dense: &'a Entry,
    layout: Layout,
    survey: Option<&'a Survey>,
}

#[derive(Clone, Copy, PartialEq)]
enum Holds {
    Everything,
    Values,
    Bitmask,
    Shape,
    Offsets,
}

/// The tensors of the packed file, in the order in which they are written: wide elements first, so that each lies at a multiple of its
/// elements' size.
fn parts<'a>(file: &'a File, surveys: &'a [Option<Survey>], layout: Layout) -> Vec<Part<'a>> {
    let mut parts = Vec::new();
    for (dense, survey) in file.entries().iter().zip(surveys) {
        let (Some(survey), Some(module)) = (survey.as_ref(), dense.name.strip_suffix(WEIGHT)) else {
            parts.push(Part { entry: dense.clone(), holds: Holds::Everything, dense, layout, survey: None });
            continue;
        };
        let (rows, columns) = (dense.shape[0], dense.shape[1]);
        let kept = survey.kept.iter().sum();
        let (values, sizes) = match layout {
            Layout::Bitmask => (vec![kept], vec![2]),
            Layout::TwoFour => (vec![rows, columns / 2], vec![2, 1]),
        };
        let mut add = |ending: &str, holds, dtype: Dtype, shape: Vec<usize>| {
            let range = 0..shape.iter().product::<usize>() * dtype.bitsize() / 8;
            let entry = Entry { name: format!("{module}{ending}"), dtype, shape, range };
            parts.push(Part { entry, holds, dense, layout, survey: Some(survey) });
        };
        add(COMPRESSED, Holds::Values, dense.dtype, values);
        add(BITMASK, Holds::Bitmask, Dtype::U8, vec![rows, columns.div_ceil(8)]);
        add(SHAPE, Holds::Shape, Dtype::I64, sizes);
        if layout == Layout::Bitmask {
            add(OFFSETS, Holds::Offsets, Dtype::I64, vec![rows]);
        }
    }
    let order = |part: &Part<'_>| (std::cmp::Reverse(alignment(part.entry.dtype)), part.entry.name.clone());
    parts.sort_by_cached_key(order);
    parts
}

/// Writes the packed file in the place of the dense one. Answers with its length and its digest.
fn write(draft: &Draft, file: &File, parts: &[Part<'_>]) -> Result<(u64, String), CheckpointError> {
    let name = file.path().file_name().unwrap_or_default();
    let (beside, place) = (draft.folder().join("packing"), draft.folder().join(name));
    let unwritten = || CheckpointError::io("write", &beside);
    let out = fs::File::create(&beside).map_err(unwritten())?;
    let out = Digesting { out, digest: Sha256::new(), bytes: 0 };
    let mut out = BufWriter::with_capacity(1 << 20, out);
    let metadata = header::published(file.metadata()).unwrap_or_else(|| file.metadata().clone());
    let head = header::write(parts.iter().map(|part| &part.entry), &metadata);
    out.write_all(&head).map_err(unwritten())?;
    for part in parts {
        part.write(file.bytes(part.dense), &mut out).map_err(unwritten())?;
        file.release(part.dense);
    }
    let Digesting { out, digest, bytes } = out.into_inner().map_err(|e| unwritten()(e.into_error()))?;
    out.sync_all().map_err(unwritten())?;
    fs::rename(&beside, &place).map_err(CheckpointError::io("write", &place))?;
    Ok((bytes, hex(&digest.finalize())))
}

impl Part<'_> {
    fn write(&self, dense: &[u8], out: &mut dyn Write) -> io::Result<()> {
        let Some(survey) = self.survey else { return out.write_all(dense) };
        let (columns, size) = (self.dense.shape[1], self.dense.dtype.bitsize() / 8);
        match self.holds {
            Holds::Everything => return out.write_all(dense),
            Holds::Shape => return self.dense.shape.iter().try_for_each(|&n| out.write_all(&(n as i64).to_le_bytes())),
            Holds::Offsets => {
                let mut at = 0i64;
                for &kept in &survey.kept {
                    out.write_all(&at.to_le_bytes())?;
                    at += kept as i64;
                }
                return Ok(());
            }
            Holds::Values | Holds::Bitmask => {}
        }
        let mut mask = vec![0; columns.div_ceil(8)];
        let mut values = Vec::with_capacity(columns * size);
        for row in dense.chunks_exact(columns * size) {
            fill(&mut mask, row, size, self.layout);
            if self.holds == Holds::Bitmask {
                out.write_all(&mask)?;
                continue;
            }
            values.clear();
            places(&mask).for_each(|place| values.extend_from_slice(&row[place * size..][..size]));
            out.write_all(&values)?;
        }
        Ok(())
    }
}

/// The places of a row. Of 2:4, every four columns have exactly two: the first zeros stand in for values that are not there.
fn fill(mask: &mut [u8], row: &[u8], size: usize, layout: Layout) {
    mask.fill(0);
    for (place, _) in row.chunks_exact(size).enumerate().filter(|(_, value)| is_value(value)) {
        mask[place / 8] |= 1 << (place % 8);
    }
    if layout == Layout::TwoFour {
        for group in 0..row.len() / size / 4 {
            let (byte, shift) = (&mut mask[group / 2], group % 2 * 4);
            while (*byte >> shift & 0xf).count_ones() < 2 {
                let free = (!(*byte >> shift)).trailing_zeros();
                *byte |= 1 << (shift as u32 + free);
            }
        }
    }
}

/// Counts and digests what is written.
struct Digesting<W> {
    out: W,
    digest: Sha256,
    bytes: u64,
}

impl<W: Write> Write for Digesting<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.digest.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
