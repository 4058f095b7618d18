//! Prompts as instruction-tuned models of today read them: one turn of a conversation, laid out by the Jinja template that a folder keeps.
//!
//! Reference: `apply_chat_template` and the processors' image placeholders in transformers 4.57, `processing_utils.py`.

use std::path::{Path, PathBuf};

use minijinja::{Error, Value as Jinja, context};
use ressa_checkpoint::{PROCESSOR, json};
use ressa_experiment::prompt::{Layout, Mosaic};
use serde_json::{Map, Value};

use crate::{
    Cells, DataError,
    jinja::Template,
    preprocess::MOST_FEATURES,
    text::{Text, brief},
    tiles::Spelling,
};

/// Where a folder keeps its template, the first that is there counts: a file of its own, or an entry of settings.
const TEMPLATE_FILE: &str = "chat_template.jinja";
const TEMPLATE_SETTINGS: [&str; 3] = ["chat_template.json", PROCESSOR, "tokenizer_config.json"];
/// The entry.
const ENTRY: &str = "chat_template";
/// Largest template, in bytes.
const TEMPLATE_LIMIT: u64 = 1 << 20;
/// Bytes that a template may put around a text.
const AROUND: usize = 1 << 16;

/// How a folder lays out a turn of a conversation about an image.
pub(crate) struct Chat {
    template: Template,
    path: PathBuf,
    /// The text that stands for an image, and its id.
    image_token: (String, u32),
    takes: Takes,
    bos: Option<String>,
    eos: Option<String>,
}

/// The positions that an image takes.
#[derive(Clone, Debug)]
pub(crate) enum Takes {
    /// So many, whatever the image.
    Fixed(usize),
    /// One for each feature, in rows and columns where the token before the image is the one that announces it.
    Cells { cells: Cells, start: Option<u32> },
    /// Those of each tile, with words between them.
    Tiles(Spelling),
    /// Those of tiles of so many pixels and features along a side, without what is padding.
    Mosaic { pixels: u32, side: u32 },
}

/// What a language model reads of a prompt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prompt {
    /// What stands before the text, with the image's places; nothing where an image comes first and alone.
    pub layout: Option<Layout>,
    /// The text behind the image.
    pub text: Vec<u32>,
}

impl Chat {
    /// Reads the template of `folder`.
    ///
    /// # Errors
    /// A folder without one; a template that is no Jinja; a tokenizer that does not know the image token.
    pub fn load(folder: &Path, tokenizer: &Text, takes: Takes) -> Result<Self, DataError> {
        let (path, template) = template(folder)?;
        let broken = |error: Error| DataError::Processor {
            path: path.clone(),
            reason: format!("its chat template cannot be read: {}", told(&error)),
        };
        let template = Template::new(template).map_err(broken)?;
        let image = tokenizer.image_text().to_owned();
        let id = tokenizer.image_token().ok_or_else(|| DataError::Tokenizer {
            path: folder.join("tokenizer.json"),
            reason: format!("it has no token {image:?}, which stands for an image in the prompts of this model"),
        })?;
        let (bos, eos) = tokenizer.ends();
        Ok(Self { template, path, image_token: (image, id), takes, bos, eos })
    }

    /// A prompt with its image of so many pixels in height and width: the template's one turn of a user who shows an image and says `text`, or, where `text` has an image token
    /// itself, that text as it is.
    ///
    /// # Errors
    /// A template that refuses the turn or leaves the image out, a text that cannot be tokenized, more than one image token in it.
    pub fn prompt(&self, tokenizer: &Text, text: &str, size: (u32, u32)) -> Result<Prompt, DataError> {
        let (image, id) = &self.image_token;
        let mut whole = if text.contains(image.as_str()) { text.to_owned() } else { self.turn(text)? };
        // As in the reference: a template that writes the beginning itself gets no second one.
        let special = self.bos.as_ref().is_none_or(|bos| bos.is_empty() || !whole.starts_with(bos.as_str()));
        let refused = |reason: String| DataError::Encode { text: brief(text), reason };
        let one = |images: usize| match images {
            1 => Ok(()),
            _ => Err(refused(format!("it has {images} image tokens {image:?}; a prompt about an image has one"))),
        };
        if let Takes::Tiles(spelling) = &self.takes {
            one(whole.matches(image.as_str()).count())?;
            let (tiles, features) = (spelling.tiles.count(size) as u64, spelling.features as u64);
            let taken = tiles.saturating_mul(features);
            if taken > MOST_FEATURES {
                return Err(refused(format!(
                    "its image of {}x{} pixels has {tiles} tiles of {features} features each, {taken} positions; at most {MOST_FEATURES} are supported: \
                     make it smaller",
                    size.1, size.0
                )));
            }
            whole = whole.replacen(image.as_str(), &spelling.text(image, size), 1);
        }
        let ids = tokenizer.encode(&whole, special)?;
        let images = ids.iter().filter(|&found| found == id).count();
        let (mut grid, mut mosaic) = (None, None);
        // What an image token of the text becomes.
        let count = match &self.takes {
            Takes::Fixed(count) => *count,
            Takes::Cells { cells, .. } => {
                let features = cells.grid(size);
                grid = Some(features);
                features.iter().map(|&size| size as usize).product()
            }
            Takes::Tiles(_) => 1,
            Takes::Mosaic { pixels, side } => mosaic.insert(Mosaic::on(size, *pixels, *side)).features(),
        };
        match &self.takes {
            Takes::Fixed(_) | Takes::Cells { .. } | Takes::Mosaic { .. } => one(images)?,
            Takes::Tiles(Spelling { tiles, features, .. }) => {
                let wanted = tiles.count(size) * features;
                if images != wanted {
                    return Err(refused(format!(
                        "the tokenizer makes {images} image tokens of {wanted} times {image:?}"
                    )));
                }
            }
        }
        if count == 0 {
            return Err(refused(format!("its image of {}x{} pixels has no feature", size.1, size.0)));
        }
        let repeat = |&found: &u32| std::iter::repeat_n(found, if found == *id { count } else { 1 });
        let expanded: Vec<u32> = ids.iter().flat_map(repeat).collect();
        let (mut layout, text) =
            Layout::split(&expanded, *id).unwrap_or_else(|| unreachable!("an image token was counted"));
        if let Takes::Cells { start: Some(start), .. } = &self.takes
            && ids.windows(2).any(|two| two == [*start, *id])
        {
            layout.grids = Vec::from_iter(grid);
        }
        layout.mosaic = mosaic;
        Ok(Prompt { layout: Some(layout), text })
    }

    /// The template's text for one turn.
    fn turn(&self, text: &str) -> Result<String, DataError> {
        let refused = |reason: String| DataError::Processor { path: self.path.clone(), reason };
        let content = serde_json::json!([{ "type": "image" }, { "type": "text", "text": text }]);
        let messages = serde_json::json!([{ "role": "user", "content": content }]);
        let made = self.template.render(context! {
            messages => Jinja::from_serialize(&messages),
            add_generation_prompt => true,
            bos_token => self.bos.as_deref().unwrap_or_default(),
            eos_token => self.eos.as_deref().unwrap_or_default(),
        });
        let made = made.map_err(|error| {
            refused(format!("its chat template does not take a user's turn with an image and a text: {}", told(&error)))
        })?;
        if made.len() > text.len() + AROUND {
            return Err(refused(format!(
                "its chat template makes {} bytes of a text of {}; at most {AROUND} more are supported",
                made.len(),
                text.len()
            )));
        }
        if made.contains(self.image_token.0.as_str()) {
            return Ok(made);
        }
        let made = brief(&made);
        Err(refused(format!("its chat template leaves the image out: no {:?} in {made:?}", self.image_token.0)))
    }
}

/// An error with where it is.
fn told(error: &Error) -> String {
    let line = error.line().map_or_else(String::new, |line| format!(" in line {line}"));
    let detail = error.detail().map_or_else(String::new, |detail| format!(": {}", brief(detail)));
    format!("{}{detail}{line}", error.kind())
}

/// A folder's template and the file that it is in.
fn template(folder: &Path) -> Result<(PathBuf, String), DataError> {
    let own = folder.join(TEMPLATE_FILE);
    if own.exists() {
        let bytes = json::bytes(&own, TEMPLATE_LIMIT).map_err(DataError::of_settings)?;
        let text = String::from_utf8(bytes)
            .map_err(|_| DataError::Processor { path: own.clone(), reason: "it is not UTF-8".to_owned() })?;
        return Ok((own, text));
    }
    for name in TEMPLATE_SETTINGS {
        let path = folder.join(name);
        let fields: Map<String, Value> = json::optional(&path).map_err(DataError::of_settings)?.unwrap_or_default();
        match fields.get(ENTRY) {
            None | Some(Value::Null) => {}
            Some(Value::String(text)) => return Ok((path, text.clone())),
            // Older folders keep several by name.
            Some(Value::Array(named)) => {
                let default = named.iter().find(|one| one.get("name").is_some_and(|name| name == "default"));
                if let Some(text) = default.and_then(|one| one.get("template")?.as_str()) {
                    return Ok((path, text.to_owned()));
                }
            }
            Some(_) => {
                return Err(DataError::Processor { path, reason: format!("`{ENTRY}` is not a text") });
            }
        }
    }
    Err(DataError::Processor {
        path: own,
        reason: format!(
            "there is no chat template, here or as `{ENTRY}` in {}; this model reads prompts as turns of a conversation. Add the template of \
             the published model",
            TEMPLATE_SETTINGS.join(", ")
        ),
    })
}
