//! What stages leave for later ones in the cache: image features, pixels, a teacher's outputs.

/// The cache as the stages of a plan fill it, in the order in which they are predicted. Least recently used entries go first, as in the program.
#[derive(Clone, Debug)]
pub struct Shared {
    limit: f64,
    /// Least recently used first: what it is, and its bytes.
    entries: Vec<(String, f64)>,
}

impl Shared {
    /// An empty cache of so many bytes; 0 is none.
    pub fn new(limit: u64) -> Self {
        Self { limit: limit as f64, entries: Vec::new() }
    }

    /// Whether an entry is there; it is from now on.
    pub(crate) fn take(&mut self, name: String, bytes: f64) -> bool {
        let known = self.entries.iter().position(|(known, _)| *known == name);
        let found = known.map(|at| self.entries.remove(at));
        self.entries.push(found.clone().unwrap_or((name, bytes)));
        while self.entries.iter().map(|(_, bytes)| bytes).sum::<f64>() > self.limit && !self.entries.is_empty() {
            self.entries.remove(0);
        }
        found.is_some()
    }

    /// Whether image features of so many bytes leave half of the cache to others; the program keeps no others.
    pub(crate) fn holds_features(&self, bytes: f64) -> bool {
        bytes <= self.limit / 2.0
    }
}

/// What a stage finds in the cache.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Known {
    /// Features of its images.
    pub features: bool,
    /// Its images, decoded and resized.
    pub pixels: bool,
    /// What the teacher says about its batches.
    pub teacher: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_longest_ago_goes_first() {
        let mut shared = Shared::new(100);
        let mut take = |name: &str, bytes| shared.take(name.to_owned(), bytes);
        assert!(!take("a", 40.0) && !take("b", 40.0) && take("a", 40.0));
        assert!(!take("c", 40.0), "b gives way");
        assert!(take("a", 40.0) && !take("b", 40.0), "c gives way");
        assert!(!take("too large", 101.0) && !take("a", 1.0));
        assert!(!Shared::new(0).take("a".to_owned(), 1.0));
        assert!(Shared::new(100).holds_features(50.0) && !Shared::new(100).holds_features(51.0));
    }
}
