//! Linears stored without their zeros: recognised by the names of their parts, every claim checked, and unpacked.
//!
//! The layouts are the two that compressed-tensors had for sparse weights, `sparse-bitmask` and `sparse-24-bitmask`; `CONTAINERS.md` beside
//! this crate's manifest says what is where.

mod image;
mod pack;

use std::{collections::BTreeMap, ops::Range};

use safetensors::Dtype;

use crate::{Entry, scan::is_counted};

pub(crate) use image::Image;
pub(crate) use pack::{fit_two_of_four, pack};

/// What stands behind a linear's name in the names of its parts: its values, which places they have, its sizes, and where each row begins.
pub(crate) const COMPRESSED: &str = ".compressed";
const BITMASK: &str = ".bitmask";
const SHAPE: &str = ".shape";
const OFFSETS: &str = ".row_offsets";
/// What stands there in a dense file.
const WEIGHT: &str = ".weight";

/// What says which places of a matrix hold a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Layout {
    /// Any places; values of all rows in one line.
    Bitmask,
    /// Two of every four places; a matrix of half the columns.
    TwoFour,
}

impl Layout {
    /// The name in `config.json` and in certificates.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Layout::Bitmask => "sparse-bitmask",
            Layout::TwoFour => "sparse-24-bitmask",
        }
    }

    /// What `config.json` calls the places.
    fn structure(self) -> &'static str {
        match self {
            Layout::Bitmask => "unstructured",
            Layout::TwoFour => "2:4",
        }
    }
}

/// A packed matrix of a file, sound in itself: as many values as places, in every row.
#[derive(Clone, Debug)]
pub(crate) struct Packed {
    /// Name of the dense tensor.
    pub name: String,
    pub dtype: Dtype,
    /// Rows and columns.
    pub sizes: [usize; 2],
    pub layout: Layout,
    values: Range<usize>,
    bitmask: Range<usize>,
}

impl Packed {
    /// The packed matrices of a file by the name of their module, and what is wrong with the first that is not sound, in words.
    pub(crate) fn all(entries: &[Entry], file: &[u8]) -> Result<BTreeMap<String, Self>, String> {
        let named: BTreeMap<&str, &Entry> = entries.iter().map(|entry| (entry.name.as_str(), entry)).collect();
        let mut found = BTreeMap::new();
        for values in entries {
            // Codes of fewer bits beside a bitmask are quantized weights, which are refused elsewhere.
            let Some(module) = values.name.strip_suffix(COMPRESSED).filter(|_| is_counted(values.dtype)) else {
                continue;
            };
            let part = |ending: &str| named.get(format!("{module}{ending}").as_str()).copied();
            let Some(bitmask) = part(BITMASK) else { continue };
            let Some(shape) = part(SHAPE) else {
                return Err(format!(
                    "tensor `{module}{COMPRESSED}` is packed and `{module}{SHAPE}` is not in this file"
                ));
            };
            if part(WEIGHT).is_some() {
                return Err(format!("tensor `{module}{WEIGHT}` is there twice, once packed"));
            }
            let parts = Parts { module, values, bitmask, shape, offsets: part(OFFSETS) };
            found.insert(module.to_owned(), parts.check(file)?);
        }
        Ok(found)
    }

    /// Whether a tensor of a file is a part of one of these.
    pub(crate) fn holds(packed: &BTreeMap<String, Self>, name: &str) -> bool {
        let module = [COMPRESSED, BITMASK, SHAPE, OFFSETS].iter().find_map(|ending| name.strip_suffix(ending));
        module.is_some_and(|module| packed.contains_key(module))
    }

    /// The dense tensor's bytes.
    pub(crate) fn unpack(&self, file: &[u8]) -> Vec<u8> {
        let [rows, columns] = self.sizes;
        let size = self.dtype.bitsize() / 8;
        let mut dense = vec![0; rows * columns * size];
        let mut values = file[self.values.clone()].chunks_exact(size);
        let masks = file[self.bitmask.clone()].chunks_exact(columns.div_ceil(8));
        for (row, mask) in dense.chunks_exact_mut(columns * size).zip(masks) {
            for (place, value) in places(mask).zip(&mut values) {
                row[place * size..][..size].copy_from_slice(value);
            }
        }
        dense
    }
}

/// The parts of a matrix that is said to be packed.
struct Parts<'a> {
    module: &'a str,
    values: &'a Entry,
    bitmask: &'a Entry,
    shape: &'a Entry,
    offsets: Option<&'a Entry>,
}

impl Parts<'_> {
    fn check(&self, file: &[u8]) -> Result<Packed, String> {
        let sizes = self.sizes(file)?;
        let [rows, columns] = sizes;
        let is = |entry: &Entry, dtype: Dtype, shape: &[usize]| {
            if entry.dtype == dtype && entry.shape == shape {
                return Ok(());
            }
            let Entry { name, dtype: found, shape: has, .. } = entry;
            Err(format!(
                "tensor `{name}` is {found} {has:?}; a packed matrix of {rows} x {columns} needs {dtype} {shape:?}"
            ))
        };
        let width = columns.div_ceil(8);
        is(self.bitmask, Dtype::U8, &[rows, width])?;
        let layout = if self.offsets.is_some() { Layout::Bitmask } else { Layout::TwoFour };
        let masks = file[self.bitmask.range.clone()].chunks_exact(width);
        match self.offsets {
            Some(offsets) => {
                is(offsets, Dtype::I64, &[rows])?;
                is(self.values, self.values.dtype, &[self.values.elements()])?;
                self.check_rows(masks, &file[offsets.range.clone()], columns)?;
            }
            None => {
                if !columns.is_multiple_of(4) {
                    let wants = "without `.row_offsets` it is packed 2:4, which needs a multiple of four";
                    return Err(format!("tensor `{}` says {columns} columns; {wants}", self.shape.name));
                }
                is(self.values, self.values.dtype, &[rows, columns / 2])?;
                for (row, mask) in masks.enumerate() {
                    let two = |byte: &u8| [byte & 0xf, byte >> 4].iter().all(|group| group.count_ones() == 2);
                    let (whole, rest) = mask.split_at(columns / 8);
                    let last = rest.iter().all(|byte| byte.count_ones() == 2 && byte >> 4 == 0);
                    if !whole.iter().all(two) || !last {
                        let name = &self.bitmask.name;
                        return Err(format!("tensor `{name}` has not two places in every four columns of row {row}"));
                    }
                }
            }
        }
        Ok(Packed {
            name: format!("{}{WEIGHT}", self.module),
            dtype: self.values.dtype,
            sizes,
            layout,
            values: self.values.range.clone(),
            bitmask: self.bitmask.range.clone(),
        })
    }

    /// Rows and columns as `.shape` has them.
    fn sizes(&self, file: &[u8]) -> Result<[usize; 2], String> {
        let Entry { name, dtype, shape, range } = self.shape;
        let numbers = file[range.clone()].as_chunks::<8>().0;
        let &[rows, columns] = numbers else {
            return Err(format!("tensor `{name}` is {dtype} {shape:?}; the sizes of a packed matrix are I64 [2]"));
        };
        if *dtype != Dtype::I64 {
            return Err(format!("tensor `{name}` is {dtype} {shape:?}; the sizes of a packed matrix are I64 [2]"));
        }
        let [rows, columns] = [rows, columns].map(i64::from_le_bytes);
        // The bitmask, whose place in the file is known, has a bit for each element: what is larger is not there.
        let most = self.bitmask.bytes().saturating_mul(8) as i64;
        if rows < 1 || columns < 1 || rows.checked_mul(columns).is_none_or(|elements| elements > most) {
            return Err(format!(
                "tensor `{name}` says {rows} x {columns}, and `{}` has {most} places",
                self.bitmask.name
            ));
        }
        Ok([rows as usize, columns as usize])
    }

    /// Whether each row has as many places as its offsets say, and all together as many as there are values.
    fn check_rows<'a>(
        &self,
        masks: impl Iterator<Item = &'a [u8]>,
        offsets: &[u8],
        columns: usize,
    ) -> Result<(), String> {
        let mut at = 0;
        for (row, (mask, offset)) in masks.zip(offsets.as_chunks::<8>().0).enumerate() {
            let offset = i64::from_le_bytes(*offset);
            if offset != at as i64 {
                let name = format!("{}{OFFSETS}", self.module);
                return Err(format!(
                    "tensor `{name}` says {offset} for row {row}; the rows before it have {at} values"
                ));
            }
            let used = columns % 8;
            if used > 0 && mask.last().is_some_and(|last| last >> used != 0) {
                return Err(format!("tensor `{}` has a place behind the last column of row {row}", self.bitmask.name));
            }
            at += mask.iter().map(|byte| byte.count_ones() as usize).sum::<usize>();
        }
        if at != self.values.elements() {
            let (name, values) = (&self.values.name, self.values.elements());
            return Err(format!("tensor `{name}` has {values} values, its bitmask {at} places"));
        }
        Ok(())
    }
}

/// Places of a row that hold a value; the first is the lowest bit of the first byte.
fn places(mask: &[u8]) -> impl Iterator<Item = usize> {
    mask.iter().enumerate().flat_map(|(at, &byte)| {
        let mut rest = byte;
        std::iter::from_fn(move || {
            let bit = rest.trailing_zeros();
            rest &= rest.checked_sub(1)?;
            Some(at * 8 + bit as usize)
        })
    })
}
