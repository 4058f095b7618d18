//! Counting on the bytes of tensors: zeros, values that are not finite, N:M groups. Several threads; nothing is converted to floats.

use std::{
    ops::Range,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use ressa_experiment::Pattern;
use safetensors::Dtype;

use crate::{Entry, File, names::is_prunable};

/// Group sizes that are looked for when nothing is claimed.
const GROUPS: [usize; 4] = [2, 4, 8, 16];
/// Elements that one thread looks at before it takes the next piece.
const PIECE: usize = 1 << 21;
/// Elements counted at once: what 16-bit counters can hold and a core's cache too.
const BATCH: usize = 1 << 13;

/// What was counted in a tensor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Elements.
    pub elements: u64,
    /// Elements that are zero, of either sign.
    pub zeros: u64,
    /// Infinities and NaNs.
    pub non_finite: u64,
    /// Most values in any aligned group of each of the sizes that are looked for.
    peaks: [u8; GROUPS.len()],
}

impl Counts {
    fn add(&mut self, other: Counts) {
        self.elements += other.elements;
        self.zeros += other.zeros;
        self.non_finite += other.non_finite;
        for (peak, other) in self.peaks.iter_mut().zip(other.peaks) {
            *peak = (*peak).max(other);
        }
    }

    /// Fraction of zeros; 0 where there is nothing.
    pub fn sparsity(&self) -> f64 {
        if self.elements == 0 { 0.0 } else { self.zeros as f64 / self.elements as f64 }
    }

    /// The N:M pattern that the zeros of a matrix with so many inputs follow: the smallest group of which none holds more than N values
    /// and nearly all hold exactly N. A matrix that is merely very sparse follows none.
    pub fn pattern(&self, inputs: usize) -> Option<Pattern> {
        let values = (self.elements - self.zeros) as f64;
        GROUPS.iter().zip(self.peaks).find_map(|(&of, peak)| {
            let peak = usize::from(peak);
            let expected = self.elements as f64 * peak as f64 / of as f64;
            let fits = inputs.is_multiple_of(of) && (1..of).contains(&peak) && values >= 0.9 * expected;
            fits.then_some(Pattern::NOfM { keep: peak as u32, of: of as u32 })
        })
    }
}

/// Whether elements of this type are counted: f64, f32, f16 and bf16.
pub fn is_counted(dtype: Dtype) -> bool {
    exponent(dtype).is_some()
}

/// The bits that are all set in infinities and NaNs only.
fn exponent(dtype: Dtype) -> Option<u64> {
    match dtype {
        Dtype::F64 => Some(0x7ff0_0000_0000_0000),
        Dtype::F32 => Some(0x7f80_0000),
        Dtype::F16 => Some(0x7c00),
        Dtype::BF16 => Some(0x7f80),
        _ => None,
    }
}

/// Counts tensors, given with their bytes, in their order; `None` for types that are not floats. `threads` at most; groups are looked at in
/// prunable matrices.
pub fn scan(tensors: &[(&Entry, &[u8])], threads: usize) -> Vec<Option<Counts>> {
    let mut pieces: Vec<(usize, Range<usize>)> = Vec::new();
    for (position, (entry, _)) in tensors.iter().enumerate().filter(|(_, (entry, _))| is_counted(entry.dtype)) {
        let elements = entry.elements();
        let starts = (0..elements).step_by(PIECE);
        pieces.extend(starts.map(|start| (position, start..(start + PIECE).min(elements))));
    }
    let found = in_turn(pieces.len(), threads, |piece| {
        let (position, range) = &pieces[piece];
        let (entry, bytes) = tensors[*position];
        count(entry, bytes, range.clone())
    });
    let mut totals: Vec<_> = tensors.iter().map(|(entry, _)| is_counted(entry.dtype).then(Counts::default)).collect();
    for ((position, _), found) in pieces.iter().zip(found) {
        if let Some(total) = &mut totals[*position] {
            total.add(found);
        }
    }
    totals
}

/// What `work` makes of each number below `many`, in their order, on at most so many threads.
pub(crate) fn in_turn<T: Send>(many: usize, threads: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let found = Mutex::new(Vec::with_capacity(many));
    let next = AtomicUsize::new(0);
    let take_turns = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at >= many {
                return;
            }
            let made = work(at);
            found.lock().unwrap_or_else(PoisonError::into_inner).push((at, made));
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads.min(many) {
            scope.spawn(take_turns);
        }
        take_turns();
    });
    let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    found.sort_unstable_by_key(|(at, _)| *at);
    found.into_iter().map(|(_, made)| made).collect()
}

/// Threads that this machine has for counting.
pub fn threads() -> usize {
    thread::available_parallelism().map_or(1, usize::from).min(16)
}

fn count(entry: &Entry, bytes: &[u8], range: Range<usize>) -> Counts {
    let size = entry.dtype.bitsize() / 8;
    let Some(exponent) = exponent(entry.dtype) else { return Counts::default() };
    let grouped = is_prunable(&entry.name, &entry.shape);
    let mut counts = Counts::default();
    for batch in bytes[range.start * size..range.end * size].chunks(BATCH * size) {
        counts.add(match size {
            2 => u16s::batch(batch, exponent as u16, grouped),
            4 => u32s::batch(batch, exponent as u32, grouped),
            _ => u64s::batch(batch, exponent, grouped),
        });
    }
    counts
}

/// Groups of `of` consecutive inputs with more than `keep` values; every group of a matrix whose rows `of` does not divide.
/// The matrix is of a type that is counted.
pub fn crowded_groups(file: &File, entry: &Entry, keep: u32, of: u32) -> u64 {
    let inputs = entry.shape.last().copied().unwrap_or(0);
    let (keep, of) = (keep as usize, of as usize);
    let rows = entry.elements().checked_div(inputs).unwrap_or(0);
    if !inputs.is_multiple_of(of) {
        return (rows * inputs.div_ceil(of)) as u64;
    }
    let size = entry.dtype.bitsize() / 8;
    let bytes = file.read(entry);
    let is_crowded = |group: &&[u8]| group.chunks_exact(size).filter(|element| !is_zero(element)).count() > keep;
    bytes.chunks_exact(of * size).filter(is_crowded).count() as u64
}

/// Whether a float, given by its bytes, is zero of either sign.
pub(crate) fn is_zero(element: &[u8]) -> bool {
    // Little-endian: the sign is the highest bit of the last byte.
    element.split_last().is_none_or(|(last, rest)| last & 0x7f == 0 && rest.iter().all(|&byte| byte == 0))
}

/// Most values in any aligned group of each size. Fields are bytes of eight words, so that the compiler uses vector registers.
struct Peaks([[u8; 64]; GROUPS.len()]);

impl Peaks {
    /// Adds up ever larger groups of 64 elements, given one byte each: 1 for a value, 0 for a zero.
    fn see(&mut self, flags: &[u8; 64]) {
        let mut words = [0u64; 8];
        for (word, flags) in words.iter_mut().zip(flags.as_chunks::<8>().0) {
            *word = u64::from_le_bytes(*flags);
        }
        for (group, (shift, fields)) in
            [(8, 0x00ff_00ff_00ff_00ff), (16, 0x0000_00ff_0000_00ff), (32, 0xff)].into_iter().enumerate()
        {
            for word in &mut words {
                *word = word.wrapping_add(*word >> shift) & fields;
            }
            self.raise(group, &words);
        }
        let mut sixteens = [0u64; 8];
        for (sixteen, eights) in sixteens.iter_mut().zip(words.as_chunks::<2>().0) {
            *sixteen = eights[0].wrapping_add(eights[1]);
        }
        self.raise(3, &sixteens);
    }

    fn raise(&mut self, group: usize, words: &[u64; 8]) {
        let mut fields = [0u8; 64];
        for (fields, word) in fields.as_chunks_mut::<8>().0.iter_mut().zip(words) {
            *fields = word.to_le_bytes();
        }
        for (peak, field) in self.0[group].iter_mut().zip(fields) {
            *peak = (*peak).max(field);
        }
    }

    fn finish(self) -> [u8; GROUPS.len()] {
        self.0.map(|fields| fields.into_iter().max().unwrap_or(0))
    }
}

/// The loops for one width of elements. Counters are as wide as the elements, so that the compiler uses whole vector registers; a batch
/// is short enough for them.
macro_rules! kernels {
    ($module:ident, $word:ty, $size:literal) => {
        mod $module {
            use super::{Counts, GROUPS, Peaks};

            pub fn batch(bytes: &[u8], exponent: $word, grouped: bool) -> Counts {
                let magnitude = <$word>::MAX >> 1;
                let (mut zeros, mut odd): ($word, $word) = (0, 0);
                let elements = bytes.as_chunks::<$size>().0;
                for &element in elements {
                    let bits = <$word>::from_le_bytes(element) & magnitude;
                    zeros = zeros.wrapping_add(<$word>::from(bits == 0));
                    odd = odd.wrapping_add(<$word>::from(bits & exponent == exponent));
                }
                let largest = GROUPS[GROUPS.len() - 1];
                // With fewer zeros than groups, some group of every size is full.
                let sparse = grouped && zeros as usize >= elements.len() / largest;
                let peaks = if sparse { peaks(elements, magnitude) } else { GROUPS.map(|of| of as u8) };
                Counts { elements: elements.len() as u64, zeros: zeros.into(), non_finite: odd.into(), peaks }
            }

            fn peaks(elements: &[[u8; $size]], magnitude: $word) -> [u8; GROUPS.len()] {
                let mut peaks = Peaks([[0; 64]; GROUPS.len()]);
                let (whole, rest) = elements.as_chunks::<64>();
                let mut flags = [0u8; 64];
                for group in whole {
                    for (flag, &element) in flags.iter_mut().zip(group) {
                        *flag = u8::from(<$word>::from_le_bytes(element) & magnitude != 0);
                    }
                    peaks.see(&flags);
                }
                flags = [0u8; 64];
                for (flag, &element) in flags.iter_mut().zip(rest) {
                    *flag = u8::from(<$word>::from_le_bytes(element) & magnitude != 0);
                }
                peaks.see(&flags);
                peaks.finish()
            }
        }
    };
}

kernels!(u16s, u16, 2);
kernels!(u32s, u32, 4);
kernels!(u64s, u64, 8);
