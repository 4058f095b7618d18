//! From a drawing to files: SVG with its font inside, PNG at 300 dots to the inch.

use plotters::{backend::BitMapBackend, prelude::SVGBackend};

use super::{
    Figure,
    canvas::{Canvas, FAMILY, FONT, Medium, RESOLUTION, pixels},
    draw,
};
use crate::{ReportError, page::escape};

/// Pixels per inch of a PNG.
const PRINT: u32 = RESOLUTION / 2;

/// Keyword of the PNG text that names the drawing.
const SOURCE: &str = "Source";

fn failed(figure: &Figure) -> impl Fn(String) -> ReportError {
    let figure = figure.id.clone();
    move |what| ReportError::Draw { figure: figure.clone(), what }
}

/// The figure as SVG: real text, sized in inches; the font is left to the reader (see [`with_font`]).
pub fn svg(figure: &Figure) -> Result<String, ReportError> {
    let layout = draw::Layout::of(figure);
    let size = (pixels(layout.width) as u32, pixels(layout.height) as u32);
    let mut text = String::new();
    let mut canvas =
        Canvas::new(SVGBackend::with_string(&mut text, size), Medium::Vector, (layout.width, layout.height));
    draw::draw(figure, &layout, &mut canvas);
    canvas.finish().map_err(failed(figure))?;
    let (width, height) = (layout.width / 72.0, layout.height / 72.0);
    let plain = format!("<svg width=\"{}\" height=\"{}\"", size.0, size.1);
    let sized = format!("<svg role=\"img\" width=\"{width:.4}in\" height=\"{height:.4}in\"");
    let title = format!("<title>{}</title>", escape(&figure.description));
    let family = format!("font-family=\"{FAMILY}\"");
    let fallback = format!("font-family=\"{FAMILY}, Verdana, sans-serif\"");
    let text = text.replacen(&plain, &sized, 1).replace(&family, &fallback);
    // Plotters breaks lines inside text elements, where a renderer would show a space.
    let text = text.replace(">\n</text>", "></text>").replace("\n</text>", "</text>");
    let text = trim_text(&text);
    Ok(match text.find("xmlns=\"http://www.w3.org/2000/svg\">") {
        Some(at) => {
            let end = at + "xmlns=\"http://www.w3.org/2000/svg\">".len();
            format!("{}\n{title}{}", &text[..end], &text[end..])
        }
        None => text,
    })
}

/// Removes the line break that plotters writes after a text's opening tag.
fn trim_text(svg: &str) -> String {
    let mut out = String::with_capacity(svg.len());
    let mut rest = svg;
    while let Some(at) = rest.find("<text ") {
        let Some(end) = rest[at..].find('>') else { break };
        let end = at + end + 1;
        out.push_str(&rest[..end]);
        rest = rest[end..].trim_start_matches('\n');
    }
    out.push_str(rest);
    out
}

/// The rule that brings the font along.
pub fn font_face() -> String {
    format!(
        "@font-face{{font-family:\"{FAMILY}\";src:url(data:font/ttf;base64,{}) format(\"truetype\")}}",
        base64(FONT)
    )
}

/// A stand-alone SVG file: the drawing with its font.
pub fn with_font(svg: &str) -> String {
    svg.replacen("</title>", &format!("</title>\n<style>{}</style>", font_face()), 1)
}

/// The drawing for a page that has the font already and may be dark: ink, grid and paper follow the page's colours.
pub fn inline(svg: &str) -> String {
    svg.replace("\"#222222\"", "\"var(--ink)\"")
        .replace("\"#6E6E6E\"", "\"var(--faint)\"")
        .replace("\"#E3E3E3\"", "\"var(--grid)\"")
        .replace("\"#FFFFFF\"", "\"var(--card)\"")
}

/// The figure as PNG at 300 dots to the inch; it names the SVG that shows the same drawing.
pub fn png(figure: &Figure, svg: &str) -> Result<Vec<u8>, ReportError> {
    let layout = draw::Layout::of(figure);
    let even = |points: f64| (pixels(points) as u32).next_multiple_of(2);
    let (width, height) = (even(layout.width), even(layout.height));
    let mut fine = vec![0xFF; width as usize * height as usize * 3];
    let backend = BitMapBackend::with_buffer(&mut fine, (width, height));
    let mut canvas = Canvas::new(backend, Medium::Raster, (layout.width, layout.height));
    draw::draw(figure, &layout, &mut canvas);
    canvas.finish().map_err(failed(figure))?;

    let halved = halve(&fine, width as usize);
    let failed = failed(figure);
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width / 2, height / 2);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::Fast);
    let per_metre = (f64::from(PRINT) / 0.0254).round() as u32;
    encoder.set_pixel_dims(Some(png::PixelDimensions { xppu: per_metre, yppu: per_metre, unit: png::Unit::Meter }));
    encoder.add_text_chunk(SOURCE.to_owned(), fingerprint(svg)).map_err(|e| failed(e.to_string()))?;
    let mut writer = encoder.write_header().map_err(|e| failed(e.to_string()))?;
    writer.write_image_data(&halved).map_err(|e| failed(e.to_string()))?;
    writer.finish().map_err(|e| failed(e.to_string()))?;
    Ok(bytes)
}

/// Whether a whole PNG file was made from this SVG by this version of the program.
pub fn is_raster_of(png: &[u8], svg: &str) -> bool {
    let Ok(mut reader) = png::Decoder::new(std::io::Cursor::new(png)).read_info() else { return false };
    let mark = fingerprint(svg);
    let named = |text: &png::text_metadata::TEXtChunk| text.keyword == SOURCE && text.text == mark;
    reader.info().uncompressed_latin1_text.iter().any(named) && reader.finish().is_ok()
}

/// FNV-1a of a drawing and the program's version, in hexadecimal.
fn fingerprint(svg: &str) -> String {
    let bytes = svg.bytes().chain(env!("CARGO_PKG_VERSION").bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, b| (hash ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    format!("{hash:016x}")
}

/// The mean of every two by two pixels.
fn halve(fine: &[u8], width: usize) -> Vec<u8> {
    let stride = width * 3;
    let mut out = Vec::with_capacity(fine.len() / 4);
    for rows in fine.chunks_exact(2 * stride) {
        let (upper, lower) = rows.split_at(stride);
        for (u, l) in upper.chunks_exact(6).zip(lower.chunks_exact(6)) {
            for c in 0..3 {
                let sum = u16::from(u[c]) + u16::from(u[c + 3]) + u16::from(l[c]) + u16::from(l[c + 3]);
                out.push(((sum + 2) / 4) as u8);
            }
        }
    }
    out
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let block = chunk.iter().chain([0, 0].iter()).take(3).fold(0u32, |block, &b| block << 8 | u32::from(b));
        for digit in 0..4 {
            let index = (block >> (18 - 6 * digit)) & 63;
            out.push(if digit <= chunk.len() { DIGITS[index as usize] as char } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_pads_as_published() {
        for (plain, coded) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }
}
