//! Facts: what a shape or a colour stands for. Known to the language side only; no pixel shows them.

use rand::Rng;

use super::{
    attributes::{Color, Shape},
    draw::{Purpose, below, shuffle, stream},
};
use crate::Question;

/// Who makes a shape.
pub const MAKERS: [&str; 8] = ["zorks", "mibs", "tolans", "krells", "vogs", "pims", "ruxes", "dants"];
/// What a shape eats.
pub const FOODS: [&str; 8] = ["moss", "salt", "plums", "rice", "honey", "ferns", "corn", "figs"];
/// Where a shape lives.
pub const HOMES: [&str; 8] = ["caves", "lakes", "dunes", "trees", "cliffs", "fields", "marsh", "reefs"];
/// What a colour means.
pub const MOODS: [&str; 8] = ["danger", "peace", "luck", "fear", "joy", "pride", "hope", "envy"];
/// Names of coloured shapes; each is shared by four.
pub const NAMES: [&str; 16] = [
    "bado", "celu", "dira", "fomo", "gax", "hilo", "jeta", "kuno", "lapi", "moro", "nesh", "opal", "pell", "quim",
    "rado", "sull",
];

/// One fixed assignment of facts, drawn from the world's seed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    makers: [usize; 8],
    foods: [usize; 8],
    homes: [usize; 8],
    moods: [usize; 8],
    names: [usize; 64],
}

impl Facts {
    /// The facts of a world.
    pub fn new(seed: u64) -> Self {
        let mut rng = stream(seed, Purpose::Facts, 0);
        let mut permutation = || {
            let mut values: [usize; 8] = std::array::from_fn(|i| i);
            shuffle(&mut rng, &mut values);
            values
        };
        let (makers, foods, homes, moods) = (permutation(), permutation(), permutation(), permutation());
        let mut names: [usize; 64] = std::array::from_fn(|i| i / 4);
        shuffle(&mut rng, &mut names);
        Self { makers, foods, homes, moods, names }
    }

    /// Who makes a shape.
    pub fn maker(&self, shape: Shape) -> &'static str {
        MAKERS[self.makers[shape.index()]]
    }

    /// What a shape eats.
    pub fn food(&self, shape: Shape) -> &'static str {
        FOODS[self.foods[shape.index()]]
    }

    /// Where a shape lives.
    pub fn home(&self, shape: Shape) -> &'static str {
        HOMES[self.homes[shape.index()]]
    }

    /// What a colour means.
    pub fn mood(&self, color: Color) -> &'static str {
        MOODS[self.moods[color.index()]]
    }

    /// What a shape of a colour is called.
    pub fn name(&self, color: Color, shape: Shape) -> &'static str {
        NAMES[self.names[color.index() * Shape::COUNT + shape.index()]]
    }

    /// Draws a fact as a question without an image; the held-out pairs are asked about too.
    pub fn draw(&self, rng: &mut (impl Rng + ?Sized)) -> Question {
        let kind = below(rng, 5);
        let shape = Shape::ALL[below(rng, Shape::COUNT)];
        let color = Color::ALL[below(rng, Color::COUNT)];
        let (s, c) = (shape.word(), color.word());
        match kind {
            0 => Question::new(format!("who makes a {s}"), self.maker(shape), "maker"),
            1 => Question::new(format!("what does a {s} eat"), self.food(shape), "food"),
            2 => Question::new(format!("where does a {s} live"), self.home(shape), "home"),
            3 => Question::new(format!("what does {c} mean"), self.mood(color), "mood"),
            _ => Question::new(format!("what is a {c} {s} called"), self.name(color, shape), "name"),
        }
    }
}
