//! The files that a model folder is made of: what is fetched, and what is written into a folder for others.

/// What is read here beside the weights where it is there: architecture, generation settings, image preprocessing, then the tokenizer and the template of a
/// conversation.
pub(crate) const READ: [&str; 10] = [
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.json",
    "chat_template.jinja",
];

/// Where a tokenizer's files begin among those.
pub(crate) const TOKENIZER: usize = 4;

/// What other libraries read: tokenizers in other forms, settings of videos.
const READ_ELSEWHERE: [&str; 6] =
    ["spiece.model", "tokenizer.model", "vocab.json", "vocab.txt", "merges.txt", "video_preprocessor_config.json"];

/// What says how the model may be used.
const DOCUMENTS: [&str; 9] = [
    crate::CARD,
    "LICENSE",
    "LICENSE.md",
    "LICENSE.txt",
    "LICENCE",
    "NOTICE",
    "NOTICE.md",
    "NOTICE.txt",
    "USE_POLICY.md",
];

/// Folder of the Q-Former's tokenizer.
pub const QFORMER: &str = "qformer_tokenizer";

/// Whether a file of a folder, by its path there with `/` between the parts, holds settings that programs read beside the weights.
pub fn is_settings(path: &str) -> bool {
    let of_qformer = path.strip_prefix(QFORMER).and_then(|rest| rest.strip_prefix('/'));
    let is_known = |name: &str| READ.contains(&name) || READ_ELSEWHERE.contains(&name);
    of_qformer.map_or_else(|| is_known(path), |name| name != READ[0] && is_known(name))
}

/// Whether a file is the model's card or licence.
pub(crate) fn is_document(path: &str) -> bool {
    DOCUMENTS.contains(&path)
}
