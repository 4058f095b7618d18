//! The identity of a stage.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    hash::{BuildHasherDefault, Hash, Hasher},
    str::FromStr,
};

use arrayvec::ArrayString;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Identity of a stage: a digest, written as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct StageKey([u8; 32]);

/// A map by stage.
pub type KeyMap<T> = HashMap<StageKey, T, BuildHasherDefault<KeyHasher>>;

/// A set of stages.
pub type KeySet = HashSet<StageKey, BuildHasherDefault<KeyHasher>>;

/// Set in the value of a byte that is no digit.
const NO_DIGIT: u8 = 0x80;

/// The value of every byte as a hexadecimal digit.
const VALUES: [u8; 256] = {
    let mut values = [NO_DIGIT; 256];
    let mut value = 0;
    while value < 16 {
        values[b"0123456789abcdef"[value] as usize] = value as u8;
        value += 1;
    }
    values
};

/// A text that is no key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no stage key, which has 64 hexadecimal digits (0-9, a-f)")]
pub struct KeyError(String);

impl StageKey {
    /// The key that is a digest.
    pub const fn new(digest: [u8; 32]) -> Self {
        Self(digest)
    }

    /// The digest.
    pub const fn digest(&self) -> &[u8; 32] {
        &self.0
    }

    /// The key as text, without an allocation: what names a stage in files and in the store.
    pub fn hex(&self) -> ArrayString<64> {
        blake3::Hash::from_bytes(self.0).to_hex()
    }

    /// The first twelve digits, enough for people.
    pub fn short(&self) -> ArrayString<12> {
        let mut short = ArrayString::new();
        short.push_str(&self.hex()[..12]);
        short
    }
}

impl From<blake3::Hash> for StageKey {
    fn from(digest: blake3::Hash) -> Self {
        Self(digest.into())
    }
}

impl FromStr for StageKey {
    type Err = KeyError;

    /// Capital letters are refused: a key has one name.
    fn from_str(text: &str) -> Result<Self, KeyError> {
        // A look at a large store parses the name of every folder.
        let digits = <&[u8; 64]>::try_from(text.as_bytes()).map_err(|_| KeyError(text.to_owned()))?;
        let mut digest = [0; 32];
        let mut wrong = 0;
        for (byte, pair) in digest.iter_mut().zip(digits.chunks_exact(2)) {
            let (high, low) = (VALUES[usize::from(pair[0])], VALUES[usize::from(pair[1])]);
            wrong |= (high | low) & NO_DIGIT;
            *byte = high << 4 | low & 0xf;
        }
        if wrong == 0 { Ok(Self(digest)) } else { Err(KeyError(text.to_owned())) }
    }
}

impl fmt::Display for StageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.hex())
    }
}

impl fmt::Debug for StageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StageKey({self})")
    }
}

/// A digest is a hash already: any eight of its bytes will do.
impl Hash for StageKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        state.write_u64(u64::from_le_bytes([a, b, c, d, e, f, g, h]));
    }
}

/// Takes what a key gives for its hash.
#[derive(Clone, Copy, Debug, Default)]
pub struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Text where people may read it, else the bytes.
impl Serialize for StageKey {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        if s.is_human_readable() { s.serialize_str(&self.hex()) } else { s.serialize_bytes(&self.0) }
    }
}

impl<'de> Deserialize<'de> for StageKey {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        if d.is_human_readable() { d.deserialize_str(KeyVisitor) } else { d.deserialize_bytes(KeyVisitor) }
    }
}

struct KeyVisitor;

impl de::Visitor<'_> for KeyVisitor {
    type Value = StageKey;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a stage key")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<StageKey, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<StageKey, E> {
        bytes.try_into().map(StageKey).map_err(|_| E::invalid_length(bytes.len(), &self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "00ff102030405060708090a0b0c0d0e0f0112233445566778899aabbccddeeff";

    #[test]
    fn a_key_is_written_and_read_as_digits() {
        let key: StageKey = TEXT.parse().unwrap();
        assert_eq!(key.digest()[..3], [0x00, 0xff, 0x10]);
        assert_eq!(key.to_string(), TEXT);
        assert_eq!(&*key.short(), "00ff10203040");
        assert_eq!(serde_json::to_string(&key).unwrap(), format!("\"{TEXT}\""));
        assert_eq!(serde_json::from_str::<StageKey>(&format!("\"{TEXT}\"")).unwrap(), key);
        assert_eq!(serde_json::from_value::<StageKey>(TEXT.into()).unwrap(), key);
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let odd = ["g", "`", "/", ":", "@", " "].map(|odd| TEXT.replace('f', odd));
        let odd = odd.iter().map(String::as_str);
        for text in odd.chain(["", "00ff", &TEXT[1..], &format!("{TEXT}0"), &TEXT.to_uppercase(), &"ä".repeat(32)]) {
            let error = text.parse::<StageKey>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("`{text}` is no stage key")), "{error}");
        }
        assert!(serde_json::from_str::<StageKey>("7").is_err());
    }

    #[test]
    fn keys_are_ordered_as_their_texts() {
        let mut keys: Vec<StageKey> = (0..100_u8).map(|n| blake3::hash(&[n]).into()).collect();
        keys.sort();
        assert!(keys.is_sorted_by_key(|key| key.to_string()));
    }
}
