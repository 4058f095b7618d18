//! Paths as people write them.

/// The part of a path that a shell would expand and this program does not: `~`, `~name`, `$NAME` or `${NAME}`.
///
/// Taken literally, such a path names a folder `~` or `$HOME` below the repository, which nobody means.
pub fn unexpanded(path: &str) -> Option<&str> {
    if path.starts_with('~') {
        return path.split('/').next();
    }
    path.match_indices('$').find_map(|(at, _)| {
        let rest = &path[at + 1..];
        let name = |text: &str| text.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count();
        let length = match rest.strip_prefix('{') {
            Some(inner) => inner.find('}').map(|end| end + 2)?,
            None => name(rest),
        };
        (length > 0 && !rest.starts_with(|c: char| c.is_ascii_digit())).then(|| &path[at..at + 1 + length])
    })
}

#[cfg(test)]
mod tests {
    use super::unexpanded;

    #[test]
    fn what_a_shell_would_expand_is_found() {
        for (path, part) in [
            ("~/data", Some("~")),
            ("~", Some("~")),
            ("~me/data", Some("~me")),
            ("$HOME/data", Some("$HOME")),
            ("/scratch/${USER}/data", Some("${USER}")),
            ("data/a$B", Some("$B")),
            ("data/~old", None),
            ("./~", None),
            ("price in $", None),
            ("a$1", None),
            ("${", None),
            ("", None),
        ] {
            assert_eq!(unexpanded(path), part, "{path}");
        }
    }
}
