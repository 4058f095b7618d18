//! Places on one machine in texts that are written for others: absolute paths, and with them the names of users and hosts.

/// Roots of paths that are the same on every machine.
const COMMON: [&str; 5] = ["usr", "bin", "etc", "dev", "proc"];

/// Whether a text is a path of this machine: absolute, or from a home folder on.
pub fn is_place(text: &str) -> bool {
    let home = text.starts_with("~/") || text.starts_with("file://") || text.starts_with("\\\\");
    let drive = matches!(text.as_bytes(), [letter, b':', b'\\' | b'/', ..] if letter.is_ascii_alphabetic());
    let absolute = text.strip_prefix('/').is_some_and(|rest| rest.contains('/') && !rest.starts_with('/'));
    let one_line = !text.contains(['\n', '{']);
    one_line && (home || drive || absolute)
}

/// A text in which every absolute path is replaced by its last part. Addresses and paths that every machine has stay.
pub fn without_places(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    let mut before = ' ';
    while let Some(c) = rest.chars().next() {
        let begins = before.is_whitespace() || "'`\"(=[,<>{|".contains(before) || before == ':';
        let length = if begins { place_at(rest) } else { 0 };
        if length > 0 {
            let place = &rest[..length];
            clean.push_str(place.trim_end_matches(['/', '\\']).rsplit(['/', '\\']).next().unwrap_or_default());
            rest = &rest[length..];
            before = 'x';
        } else {
            clean.push(c);
            rest = &rest[c.len_utf8()..];
            before = c;
        }
    }
    clean
}

/// Bytes of the path of this machine that a text begins with; 0 where it begins with none.
fn place_at(text: &str) -> usize {
    let end = text.find(|c: char| c.is_whitespace() || "'`\"()[],;<>{}|".contains(c)).unwrap_or(text.len());
    // What ends a sentence ends the path.
    let place = text[..end].trim_end_matches(['.', ':']);
    let first = place.strip_prefix('/').and_then(|rest| rest.split('/').next());
    let absolute = first.is_some_and(|first| {
        first.starts_with(|c: char| c.is_alphanumeric() || c == '.' || c == '_') && !COMMON.contains(&first)
    });
    if absolute || is_place(place) && !place.starts_with('/') { place.len() } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lose_their_place_and_addresses_stay() {
        let user = concat!("/ho", "me/ada");
        for (from, to) in [
            (format!("made from `{user}/models/base`, twice"), "made from `base`, twice".to_owned()),
            (format!("model.checkpoint={user}/base/ rank=8"), "model.checkpoint=base rank=8".to_owned()),
            (format!("see {user}."), "see ada.".to_owned()),
            ("~/x/base and C:\\models\\base".to_owned(), "base and base".to_owned()),
            ("https://huggingface.co/a/b and 3/4, a/b, /usr/bin/env".to_owned(), String::new()),
        ] {
            assert_eq!(without_places(&from), if to.is_empty() { from.clone() } else { to });
        }
    }
}
