//! Images for models that read them as tiles of one size and, behind those, as a whole: the canvas that holds both, and the text that
//! stands for it in a prompt.
//!
//! Reference: `Idefics3ImageProcessor` and `Idefics3Processor` in transformers 4.57, `image_processing_idefics3.py` and
//! `processing_idefics3.py`; those of SmolVLM are the same. `GotOcr2ImageProcessor` and `InternVLProcessor`, `image_processing_got_ocr2.py` and
//! `processing_internvl.py`. Differs: an image is made RGB before it is resized; the reference resizes grey
//! images and palettes by nearest neighbours.

use std::ops::RangeInclusive;

use crate::{
    Image,
    resize::{Filter, Window, resize},
};

/// Longest side after the first resizing; no setting of the reference.
const LONGEST: u32 = 4096;
/// Most pixels of a canvas.
const MOST_PIXELS: u64 = 1 << 26;
/// Most tiles of an image.
const MOST_TILES: u64 = 1 << 12;

/// Tiles of a canvas: rows of them, and in a row of its own below, on the left, the whole image at the size of a tile. A canvas of one tile
/// is an image that was not split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tiles {
    /// Height and width of a tile in pixels.
    pub side: u32,
}

impl Tiles {
    /// Rows and columns of tiles on a canvas of so many pixels in height and width; nothing of both where the image was not split.
    pub fn grid(&self, (height, width): (u32, u32)) -> [u32; 2] {
        let side = self.side.max(1);
        match (height / side).saturating_sub(1) {
            0 => [0, 0],
            rows => [rows, width / side],
        }
    }

    /// Tiles of a canvas, the whole image among them.
    pub fn count(&self, size: (u32, u32)) -> usize {
        let [rows, columns] = self.grid(size);
        rows as usize * columns as usize + 1
    }

    /// Values of a canvas `[3, height, width]` as tiles `[tiles, 3, side, side]`, the whole image last.
    pub fn cut(&self, pixels: &[f32], size: (u32, u32)) -> Vec<f32> {
        let [rows, columns] = self.grid(size);
        let places = (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column))).chain([(rows, 0)]);
        squares(pixels, size, self.side, places)
    }
}

/// Squares of a canvas `[3, height, width]` at places in rows and columns of squares: `[places, 3, side, side]`.
pub(crate) fn squares(
    pixels: &[f32],
    (height, width): (u32, u32),
    side: u32,
    places: impl Iterator<Item = (u32, u32)>,
) -> Vec<f32> {
    let [height, width, side] = [height, width, side].map(|length| length as usize);
    let mut squares = Vec::with_capacity(places.size_hint().0 * 3 * side * side);
    for (top, left) in places.map(|(row, column)| (row as usize * side, column as usize * side)) {
        for row in (0..3).flat_map(|channel| (0..side).map(move |row| channel * height + top + row)) {
            squares.extend_from_slice(&pixels[row * width + left..][..side]);
        }
    }
    squares
}

/// Which rows and columns of tiles an image becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Splits {
    /// None: a tile is the whole image.
    Never,
    /// As many as its sides, brought to multiples of a tile's, have (Idefics3 and SmolVLM).
    BySize,
    /// Of all grids with at least and at most so many tiles, the one whose shape is nearest to its own (InternVL).
    ByShape {
        /// Fewest tiles.
        least: u32,
        /// Most tiles.
        most: u32,
    },
}

/// How an image becomes a canvas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tiling {
    pub tiles: Tiles,
    /// What the longer side is brought to first; nothing where images stay as they are.
    pub longest: Option<u32>,
    pub splits: Splits,
    pub filter: Filter,
}

/// The sizes, width and height, that an image is brought to one after the other, and the rows and columns that it is split into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Steps {
    first: (u32, u32),
    second: (u32, u32),
    grid: [u32; 2],
}

impl Tiling {
    /// Tiles of the largest canvas, the whole image among them; `None` where images stay as they are, so that each has its own number.
    pub fn most(&self) -> Option<u64> {
        match self.splits {
            Splits::Never => return Some(1),
            Splits::ByShape { most, .. } => return Some(u64::from(most) + u64::from(most > 1)),
            Splits::BySize => {}
        }
        // The shorter side is made even, which may make it the longer one.
        let longest = self.longest?.next_multiple_of(2).min(LONGEST);
        Some(1 + u64::from(longest.div_ceil(self.tiles.side.max(1))).pow(2))
    }

    /// Height and width of the canvas of an image.
    ///
    /// # Errors
    /// In words: an image without pixels, or one whose tiles would be too many.
    pub fn canvas(&self, width: u32, height: u32) -> Result<(u32, u32), String> {
        let [rows, columns] = self.steps(width, height)?.grid;
        let side = self.tiles.side;
        Ok(((rows + 1) * side, columns.max(1) * side))
    }

    fn steps(&self, width: u32, height: u32) -> Result<Steps, String> {
        if width == 0 || height == 0 {
            return Err("it has no pixels".to_owned());
        }
        let side = self.tiles.side;
        let first = self.longest.map_or((width, height), |longest| below(towards((width, height), longest), LONGEST));
        let second = match self.splits {
            Splits::Never => return Ok(Steps { first, second: (side, side), grid: [0, 0] }),
            Splits::BySize => multiples(first, side),
            Splits::ByShape { least, most } => {
                let [rows, columns] = nearest((width, height), side, least..=most);
                (columns.saturating_mul(side), rows.saturating_mul(side))
            }
        };
        let [rows, columns] = [second.1, second.0].map(|length| u64::from(length / side));
        let pixels = (rows + 1).saturating_mul(columns).saturating_mul(u64::from(side) * u64::from(side));
        if pixels > MOST_PIXELS || rows.saturating_mul(columns) >= MOST_TILES {
            return Err(format!(
                "it would become {rows} rows and {columns} columns of tiles of {side}x{side} pixels, more than fit; make it smaller"
            ));
        }
        let split = second.0 > side || second.1 > side;
        Ok(Steps { first, second, grid: if split { [rows as u32, columns as u32] } else { [0, 0] } })
    }

    /// The canvas of an image, interleaved. What no tile covers is 0.
    ///
    /// # Errors
    /// As [`Tiling::canvas`].
    pub fn draw(&self, image: &Image) -> Result<Vec<u8>, String> {
        let own = (image.width(), image.height());
        let Steps { first, second, grid: [rows, _] } = self.steps(own.0, own.1)?;
        let brought = |rgb: &[u8], from: (u32, u32), to: (u32, u32)| {
            let [from, to] = [from, to].map(|(width, height)| (width as usize, height as usize));
            resize(rgb, from, to, self.filter, &Window::whole(to))
        };
        let split = brought(&brought(&image.rgb(), own, first), first, second);
        if rows == 0 {
            return Ok(split);
        }
        let side = self.tiles.side;
        let whole = match self.splits {
            Splits::ByShape { .. } => brought(&image.rgb(), own, (side, side)),
            Splits::Never | Splits::BySize => brought(&split, second, (side, side)),
        };
        let mut canvas = split;
        for row in whole.chunks_exact(3 * side as usize) {
            canvas.extend_from_slice(row);
            canvas.resize(canvas.len() + 3 * (second.0 - side) as usize, 0);
        }
        Ok(canvas)
    }
}

/// Rows and columns of the grid whose width over height, in tiles, is nearest to that of an image of so many pixels in width and height. Of grids that are as near, a
/// larger one counts where the image has more than half of its pixels.
fn nearest((width, height): (u32, u32), side: u32, counts: RangeInclusive<u32>) -> [u32; 2] {
    let aspect = f64::from(width) / f64::from(height);
    let pixels = f64::from(width) * f64::from(height);
    let (mut best, mut grid) = (f64::INFINITY, [1, 1]);
    for count in counts {
        for columns in (1..=count).filter(|columns| count.is_multiple_of(*columns)) {
            let rows = count / columns;
            let difference = (aspect - f64::from(columns) / f64::from(rows)).abs();
            let fills = || pixels > 0.5 * f64::from(side) * f64::from(side) * f64::from(count);
            if difference < best || (difference == best && fills()) {
                (best, grid) = (difference, [rows, columns]);
            }
        }
    }
    grid
}

/// Width and height with the longer side `longest`. The shorter one is cut to a whole number and, where that is odd, made one longer.
fn towards((width, height): (u32, u32), longest: u32) -> (u32, u32) {
    let aspect = f64::from(width) / f64::from(height);
    let even = |side: f64| {
        let side = side as u32;
        (side + side % 2).max(1)
    };
    match width >= height {
        true => (longest, even(f64::from(longest) / aspect)),
        false => (even(f64::from(longest) * aspect), longest),
    }
}

/// Width and height with a longer side of at most `most`.
fn below((width, height): (u32, u32), most: u32) -> (u32, u32) {
    let aspect = f64::from(width) / f64::from(height);
    match width >= height {
        true if width > most => (most, ((f64::from(most) / aspect) as u32).max(1)),
        false if height > most => (((f64::from(most) * aspect) as u32).max(1), most),
        _ => (width, height),
    }
}

/// Width and height as multiples of a tile's side: the longer one first, from which the other follows.
fn multiples((width, height): (u32, u32), side: u32) -> (u32, u32) {
    let aspect = f64::from(width) / f64::from(height);
    let up = |length: f64| ((length / f64::from(side)).ceil() as u32).max(1).saturating_mul(side);
    match width >= height {
        true => {
            let width = up(f64::from(width));
            (width, up((f64::from(width) / aspect).floor()))
        }
        false => {
            let height = up(f64::from(height));
            (up((f64::from(height) * aspect).floor()), height)
        }
    }
}

/// The text that stands for a canvas in a prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Spelling {
    pub tiles: Tiles,
    /// Features of a tile.
    pub features: usize,
    pub words: Words,
}

/// What stands between the features of a canvas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Words {
    /// The place of each tile (Idefics3 and SmolVLM).
    Places {
        /// Around each image.
        fake: String,
        /// Before the whole image.
        global: String,
    },
    /// Nothing; one word before and one behind all of them (InternVL).
    Ends {
        /// Before.
        start: String,
        /// Behind.
        end: String,
    },
}

impl Spelling {
    /// With `image` for each feature, the text of a canvas of so many pixels in height and width.
    pub fn text(&self, image: &str, size: (u32, u32)) -> String {
        let Self { tiles, features, words } = self;
        let (fake, global) = match words {
            Words::Places { fake, global } => (fake, global),
            Words::Ends { start, end } => return format!("{start}{}{end}", image.repeat(features * tiles.count(size))),
        };
        let [rows, columns] = tiles.grid(size);
        let features = image.repeat(*features);
        let mut text = String::new();
        for row in 1..=rows {
            for column in 1..=columns {
                text += &format!("{fake}<row_{row}_col_{column}>{features}");
            }
            text.push('\n');
        }
        if rows > 0 {
            text.push('\n');
        }
        text + &format!("{fake}{global}{features}{fake}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TILES: Tiles = Tiles { side: 512 };

    fn canvas(width: u32, height: u32) -> Result<(u32, u32), String> {
        Tiling { tiles: TILES, longest: Some(2048), splits: Splits::BySize, filter: Filter::Lanczos }
            .canvas(width, height)
    }

    #[test]
    fn canvases_have_the_tiles_of_the_reference() {
        // Rows and columns that transformers gives for the settings of SmolVLM.
        for ((width, height), grid) in [
            ((640, 480), [3, 4]),
            ((480, 640), [4, 3]),
            ((1000, 1000), [4, 4]),
            ((30_000, 1), [1, 4]),
            ((1, 30_000), [4, 1]),
            ((1, 1), [4, 4]),
            ((2048, 513), [2, 4]),
        ] {
            let size = canvas(width, height).expect("it has pixels");
            assert_eq!(TILES.grid(size), grid, "{width}x{height}");
            assert_eq!(TILES.count(size), (grid[0] * grid[1] + 1) as usize);
        }
        assert!(canvas(0, 5).unwrap_err().contains("no pixels"));
        let whole = Tiling { tiles: TILES, longest: None, splits: Splits::Never, filter: Filter::Lanczos };
        assert_eq!(whole.canvas(3, 4000), Ok((512, 512)));
        assert_eq!(TILES.grid((512, 512)), [0, 0]);
        let odd =
            Tiling { tiles: Tiles { side: 99 }, longest: Some(99), splits: Splits::BySize, filter: Filter::Lanczos };
        assert_eq!(
            (odd.canvas(99, 99), odd.most()),
            (Ok((297, 198)), Some(5)),
            "two rows of two tiles, and the whole image"
        );
        assert_eq!((whole.most(), Tiling { splits: Splits::BySize, ..whole }.most()), (Some(1), None));
        let small = Tiling { tiles: Tiles { side: 2 }, longest: None, splits: Splits::BySize, filter: Filter::Lanczos };
        assert!(small.canvas(4000, 4000).unwrap_err().contains("2000 rows"));
    }

    /// As `get_optimal_tiled_canvas` in transformers 4.57.6 has them.
    #[test]
    fn grids_have_the_shape_of_the_image() {
        for ((width, height), grid) in [
            ((640, 480), [3, 4]),
            ((480, 640), [4, 3]),
            ((448, 448), [1, 1]),
            ((1000, 1000), [3, 3]),
            ((600, 600), [1, 1]),
            ((30_000, 1), [1, 12]),
            ((1, 30_000), [12, 1]),
            ((2000, 1000), [2, 4]),
            ((900, 450), [1, 2]),
            ((635, 634), [2, 2]),
        ] {
            assert_eq!(nearest((width, height), 448, 1..=12), grid, "{width}x{height}");
        }
        let tiling = |least, most| Tiling {
            tiles: TILES,
            longest: None,
            splits: Splits::ByShape { least, most },
            filter: Filter::Bicubic,
        };
        assert_eq!((tiling(1, 12).most(), tiling(1, 1).most()), (Some(13), Some(1)));
        assert_eq!(tiling(1, 12).canvas(640, 480), Ok((4 * 512, 4 * 512)));
        assert_eq!(tiling(1, 12).canvas(300, 300), Ok((512, 512)));
        assert_eq!(tiling(2, 2).canvas(300, 300), Ok((3 * 512, 512)), "two rows of one, and the whole image");
    }

    #[test]
    fn tiles_are_cut_in_rows_and_the_whole_image_is_last() {
        let tiles = Tiles { side: 1 };
        // Two rows and three columns, and the whole image below on the left.
        let canvas: Vec<f32> = (0..27).map(|value| value as f32).collect();
        let red: Vec<f32> = tiles.cut(&canvas, (3, 3)).into_iter().step_by(3).collect();
        assert_eq!(red, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let words = Words::Places { fake: "|".into(), global: "G".into() };
        let spelling = Spelling { tiles, features: 2, words };
        assert_eq!(spelling.text(".", (1, 1)), "|G..|");
        assert_eq!(spelling.text(".", (2, 2)), "|<row_1_col_1>..|<row_1_col_2>..\n\n|G..|");
        let spelling = Spelling { words: Words::Ends { start: "<".into(), end: ">".into() }, ..spelling };
        assert_eq!((spelling.text(".", (1, 1)), spelling.text(".", (2, 2))), ("<..>".into(), "<......>".into()));
    }
}
