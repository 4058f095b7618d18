//! What a network reads of one calibration sample: the same for stages, `ressa prune` and `ressa lab stats`.

use ressa_data::{DataError, Processor, Prompt};
use ressa_models::{Prompts, TextBatch};
use ressa_runtime::Device;
use tch::{Kind, Tensor};

/// The instruction as Q-Former and language model read it, one row about image 0 of `size` (height and width of its pixels), and the tokens of the answer, without start and end: a
/// decoder-only model reads instruction and answer, the end token is only ever an output.
///
/// # Errors
/// A text that cannot be tokenized.
pub fn calibration_input(
    processor: &Processor,
    device: Device,
    prompt: &str,
    answer: &str,
    size: (u32, u32),
) -> Result<(Prompts, Vec<u32>), DataError> {
    let one = |ids: Vec<u32>, pad: u32| TextBatch::pad(&[ids], pad, device);
    let prompts = Prompts {
        image: Tensor::zeros([1], (Kind::Int64, device)),
        qformer: one(processor.encode_qformer(prompt)?, processor.qformer_pad()),
        language: language_batch(processor, device, &[prompt], size)?,
    };
    Ok((prompts, processor.encode_answer(answer)?))
}

/// Texts about images of one size, height and width of their pixels, as the language model reads them.
///
/// # Errors
/// A text that cannot be tokenized; texts that put their images in different places, which no batch can hold.
pub(crate) fn language_batch(
    processor: &Processor,
    device: Device,
    texts: &[&str],
    size: (u32, u32),
) -> Result<TextBatch, DataError> {
    let prompts = texts.iter().map(|text| processor.prompt(text, size)).collect::<Result<Vec<_>, _>>()?;
    let rows = prompts.into_iter().map(|Prompt { layout, text }| (layout, text)).collect();
    TextBatch::prompts(rows, processor.pad(), device).ok_or_else(|| DataError::Encode {
        text: texts.join("\n"),
        reason: "prompts of one batch have their images in different places; give them one by one".to_owned(),
    })
}
