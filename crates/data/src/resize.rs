//! Resizing 8-bit RGB to the bit as Pillow does: two passes with fixed-point coefficients.
//!
//! Reference: `Resample.c` and, for the nearest pixel, `Geometry.c` of Pillow 13. The filter is stretched by the reduction, so every
//! source pixel counts; coefficients are rounded to 22 fractional bits and each pass rounds to 8-bit values. The order of the passes
//! therefore shows: Pillow before 13 always began with the horizontal one, 13 begins with the vertical one where heights shrink more.

#[cfg(target_arch = "x86_64")]
mod avx2;

use std::{f64::consts::PI, ops::Range};

/// Fractional bits of a coefficient: eight for the value and two of headroom are left of 32.
const PRECISION: u32 = 32 - 8 - 2;
/// Coefficients of the horizontal pass are kept as two 16-bit parts, for which processors have a multiply-and-add.
const LOW_BITS: u32 = 12;
/// Values that are multiplied at once in the horizontal pass.
const LANES: usize = 16;

/// A resampling filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// The pixel under the centre.
    Nearest,
    /// Sinc, windowed by a sinc three lobes wide.
    Lanczos,
    /// Linear interpolation, or a triangle over what is reduced.
    Bilinear,
    /// Keys' cubic with a = -0.5.
    Bicubic,
    /// Mean of what a pixel covers.
    Box,
    /// Sinc, windowed by Hamming's cosine.
    Hamming,
}

impl Filter {
    /// The filter of a number in `resample`, as Pillow counts them.
    pub fn from_number(number: u64) -> Option<Self> {
        [Self::Nearest, Self::Lanczos, Self::Bilinear, Self::Bicubic, Self::Box, Self::Hamming]
            .get(usize::try_from(number).ok()?)
            .copied()
    }

    /// Half the width of the filter, in source pixels when nothing is reduced.
    fn support(self) -> f64 {
        match self {
            Self::Nearest | Self::Box => 0.5,
            Self::Bilinear | Self::Hamming => 1.0,
            Self::Bicubic => 2.0,
            Self::Lanczos => 3.0,
        }
    }

    fn weight(self, x: f64) -> f64 {
        let sinc = |x: f64| if x == 0.0 { 1.0 } else { (x * PI).sin() / (x * PI) };
        match self {
            Self::Nearest | Self::Box => f64::from(u8::from(x > -0.5 && x <= 0.5)),
            Self::Bilinear => (1.0 - x.abs()).max(0.0),
            Self::Hamming if x == 0.0 => 1.0,
            Self::Hamming if x.abs() >= 1.0 => 0.0,
            // Pillow's two constants have single precision.
            Self::Hamming => sinc(x.abs()) * (f64::from(0.54_f32) + f64::from(0.46_f32) * (x.abs() * PI).cos()),
            Self::Bicubic => {
                const A: f64 = -0.5;
                let x = x.abs();
                if x < 1.0 {
                    ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
                } else if x < 2.0 {
                    (((x - 5.0) * x + 8.0) * x - 4.0) * A
                } else {
                    0.0
                }
            }
            Self::Lanczos if (-3.0..3.0).contains(&x) => sinc(x) * sinc(x / 3.0),
            Self::Lanczos => 0.0,
        }
    }
}

/// Width and height of an image.
pub type Size = (usize, usize);

/// The part of the resized image that is wanted; pixels outside are never computed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// Columns.
    pub x: Range<usize>,
    /// Rows.
    pub y: Range<usize>,
}

impl Window {
    /// The whole image.
    pub fn whole((width, height): Size) -> Self {
        Self { x: 0..width, y: 0..height }
    }
}

/// Resizes `rgb` `[height, width, 3]` to `to` and returns the window of it, interleaved.
///
/// Sizes must not be zero and the window must lie inside `to`.
pub fn resize(rgb: &[u8], from: Size, to: Size, filter: Filter, window: &Window) -> Vec<u8> {
    debug_assert!(rgb.len() == 3 * from.0 * from.1 && window.x.end <= to.0 && window.y.end <= to.1);
    if filter == Filter::Nearest && from != to {
        return nearest(rgb, from, to, window);
    }
    let across = (from.0 != to.0).then(|| Taps::new(from.0, to.0, filter, window.x.clone()));
    let down = (from.1 != to.1).then(|| Taps::new(from.1, to.1, filter, window.y.clone()));
    // What is read of the source.
    let columns = across.as_ref().map_or(window.x.clone(), Taps::reach);
    let rows = down.as_ref().map_or(window.y.clone(), Taps::reach);
    let source: Vec<&[u8]> = rgb
        .chunks_exact(3 * from.0)
        .skip(rows.start)
        .take(rows.len())
        .map(|row| &row[3 * columns.start..3 * columns.end])
        .collect();

    let horizontally = |rows: &[&[u8]]| across.as_ref().map(|taps| horizontal(rows, columns.start, taps));
    let vertically = |values: &[&[u8]]| down.as_ref().map(|taps| vertical(values, rows.start, taps));
    let (first, width) = if vertical_first(from, to) {
        (vertically(&source), columns.len())
    } else {
        (horizontally(&source), window.x.len())
    };
    let half: Option<Vec<&[u8]>> = first.as_ref().map(|values| values.chunks_exact(3 * width).collect());
    let rows = half.as_deref().unwrap_or(&source);
    let second = if vertical_first(from, to) { horizontally(rows) } else { vertically(rows) };
    second.or(first).unwrap_or_else(|| source.concat())
}

/// Pillow's rule: the height shrinks by more than twice what the width does.
fn vertical_first(from: Size, to: Size) -> bool {
    let shrinks = |from: usize, to: usize| from as i64 - to as i64;
    shrinks(from.1, to.1) > (2 * shrinks(from.0, to.0)).max(0)
}

/// Source pixels and their coefficients for each pixel of one axis.
struct Taps {
    spans: Vec<Span>,
    coefficients: Vec<i32>,
}

#[derive(Clone, Copy)]
struct Span {
    /// First source pixel.
    source: usize,
    /// First coefficient.
    at: usize,
    count: usize,
}

impl Taps {
    fn new(from: usize, to: usize, filter: Filter, window: Range<usize>) -> Self {
        let scale = from as f64 / to as f64;
        let stretch = scale.max(1.0);
        let support = filter.support() * stretch;
        let mut taps = Self { spans: Vec::with_capacity(window.len()), coefficients: Vec::new() };
        let mut weights = Vec::new();
        for pixel in window {
            let centre = (pixel as f64 + 0.5) * scale;
            // Casts cut towards zero, and saturate where the sum is negative.
            let source = (centre - support + 0.5) as usize;
            let end = ((centre + support + 0.5) as usize).min(from);
            weights.clear();
            weights.extend((source..end).map(|x| filter.weight((x as f64 - centre + 0.5) * (1.0 / stretch))));
            let sum: f64 = weights.iter().sum();
            taps.spans.push(Span { source, at: taps.coefficients.len(), count: weights.len() });
            taps.coefficients.extend(weights.iter().map(|weight| {
                let share = if sum == 0.0 { *weight } else { weight / sum };
                (share * f64::from(1 << PRECISION) + 0.5_f64.copysign(share)) as i32
            }));
        }
        taps
    }

    /// Source pixels that are read at all.
    fn reach(&self) -> Range<usize> {
        let start = self.spans.iter().map(|span| span.source).min().unwrap_or(0);
        let end = self.spans.iter().map(|span| span.source + span.count).max().unwrap_or(0);
        start..end.max(start)
    }
}

/// Coefficients of the horizontal pass in two parts, filled up with zeros to whole lanes so that no dot product has a rest.
struct Lanes {
    /// First source pixel, first coefficient, and coefficients of each pixel.
    spans: Vec<(usize, usize, usize)>,
    high: Vec<i16>,
    low: Vec<i16>,
}

impl Lanes {
    fn new(taps: &Taps, first: usize) -> Self {
        let mut lanes = Self { spans: Vec::with_capacity(taps.spans.len()), high: Vec::new(), low: Vec::new() };
        for span in &taps.spans {
            let start = lanes.high.len();
            for c in &taps.coefficients[span.at..span.at + span.count] {
                lanes.high.push((c >> LOW_BITS) as i16);
                lanes.low.push((c & ((1 << LOW_BITS) - 1)) as i16);
            }
            lanes.high.resize(lanes.high.len().next_multiple_of(LANES), 0);
            lanes.low.resize(lanes.high.len(), 0);
            lanes.spans.push((span.source - first, start, lanes.high.len() - start));
        }
        lanes
    }
}

/// The first value of a row belongs to column `first` of the source.
fn horizontal(rows: &[&[u8]], first: usize, taps: &Taps) -> Vec<u8> {
    let lanes = Lanes::new(taps, first);
    let width = rows.first().map_or(0, |row| row.len() / 3);
    let mut planes: [Vec<i16>; 3] = std::array::from_fn(|_| vec![0; width + LANES]);
    let mut narrow = vec![0; 3 * lanes.spans.len() * rows.len()];
    for (row, narrow) in rows.iter().zip(narrow.chunks_exact_mut((3 * lanes.spans.len()).max(1))) {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has the instructions.
            unsafe { avx2::horizontal(row, &lanes, &mut planes, narrow) };
            continue;
        }
        separate(row, &mut planes);
        for (&(source, at, count), pixel) in lanes.spans.iter().zip(narrow.as_chunks_mut::<3>().0) {
            let (high, low) = (&lanes.high[at..at + count], &lanes.low[at..at + count]);
            *pixel = planes.each_ref().map(|plane| {
                let values = &plane[source..source + count];
                let sum = dot(values, high).wrapping_shl(LOW_BITS).wrapping_add(dot(values, low));
                rounded(sum.wrapping_add(1 << (PRECISION - 1)))
            });
        }
    }
    narrow
}

/// The three channels of interleaved values.
#[inline(always)]
fn separate(row: &[u8], [red, green, blue]: &mut [Vec<i16>; 3]) {
    for (((pixel, red), green), blue) in row.as_chunks::<3>().0.iter().zip(red).zip(green).zip(blue) {
        (*red, *green, *blue) = (i16::from(pixel[0]), i16::from(pixel[1]), i16::from(pixel[2]));
    }
}

/// Sum of products, exact modulo 2^32; the sum of a coefficient's both parts fits.
fn dot(values: &[i16], coefficients: &[i16]) -> i32 {
    let (values, coefficients) = (values.as_chunks::<LANES>().0, coefficients.as_chunks::<LANES>().0);
    values.iter().zip(coefficients).fold(0, |sum: i32, (values, coefficients)| {
        let products =
            std::array::from_fn::<i32, LANES, _>(|i| i32::from(values[i]).wrapping_mul(i32::from(coefficients[i])));
        products.iter().fold(sum, |sum, product| sum.wrapping_add(*product))
    })
}

/// The first row is row `first` of the source.
fn vertical(rows: &[&[u8]], first: usize, taps: &Taps) -> Vec<u8> {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has the instructions.
        return unsafe { avx2::vertical(rows, first, taps) };
    }
    weighted_rows(rows, first, taps)
}

/// As [`vertical`], compiled for the instructions of its caller.
#[inline(always)]
fn weighted_rows(rows: &[&[u8]], first: usize, taps: &Taps) -> Vec<u8> {
    let length = rows.first().map_or(0, |row| row.len());
    let mut small = Vec::with_capacity(length * taps.spans.len());
    let mut sums = vec![0_i32; length];
    for span in &taps.spans {
        sums.fill(1 << (PRECISION - 1));
        let sources = &rows[span.source - first..span.source - first + span.count];
        for (source, c) in sources.iter().zip(&taps.coefficients[span.at..]) {
            for (sum, value) in sums.iter_mut().zip(*source) {
                *sum = sum.wrapping_add(i32::from(*value).wrapping_mul(*c));
            }
        }
        small.extend(sums.iter().map(|sum| rounded(*sum)));
    }
    small
}

#[inline(always)]
fn rounded(sum: i32) -> u8 {
    (sum >> PRECISION).clamp(0, 255) as u8
}

fn nearest(rgb: &[u8], from: Size, to: Size, window: &Window) -> Vec<u8> {
    let columns = nearest_sources(from.0, to.0, &window.x);
    let rows = nearest_sources(from.1, to.1, &window.y);
    let mut small = Vec::with_capacity(3 * columns.len() * rows.len());
    for y in rows {
        let row = &rgb[3 * from.0 * y..3 * from.0 * (y + 1)];
        small.extend(columns.iter().flat_map(|x| &row[3 * x..3 * x + 3]));
    }
    small
}

/// Positions are summed up step by step, as Pillow does: it decides which of two equally near pixels is taken.
fn nearest_sources(from: usize, to: usize, window: &Range<usize>) -> Vec<usize> {
    let step = from as f64 / to as f64;
    let positions = std::iter::successors(Some(step * 0.5), |position| Some(position + step));
    positions.skip(window.start).take(window.len()).map(|position| (position as usize).min(from - 1)).collect()
}
