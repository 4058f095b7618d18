//! GIF: the first frame on its canvas.

use gif::{ColorOutput, DecodeOptions, MemoryLimit};

use super::{Raster, check_size};
use crate::image::PIXEL_LIMIT;

pub(super) fn decode(bytes: &[u8]) -> Result<Raster, String> {
    let mut options = DecodeOptions::new();
    options.set_color_output(ColorOutput::Indexed);
    options.set_memory_limit(MemoryLimit::Bytes(PIXEL_LIMIT.try_into().map_err(|_| "no limit is zero")?));
    let mut decoder = options.read_info(bytes).map_err(|e| e.to_string())?;
    let (canvas_width, canvas_height) = (u32::from(decoder.width()), u32::from(decoder.height()));
    check_size(canvas_width.into(), canvas_height.into())?;
    let global = decoder.global_palette().map(<[u8]>::to_vec);
    let frame = decoder.read_next_frame().map_err(|e| e.to_string())?.ok_or("it has no frame")?;

    let palette = frame.palette.as_ref().or(global.as_ref()).map_or(&[][..], Vec::as_slice);
    // Colours that the palette leaves out are grey.
    let mut colors: [[u8; 3]; 256] = std::array::from_fn(|index| [index as u8; 3]);
    for (color, entry) in colors.iter_mut().zip(palette.chunks_exact(3)) {
        *color = [entry[0], entry[1], entry[2]];
    }

    let (left, top) = (usize::from(frame.left), usize::from(frame.top));
    let (columns, rows) = (usize::from(frame.width), usize::from(frame.height));
    let (width, height) = ((canvas_width as usize).max(left + columns), (canvas_height as usize).max(top + rows));
    check_size(width as u64, height as u64)?;
    if columns == 0 || frame.buffer.len() < columns * rows {
        return Err("the file is truncated".into());
    }
    let background = colors[usize::from(frame.transparent.unwrap_or(0))];
    let mut rgb = background.repeat(width * height);
    for (row, indices) in frame.buffer.chunks_exact(columns).take(rows).enumerate() {
        let at = 3 * ((top + row) * width + left);
        for (pixel, index) in rgb[at..at + 3 * columns].chunks_exact_mut(3).zip(indices) {
            pixel.copy_from_slice(&colors[usize::from(*index)]);
        }
    }
    Ok(Raster { width: width as u32, height: height as u32, rgb })
}
