//! Colours, markers, dashes and hatchings bound to names, so that a method looks the same in every figure.
//!
//! Colours are those of Okabe and Ito, told apart under every common colour vision. A series is known by its colour and by how often that colour
//! was given before: each further use has another marker, another dash and another hatching, so no two series of a figure look alike, in grey
//! neither.

/// Red, green, blue.
pub type Colour = (u8, u8, u8);

/// Text and axes.
pub const INK: Colour = (0x22, 0x22, 0x22);
/// Secondary text.
pub const FAINT: Colour = (0x6E, 0x6E, 0x6E);
/// Grid lines.
pub const GRID: Colour = (0xE3, 0xE3, 0xE3);
/// Background and the inside of hollow marks.
pub const PAPER: Colour = (0xFF, 0xFF, 0xFF);

/// Blue, vermilion, green, purple, orange, sky, grey.
const COLOURS: [Colour; 7] = [
    (0x00, 0x72, 0xB2),
    (0xD5, 0x5E, 0x00),
    (0x00, 0x9E, 0x73),
    (0xCC, 0x79, 0xA7),
    (0xE6, 0x9F, 0x00),
    (0x56, 0xB4, 0xE9),
    (0x99, 0x99, 0x99),
];
const MARKERS: [Marker; 7] =
    [Marker::Circle, Marker::Square, Marker::Triangle, Marker::Diamond, Marker::TipDown, Marker::Cross, Marker::Plus];
/// Lengths of dashes and gaps in points; the first is a solid line.
const DASHES: [&[f64]; 7] =
    [&[], &[4.0, 1.6], &[1.2, 1.2], &[5.0, 1.4, 1.2, 1.4], &[2.4, 2.4], &[7.0, 2.0], &[3.0, 1.2, 1.2, 1.2, 1.2, 1.2]];
const HATCHINGS: [Hatching; 7] = [
    Hatching::None,
    Hatching::Rising,
    Hatching::Falling,
    Hatching::Level,
    Hatching::Crossed,
    Hatching::Upright,
    Hatching::Grid,
];

/// Series that can be told apart in one figure.
pub const MOST: usize = COLOURS.len() * MARKERS.len();

/// Shape of a marker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Marker {
    /// A disc.
    Circle,
    /// An upright square.
    Square,
    /// A triangle, tip up.
    Triangle,
    /// A triangle, tip down.
    TipDown,
    /// A square on its corner.
    Diamond,
    /// An upright cross.
    Plus,
    /// A cross on its corners.
    Cross,
}

/// Lines across a bar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hatching {
    /// A plain bar.
    None,
    /// Lines that rise to the right.
    Rising,
    /// Lines that fall to the right.
    Falling,
    /// Level lines.
    Level,
    /// Rising and falling lines.
    Crossed,
    /// Upright lines.
    Upright,
    /// Level and upright lines.
    Grid,
}

/// How a series looks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Style {
    /// Colour of bars, lines and markers.
    pub colour: Colour,
    /// Marker on lines.
    pub marker: Marker,
    /// Dashes and gaps of lines, in points; nothing is a solid line.
    pub dash: &'static [f64],
    /// Lines across bars.
    pub hatching: Hatching,
}

impl Default for Style {
    /// The look of an only series.
    fn default() -> Self {
        Self::of(0, 0)
    }
}

impl Style {
    /// The look of the use `round` of a colour, both counted from 0.
    fn of(colour: usize, round: usize) -> Self {
        Self {
            colour: COLOURS[colour],
            // A colour's first marker is its own, so that the first seven series differ in both.
            marker: MARKERS[(colour + round) % MARKERS.len()],
            dash: DASHES[round],
            hatching: HATCHINGS[round],
        }
    }
}

/// The colour of names that the study is about; the rest are placed by their letters.
fn bound(label: &str) -> Option<usize> {
    Some(match label.to_lowercase().as_str() {
        "" | "wanda" | "v+l" | "both" | "ecoflap" => 0,
        "ressa" | "sparse-lora+distill" | "language" | "l only" | "magnitude" | "owl" => 1,
        "sparse-lora" | "vision" | "v only" | "sparsegpt" => 2,
        "lora-remasked" | "dsnot" => 3,
        "lora" | "ria" => 4,
        "scale-lora" | "alps" => 5,
        "random" | "pruned" | "none" | "uniform" => 6,
        _ => return None,
    })
}

/// One style per label, no two alike; `None` where there are more than [`MOST`]. Labels are the whole axis in file order, so that every figure over
/// it agrees. A label keeps its colour everywhere while there are colours; it has another look only beside one that took its own first.
pub fn styles(labels: &[String]) -> Option<Vec<Style>> {
    let mut used = [0usize; COLOURS.len()];
    let mut chosen: Vec<Option<Style>> = vec![None; labels.len()];
    // Known names first: they are the same everywhere.
    for known in [true, false] {
        for (choice, label) in chosen.iter_mut().zip(labels) {
            if bound(label).is_some() != known {
                continue;
            }
            let letters = label.bytes().fold(0, |sum: usize, b| (sum * 31 + usize::from(b)) % 1_000_003);
            // The least used colour, of several the next after the label's own.
            let least = || {
                let from = |step: usize| (letters + step) % COLOURS.len();
                (0..COLOURS.len()).map(from).min_by_key(|&colour| used[colour]).unwrap_or(0)
            };
            let colour = bound(label).filter(|&colour| used[colour] < MARKERS.len()).unwrap_or_else(least);
            if used[colour] == MARKERS.len() {
                return None;
            }
            *choice = Some(Style::of(colour, used[colour]));
            used[colour] += 1;
        }
    }
    chosen.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(labels: &[&str]) -> Vec<String> {
        labels.iter().map(|label| (*label).to_owned()).collect()
    }

    #[test]
    fn a_name_keeps_its_colour_whatever_stands_beside_it() {
        let style = |labels: &[&str], name: &str| {
            styles(&texts(labels)).unwrap()[labels.iter().position(|label| *label == name).unwrap()]
        };
        assert_eq!(style(&["pruned", "ressa"], "ressa"), style(&["lora", "sparse-lora", "ressa"], "ressa"));
        let all = texts(&["a", "b", "c", "d", "e", "f", "g"]);
        let mut colours: Vec<Colour> = styles(&all).unwrap().iter().map(|s| s.colour).collect();
        colours.sort_unstable();
        colours.dedup();
        assert_eq!(colours.len(), 7, "names of one figure never share a colour while there are enough");
    }

    #[test]
    fn no_two_series_look_alike_as_lines_or_as_bars() {
        let known = ["magnitude", "owl", "ressa", "language", "wanda", "ecoflap", "random", "none", "uniform"];
        for count in [2, 9, 30, MOST] {
            let mut labels = texts(&known);
            labels.extend((0..MOST).map(|n| format!("method {n}")));
            labels.truncate(count);
            let styles = styles(&labels).unwrap();
            for (at, one) in styles.iter().enumerate() {
                for other in &styles[..at] {
                    assert!(one.colour != other.colour || one.marker != other.marker, "{count}: {one:?}");
                    assert!(one.colour != other.colour || one.dash != other.dash, "{count}: {one:?}");
                    assert!(one.colour != other.colour || one.hatching != other.hatching, "{count}: {one:?}");
                }
            }
        }
        assert!(styles(&(0..=MOST).map(|n| n.to_string()).collect::<Vec<_>>()).is_none());
    }

    #[test]
    fn names_bound_to_one_colour_take_others_when_it_is_used_up() {
        let blue: Vec<String> = ["wanda", "WANDA", "Wanda", "wAnda", "waNda", "wanDa", "wandA", "WAnda", "both"]
            .map(str::to_owned)
            .to_vec();
        let styles = styles(&blue).unwrap();
        assert!(styles[8].colour != styles[0].colour);
    }
}
