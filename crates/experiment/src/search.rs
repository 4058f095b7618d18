//! How evaluation is laid out in a GPU's memory: how many prompts are searched at once, one rule for the program and for predictions.

/// Maximum number of prompts, or images, in one forward pass.
pub const ROWS: usize = 256;
/// Maximum number of images whose features are held together.
pub const IMAGES: usize = 1024;
/// Bytes that a batch of prompts may take beside the model's weights and the features of its images.
pub const SEARCH_BYTES: u64 = 10_000_000_000;
/// By how much fewer prompts and images are computed at once after memory ran out.
pub const SHRINK: usize = 8;
/// Similarities of images and the captions of a pool that are computed at once, for each row of a pass.
pub const SIMILARITIES_OF_ROW: usize = 1 << 20;
/// Bytes held for each logit of a step: as computed, as logarithms of probabilities in f32, and while the best are looked for.
pub const LOGIT_BYTES: u64 = 24;
/// Activations of the width of the residual stream that exist at once in a pass without gradients.
pub const LIVE_WIDTHS: u64 = 6;
/// The same of the width of the feed-forward layers.
pub const LIVE_INNERS: u64 = 2;
/// Slots of a search are added this many steps at a time.
const STEPS_AHEAD: u64 = 16;

/// Slots to make room for when `needed` slots are more than there are: those of further steps and a share of what is there on top, so that long
/// answers are copied a few times only.
pub fn room(needed: u64, beams: u64) -> u64 {
    needed + STEPS_AHEAD * beams + needed / 4
}

/// Sizes of a language model that the memory of a search follows from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SearchSizes {
    /// Blocks that write.
    pub blocks: u64,
    /// Width of the keys of all heads together.
    pub keys: u64,
    /// Width of the residual stream.
    pub width: u64,
    /// Width of the feed-forward layers.
    pub inner: u64,
    /// Entries of the vocabulary.
    pub words: u64,
    /// Whether prompts are read by an encoder, whose keys and values are beside those of the answer.
    pub has_encoder: bool,
    /// Bytes of an element in the type of the computation.
    pub element: u64,
}

impl SearchSizes {
    /// Bytes of the keys and values of one token in all blocks that write.
    pub fn slot_bytes(&self) -> u64 {
        2 * self.blocks * self.keys * self.element
    }

    /// Bytes of activations that exist at once for each token of a prompt while it is read.
    pub fn token_bytes(&self) -> u64 {
        (LIVE_WIDTHS * self.width + LIVE_INNERS * self.inner) * self.element
    }

    /// Bytes of one prompt of so many tokens, the image's among them, at the end of a search of `steps` steps. A row's beams share the slots of
    /// what they read.
    pub fn row_bytes(&self, tokens: u64, steps: u64, beams: u64) -> u64 {
        let (read, from) = if self.has_encoder { (tokens, 0) } else { (0, tokens) };
        // Room is made when it is needed, each time for more.
        let end = from + steps * beams;
        let mut slots = from;
        while slots < end {
            slots = room(slots + beams, beams);
        }
        let step = slots * self.slot_bytes() + beams * self.words * LOGIT_BYTES;
        read * self.slot_bytes() + step.max(tokens * self.token_bytes())
    }

    /// Prompts of at most so many tokens that are searched at once within `bytes`, at least 1.
    pub fn rows(&self, bytes: u64, tokens: u64, steps: u64, beams: u64) -> usize {
        let rows = bytes / self.row_bytes(tokens, steps, beams).max(1);
        usize::try_from(rows).unwrap_or(ROWS).clamp(1, ROWS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Vicuna-7B in half precision: 32 blocks, 4096 wide.
    const VICUNA: SearchSizes = SearchSizes {
        blocks: 32,
        keys: 4096,
        width: 4096,
        inner: 11_008,
        words: 32_000,
        has_encoder: false,
        element: 2,
    };

    #[test]
    fn rows_follow_the_memory_of_a_row() {
        // 46 tokens, then room for the first step and more: 51 + 80 + 12 slots.
        assert_eq!(VICUNA.row_bytes(46, 10, 5), 143 * VICUNA.slot_bytes() + 5 * 32_000 * 24);
        assert_eq!(VICUNA.rows(SEARCH_BYTES, 46, 10, 5), 126);
        assert!(VICUNA.rows(SEARCH_BYTES, 46, 79, 5) < 40, "long captions take more");
        assert_eq!(VICUNA.rows(1, 46, 10, 5), 1);
        let small = SearchSizes { blocks: 2, keys: 256, words: 100, has_encoder: true, element: 4, ..VICUNA };
        assert_eq!(small.rows(SEARCH_BYTES, 46, 10, 5), ROWS);
        assert_eq!(small.row_bytes(40, 4, 1), 40 * 4096 + 40 * small.token_bytes());
    }
}
