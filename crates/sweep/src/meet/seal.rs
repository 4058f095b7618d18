//! Codes that only who knows a sweep's token can make.

use std::fmt;

/// The secret of a sweep.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Token([u8; 32]);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(secret)")
    }
}

impl Token {
    /// A token that nobody else has.
    pub fn random() -> Self {
        let text: Vec<String> = (0..4).map(|_| ressa_runlog::nonce()).collect();
        Self(*blake3::hash(text.concat().as_bytes()).as_bytes())
    }

    /// The token in a file's text.
    pub fn parse(text: &str) -> Option<Self> {
        blake3::Hash::from_hex(text.trim()).ok().map(|digest| Self(*digest.as_bytes()))
    }

    /// As it stands in a file.
    pub fn text(&self) -> String {
        format!("{}\n", blake3::Hash::from_bytes(self.0).to_hex())
    }

    /// The code of a message: of `body`, as number `number` of what `channel` carries.
    pub fn code(&self, channel: &str, number: u64, body: &[u8]) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(&(channel.len() as u64).to_le_bytes());
        hasher.update(channel.as_bytes());
        hasher.update(&number.to_le_bytes());
        hasher.update(body);
        hasher.finalize()
    }
}

/// A message as it stands in a file: its number, its code, its text, and the end of a line.
pub(crate) fn seal_line(token: &Token, channel: &str, number: u64, body: &[u8]) -> Vec<u8> {
    let mut line = format!("{number} {} ", token.code(channel, number, body).to_hex()).into_bytes();
    line.extend_from_slice(body);
    line.push(b'\n');
    line
}

/// Number and text of a line without its end; `None` if its code is not right.
pub(crate) fn open_line<'l>(token: &Token, channel: &str, line: &'l [u8]) -> Option<(u64, &'l [u8])> {
    let mut parts = line.splitn(3, |&byte| byte == b' ');
    let mut text = || std::str::from_utf8(parts.next()?).ok();
    let number = text()?.parse().ok()?;
    let code = blake3::Hash::from_hex(text()?).ok()?;
    let body = parts.next()?;
    // Digests are compared in constant time.
    (token.code(channel, number, body) == code).then_some((number, body))
}
