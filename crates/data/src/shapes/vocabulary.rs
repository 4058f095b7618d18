//! Every word of the world, in a fixed order.

use super::{
    attributes::{COLUMN_WORDS, Color, ROW_WORDS, Shape, Size, Texture},
    facts::{FOODS, HOMES, MAKERS, MOODS, NAMES},
    question::COUNT_WORDS,
};

/// Words of questions, instructions and captions that name no attribute.
const FUNCTION_WORDS: &str = "what color is the shape object how many objects are there a size texture of above below where on or \
                              who makes does eat live mean called yes no describe image picture with i see and next to";

/// The words, each once; their order is part of every trained model.
pub fn words() -> Vec<&'static str> {
    let mut words: Vec<&'static str> = FUNCTION_WORDS.split_whitespace().collect();
    words.extend(ROW_WORDS);
    words.extend(COLUMN_WORDS);
    words.extend(Color::ALL.iter().map(|v| v.word()));
    words.extend(Shape::ALL.iter().map(|v| v.word()));
    words.extend(Size::ALL.iter().map(|v| v.word()));
    words.extend(Texture::ALL.iter().map(|v| v.word()));
    words.extend(COUNT_WORDS);
    for list in [&MAKERS, &FOODS, &HOMES, &MOODS] {
        words.extend(list);
    }
    words.extend(NAMES);
    words
}
