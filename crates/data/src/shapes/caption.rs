//! Captions of scenes: free ones for training and references, a canonical one for retrieval, a positional one for training only.

use rand::Rng;

use super::{
    attributes::{COLUMN_WORDS, ROW_WORDS, Texture},
    draw::{chance, weighted},
    scene::{Object, Scene},
};

/// Instruction of the captioning task.
pub const DESCRIBE: &str = "describe the image";
/// Instruction of the positional captions, which only training uses.
pub const DESCRIBE_WHERE: &str = "describe where";

const PREFIXES: [&str; 4] = ["", "there is ", "a picture with ", "i see "];
const PREFIX_SHARES: [f64; 4] = [0.55, 0.15, 0.15, 0.15];

/// Draws a caption as one person might write it: with or without a prefix, sizes named four times in five, one conjunction throughout.
pub fn draw(scene: &Scene, rng: &mut (impl Rng + ?Sized)) -> String {
    let prefix = PREFIXES[weighted(rng, &PREFIX_SHARES)];
    let phrases: Vec<String> = scene.objects().iter().map(|object| phrase(object, chance(rng, 0.8))).collect();
    let conjunction = if chance(rng, 0.75) { " and " } else { " next to " };
    format!("{prefix}{}", phrases.join(conjunction))
}

/// The caption that names everything but places: what retrieval compares with images.
pub fn canonical(scene: &Scene) -> String {
    scene.objects().iter().map(|object| phrase(object, true)).collect::<Vec<_>>().join(" and ")
}

/// A caption that names places: grounds positions in training.
pub fn positional(scene: &Scene) -> String {
    let phrase = |o: &Object| {
        format!("a {} {} on {} {}", o.color.word(), o.shape.word(), ROW_WORDS[o.row], COLUMN_WORDS[o.column])
    };
    scene.objects().iter().map(phrase).collect::<Vec<_>>().join(" and ")
}

fn phrase(object: &Object, with_size: bool) -> String {
    let size = if with_size { format!("{} ", object.size.word()) } else { String::new() };
    let texture = if object.texture == Texture::Striped { "striped " } else { "" };
    format!("a {size}{texture}{} {}", object.color.word(), object.shape.word())
}
