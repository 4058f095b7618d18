//! From a drawing to files: SVG with its font inside, PNG at 300 dots to the inch, PDF with its text as text. All three show the one SVG.

use std::sync::{Arc, LazyLock};

use base64::Engine;
use krilla::{Document, geom, page::PageSettings};
use krilla_svg::{SurfaceExt, SvgSettings};
use resvg::{
    tiny_skia::{Pixmap, Transform},
    usvg::{Options, Tree, fontdb::Database},
};

use super::{
    Figure,
    canvas::{Canvas, FAMILY, FONT, units},
    draw,
};
use crate::{ReportError, page::escape};

/// Pixels per inch of a PNG.
const PRINT: f64 = 300.0;
/// Largest raster, in pixels: a page and a half of two columns in print, 112 MB while it is made. A larger drawing gets fewer dots to the inch.
const MOST_PIXELS: f64 = 16e6;
/// Pixels per inch in which usvg measures.
const SCREEN: f64 = 96.0;

/// Keyword of the PNG text that names the drawing.
const SOURCE: &str = "Source";

static FONTS: LazyLock<Arc<Database>> = LazyLock::new(|| {
    let mut fonts = Database::new();
    fonts.load_font_data(FONT.to_vec());
    fonts.set_sans_serif_family(FAMILY);
    Arc::new(fonts)
});

fn failed(figure: &Figure) -> impl Fn(String) -> ReportError {
    let figure = figure.id.clone();
    move |what| ReportError::Draw { figure: figure.clone(), what }
}

/// The figure as SVG: real text, sized in inches; the font is left to the reader (see [`with_font`]).
///
/// # Errors
/// A drawing that plotters refuses.
pub fn svg(figure: &Figure) -> Result<String, ReportError> {
    let layout = draw::Layout::of(figure);
    let mut text = String::new();
    let mut canvas = Canvas::new(&mut text, (layout.width, layout.height));
    draw::draw(figure, &layout, &mut canvas);
    canvas.finish().map_err(failed(figure))?;
    let (width, height) = (units(layout.width), units(layout.height));
    let plain = format!("<svg width=\"{width}\" height=\"{height}\"");
    let sized =
        format!("<svg role=\"img\" width=\"{:.4}in\" height=\"{:.4}in\"", layout.width / 72.0, layout.height / 72.0);
    let family = format!("font-family=\"{FAMILY}\"");
    let fallback = format!("font-family=\"{FAMILY}, Verdana, sans-serif\"");
    let text = text.replacen(&plain, &sized, 1).replace(&family, &fallback);
    let title = format!("{XMLNS}\n<title>{}</title>", escape(&figure.description));
    Ok(without_breaks(&text).replacen(XMLNS, &title, 1))
}

/// End of an SVG's first tag.
const XMLNS: &str = "xmlns=\"http://www.w3.org/2000/svg\">";

/// Removes the line breaks that plotters writes inside text elements, where a renderer would show a space.
fn without_breaks(svg: &str) -> String {
    let mut out = String::with_capacity(svg.len());
    let mut rest = svg;
    while let Some(at) = rest.find("<text ") {
        let Some(open) = rest[at..].find('>').map(|end| at + end + 1) else { break };
        let Some(close) = rest[open..].find("</text>").map(|end| open + end) else { break };
        out.push_str(&rest[..open]);
        out.push_str(rest[open..close].trim_matches('\n'));
        rest = &rest[close..];
    }
    out + rest
}

/// The rule that brings the font along.
pub fn font_face() -> String {
    let font = base64::engine::general_purpose::STANDARD.encode(FONT);
    format!("@font-face{{font-family:\"{FAMILY}\";src:url(data:font/ttf;base64,{font}) format(\"truetype\")}}")
}

/// A stand-alone SVG file: the drawing with its font.
pub fn with_font(svg: &str) -> String {
    svg.replacen("</title>", &format!("</title>\n<style>{}</style>", font_face()), 1)
}

/// The drawing of a stand-alone file, without its font.
pub fn without_font(svg: &str) -> String {
    match (svg.find("\n<style>"), svg.find("</style>")) {
        (Some(start), Some(end)) if start < end => format!("{}{}", &svg[..start], &svg[end + "</style>".len()..]),
        _ => svg.to_owned(),
    }
}

/// The drawing for a page that has the font already and may be dark: ink, grid and paper follow the page's colours.
pub fn inline(svg: &str) -> String {
    svg.replace("\"#222222\"", "\"var(--ink)\"")
        .replace("\"#6E6E6E\"", "\"var(--faint)\"")
        .replace("\"#E3E3E3\"", "\"var(--grid)\"")
        .replace("\"#FFFFFF\"", "\"var(--card)\"")
}

fn tree(svg: &str) -> Result<Tree, String> {
    let options = Options { fontdb: Arc::clone(&FONTS), font_family: FAMILY.to_owned(), ..Options::default() };
    Tree::from_str(svg, &options).map_err(|e| e.to_string())
}

/// The figure as PNG at 300 dots to the inch, or as many as [`MOST_PIXELS`] allow; it names the SVG that shows the same drawing.
pub fn png(figure: &Figure, svg: &str) -> Result<Vec<u8>, ReportError> {
    raster(svg).map_err(failed(figure))
}

fn raster(svg: &str) -> Result<Vec<u8>, String> {
    let tree = tree(svg)?;
    let inches = (f64::from(tree.size().width()) / SCREEN, f64::from(tree.size().height()) / SCREEN);
    let dots = PRINT.min((MOST_PIXELS / (inches.0 * inches.1)).sqrt());
    let pixels = |inches: f64| ((inches * dots).round() as u32).max(1);
    let (width, height) = (pixels(inches.0), pixels(inches.1));
    let mut picture = Pixmap::new(width, height).ok_or("it has no size")?;
    let scale = (dots / SCREEN) as f32;
    resvg::render(&tree, Transform::from_scale(scale, scale), &mut picture.as_mut());
    // The paper is opaque, so a pixel is its colour.
    let colours: Vec<u8> = picture.data().chunks_exact(4).flat_map(|pixel| &pixel[..3]).copied().collect();
    drop(picture);

    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::Fast);
    let per_metre = (dots / 0.0254).round() as u32;
    encoder.set_pixel_dims(Some(png::PixelDimensions { xppu: per_metre, yppu: per_metre, unit: png::Unit::Meter }));
    encoder.add_text_chunk(SOURCE.to_owned(), fingerprint(svg)).map_err(|e| e.to_string())?;
    let mut writer = encoder.write_header().map_err(|e| e.to_string())?;
    writer.write_image_data(&colours).map_err(|e| e.to_string())?;
    writer.finish().map_err(|e| e.to_string())?;
    Ok(bytes)
}

/// The figure as PDF: one page of its size, lines as lines, text as text in its embedded font.
pub fn pdf(figure: &Figure, svg: &str) -> Result<Vec<u8>, ReportError> {
    page(svg).map_err(failed(figure))
}

fn page(svg: &str) -> Result<Vec<u8>, String> {
    let tree = tree(svg)?;
    let points = |pixels: f32| (f64::from(pixels) * 72.0 / SCREEN) as f32;
    let (width, height) = (points(tree.size().width()), points(tree.size().height()));
    let size = geom::Size::from_wh(width, height).ok_or("it has no size")?;
    let mut document = Document::new();
    let mut page = document.start_page_with(PageSettings::new(size));
    let mut surface = page.surface();
    let drawn = surface.draw_svg(&tree, size, SvgSettings::default());
    surface.finish();
    page.finish();
    drawn.ok_or("its drawing cannot be converted to PDF")?;
    document.finish().map_err(|e| format!("{e:?}"))
}

/// Whether a whole PNG file was made from this SVG by this version of the program.
pub fn is_raster_of(png: &[u8], svg: &str) -> bool {
    let Ok(mut reader) = png::Decoder::new(std::io::Cursor::new(png)).read_info() else { return false };
    let mark = fingerprint(svg);
    let named = |text: &png::text_metadata::TEXtChunk| text.keyword == SOURCE && text.text == mark;
    reader.info().uncompressed_latin1_text.iter().any(named) && reader.finish().is_ok()
}

/// What tells a drawing, made by this version of the program, from others.
fn fingerprint(svg: &str) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(svg.as_bytes()).update(env!("CARGO_PKG_VERSION").as_bytes());
    hasher.finalize().to_hex()[..16].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LARGE: &str = "<svg width=\"7in\" height=\"400in\" viewBox=\"0 0 7 400\" xmlns=\"http://www.w3.org/2000/svg\">\
        <rect x=\"0\" y=\"0\" width=\"7\" height=\"400\" fill=\"#FFFFFF\"/></svg>";

    #[test]
    fn a_raster_is_bounded_whatever_the_size_of_the_drawing() {
        let png = raster(LARGE).unwrap();
        let reader = png::Decoder::new(std::io::Cursor::new(&png)).read_info().unwrap();
        let (width, height) = (f64::from(reader.info().width), f64::from(reader.info().height));
        assert!(width * height <= MOST_PIXELS * 1.01, "{width} x {height}");
        let dots = f64::from(reader.info().pixel_dims.unwrap().xppu) * 0.0254;
        assert!((dots - width / 7.0).abs() < 0.5, "the file says how many dots it has to the inch");
    }

    #[test]
    fn a_font_comes_along_and_is_taken_off_again() {
        let svg = "<svg>\n<title>t</title>\n<text/></svg>\n";
        assert!(with_font(svg).contains("@font-face"));
        assert_eq!(without_font(&with_font(svg)), svg);
    }
}
