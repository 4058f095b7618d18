//! Colours, markers and dashes bound to names, so that a method looks the same in every figure.
//!
//! Colours are those of Okabe and Ito, told apart under every common colour vision; markers and dashes repeat the difference in grey.

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

const BLUE: Colour = (0x00, 0x72, 0xB2);
const VERMILION: Colour = (0xD5, 0x5E, 0x00);
const GREEN: Colour = (0x00, 0x9E, 0x73);
const PURPLE: Colour = (0xCC, 0x79, 0xA7);
const ORANGE: Colour = (0xE6, 0x9F, 0x00);
const SKY: Colour = (0x56, 0xB4, 0xE9);
const GREY: Colour = (0x99, 0x99, 0x99);

/// Shape of a marker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// How a series looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// Colour of bars, lines and markers.
    pub colour: Colour,
    /// Marker on lines.
    pub marker: Marker,
}

const STYLES: [Style; 7] = [
    Style { colour: BLUE, marker: Marker::Circle },
    Style { colour: VERMILION, marker: Marker::Square },
    Style { colour: GREEN, marker: Marker::Triangle },
    Style { colour: PURPLE, marker: Marker::Diamond },
    Style { colour: ORANGE, marker: Marker::TipDown },
    Style { colour: SKY, marker: Marker::Cross },
    Style { colour: GREY, marker: Marker::Plus },
];

/// The index of names that the study is about; the rest are placed by their letters.
fn bound(label: &str) -> Option<usize> {
    Some(match label.to_lowercase().as_str() {
        "" | "wanda" | "v+l" | "both" | "ecoflap" => 0,
        "ressa" | "sparse-lora+distill" | "language" | "l only" | "magnitude" | "owl" => 1,
        "sparse-lora" | "vision" | "v only" | "sparsegpt" => 2,
        "lora-remasked" | "dsnot" => 3,
        "lora" | "ria" => 4,
        "random" | "pruned" | "none" | "uniform" => 6,
        _ => return None,
    })
}

/// One style per label. A name keeps its style everywhere unless two unknown names of one figure meet on the same.
pub fn styles(labels: &[String]) -> Vec<Style> {
    let mut taken = [false; STYLES.len()];
    let mut chosen: Vec<Option<usize>> = labels.iter().map(|label| bound(label)).collect();
    for index in chosen.iter().flatten() {
        taken[*index] = true;
    }
    for (choice, label) in chosen.iter_mut().zip(labels) {
        if choice.is_none() {
            let letters: usize = label.bytes().fold(0, |sum, b| (sum * 31 + usize::from(b)) % 1_000_003);
            let start = letters % STYLES.len();
            let free = (0..STYLES.len()).map(|step| (start + step) % STYLES.len()).find(|&index| !taken[index]);
            let index = free.unwrap_or(start);
            taken[index] = true;
            *choice = Some(index);
        }
    }
    chosen.into_iter().map(|index| STYLES[index.unwrap_or(0)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_its_colour_whatever_stands_beside_it() {
        let style = |labels: &[&str], name: &str| {
            let labels: Vec<String> = labels.iter().map(|l| (*l).to_owned()).collect();
            styles(&labels)[labels.iter().position(|l| l == name).unwrap()]
        };
        assert_eq!(style(&["pruned", "ressa"], "ressa"), style(&["lora", "sparse-lora", "ressa"], "ressa"));
        let all: Vec<String> = ["a", "b", "c", "d", "e", "f", "g"].map(str::to_owned).to_vec();
        let mut colours: Vec<Colour> = styles(&all).iter().map(|s| s.colour).collect();
        colours.sort_unstable();
        colours.dedup();
        assert_eq!(colours.len(), 7, "names of one figure never share a colour while there are enough");
    }
}
