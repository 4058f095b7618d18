//! What of a network can be removed as a whole: heads, channels and blocks, which each architecture declares beside its layers.

use crate::Linear;

/// A kind of groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unit {
    /// Attention heads; where query heads share keys and values, these with their query heads.
    Heads,
    /// Channels between the linears of a feed-forward layer.
    Channels,
}

/// A side of a matrix `[out, in]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// Outputs, with their biases.
    Rows,
    /// Inputs.
    Columns,
}

/// Where the groups of a set lie on one side of a layer: `parts` times one after the other, each `width` rows or columns wide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Module path of the linear.
    pub layer: String,
    /// The side.
    pub side: Side,
    /// How often the groups follow each other: three times where queries, keys and values are one matrix.
    pub parts: i64,
    /// Rows or columns of a group in a part.
    pub width: i64,
}

impl Slice {
    /// Rows or columns of some of `count` groups, in ascending order.
    pub fn positions(&self, count: i64, groups: &[i64]) -> Vec<i64> {
        let starts =
            (0..self.parts).flat_map(|part| groups.iter().map(move |group| (part * count + group) * self.width));
        starts.flat_map(|start| start..start + self.width).collect()
    }
}

/// Groups of which any may be removed while the others do as before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupSet {
    /// Their kind.
    pub unit: Unit,
    /// How many there are.
    pub count: i64,
    /// Whether the same ones must be removed in every block of a stack, because something is kept for each of them once: T5's position biases.
    pub is_tied: bool,
    /// Where they lie. What reads a group's outputs has a slice of columns.
    pub slices: Vec<Slice>,
}

impl GroupSet {
    /// `count` groups of a kind, so far of no layer.
    pub(crate) fn new(unit: Unit, count: i64) -> Self {
        Self { unit, count, is_tied: false, slices: Vec::new() }
    }

    /// With rows of linears that make what the groups hold, `parts` times one after the other in each.
    pub(crate) fn made_by(mut self, linears: &[&Linear], parts: i64) -> Self {
        self.slices.extend(linears.iter().map(|linear| {
            let width = linear.shape().0 / parts / self.count;
            Slice { layer: linear.name().to_owned(), side: Side::Rows, parts, width }
        }));
        self
    }

    /// With columns of the linear that reads it.
    pub(crate) fn read_by(mut self, linear: &Linear) -> Self {
        let width = linear.shape().1 / self.count;
        self.slices.push(Slice { layer: linear.name().to_owned(), side: Side::Columns, parts: 1, width });
        self
    }

    /// The same ones in every block of a stack.
    pub(crate) fn tied(self) -> Self {
        Self { is_tied: true, ..self }
    }
}

/// What of a block can be removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockGroups {
    /// Heads and channels.
    pub sets: Vec<GroupSet>,
    /// Whether the block passes on what it reads and adds to it, so that without it all is as if it added nothing.
    pub is_removable: bool,
    /// Tensors of the whole stack, kept in its first block, with a column for each group of a tied set.
    pub tables: Vec<String>,
    /// Path in the checkpoint of the stack of equal blocks that it is one of, such as `vision_model.encoder.layers`, and its number there; `None` where
    /// there is no stack.
    pub place: Option<(String, usize)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_of_groups() {
        let slice = |parts, width| Slice { layer: "l".to_owned(), side: Side::Rows, parts, width };
        assert_eq!(slice(1, 1).positions(4, &[0, 3]), [0, 3]);
        assert_eq!(slice(1, 2).positions(3, &[1]), [2, 3]);
        // Queries, keys and values of two heads of width 2 in one matrix.
        assert_eq!(slice(3, 2).positions(2, &[1]), [2, 3, 6, 7, 10, 11]);
    }
}
