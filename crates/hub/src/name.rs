//! Names of repositories, revisions and files: only what cannot leave the cache or change the meaning of an address.

use crate::HubError;

/// Whether a text could name a repository: `NAME` or `OWNER/NAME` of letters, digits, `-`, `_` and `.`.
pub fn is_repository_name(text: &str) -> bool {
    let parts: Vec<&str> = text.split('/').collect();
    parts.len() <= 2 && text.len() <= 192 && parts.iter().all(|part| is_plain(part)) && !text.contains("--")
}

/// Whether a text is one step of a path and nothing else.
pub(crate) fn is_plain(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !text.is_empty() && text.chars().all(allowed) && !text.starts_with('.') && !text.contains("..")
}

/// Whether a revision is a whole commit hash, which never changes its meaning.
pub(crate) fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// Refuses names that could not be on the hub.
pub(crate) fn check(repo: &str, revision: &str) -> Result<(), HubError> {
    if !is_repository_name(repo) {
        return Err(HubError::Name { what: "repository", name: repo.to_owned(), form: "OWNER/NAME" });
    }
    if !revision.split('/').all(is_plain) || revision.len() > 255 {
        let form = "a branch, a tag, `refs/pr/N` or a commit";
        return Err(HubError::Name { what: "revision", name: revision.to_owned(), form });
    }
    Ok(())
}
