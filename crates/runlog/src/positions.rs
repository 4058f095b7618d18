//! Where stages stand in a list, by their keys.

use hashbrown::HashTable;
use ressa_experiment::StageKey;

/// Positions in a list of stages. The keys stand in the list alone: a map that repeats them takes 40 bytes a stage more, twice as many while it
/// is half empty.
#[derive(Clone, Debug, Default)]
pub struct Positions(HashTable<u32>);

impl Positions {
    /// The position of a key; `key_at` says which key stands at a position.
    pub fn get<'l>(&self, key: &StageKey, key_at: impl Fn(usize) -> &'l StageKey) -> Option<usize> {
        self.0.find(hash(key), |&at| key_at(at as usize) == key).map(|&at| at as usize)
    }

    /// Adds a position in the list; its key has none yet.
    pub fn insert<'l>(&mut self, position: usize, key_at: impl Fn(usize) -> &'l StageKey) {
        self.0.insert_unique(hash(key_at(position)), position as u32, |&at| hash(key_at(at as usize)));
    }

    /// Makes room for so many more.
    pub fn reserve<'l>(&mut self, additional: usize, key_at: impl Fn(usize) -> &'l StageKey) {
        self.0.reserve(additional, |&at| hash(key_at(at as usize)));
    }
}

/// A key is a digest, so any eight of its bytes are a hash.
fn hash(key: &StageKey) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *key.digest();
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_found_where_it_stands() {
        let keys: Vec<StageKey> = (0..1000_u32).map(|n| blake3::hash(&n.to_le_bytes()).into()).collect();
        let (mut positions, key_at) = (Positions::default(), |at: usize| &keys[at]);
        for at in 0..500 {
            positions.insert(at, key_at);
        }
        positions.reserve(10_000, key_at);
        let found = |at| positions.get(&keys[at], key_at);
        assert!((0..500).all(|at| found(at) == Some(at)));
        assert!((500..1000).all(|at| found(at).is_none()));
    }
}
