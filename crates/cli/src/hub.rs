//! Where the hub is and what its cache holds, from the environment variables that its other clients read.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use ressa_hub::Settings;

use crate::{
    exit::{Exit, Failure},
    workspace::named,
};

/// The settings of this process.
///
/// # Errors
/// Where no variable names a folder for the cache and there is no home folder.
pub fn settings() -> Result<Settings, Failure> {
    let settings = from(&|name| env::var_os(name))?;
    named([settings.cache.clone()])?;
    Ok(settings)
}

/// The settings that variables ask for; empty ones count as unset.
fn from(lookup: &dyn Fn(&str) -> Option<OsString>) -> Result<Settings, Failure> {
    let var = |name: &str| lookup(name).filter(|value| !value.is_empty());
    let user = var("HOME").map(PathBuf::from);
    let folder = |name: &str| var(name).map(|value| expand(Path::new(&value), user.as_deref()));
    let home = folder("HF_HOME")
        .or_else(|| folder("XDG_CACHE_HOME").map(|cache| cache.join("huggingface")))
        .or_else(|| user.as_ref().map(|user| user.join(".cache/huggingface")));
    let cache = folder("HF_HUB_CACHE")
        .or_else(|| folder("HUGGINGFACE_HUB_CACHE"))
        .or_else(|| home.as_ref().map(|home| home.join("hub")))
        .ok_or_else(|| Failure::new(Exit::Usage, "no folder for the hub's cache; set HF_HOME"))?;
    let cache = std::path::absolute(&cache).unwrap_or(cache);
    let text = |name: &str| var(name).and_then(|value| value.into_string().ok());
    let token_file = folder("HF_TOKEN_PATH").or_else(|| home.map(|home| home.join("token")));
    let token = text("HF_TOKEN")
        .or_else(|| text("HUGGING_FACE_HUB_TOKEN"))
        .or_else(|| token_file.and_then(|file| fs::read_to_string(file).ok()))
        .map(|token| token.trim().to_owned())
        .filter(|token| !token.is_empty());
    let is_on = |name: &str| {
        text(name).is_some_and(|value| ["1", "on", "yes", "true"].contains(&value.to_ascii_lowercase().as_str()))
    };
    let mut settings = Settings::new(cache);
    if let Some(endpoint) = text("HF_ENDPOINT") {
        settings.endpoint = endpoint.trim_end_matches('/').to_owned();
    }
    settings.token = token;
    settings.offline = is_on("HF_HUB_OFFLINE") || is_on("TRANSFORMERS_OFFLINE");
    Ok(settings)
}

/// A path with `~` at its beginning replaced.
fn expand(path: &Path, user: Option<&Path>) -> PathBuf {
    match (path.strip_prefix("~"), user) {
        (Ok(rest), Some(user)) => user.join(rest),
        _ => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(variables: &[(&str, &str)]) -> Settings {
        let found = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value));
        from(&found).unwrap()
    }

    #[test]
    fn the_cache_is_where_other_clients_have_it() {
        let cache = |variables: &[(&str, &str)]| with(variables).cache.display().to_string();
        let home = ("HOME", "/users/me");
        assert_eq!(cache(&[home]), "/users/me/.cache/huggingface/hub");
        assert_eq!(cache(&[home, ("XDG_CACHE_HOME", "/c")]), "/c/huggingface/hub");
        assert_eq!(cache(&[home, ("XDG_CACHE_HOME", "/c"), ("HF_HOME", "~/hf")]), "/users/me/hf/hub");
        assert_eq!(cache(&[home, ("HF_HOME", "/hf"), ("HF_HUB_CACHE", "/hub")]), "/hub");
        assert_eq!(cache(&[home, ("HF_HOME", "")]), "/users/me/.cache/huggingface/hub");
        assert!(from(&|_| None).is_err());
    }

    #[test]
    fn the_token_is_the_variable_or_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let home = ("HF_HOME", folder.path().to_str().unwrap());
        assert_eq!(with(&[home]).token, None);
        fs::write(folder.path().join("token"), "hf_file\n").unwrap();
        assert_eq!(with(&[home]).token.as_deref(), Some("hf_file"));
        assert_eq!(with(&[home, ("HF_TOKEN", " hf_variable")]).token.as_deref(), Some("hf_variable"));
    }

    #[test]
    fn the_endpoint_and_offline_mode_are_read() {
        let settings = with(&[("HF_HOME", "/hf"), ("HF_ENDPOINT", "http://mirror:8080/"), ("HF_HUB_OFFLINE", "YES")]);
        assert_eq!((settings.endpoint.as_str(), settings.offline), ("http://mirror:8080", true));
        assert!(!with(&[("HF_HOME", "/hf"), ("HF_HUB_OFFLINE", "0")]).offline);
    }
}
