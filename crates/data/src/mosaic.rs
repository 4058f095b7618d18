//! Images for models that read them at one of several resolutions: as tiles with what padding the resolution asks for, and as a whole.
//!
//! Reference: `LlavaNextImageProcessor` in transformers 4.57, `image_processing_llava_next.py`.

use ressa_checkpoint::Pinpoints;
use ressa_experiment::prompt::Mosaic;

use crate::{
    Image,
    resize::{Filter, Window, resize},
    tiles::squares,
};

/// How an image becomes a mosaic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Resolutions {
    pub pinpoints: Pinpoints,
    pub filter: Filter,
}

impl Resolutions {
    /// Height and width of the canvas of an image.
    ///
    /// # Errors
    /// In words: an image without pixels.
    pub fn canvas(&self, width: u32, height: u32) -> Result<(u32, u32), String> {
        Ok(self.pinpoints.mosaic([height, width])?.canvas(self.pinpoints.pixels))
    }

    /// The canvas of an image, interleaved: the image in the middle of its resolution, and the whole image below. Everything else is 0.
    ///
    /// # Errors
    /// As [`Resolutions::canvas`].
    pub fn draw(&self, image: &Image) -> Result<Vec<u8>, String> {
        let own = [image.height(), image.width()];
        let (best, side) = (self.pinpoints.best(own)?, self.pinpoints.pixels);
        let (height, width) = self.canvas(own[1], own[0])?;
        let rgb = image.rgb();
        let mut canvas = vec![0; 3 * height as usize * width as usize];
        let mut put = |[tall, wide]: [u32; 2], [top, left]: [u32; 2]| {
            let [from, to] = [(own[1], own[0]), (wide, tall)].map(|(width, height)| (width as usize, height as usize));
            let resized = resize(&rgb, from, to, self.filter, &Window::whole(to));
            for (row, values) in resized.chunks_exact(3 * to.0).enumerate() {
                let at = 3 * ((top as usize + row) * width as usize + left as usize);
                canvas[at..at + values.len()].copy_from_slice(values);
            }
        };
        let fitted = within(own, best);
        put(fitted, [0, 1].map(|axis| (best[axis] - fitted[axis]) / 2));
        put([side; 2], [best[0], 0]);
        Ok(canvas)
    }
}

/// Height and width of an image that is made as large as fits.
fn within([height, width]: [u32; 2], best: [u32; 2]) -> [u32; 2] {
    let [down, across] = [f64::from(best[0]) / f64::from(height), f64::from(best[1]) / f64::from(width)];
    let fit = |length: u32, scale: f64, most: u32| ((f64::from(length) * scale).ceil() as u32).min(most);
    if across < down { [fit(height, across, best[0]), best[1]] } else { [best[0], fit(width, down, best[1])] }
}

/// Values of a canvas `[3, height, width]` as tiles `[tiles, 3, side, side]` of so many pixels along a side: the whole image, then rows of tiles.
pub fn cut(pixels: &[f32], size: (u32, u32), mosaic: Mosaic, side: u32) -> Vec<f32> {
    let [rows, columns] = mosaic.tiles;
    let places = (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column)));
    squares(pixels, size, side, [(rows, 0)].into_iter().chain(places))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_in_the_middle_of_its_resolution_and_whole_below() {
        let pinpoints = Pinpoints { pixels: 2, side: 2, sizes: vec![[2, 4], [4, 2]] };
        let drawn = Resolutions { pinpoints, filter: Filter::Nearest };
        let image = Image::from_rgb(8, 1, [9; 24].to_vec()).expect("eight pixels");
        // One row of pixels is left of it, half a line of features: of two lines, one above and one below are cut.
        assert_eq!(drawn.canvas(8, 1), Ok((5, 4)));
        let red: Vec<u8> = drawn.draw(&image).expect("it has pixels").into_iter().step_by(3).collect();
        assert_eq!(red.chunks(4).collect::<Vec<_>>(), [[9; 4], [0; 4], [9, 9, 0, 0], [9, 9, 0, 0], [0; 4]]);
        assert_eq!(within([480, 640], [672, 672]), [504, 672]);
        assert_eq!(within([30_000, 1], [672, 336]), [672, 1]);
        let canvas: Vec<f32> = (0..24).map(|value| value as f32).collect();
        let mosaic = Mosaic { tiles: [1, 2], side: 1, cut: [0, 0] };
        let red: Vec<f32> = cut(&canvas, (2, 4), mosaic, 1).into_iter().step_by(3).collect();
        assert_eq!(red, [4.0, 0.0, 1.0]);
    }
}
