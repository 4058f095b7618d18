//! What stands before a row's own text in the language model: a prompt's fixed words with the image's places among them.

/// What a language model reads before the text of each row of a batch: token ids, with the image token wherever a feature of the image
/// stands. The BLIP-2 family has none: its queries come first and nothing is between.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Layout {
    /// Token ids, up to and including the last one of the image.
    pub ids: Vec<u32>,
    /// The id that stands for a feature of the image.
    pub image_token: u32,
    /// Frames, rows and columns of features of each image, where positions follow from them.
    pub grids: Vec<[u32; 3]>,
}

impl Layout {
    /// The tokens of a prompt with its image, cut behind the last image token: the layout, and the row's own text.
    ///
    /// Returns `None` where no token is an image token.
    pub fn split(ids: &[u32], image_token: u32) -> Option<(Self, Vec<u32>)> {
        let last = ids.iter().rposition(|&id| id == image_token)?;
        let (before, text) = ids.split_at(last + 1);
        Some((Self { ids: before.to_vec(), image_token, grids: Vec::new() }, text.to_vec()))
    }

    /// Tokens, those of the image among them.
    pub fn tokens(&self) -> usize {
        self.ids.len()
    }

    /// Features of the image.
    pub fn features(&self) -> usize {
        self.ids.iter().filter(|&&id| id == self.image_token).count()
    }

    /// Runs of tokens of one kind: whether they are the image's, where they begin, how many they are.
    pub fn runs(&self) -> Vec<(bool, usize, usize)> {
        let mut runs: Vec<(bool, usize, usize)> = Vec::new();
        for (at, &id) in self.ids.iter().enumerate() {
            let of_image = id == self.image_token;
            match runs.last_mut() {
                Some((kind, _, count)) if *kind == of_image => *count += 1,
                _ => runs.push((of_image, at, 1)),
            }
        }
        runs
    }
}
