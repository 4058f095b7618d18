//! What stands before a row's own text in the language model: a prompt's fixed words with the image's places among them.

/// What a language model reads before the text of each row of a batch: token ids, with the image token wherever a feature of the image
/// stands. The BLIP-2 family has none: its queries come first and nothing is between.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Layout {
    /// Token ids, up to and including the last one of the image.
    pub ids: Vec<u32>,
    /// The id that stands for a feature of the image.
    pub image_token: u32,
    /// Frames, rows and columns of features of each image, where positions follow from them.
    pub grids: Vec<[u32; 3]>,
    /// Which features of an image's tiles are read, where not all are.
    pub mosaic: Option<Mosaic>,
}

/// An image that was cut into tiles, and how the language model reads it: the features of the whole image, then those of the tiles together, line
/// by line, each line with an end of its own. Lines or columns that are padding alone are left out.
///
/// It travels on a canvas: rows of tiles, in a row of its own below, on the left, the whole image at the size of a tile, and behind both as many
/// lines and columns of pixels as lines and columns of features are left out on one side. So the size of the canvas says everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mosaic {
    /// Rows and columns of tiles.
    pub tiles: [u32; 2],
    /// Features along a side of a tile.
    pub side: u32,
    /// Lines that are left out above, and as many below; columns that are left out on the left, and as many on the right.
    pub cut: [u32; 2],
}

impl Mosaic {
    /// Height and width of the canvas, where a tile has so many pixels along a side.
    pub fn canvas(&self, pixels: u32) -> (u32, u32) {
        ((self.tiles[0] + 1) * pixels + self.cut[0], self.tiles[1] * pixels + self.cut[1])
    }

    /// What a canvas of so many pixels in height and width holds, where a tile has `pixels` and `side` features along a side.
    pub fn on((height, width): (u32, u32), pixels: u32, side: u32) -> Self {
        let pixels = pixels.max(1);
        let tiles = [(height / pixels).saturating_sub(1), width / pixels];
        Self { tiles, side, cut: [height % pixels, width % pixels] }
    }

    /// Tiles, the whole image among them.
    pub fn count(&self) -> usize {
        self.tiles[0] as usize * self.tiles[1] as usize + 1
    }

    /// Lines that are read, and the features of each without its end.
    pub fn lines(&self) -> [usize; 2] {
        [0, 1].map(|axis| (self.tiles[axis] * self.side).saturating_sub(2 * self.cut[axis]) as usize)
    }

    /// Features that are read, ends of lines among them.
    pub fn features(&self) -> usize {
        let ([lines, columns], side) = (self.lines(), self.side as usize);
        side * side + lines * (columns + 1)
    }

    /// Where each feature that is read is among those of all tiles, in rows of tiles, the whole image last. The end of a line is the place behind
    /// all of them.
    pub fn places(&self) -> Vec<i64> {
        let (side, columns) = (i64::from(self.side), i64::from(self.tiles[1]));
        let of_tile = side * side;
        let whole = (self.count() as i64 - 1) * of_tile;
        let mut places: Vec<i64> = (whole..whole + of_tile).collect();
        let [down, across] = self.cut.map(i64::from);
        let [lines, width] = self.lines().map(|count| count as i64);
        for y in down..down + lines {
            let of_line = (across..across + width).map(|x| {
                let tile = y / side * columns + x / side;
                tile * of_tile + y % side * side + x % side
            });
            places.extend(of_line.chain([whole + of_tile]));
        }
        places
    }
}

impl Layout {
    /// The tokens of a prompt with its image, cut behind the last image token: the layout, and the row's own text.
    ///
    /// Returns `None` where no token is an image token.
    pub fn split(ids: &[u32], image_token: u32) -> Option<(Self, Vec<u32>)> {
        let last = ids.iter().rposition(|&id| id == image_token)?;
        let (before, text) = ids.split_at(last + 1);
        Some((Self { ids: before.to_vec(), image_token, grids: Vec::new(), mosaic: None }, text.to_vec()))
    }

    /// Tokens, those of the image among them.
    pub fn tokens(&self) -> usize {
        self.ids.len()
    }

    /// Features of the image.
    pub fn features(&self) -> usize {
        self.ids.iter().filter(|&&id| id == self.image_token).count()
    }

    /// Runs of tokens of one kind: whether they are the image's, where they begin, how many they are.
    pub fn runs(&self) -> Vec<(bool, usize, usize)> {
        let mut runs: Vec<(bool, usize, usize)> = Vec::new();
        for (at, &id) in self.ids.iter().enumerate() {
            let of_image = id == self.image_token;
            match runs.last_mut() {
                Some((kind, _, count)) if *kind == of_image => *count += 1,
                _ => runs.push((of_image, at, 1)),
            }
        }
        runs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_of_a_canvas_says_what_is_on_it_and_lines_go_through_tiles() {
        let mosaic = Mosaic { tiles: [1, 2], side: 2, cut: [0, 1] };
        assert_eq!(mosaic.canvas(5), (10, 11));
        assert_eq!(Mosaic::on((10, 11), 5, 2), mosaic);
        // Two tiles of four features, the whole image behind them, ends of lines at 12.
        assert_eq!(mosaic.places(), [8, 9, 10, 11, 1, 4, 12, 3, 6, 12]);
        assert_eq!((mosaic.count(), mosaic.lines(), mosaic.features()), (3, [2, 2], 10));
        // Of a strip nothing may be left but the whole image.
        let strip = Mosaic { tiles: [1, 2], side: 2, cut: [1, 0] };
        assert_eq!((strip.places().len(), strip.features()), (4, 4));
        assert_eq!(Mosaic::on((0, 0), 0, 2).lines(), [0, 0]);
    }
}
