//! Weights that are stored as codes of fewer bits: recognised and named, never read as if they were numbers.

use safetensors::Dtype;
use serde_json::{Map, Value};

use crate::{Checkpoint, clean::is_quantizing, read_config};

/// Endings of tensors that only quantized weights have, with the method that writes them.
const MARKS: [(&str, &str); 11] = [
    (".weight_packed", "compressed-tensors, packed"),
    (".compressed", "compressed-tensors, sparse, its parts not all in one file or of other types"),
    (".bitmask", "compressed-tensors, sparse, its parts not all in one file or of other types"),
    (".weight_scale", "compressed-tensors or FP8"),
    (".weight_scale_inv", "FP8 in blocks"),
    (".qweight", "GPTQ or AWQ"),
    (".qzeros", "GPTQ or AWQ"),
    (".absmax", "bitsandbytes, 4 bits"),
    (".quant_map", "bitsandbytes, 4 bits"),
    (".SCB", "bitsandbytes, 8 bits"),
    (".weight_format", "bitsandbytes, 8 bits"),
];

/// What is wrong with weights that are quantized, in words: which tensors or which entry of the configuration tell it, by what method, and
/// what to do. `None` for plain weights.
pub fn quantized(checkpoint: &Checkpoint) -> Option<String> {
    const ADVICE: &str =
        "use the model's unquantized folder, or have its library write one (transformers: `model.dequantize()`)";
    let config = read_config(checkpoint.folder()).unwrap_or_default();
    let written = entry(&config);
    let method = written.and_then(|entry| entry.get("quant_method")).and_then(Value::as_str);
    let marked = |name: &String| {
        let method = MARKS.iter().find_map(|(ending, method)| name.ends_with(ending).then_some(*method))?;
        Some((name.clone(), method))
    };
    let eighth = || {
        let is_eight = |dtype: Dtype| matches!(dtype, Dtype::F8_E4M3 | Dtype::F8_E5M2 | Dtype::I8 | Dtype::U8);
        let (_, entry) = checkpoint
            .tensors()
            .find(|(_, entry)| entry.shape.len() == 2 && entry.name.ends_with(".weight") && is_eight(entry.dtype))?;
        Some((entry.name.clone(), "weights of 8 bits"))
    };
    if let Some((name, guess)) = checkpoint.names().find_map(marked).or_else(eighth) {
        let method = method.unwrap_or(guess);
        return Some(format!("its weights are quantized ({method}; tensor `{name}`); {ADVICE}"));
    }
    let entry = written.filter(|entry| is_quantizing(entry))?;
    let method = entry.get("quant_method").and_then(Value::as_str).unwrap_or("unnamed");
    Some(format!(
        "its `config.json` asks for quantized weights (`quantization_config`, method {method}), and these are not; remove the entry \
         to use them as they are"
    ))
}

fn entry(config: &Map<String, Value>) -> Option<&Map<String, Value>> {
    ["quantization_config", "compression_config"].iter().find_map(|name| config.get(*name)?.as_object())
}
