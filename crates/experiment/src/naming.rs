//! Which names an experiment may have: they name folders, here and on the machines that results are copied to.

/// What else stands in a results folder.
const TAKEN: [&str; 12] = [
    "cache",
    "contact-sheet.png",
    "index.html",
    "live",
    "logs",
    "meet",
    "pilots",
    "pretrain",
    "readme.md",
    "store",
    "sweep.lock",
    "wishes",
];

/// Longest name, in bytes: a folder's name may have 255, and some are made by adding to it.
const LONGEST: usize = 220;

/// Whether a name can be a folder's.
///
/// # Errors
/// What is wrong with it, as the end of a sentence that begins with the name.
pub(crate) fn check(name: &str) -> Result<(), String> {
    if TAKEN.contains(&name.to_lowercase().as_str()) {
        return Err("is taken: every results folder has something of that name".to_owned());
    }
    if name.is_empty() || name.chars().all(|c| c == '.') {
        return Err("is no folder's name".to_owned());
    }
    if let Some(c) = name.chars().find(|&c| c.is_control() || "/\\:*?\"<>|".contains(c)) {
        return Err(format!("has {c:?} in it, which not every system takes in a folder's name"));
    }
    if name.trim() != name || name.ends_with('.') {
        return Err("begins or ends with a blank, or ends with a dot, which some systems drop".to_owned());
    }
    if name.len() > LONGEST {
        return Err(format!("has {} bytes; the limit is {LONGEST}", name.len()));
    }
    let is_digest = |text: &str| text.len() == 8 && text.bytes().all(|b| b.is_ascii_hexdigit());
    if name.rsplit_once('@').is_some_and(|(_, end)| is_digest(end)) {
        return Err("ends as the folders of other selections do, with `@` and eight digits".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn names_are_folders_of_their_own() {
        let long = "x".repeat(200);
        for name in ["smoke", "Mein Versuch (1)", "-x", "naïve", "a&b", "o'k", ".hidden", "a.b", "50 %", "a@b", &long]
        {
            assert_eq!(check(name), Ok(()), "{name}");
        }
        let long = "x".repeat(221);
        let taken =
            ["index.html", "Index.HTML", "sweep.lock", "contact-sheet.png", "store", "cache", "live", "meet", "wishes"];
        let odd =
            ["", ".", "..", "...", "a\"b<c>", "a/b", "a\\b", "c:", "a\nb", " a", "a ", "a.", "smoke@0123abcd", &long];
        for name in taken.into_iter().chain(odd) {
            assert!(check(name).is_err(), "{name}");
        }
    }
}
