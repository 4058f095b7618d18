//! What a configuration can say about fewer heads, channels, blocks and queries, and the same configuration with them.

use std::collections::BTreeMap;

use ressa_experiment::{
    Tower,
    structure::{TowerStructure, remaining},
};
use serde_json::{Map, Value};

use crate::{
    EncoderKind, decoder_fields, feature_layers, is_llava, llava_vision, reads_tiles, tiled_text, tiled_vision,
};

/// Field of `config.json`, and of a processor's settings, with the number of learned queries.
pub(crate) const QUERIES: &str = "num_query_tokens";
/// Queries where a configuration says none.
const PUBLISHED_QUERIES: u64 = 32;

/// Groups of a tower, as a configuration counts them; why it cannot say another number, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removable {
    /// Heads of a layer; with grouped queries, those of keys and values.
    pub heads: Result<u64, String>,
    /// Channels of a feed-forward layer.
    pub channels: Result<u64, String>,
    /// Blocks of each stack.
    pub blocks: Result<Vec<u64>, String>,
    /// Learned queries.
    pub queries: Result<u64, String>,
}

/// Numbers of what is left of a tower.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeftOfTower {
    /// Heads of a layer, where some were removed.
    pub heads: Option<u64>,
    /// Channels of a feed-forward layer, where some were removed.
    pub channels: Option<u64>,
    /// Numbers of the blocks that are left of each stack that has lost some, by the stack's path.
    pub stacks: BTreeMap<String, Vec<usize>>,
    /// Learned queries, where some were removed.
    pub queries: Option<u64>,
}

/// Where a part of a configuration says its sizes.
struct Part {
    /// Entry of the configuration.
    entry: &'static str,
    /// Its fields with the defaults of its class.
    fields: Map<String, Value>,
    channels: (&'static str, u64),
    /// Field of each stack's number of blocks.
    blocks: Vec<(&'static str, u64)>,
}

/// The language model of a configuration: its part, and its `model_type`.
fn text(config: &Map<String, Value>) -> Option<(Part, String)> {
    let fields = match () {
        () if reads_tiles(config) => tiled_text(config).ok()?,
        () => config.get("text_config").and_then(Value::as_object).cloned().unwrap_or_default(),
    };
    // What the classes take an entry without `model_type` for.
    let unnamed = if is_llava(config) { "llama" } else { "opt" };
    let kind = fields.get("model_type").map_or(Some(unnamed), Value::as_str)?.to_owned();
    let fields = decoder_fields(&kind, &fields);
    let number = |name: &str, default| fields.get(name).and_then(Value::as_u64).unwrap_or(default);
    let (channels, blocks) = match kind.as_str() {
        "t5" => {
            let encoder = number("num_layers", 6);
            (("d_ff", 2048), vec![("num_layers", 6), ("num_decoder_layers", encoder)])
        }
        "opt" => (("ffn_dim", 3072), vec![("num_hidden_layers", 12)]),
        _ => (("intermediate_size", 11_008), vec![("num_hidden_layers", 32)]),
    };
    Some((Part { entry: "text_config", fields, channels, blocks }, kind))
}

/// The image encoder of a configuration, and its kind where it is not BLIP-2's.
fn vision(config: &Map<String, Value>) -> Option<(Part, Option<EncoderKind>)> {
    let part = |fields, inner, layers| Part {
        entry: "vision_config",
        fields,
        channels: ("intermediate_size", inner),
        blocks: vec![("num_hidden_layers", layers)],
    };
    match config.get("model_type").and_then(Value::as_str)? {
        "instructblip" | "blip-2" => {
            let fields = config.get("vision_config").and_then(Value::as_object).cloned().unwrap_or_default();
            Some((part(fields, 6144, 39), None))
        }
        _ if is_llava(config) => {
            let (kind, fields) = llava_vision(config).ok()?;
            Some((part(fields, 4096, 24), Some(kind)))
        }
        _ if reads_tiles(config) => {
            let (kind, fields) = tiled_vision(config).ok()?;
            Some((part(fields, 0, 0), Some(kind)))
        }
        _ => None,
    }
}

fn qformer(config: &Map<String, Value>) -> Option<Part> {
    if !matches!(config.get("model_type").and_then(Value::as_str)?, "instructblip" | "blip-2") {
        return None;
    }
    let fields = config.get("qformer_config").and_then(Value::as_object).cloned().unwrap_or_default();
    Some(Part { entry: "qformer_config", fields, channels: ("intermediate_size", 3072), blocks: Vec::new() })
}

impl Part {
    fn number(&self, (field, default): (&str, u64)) -> u64 {
        self.fields.get(field).and_then(Value::as_u64).unwrap_or(default)
    }

    fn channels(&self) -> u64 {
        self.number(self.channels)
    }

    fn blocks(&self) -> Vec<u64> {
        self.blocks.iter().map(|field| self.number(*field)).collect()
    }
}

/// Why heads cannot be fewer where their width is not a setting.
fn divided(entry: &str, what: &str) -> String {
    format!(
        "`{entry}` of {what} says the width of a head as its width divided by its heads, so it cannot say fewer heads of the same width"
    )
}

impl Removable {
    /// What a configuration can say of a tower.
    pub fn of(config: &Map<String, Value>, tower: Tower) -> Self {
        let kind = config.get("model_type").and_then(Value::as_str).unwrap_or_default();
        let no_queries = || Err(format!("tower `{tower}` of `{kind}` models has no learned queries"));
        let nothing = |why: String| Self {
            heads: Err(why.clone()),
            channels: Err(why.clone()),
            blocks: Err(why),
            queries: no_queries(),
        };
        let unsupported = || nothing(format!("heads, channels and blocks of `{kind}` models cannot be removed yet"));
        match tower {
            Tower::Vision => match vision(config) {
                Some((_, Some(EncoderKind::Dinov2))) => nothing(
                    "`vision_config` of DINOv2 derives its channels from its width and lists its blocks as stages"
                        .to_owned(),
                ),
                Some((part, encoder)) => {
                    let name = match encoder {
                        None => "BLIP-2's image encoder",
                        Some(EncoderKind::Siglip) => "SigLIP",
                        Some(EncoderKind::Idefics3) => "Idefics3's image encoder",
                        Some(EncoderKind::InternVl) => "InternVL's image encoder",
                        Some(_) => "CLIP",
                    };
                    let heads = Err(divided("vision_config", name));
                    Self { heads, channels: Ok(part.channels()), blocks: Ok(part.blocks()), queries: no_queries() }
                }
                None => unsupported(),
            },
            Tower::Connector => match qformer(config) {
                Some(part) => Self {
                    heads: Err(divided("qformer_config", "a Q-Former")),
                    channels: Ok(part.channels()),
                    blocks: Err(
                        "a Q-Former's norms stand behind its residuals, so that a layer does not pass on what it reads"
                            .to_owned(),
                    ),
                    queries: Ok(config.get(QUERIES).and_then(Value::as_u64).unwrap_or(PUBLISHED_QUERIES)),
                },
                None => nothing(format!("the connector of `{kind}` models has neither heads nor channels of its own")),
            },
            Tower::Language if is_llava(config) || reads_tiles(config) || qformer(config).is_some() => {
                match text(config) {
                    Some((part, kind)) => Self::of_text(&part, &kind, no_queries()),
                    None => unsupported(),
                }
            }
            Tower::Language => unsupported(),
        }
    }

    fn of_text(part: &Part, kind: &str, queries: Result<u64, String>) -> Self {
        let heads = part.number(("num_attention_heads", 32));
        let heads = match kind {
            "t5" => Ok(part.number(("num_heads", 8))),
            "llama" | "mistral" => Ok(part.number(("num_key_value_heads", heads))),
            "opt" => Err(divided("text_config", "OPT")),
            _ => Err(divided("text_config", &format!("`{kind}`"))),
        };
        let post_norm = kind == "opt" && part.fields.get("do_layer_norm_before") == Some(&Value::Bool(false));
        let blocks = match post_norm {
            true => Err("this OPT's norms stand behind its residuals, so that a layer does not pass on what it reads"
                .to_owned()),
            false => Ok(part.blocks()),
        };
        Self { heads, channels: Ok(part.channels()), blocks, queries }
    }

    /// Targets of a tower that cannot be met: the setting, and why.
    pub fn refusals(&self, tower: Tower, target: &TowerStructure) -> Vec<(String, String)> {
        let one = |number: &Result<u64, String>| number.clone().map(|number| vec![number]);
        let targets = [
            ("heads", target.heads, one(&self.heads)),
            ("channels", target.channels, one(&self.channels)),
            ("blocks", target.blocks, self.blocks.clone()),
            ("queries", target.queries, one(&self.queries)),
        ];
        let refusal = |(what, target, numbers): (&str, f64, Result<Vec<u64>, String>)| {
            let why = match numbers {
                _ if target <= 0.0 => return None,
                Err(why) => format!("{why}; set it to 0"),
                Ok(numbers) => {
                    let number = numbers.into_iter().find(|number| remaining(target, *number).is_none())?;
                    format!("{target} {what} are to remain, and there are {number}; lower it")
                }
            };
            Some((format!("structure.{tower}.{what}"), why))
        };
        targets.into_iter().filter_map(refusal).collect()
    }
}

/// Makes a configuration say what is left of a tower.
///
/// # Errors
/// In words: why it cannot.
pub(crate) fn shrink(config: &mut Map<String, Value>, tower: Tower, left: &LeftOfTower) -> Result<(), String> {
    let removable = Removable::of(config, tower);
    let unknown = || format!("`config.json` does not describe tower `{tower}`");
    let (part, kind) = match tower {
        Tower::Vision => (vision(config).ok_or_else(unknown)?.0, String::new()),
        Tower::Connector => (qformer(config).ok_or_else(unknown)?, String::new()),
        Tower::Language => text(config).ok_or_else(unknown)?,
    };
    let mut fields: Vec<(&str, Value)> = Vec::new();
    if let Some(heads) = left.heads {
        removable.heads?;
        if kind == "t5" {
            fields.push(("num_heads", heads.into()));
        } else {
            let all = part.number(("num_attention_heads", 32));
            let shared = part.number(("num_key_value_heads", all));
            let width = part.fields.get("head_dim").and_then(Value::as_u64);
            fields.push(("head_dim", width.unwrap_or(part.number(("hidden_size", 4096)) / all.max(1)).into()));
            fields.push(("num_attention_heads", (heads * (all / shared.max(1))).into()));
            fields.push(("num_key_value_heads", heads.into()));
        }
    }
    if let Some(channels) = left.channels {
        removable.channels?;
        fields.push((part.channels.0, channels.into()));
    }
    if !left.stacks.is_empty() {
        removable.blocks?;
        let stack = |path: &str| if part.blocks.len() > 1 && path.contains("decoder") { 1 } else { 0 };
        let mut counts = part.blocks();
        for (path, blocks) in &left.stacks {
            counts[stack(path)] = blocks.len() as u64;
        }
        fields.extend(part.blocks.iter().zip(counts).map(|((field, _), count)| (*field, count.into())));
        if let (Some(types), Some(blocks)) =
            (part.fields.get("layer_types").and_then(Value::as_array), left.stacks.values().next())
        {
            let kept: Vec<Value> = blocks.iter().filter_map(|at| types.get(*at).cloned()).collect();
            fields.push(("layer_types", kept.into()));
        }
        if tower == Tower::Vision {
            shift_feature_layers(config, left, part.blocks().first().copied().unwrap_or_default());
        }
    }
    if let Some(queries) = left.queries {
        removable.queries?;
        config.insert(QUERIES.to_owned(), queries.into());
    }
    let entry = config.entry(part.entry).or_insert(Value::Null);
    if !entry.is_object() {
        *entry = Value::Object(part.fields.clone());
    }
    for (field, value) in fields {
        entry[field] = value;
    }
    Ok(())
}

/// The layers that LLaVA takes image features from, each the number of blocks before it: those removed no longer count. A single one that counts from
/// the end stays, since nothing behind it is removed. `depth` is the number of blocks before any was removed.
fn shift_feature_layers(config: &mut Map<String, Value>, left: &LeftOfTower, depth: u64) {
    let Some(written) = config.get("vision_feature_layer").filter(|written| !written.is_null()) else { return };
    let (Some(kept), Ok(layers)) = (left.stacks.values().next(), feature_layers(config)) else { return };
    let is_list = written.is_array();
    let shifted = |layer: i64| {
        // States are one more than blocks: the first is what enters them.
        let before = if layer < 0 { layer.saturating_add_unsigned(depth).saturating_add(1) } else { layer };
        kept.iter().filter(|block| i64::try_from(**block).is_ok_and(|block| block < before)).count()
    };
    let new: Value = match (is_list, layers.as_slice()) {
        (false, &[layer]) if layer < 0 => return,
        (false, &[layer]) => shifted(layer).into(),
        _ => layers.into_iter().map(shifted).collect::<Vec<_>>().into(),
    };
    config.insert("vision_feature_layer".to_owned(), new);
}

#[cfg(test)]
mod tests {
    use ressa_experiment::model::Preset;
    use serde_json::json;

    use super::*;
    use crate::{preset_config, published_config};

    #[test]
    fn families_say_what_they_can() {
        let of = |name: &str, tower| Removable::of(&published_config(name).expect("known"), tower);
        let t5 = of("instructblip-flan-t5-xl", Tower::Language);
        assert_eq!((t5.heads, t5.channels, t5.blocks), (Ok(32), Ok(5120), Ok(vec![24, 24])));
        let llama = of("llava-1.5-7b-hf", Tower::Language);
        assert_eq!((llama.heads, llama.channels, llama.blocks), (Ok(32), Ok(11_008), Ok(vec![32])));
        let opt = of("blip2-opt-2.7b", Tower::Language);
        assert!(opt.heads.unwrap_err().contains("OPT") && opt.channels.is_ok() && opt.blocks.is_ok());
        let clip = of("llava-1.5-7b-hf", Tower::Vision);
        assert!(clip.heads.unwrap_err().contains("CLIP"));
        assert_eq!((clip.channels, clip.blocks), (Ok(4096), Ok(vec![24])));
        let qformer = of("blip2-opt-2.7b", Tower::Connector);
        assert!(qformer.heads.is_err() && qformer.channels == Ok(3072) && qformer.blocks.is_err());
        assert!(of("llava-1.5-7b-hf", Tower::Connector).channels.is_err());
        assert_eq!(qformer.queries, Ok(32));
        let none = of("llava-1.5-7b-hf", Tower::Connector).queries.unwrap_err();
        assert_eq!(none, "tower `connector` of `llava` models has no learned queries");
    }

    #[test]
    fn feature_layers_count_the_blocks_that_are_left() {
        // Of eight blocks 1, 4 and 6 are gone.
        let left = LeftOfTower { stacks: [(String::new(), vec![0, 2, 3, 5, 7])].into(), ..LeftOfTower::default() };
        let shifted = |written: Value| {
            let mut config = Map::from_iter([("vision_feature_layer".to_owned(), written)]);
            shift_feature_layers(&mut config, &left, 8);
            config.remove("vision_feature_layer").expect("still there")
        };
        // States behind 0, 4, 7 and 8 blocks are those behind 0, 3, 4 and 5 of what is left.
        assert_eq!([json!(0), json!(4), json!(7), json!(8)].map(shifted), [json!(0), json!(3), json!(4), json!(5)]);
        assert_eq!(
            [json!(-2), json!([-2, -5]), json!([3, -1])].map(shifted),
            [json!(-2), json!([4, 3]), json!([2, 5])]
        );
        assert_eq!(shifted(json!("last")), json!("last"));
    }

    #[test]
    fn targets_that_cannot_be_met_are_named() {
        let config = preset_config(Preset::ShapesFlanT5);
        let target = TowerStructure { heads: 0.5, channels: 400.0, ..TowerStructure::default() };
        let refused = Removable::of(&config, Tower::Vision).refusals(Tower::Vision, &target);
        assert_eq!(
            refused.iter().map(|(setting, _)| setting.as_str()).collect::<Vec<_>>(),
            ["structure.vision.heads", "structure.vision.channels"]
        );
        assert!(refused[1].1.starts_with("400 channels are to remain, and there are 320"), "{}", refused[1].1);
        let fits = TowerStructure { heads: 0.5, channels: 0.25, blocks: 3.0, ..TowerStructure::default() };
        assert_eq!(Removable::of(&config, Tower::Language).refusals(Tower::Language, &fits), []);
    }

    #[test]
    fn a_smaller_configuration_keeps_the_width_of_heads() {
        let stacks = BTreeMap::from([("language_model.model.layers".to_owned(), vec![0, 2])]);
        let mut config = json!({
            "model_type": "llava",
            "text_config": {"model_type": "llama", "hidden_size": 96, "num_attention_heads": 6, "num_key_value_heads": 3, "num_hidden_layers": 3, "layer_types": ["a", "b", "c"]},
            "vision_feature_layer": 3,
        });
        let config = config.as_object_mut().expect("an object");
        let left = LeftOfTower { heads: Some(2), channels: Some(40), stacks, queries: None };
        shrink(config, Tower::Language, &left).expect("it can say so");
        let text = &config["text_config"];
        assert_eq!([&text["num_attention_heads"], &text["num_key_value_heads"], &text["head_dim"]], [4, 2, 16]);
        assert_eq!((&text["intermediate_size"], &text["num_hidden_layers"]), (&json!(40), &json!(2)));
        assert_eq!(text["layer_types"], json!(["a", "c"]));
        let stacks = BTreeMap::from([("vision_tower.vision_model.encoder.layers".to_owned(), vec![0, 2, 3])]);
        shrink(config, Tower::Vision, &LeftOfTower { stacks, ..LeftOfTower::default() }).expect("it can say so");
        assert_eq!(config["vision_feature_layer"], 2);
        assert_eq!(
            (&config["vision_config"]["num_hidden_layers"], &config["vision_config"]["image_size"]),
            (&json!(3), &json!(336))
        );
        let t5 = LeftOfTower {
            stacks: BTreeMap::from([("language_model.decoder.block".to_owned(), vec![1])]),
            ..LeftOfTower::default()
        };
        let mut config = preset_config(Preset::ShapesFlanT5);
        shrink(&mut config, Tower::Language, &t5).expect("it can say so");
        assert_eq!(
            (&config["text_config"]["num_layers"], &config["text_config"]["num_decoder_layers"]),
            (&json!(5), &json!(1))
        );
        let heads = LeftOfTower { heads: Some(2), ..LeftOfTower::default() };
        assert!(shrink(&mut config, Tower::Vision, &heads).is_err());
    }
}
