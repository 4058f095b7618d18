//! Which cells a question speaks about: labels for auxiliary losses of the dense training.

use super::{
    attributes::{Color, GRID, Shape},
    question::Relation,
    scene::{Object, Scene},
};
use crate::Question;

/// Cell index that means `no such object`.
pub const ABSENT: usize = GRID * GRID;

/// The referents of a question.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grounding {
    /// For every phrase that names an object: the position of its last word in the question, and the cell of the one object it
    /// can mean ([`ABSENT`] if there is none). Phrases that several objects fit are left out.
    pub phrases: Vec<(usize, usize)>,
    /// The cell that decides the answer at the last word: the object in the asked relation, or, for yes-no relations, the first object.
    pub target: Option<usize>,
    /// For yes-no relations: how the first object's column and row compare with the second's (0 less, 1 equal, 2 greater).
    pub comparison: Option<[usize; 2]>,
}

impl Grounding {
    /// Grounds a question of the shapes world in its scene.
    pub fn of(question: &Question, scene: &Scene) -> Self {
        let words: Vec<&str> = question.text.split(' ').collect();
        let phrases: Vec<(usize, usize)> =
            (0..words.len()).filter_map(|i| Some((i, cell_of(named(&words, i)?, scene)?))).collect();
        let mut grounding = Self { phrases, target: None, comparison: None };
        let cells: Vec<usize> =
            grounding.phrases.iter().map(|(_, cell)| *cell).filter(|cell| *cell != ABSENT).collect();
        match question.template {
            "object-color" | "object-shape" => {
                grounding.target = cells.first().and_then(|cell| related(&words, *cell, scene));
            }
            "relation" => {
                if let [a, b] = cells[..] {
                    let compare = |x: usize, y: usize| 1 + usize::from(x > y) - usize::from(x < y);
                    grounding.target = Some(a);
                    grounding.comparison = Some([compare(a % GRID, b % GRID), compare(a / GRID, b / GRID)]);
                }
            }
            _ => {}
        }
        grounding
    }
}

/// The description whose last word stands at `i`: `{colour} {shape}`, `{shape}` or `{colour} object`.
fn named(words: &[&str], i: usize) -> Option<(Option<Color>, Option<Shape>)> {
    let color = i.checked_sub(1).and_then(|before| Color::from_word(words[before]));
    match Shape::from_word(words[i]) {
        Some(shape) => Some((color, Some(shape))),
        None if words[i] == "object" && color.is_some() => Some((color, None)),
        None => None,
    }
}

fn cell_of((color, shape): (Option<Color>, Option<Shape>), scene: &Scene) -> Option<usize> {
    let fits = |o: &&Object| color.is_none_or(|c| o.color == c) && shape.is_none_or(|s| o.shape == s);
    let mut found = scene.objects().iter().filter(fits);
    match (found.next(), found.next()) {
        (Some(object), None) => Some(object.cell()),
        (None, _) => Some(ABSENT),
        _ => None,
    }
}

/// The object that stands in the question's relation to the object of a cell.
fn related(words: &[&str], reference: usize, scene: &Scene) -> Option<usize> {
    let text = words.join(" ");
    let relation = Relation::ALL.into_iter().find(|relation| text.contains(&format!(" {} ", relation.words())))?;
    let reference = scene.objects().iter().find(|o| o.cell() == reference)?;
    scene.objects().iter().find(|o| relation.holds(o, reference)).map(Object::cell)
}
