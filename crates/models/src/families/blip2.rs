//! The BLIP-2 family: image encoder, Q-Former, and behind it a language model or the heads of retrieval.
//!
//! Reference: `InstructBlipForConditionalGeneration` in transformers, `modeling_instructblip.py`; `Blip2ForConditionalGeneration` and
//! `Blip2ForImageTextRetrieval`, `modeling_blip_2.py`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Architecture, Networks, image_token};
use crate::{
    ModelError, Scope,
    config::{TextConfig, at_least_one, or_default},
    language,
    qformer::{QFormer, QFormerConfig, Reads, Shape},
    qformer_connector::QFormerConnector,
    retrieval::Retrieval,
    vit::{self, VisionConfig},
};

/// `config.json` of a checkpoint of the BLIP-2 family.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Blip2Config {
    /// `instructblip` or `blip-2`.
    pub model_type: String,
    /// Learned queries of the Q-Former: image positions in the language model.
    #[serde(default = "published_queries")]
    pub num_query_tokens: i64,
    /// Width of the retrieval head, where a checkpoint has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_text_hidden_size: Option<i64>,
    /// Image encoder.
    #[serde(default, deserialize_with = "or_default")]
    pub vision_config: VisionConfig,
    /// Connector.
    #[serde(default, deserialize_with = "or_default")]
    pub qformer_config: QFormerConfig,
    /// Language model. A retrieval checkpoint has the entry and no such model.
    #[serde(default, deserialize_with = "or_default")]
    pub text_config: TextConfig,
    /// Fields that the network does not read, kept for writing the folder again.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// What a checkpoint of the family is for, and which parts it has for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Image and instruction to text; the Q-Former reads the instruction.
    InstructBlip,
    /// Image and instruction to text; the Q-Former reads nothing.
    Blip2,
    /// Image and caption to a score; no language model.
    ImageTextRetrieval,
}

impl Family {
    /// Every family.
    pub const ALL: [Family; 3] = [Family::InstructBlip, Family::Blip2, Family::ImageTextRetrieval];

    /// The class that `architectures` names.
    pub fn architecture(self) -> &'static str {
        match self {
            Family::InstructBlip => "InstructBlipForConditionalGeneration",
            Family::Blip2 => "Blip2ForConditionalGeneration",
            Family::ImageTextRetrieval => "Blip2ForImageTextRetrieval",
        }
    }

    /// `model_type`.
    pub fn model_type(self) -> &'static str {
        match self {
            Family::InstructBlip => "instructblip",
            Family::Blip2 | Family::ImageTextRetrieval => "blip-2",
        }
    }

    /// Whether it has a language model.
    pub fn writes(self) -> bool {
        self != Family::ImageTextRetrieval
    }
}

fn published_queries() -> i64 {
    32
}

/// Width of the retrieval head where `Blip2Config` does not say it.
const PUBLISHED_RETRIEVAL_WIDTH: i64 = 256;

impl Blip2Config {
    /// What the checkpoint is for: told by `architectures`, or by `model_type` where that is absent.
    pub fn family(&self) -> Result<Family, ModelError> {
        let named = self.rest.get("architectures").and_then(|names| names.get(0)).and_then(Value::as_str);
        let found = Family::ALL.into_iter().find(|family| {
            family.model_type() == self.model_type && named.is_none_or(|name| name == family.architecture())
        });
        found.ok_or_else(|| {
            let supported: Vec<String> = Family::ALL
                .iter()
                .map(|family| format!("`{}` ({})", family.architecture(), family.model_type()))
                .collect();
            ModelError::Config(format!(
                "`model_type` is `{}` and `architectures` names `{}`; supported are {}",
                self.model_type,
                named.unwrap_or("nothing"),
                supported.join(", ")
            ))
        })
    }

    /// Refuses what no network can have: sizes below one or beyond reason, heads that do not divide widths, unknown forms.
    pub fn check(&self) -> Result<(), ModelError> {
        let family = self.family()?;
        at_least_one("num_query_tokens", self.num_query_tokens)?;
        if let Some(width) = self.image_text_hidden_size {
            at_least_one("image_text_hidden_size", width)?;
        }
        self.vision_config.check()?;
        self.qformer_config.check()?;
        if family == Family::ImageTextRetrieval && !self.qformer_config.use_qformer_text_input {
            return Err(ModelError::Config(
                "`qformer_config.use_qformer_text_input` is `false`; an image-text matching model reads captions"
                    .to_owned(),
            ));
        }
        if family.writes() { self.text_config.check() } else { Ok(()) }
    }

    /// Width of the retrieval head, if the family or the configuration has one.
    pub fn retrieval_width(&self) -> Result<Option<i64>, ModelError> {
        Ok(match self.family()? {
            Family::InstructBlip => self.image_text_hidden_size,
            // BLIP-2's class writes the width whether or not the checkpoint has the head.
            Family::Blip2 => None,
            Family::ImageTextRetrieval => Some(self.image_text_hidden_size.unwrap_or(PUBLISHED_RETRIEVAL_WIDTH)),
        })
    }
}

impl Architecture for Blip2Config {
    fn model_type(&self) -> &str {
        &self.model_type
    }

    fn check(&self) -> Result<(), ModelError> {
        Blip2Config::check(self)
    }

    fn text_config(&self) -> &TextConfig {
        &self.text_config
    }

    fn writes(&self) -> bool {
        self.family().is_ok_and(Family::writes)
    }

    /// Folders of 2023 have none.
    fn image_token(&self) -> Option<i64> {
        image_token(&self.rest)
    }

    fn image_tokens(&self) -> i64 {
        self.num_query_tokens
    }

    fn with_queries(&self, queries: i64) -> Option<Box<dyn Architecture>> {
        Some(Box::new(Self { num_query_tokens: queries, ..self.clone() }))
    }

    fn image_size(&self) -> i64 {
        self.vision_config.image_size
    }

    fn vision_shape(&self) -> (i64, i64) {
        (self.vision_config.tokens(), self.vision_config.hidden_size)
    }

    fn patch(&self) -> i64 {
        self.vision_config.patch_size
    }

    fn rest(&self) -> &Map<String, Value> {
        &self.rest
    }

    fn rest_mut(&mut self) -> &mut Map<String, Value> {
        &mut self.rest
    }

    fn build(&self, root: &Scope<'_>) -> Result<Networks, ModelError> {
        let family = self.family()?;
        let shape = Shape {
            config: &self.qformer_config,
            queries: self.num_query_tokens,
            image_width: self.vision_config.hidden_size,
            reads: match family {
                Family::InstructBlip => Reads::Instructions,
                Family::Blip2 => Reads::Nothing,
                Family::ImageTextRetrieval => Reads::Captions,
            },
        };
        let vision = vit::load(&root.at(self.vision_path()), &self.vision_config)?;
        let qformer = QFormer::load(root, shape)?;
        let (width, words) = (self.qformer_config.hidden_size, self.text_config.word_width());
        let (projection, language) = match family.writes() {
            true => (
                Some(crate::Linear::load(&root.at("language_projection"), words, width, true)?),
                Some(language::load(&root.at("language_model"), &self.text_config)?),
            ),
            false => (None, None),
        };
        Ok(Networks {
            vision: Box::new(vision),
            connector: Box::new(QFormerConnector::new(qformer, projection, root.kind())),
            language,
            retrieval: Retrieval::load(root, self)?,
        })
    }

    fn vision_path(&self) -> &'static str {
        "vision_model"
    }

    fn blip2(&self) -> Option<&Blip2Config> {
        Some(self)
    }
}
