//! Values by number: equal ones have one.

use std::collections::HashMap;

use serde::Serialize;

/// Numbers for equal values. Looking at the last value first makes the common case a comparison.
pub(crate) struct Interner<T> {
    last: Option<(T, u32)>,
    /// By the digest of the value's JSON.
    known: HashMap<blake3::Hash, u32>,
    values: Vec<(T, blake3::Hash)>,
}

impl<T> Default for Interner<T> {
    fn default() -> Self {
        Self { last: None, known: HashMap::new(), values: Vec::new() }
    }
}

impl<T: Clone + PartialEq + Serialize> Interner<T> {
    /// The number of a value.
    pub fn intern(&mut self, value: T) -> u32 {
        if let Some((last, id)) = &self.last
            && *last == value
        {
            return *id;
        }
        let bytes = serde_json::to_vec(&value).expect("a configuration is plain data with text keys");
        let digest = blake3::hash(&bytes);
        let id = *self.known.entry(digest).or_insert_with(|| {
            self.values.push((value.clone(), digest));
            self.values.len() as u32 - 1
        });
        self.last = Some((value, id));
        id
    }

    /// The value of a number.
    pub fn value(&self, id: u32) -> T {
        self.values[id as usize].0.clone()
    }

    /// The digest of a number's value.
    pub fn digest(&self, id: u32) -> &[u8; 32] {
        self.values[id as usize].1.as_bytes()
    }
}
