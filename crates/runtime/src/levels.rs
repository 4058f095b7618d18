//! Images as 8-bit levels, a quarter of their pixels' size, made model-ready where the model computes.

use tch::{Device, Kind, Tensor};

/// Model-ready value of each level of each channel.
pub type LevelTable = [[f32; 256]; 3];

/// 8-bit images `[images, 3, height, width]` on the host or on a device.
#[derive(Debug)]
pub struct Levels {
    values: Values,
    images: usize,
    height: u32,
    width: u32,
}

#[derive(Debug)]
enum Values {
    /// The host normalises by itself: a look-up is all there is to do.
    Host(Vec<u8>),
    /// u8 `[images, 3, height, width]`.
    Device(Tensor),
}

impl Levels {
    /// Takes `3 * height * width` levels per image to `device`, through pinned memory where that is a GPU's: the copy then runs while
    /// the host goes on.
    pub fn new(levels: Vec<u8>, (height, width): (u32, u32), device: Device) -> Self {
        let images = levels.len() / (3 * height as usize * width as usize).max(1);
        let values = if device == Device::Cpu {
            Values::Host(levels)
        } else {
            Values::Device(uploaded(&levels, [images as i64, 3, height.into(), width.into()], device))
        };
        Self { values, images, height, width }
    }

    /// Number of images.
    pub fn images(&self) -> usize {
        self.images
    }

    /// Pixels f32 `[count, 3, height, width]` of the images from `first` on, as `table` makes them. The values are the table's on
    /// every device.
    pub fn pixels(&self, first: usize, count: usize, table: &LevelTable) -> Tensor {
        let (height, width) = (i64::from(self.height), i64::from(self.width));
        match &self.values {
            Values::Host(levels) => {
                let plane = self.height as usize * self.width as usize;
                let wanted = &levels[3 * plane * first..3 * plane * (first + count)];
                let channels = wanted.chunks_exact(plane.max(1)).zip(table.iter().cycle());
                let mut pixels: Vec<f32> = Vec::with_capacity(wanted.len());
                for (plane, table) in channels {
                    pixels.extend(plane.iter().map(|level| table[usize::from(*level)]));
                }
                Tensor::from_slice(&pixels).view([count as i64, 3, height, width])
            }
            Values::Device(levels) => looked_up(&levels.narrow(0, first as i64, count as i64), table),
        }
    }
}

fn uploaded(levels: &[u8], shape: [i64; 4], device: Device) -> Tensor {
    let host = Tensor::from_slice(levels).view(shape);
    // A system that pins no memory copies from where the levels are.
    match host.f_pin_memory(device) {
        Ok(pinned) => pinned.to_device_(device, Kind::Uint8, true, false),
        Err(_) => host.to_device(device),
    }
}

/// The table's value of each level, on the levels' device.
fn looked_up(levels: &Tensor, table: &LevelTable) -> Tensor {
    let device = levels.device();
    let first = Tensor::from_slice(&[0, 256, 512]).view([1, 3, 1, 1]).to_kind(Kind::Int).to_device(device);
    let table = Tensor::from_slice(table.as_flattened()).to_device(device);
    let places = levels.to_kind(Kind::Int) + first;
    table.index_select(0, &places.view([-1])).view_as(levels)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mean and standard deviation of CLIP, and of the embedded world.
    const STATISTICS: [[[f32; 3]; 2]; 2] = [
        [[0.481_454_66, 0.457_827_5, 0.408_210_73], [0.268_629_54, 0.261_302_6, 0.275_777_1]],
        [[0.5, 0.5, 0.5], [0.25, 0.25, 0.25]],
    ];

    fn table([mean, std]: [[f32; 3]; 2]) -> LevelTable {
        let value = |channel: usize, level: usize| (level as f32 / 255.0 - mean[channel]) / std[channel];
        std::array::from_fn(|channel| std::array::from_fn(|level| value(channel, level)))
    }

    #[test]
    fn every_level_of_every_channel_has_the_same_bits_everywhere() {
        let (size, images) = ((16, 16), 2);
        // All levels in each channel, in another order for the second image.
        let levels: Vec<u8> =
            (0..images).flat_map(|image| (0..3 * 256).map(move |at| (at * (1 + 6 * image)) as u8)).collect();
        for table in STATISTICS.map(table) {
            let host = Levels::new(levels.clone(), size, Device::Cpu);
            let there = uploaded(&levels, [2, 3, 16, 16], Device::Cpu);
            let device = Levels { values: Values::Device(there), images: 2, height: 16, width: 16 };
            let expected: Vec<u32> = (0..images)
                .flat_map(|image| (0..3 * 256).map(move |at| (image * 768 + at, at / 256)))
                .map(|(at, channel)| table[channel][usize::from(levels[at])].to_bits())
                .collect();
            for levels in [&host, &device] {
                let found: Vec<f32> = Vec::try_from(levels.pixels(0, 2, &table).view([-1])).unwrap();
                assert_eq!(found.iter().map(|value| value.to_bits()).collect::<Vec<_>>(), expected);
                let second: Vec<f32> = Vec::try_from(levels.pixels(1, 1, &table).view([-1])).unwrap();
                assert_eq!(second, found[768..]);
            }
        }
    }
}
