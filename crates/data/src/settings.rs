//! What `tokenizer_config.json`, `special_tokens_map.json` and `added_tokens.json` of a folder say about its tokenizer.

use std::path::{Path, PathBuf};

use ressa_checkpoint::json;
use serde_json::{Map, Value};
use tokenizers::{AddedToken, Tokenizer};

use crate::{
    DataError,
    text::{Side, content},
};

/// The files' entries, as `transformers` combines them: the special tokens' map and the added tokens count only where
/// `tokenizer_config.json` does not list its added tokens itself.
pub(crate) struct Settings {
    /// The file that is named in errors.
    path: PathBuf,
    map: Map<String, Value>,
    /// Tokens with the id they must have.
    added: Vec<(u32, Value)>,
}

impl Settings {
    pub(crate) fn load(folder: &Path) -> Result<Self, DataError> {
        let path = folder.join("tokenizer_config.json");
        let config = object(&path)?;
        let mut settings = Self { path, map: config.unwrap_or_default(), added: Vec::new() };
        if let Some(listed) = settings.map.get("added_tokens_decoder").and_then(Value::as_object) {
            for (id, token) in listed {
                let id = id.parse().map_err(|_| {
                    settings.wrong("added_tokens_decoder", &format!("not a map from ids, but has {id:?}"))
                })?;
                settings.added.push((id, token.clone()));
            }
        } else {
            let specials = folder.join("special_tokens_map.json");
            if let Some(specials) = object(&specials)? {
                settings.path = folder.join("special_tokens_map.json");
                settings.map.extend(specials);
            }
            let added = folder.join("added_tokens.json");
            for (token, id) in object(&added)?.unwrap_or_default() {
                let id = id.as_u64().and_then(|id| u32::try_from(id).ok()).ok_or_else(|| DataError::Tokenizer {
                    path: added.clone(),
                    reason: format!("id of {token:?} is {id}"),
                })?;
                settings.added.push((id, Value::String(token)));
            }
        }
        settings.added.sort_by_key(|(id, _)| *id);
        Ok(settings)
    }

    /// An error about an entry.
    pub(crate) fn wrong(&self, name: &str, what: &str) -> DataError {
        DataError::Tokenizer { path: self.path.clone(), reason: format!("`{name}` is {what}") }
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.map.get(name)?.as_str()
    }

    pub(crate) fn flag(&self, name: &str) -> Option<bool> {
        self.map.get(name)?.as_bool()
    }

    /// The special token of a role.
    pub(crate) fn token(&self, role: &str) -> Option<String> {
        self.map.get(role).and_then(content).map(str::to_owned)
    }

    pub(crate) fn side(&self, name: &str) -> Result<Option<Side>, DataError> {
        match self.map.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(side)) if side == "left" => Ok(Some(Side::Left)),
            Some(Value::String(side)) if side == "right" => Ok(Some(Side::Right)),
            Some(other) => Err(self.wrong(name, &format!("{other}; it must be \"left\" or \"right\""))),
        }
    }

    /// `None` where a huge number stands for no limit.
    pub(crate) fn max_length(&self) -> Option<usize> {
        const NO_LIMIT: u64 = 1 << 40;
        let length = self.map.get("model_max_length")?.as_u64()?;
        (length < NO_LIMIT).then(|| usize::try_from(length).ok())?
    }

    /// The text of the token that a processor knows by a name of its own, where the folder says it.
    pub(crate) fn named(&self, name: &str) -> Option<&str> {
        let listed = self.map.get("extra_special_tokens").and_then(|tokens| tokens.get(name));
        listed.or_else(|| self.map.get(name)).and_then(content)
    }

    /// Adds the listed tokens that `tokenizer.json` lacks.
    pub(crate) fn add_missing_tokens(&self, tokenizer: &mut Tokenizer) -> Result<(), String> {
        let specials: Vec<&str> =
            self.map.iter().filter(|(name, _)| name.ends_with("_token")).filter_map(|(_, v)| content(v)).collect();
        let further = self.map.get("additional_special_tokens").and_then(Value::as_array);
        let further: Vec<&str> = further.into_iter().flatten().filter_map(content).collect();
        for (id, value) in &self.added {
            let Some(text) = content(value) else { continue };
            let known = tokenizer.get_added_vocabulary().get_vocab().contains_key(text);
            let flag = |name: &str| value.get(name).and_then(Value::as_bool);
            let special = flag("special").unwrap_or(false) || specials.contains(&text) || further.contains(&text);
            if !known {
                let token = AddedToken::from(text, special)
                    .single_word(flag("single_word").unwrap_or(false))
                    .lstrip(flag("lstrip").unwrap_or(false))
                    .rstrip(flag("rstrip").unwrap_or(false))
                    .normalized(flag("normalized").unwrap_or(!special));
                let added = if special { tokenizer.add_special_tokens([token]) } else { tokenizer.add_tokens([token]) };
                added.map_err(|e| e.to_string())?;
            }
            let found = tokenizer.token_to_id(text);
            if found != Some(*id) {
                let found = found.map_or("none".to_owned(), |found| found.to_string());
                return Err(format!(
                    "token {text:?} has id {found} here, but id {id} where the folder lists its added tokens"
                ));
            }
        }
        Ok(())
    }
}

fn object(path: &Path) -> Result<Option<Map<String, Value>>, DataError> {
    json::optional(path).map_err(DataError::of_tokenizer)
}
