//! Oracle slots: what a perfect interface would hand to the language model, one embedding per grid cell.
//!
//! The language model learns to read them before it ever sees an image, and the interface then learns to produce them.

use ressa_data::shapes::Scene;
use tch::{Kind, Tensor};

use crate::compose::Composer;

/// The parts a slot is summed from: the language model's word embeddings, a vector per query, a vector for empty cells.
pub struct SlotParts {
    /// Word embeddings `[vocabulary, width]`.
    pub words: Tensor,
    /// Vector per query `[queries, width]`.
    pub place: Tensor,
    /// Vector of an empty cell `[width]`.
    pub empty: Tensor,
}

impl SlotParts {
    /// A copy that training no longer moves: the interface's target.
    pub fn frozen(&self) -> Self {
        Self { words: self.words.detach().copy(), place: self.place.detach().copy(), empty: self.empty.detach().copy() }
    }

    /// A second handle on the same tensors.
    pub fn shallow_clone(&self) -> Self {
        Self { words: self.words.shallow_clone(), place: self.place.shallow_clone(), empty: self.empty.shallow_clone() }
    }

    /// Slots of the nine cells `[scenes, 9, width]`: the words for shape, colour, size, texture, row and column of what is there.
    pub fn cells(&self, composer: &Composer<'_>, scenes: &[&Scene]) -> Tensor {
        let (ids, empty) = composer.cell_words(scenes);
        let words = Tensor::embedding(&self.words, &ids, -1, false, false);
        let sum =
            |from: i64, count: i64| words.narrow(2, from, count).sum_dim_intlist([2i64].as_slice(), false, Kind::Float);
        let content = sum(0, 4).where_self(&empty.logical_not(), &self.empty);
        content + sum(4, 2) + self.place.narrow(0, 0, 9)
    }

    /// A whole oracle prefix `[scenes, queries, width]`: the nine cells, then the queries that carry nothing.
    pub fn prefix(&self, composer: &Composer<'_>, scenes: &[&Scene]) -> Tensor {
        let cells = self.cells(composer, scenes);
        let (queries, width) = self.place.size2().expect("place is a matrix");
        if queries == 9 {
            return cells;
        }
        let rest = self.place.narrow(0, 9, queries - 9).unsqueeze(0).expand([scenes.len() as i64, -1, width], false);
        Tensor::cat(&[cells, rest], 1)
    }
}
