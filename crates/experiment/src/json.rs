//! JSON files that other programs wrote.

/// The UTF-8 byte-order mark, which editors on Windows write and JSON does not know.
pub const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The text of a JSON file without its byte-order mark.
pub fn without_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text)
}
