//! Questions about scenes: what is in the picture (VQAv2-like), how things relate (GQA-like), what one has to know (OK-VQA-like).
//!
//! Each draw picks a template, then an object it applies to, and tries again where the scene does not admit it.

use rand::Rng;

use super::{
    attributes::{COLUMN_WORDS, Color, ROW_WORDS, Shape},
    draw::{below, chance, pick},
    facts::Facts,
    scene::{Object, Scene},
};
use crate::Question;

/// Draws after which a question that every scene admits is asked instead.
const ATTEMPTS: usize = 20;
/// Words for counts, as the published benchmark writes them.
pub const COUNT_WORDS: [&str; 5] = ["0", "1", "2", "3", "4"];

/// How one object lies to another: compares grid columns or rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// Smaller column.
    LeftOf,
    /// Larger column.
    RightOf,
    /// Smaller row.
    Above,
    /// Larger row.
    Below,
}

impl Relation {
    /// Every relation.
    pub const ALL: [Relation; 4] = [Relation::LeftOf, Relation::RightOf, Relation::Above, Relation::Below];

    /// The words used in questions.
    pub fn words(self) -> &'static str {
        match self {
            Relation::LeftOf => "left of",
            Relation::RightOf => "right of",
            Relation::Above => "above",
            Relation::Below => "below",
        }
    }

    /// Whether `a` lies so to `b`.
    pub fn holds(self, a: &Object, b: &Object) -> bool {
        match self {
            Relation::LeftOf => a.column < b.column,
            Relation::RightOf => a.column > b.column,
            Relation::Above => a.row < b.row,
            Relation::Below => a.row > b.row,
        }
    }

    /// Whether the two differ along the axis that the relation compares.
    fn applies(self, a: &Object, b: &Object) -> bool {
        match self {
            Relation::LeftOf | Relation::RightOf => a.column != b.column,
            Relation::Above | Relation::Below => a.row != b.row,
        }
    }
}

/// Objects that colour and shape together identify.
fn identified(scene: &Scene) -> Vec<&Object> {
    scene.unique_by(|o| (o.color, o.shape))
}

fn pair(object: &Object) -> String {
    format!("{} {}", object.color.word(), object.shape.word())
}

/// A question about what is in the picture: `color`, `shape`, `count`, `count-color`, `exists`, `size`, `texture`.
pub fn vqav2(scene: &Scene, rng: &mut (impl Rng + ?Sized)) -> Question {
    let total = || Question::new("how many objects are there", COUNT_WORDS[scene.objects().len()], "count");
    for _ in 0..ATTEMPTS {
        let question = match below(rng, 6) {
            0 => pick(rng, &scene.unique_by(|o| o.shape))
                .map(|o| Question::new(format!("what color is the {}", o.shape.word()), o.color.word(), "color")),
            1 => pick(rng, &scene.unique_by(|o| o.color)).map(|o| {
                Question::new(format!("what shape is the {} object", o.color.word()), o.shape.word(), "shape")
            }),
            2 if chance(rng, 0.6) => Some(total()),
            2 => Some(count_of_color(scene, rng)),
            3 => exists(scene, rng),
            4 => pick(rng, &identified(scene))
                .map(|o| Question::new(format!("what size is the {}", pair(o)), o.size.word(), "size")),
            _ => pick(rng, &identified(scene))
                .map(|o| Question::new(format!("what texture is the {}", pair(o)), o.texture.word(), "texture")),
        };
        if let Some(question) = question {
            return question;
        }
    }
    total()
}

fn count_of_color(scene: &Scene, rng: &mut (impl Rng + ?Sized)) -> Question {
    let objects = scene.objects();
    let seen = objects[below(rng, objects.len())].color;
    let color = if chance(rng, 0.75) { seen } else { Color::ALL[below(rng, Color::COUNT)] };
    let count = objects.iter().filter(|o| o.color == color).count();
    Question::new(format!("how many {} objects are there", color.word()), COUNT_WORDS[count], "count-color")
}

/// Half the time a pair that is there; otherwise one attribute is replaced, and the draw fails if that pair is there as well.
fn exists(scene: &Scene, rng: &mut (impl Rng + ?Sized)) -> Option<Question> {
    let objects = scene.objects();
    let present = chance(rng, 0.5);
    let object = objects[below(rng, objects.len())];
    let (color, shape) = if present {
        (object.color, object.shape)
    } else if chance(rng, 0.5) {
        (object.color, Shape::ALL[below(rng, Shape::COUNT)])
    } else {
        (Color::ALL[below(rng, Color::COUNT)], object.shape)
    };
    let found = objects.iter().any(|o| (o.color, o.shape) == (color, shape));
    (found == present).then(|| {
        let answer = if present { "yes" } else { "no" };
        Question::new(format!("is there a {} {}", color.word(), shape.word()), answer, "exists")
    })
}

/// A question about places: `relation`, `object-color`, `object-shape`, `where-row`, `where-column`.
///
/// `None` if the scene has no object that colour and shape identify.
pub fn gqa(scene: &Scene, rng: &mut (impl Rng + ?Sized)) -> Option<Question> {
    let known = identified(scene);
    let first = *known.first()?;
    for _ in 0..ATTEMPTS {
        let reference = known[below(rng, known.len())];
        let question = match below(rng, 4) {
            0 => relation(&known, reference, rng),
            kind @ (1 | 2) => related_object(scene, reference, kind == 1, rng),
            _ if chance(rng, 0.5) => Some(where_row(reference)),
            _ => Some(where_column(reference)),
        };
        if let Some(question) = question {
            return Some(question);
        }
    }
    Some(where_column(first))
}

fn relation(known: &[&Object], b: &Object, rng: &mut (impl Rng + ?Sized)) -> Option<Question> {
    let a = pick(rng, known)?;
    let relation = pick(rng, &Relation::ALL)?;
    relation.applies(a, b).then(|| {
        let answer = if relation.holds(a, b) { "yes" } else { "no" };
        Question::new(format!("is the {} {} the {}", pair(a), relation.words(), pair(b)), answer, "relation")
    })
}

/// Asks for the only object that lies in some relation to the reference.
fn related_object(scene: &Scene, reference: &Object, color: bool, rng: &mut (impl Rng + ?Sized)) -> Option<Question> {
    let relation = pick(rng, &Relation::ALL)?;
    let mut related = scene.objects().iter().filter(|o| relation.holds(o, reference));
    let (Some(object), None) = (related.next(), related.next()) else { return None };
    let (word, answer, template) = if color {
        ("color", object.color.word(), "object-color")
    } else {
        ("shape", object.shape.word(), "object-shape")
    };
    let text = format!("what {word} is the object {} the {}", relation.words(), pair(reference));
    Some(Question::new(text, answer, template))
}

fn where_row(object: &Object) -> Question {
    Question::new(format!("where is the {} on top or bottom", pair(object)), ROW_WORDS[object.row], "where-row")
}

fn where_column(object: &Object) -> Question {
    let text = format!("where is the {} on left or right", pair(object));
    Question::new(text, COLUMN_WORDS[object.column], "where-column")
}

/// A question that also needs a fact: `maker`, `food`, `home`, `mood`, `name`.
///
/// `None` if no object is identified by its colour alone or its shape alone.
pub fn okvqa(scene: &Scene, facts: &Facts, rng: &mut (impl Rng + ?Sized)) -> Option<Question> {
    let by_color = scene.unique_by(|o| o.color);
    let by_shape = scene.unique_by(|o| o.shape);
    if by_color.is_empty() && by_shape.is_empty() {
        return None;
    }
    loop {
        let kind = below(rng, 5);
        let Some(o) = pick(rng, if kind < 3 { &by_color } else { &by_shape }) else { continue };
        let (c, s) = (o.color.word(), o.shape.word());
        return Some(match kind {
            0 => Question::new(format!("who makes the {c} object"), facts.maker(o.shape), "maker"),
            1 => Question::new(format!("what does the {c} object eat"), facts.food(o.shape), "food"),
            2 => Question::new(format!("where does the {c} object live"), facts.home(o.shape), "home"),
            3 => Question::new(format!("what does the color of the {s} mean"), facts.mood(o.color), "mood"),
            _ => Question::new(format!("what is the {s} called"), facts.name(o.color, o.shape), "name"),
        });
    }
}
