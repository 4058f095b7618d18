//! Images of any size for models that read them as patches in rows and columns: the size they are brought to, and the features they become.
//!
//! Reference: `smart_resize` and `Qwen2VLImageProcessor` in transformers 4.57, `image_processing_qwen2_vl.py`.

/// Longest image, in multiples of its shorter side.
const LONGEST: f64 = 200.0;

/// How an image is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cells {
    /// Height and width of a patch in pixels.
    pub patch: u32,
    /// Patches along a side that become one feature.
    pub merge: u32,
    /// Frames that a patch spans; an image is as many equal ones.
    pub frames: u32,
}

impl Cells {
    /// Height and width of a feature in pixels.
    pub fn feature(&self) -> u32 {
        self.patch.saturating_mul(self.merge)
    }

    /// Frames, rows and columns of features of an image of so many pixels in height and width.
    pub fn grid(&self, (height, width): (u32, u32)) -> [u32; 3] {
        let feature = self.feature().max(1);
        [1, height / feature, width / feature]
    }

    /// Values of an image's pixels `[3, height, width]` as patches one after the other, each of colours, frames, rows and columns; patches of
    /// one feature follow each other.
    pub fn cut(&self, pixels: &[f32], (height, width): (u32, u32)) -> Vec<f32> {
        let [patch, merge, frames] = [self.patch, self.merge, self.frames].map(|size| size as usize);
        let (height, width) = (height as usize, width as usize);
        let [_, rows, columns] = self.grid((height as u32, width as u32)).map(|count| count as usize);
        let mut values = Vec::with_capacity(pixels.len() * frames);
        for feature in 0..rows * columns {
            for place in 0..merge * merge {
                let top = (feature / columns * merge + place / merge) * patch;
                let left = (feature % columns * merge + place % merge) * patch;
                for channel in 0..3 {
                    for row in (0..frames).flat_map(|_| top..top + patch) {
                        let at = (channel * height + row) * width + left;
                        values.extend_from_slice(&pixels[at..at + patch]);
                    }
                }
            }
        }
        values
    }
}

/// Height and width, multiples of `factor`, near those of an image and with between `least` and `most` pixels.
///
/// # Errors
/// In words: an image without pixels, or one that is far longer than wide.
pub(crate) fn sized(width: u32, height: u32, factor: u32, [least, most]: [u64; 2]) -> Result<(u32, u32), String> {
    let (short, long) = (f64::from(width.min(height)), f64::from(width.max(height)));
    if short == 0.0 {
        return Err("it has no pixels".to_owned());
    }
    if long / short > LONGEST {
        return Err(format!(
            "one side is {:.0} times the other, and this model's processor takes images of up to {LONGEST} times; crop it or cut it up",
            long / short
        ));
    }
    let (height, width, factor) = (f64::from(height), f64::from(width), f64::from(factor));
    let (least, most) = (least as f64, most as f64);
    // Halves go to the even number.
    let near = |side: f64| (side / factor).round_ties_even() * factor;
    let (mut tall, mut wide) = (near(height), near(width));
    if tall * wide > most {
        let shrink = (height * width / most).sqrt();
        let fit = |side: f64| factor.max((side / shrink / factor).floor() * factor);
        (tall, wide) = (fit(height), fit(width));
    } else if tall * wide < least {
        let grow = (least / (height * width)).sqrt();
        let fit = |side: f64| (side * grow / factor).ceil() * factor;
        (tall, wide) = (fit(height), fit(width));
    }
    Ok((tall as u32, wide as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_transformers() {
        // (width, height): what `smart_resize` gives with the settings of the published models.
        let published = |width, height| sized(width, height, 28, [3136, 12_845_056]);
        assert_eq!(published(640, 480), Ok((476, 644)));
        assert_eq!(published(1, 1), Ok((56, 56)));
        assert_eq!(published(30, 10), Ok((56, 112)));
        assert_eq!(published(42, 70), Ok((56, 56)), "42 / 28 = 1.5 and 70 / 28 = 2.5 both go to 2");
        assert_eq!(published(10_000, 8_000), Ok((3192, 4004)));
        assert_eq!(published(20_000, 100), Ok((112, 19_992)));
        let strip = published(30_000, 1).unwrap_err();
        assert!(strip.contains("30000 times"), "{strip}");
        assert!(published(0, 5).is_err());
    }

    #[test]
    fn patches_of_a_feature_follow_each_other() {
        let cells = Cells { patch: 1, merge: 2, frames: 2 };
        let pixels: Vec<f32> = (0..24).map(|value| value as f32).collect();
        let cut = cells.cut(&pixels, (2, 4));
        assert_eq!(cells.grid((2, 4)), [1, 1, 2]);
        assert_eq!(cut[..6], [0.0, 0.0, 8.0, 8.0, 16.0, 16.0]);
        let red: Vec<f32> = cut.iter().copied().step_by(6).collect();
        assert_eq!(red, [0.0, 1.0, 4.0, 5.0, 2.0, 3.0, 6.0, 7.0]);
    }
}
