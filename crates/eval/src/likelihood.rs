//! How likely a model finds each option of a question.

use ressa_models::{Infer, Layout, Prompts, TextBatch};
use tch::{Kind, Tensor};

use crate::{Batching, EvalError, Prepared, prepared::Block};

/// Bytes of logits that exist at once.
const LOGITS: usize = 1 << 29;
/// Logits as computed, and as logarithms of probabilities in f32.
const LOGIT_BYTES: usize = 12;
/// Entries of a vocabulary where the model does not say.
const WORDS: u64 = 1 << 16;

/// An option of an item.
#[derive(Clone, Copy)]
struct Row {
    item: usize,
    option: usize,
}

/// Logarithms of the probabilities of all options of the items of a block that have any, with the items. An end token does not count, nor does
/// what stands before the option.
///
/// Options are computed together where they have the same number of tokens and prompts of one layout and, unless batches are padded, of one
/// length.
pub(crate) fn of_block(
    model: &dyn Infer,
    features: &Tensor,
    prepared: &Prepared,
    block: &Block,
    batching: &Batching,
) -> Result<Vec<(usize, Vec<f64>)>, EvalError> {
    let choice = |item: usize| prepared.choices[item].as_ref();
    let options = |item: usize| choice(item).map_or(0, |choice| choice.options.len());
    let mut rows: Vec<Row> = Vec::new();
    for &item in &block.items {
        rows.extend((0..options(item)).map(|option| Row { item, option }));
    }
    let lengths = |row: &Row| {
        choice(row.item).map_or(((0, 0), (0, 0)), |choice| {
            let stem = (choice.stem.language.len(), choice.stem.qformer.len());
            ((choice.options[row.option].len(), choice.layout), stem)
        })
    };
    rows.sort_by_key(lengths);
    let words = model.search_sizes().map_or(WORDS, |sizes| sizes.words) as usize;
    let mut found: Vec<(usize, Vec<f64>)> =
        block.items.iter().filter(|item| options(**item) > 0).map(|&item| (item, vec![0.0; options(item)])).collect();
    let together = |a: &Row, b: &Row| {
        let ((a, prompt_a), (b, prompt_b)) = (lengths(a), lengths(b));
        a == b && (batching.padded || prompt_a == prompt_b)
    };
    for group in rows.chunk_by(together) {
        let tokens = lengths(&group[0]).0.0 + 1;
        let most = (LOGITS / (LOGIT_BYTES * words * tokens).max(1)).min(batching.rows);
        // What a block computes of a row is what a search of one beam holds, as long as its prompt and its option.
        let held = model.search_sizes().zip(batching.search_bytes).map(|(sizes, bytes)| {
            let stem = group.iter().map(|row| lengths(row).1.0).max().unwrap_or_default();
            let layout = choice(group[0].item).and_then(|choice| choice.stem.layout.as_deref());
            let before = layout.map_or(model.image_tokens(), Layout::tokens);
            sizes.rows(bytes, (before + stem + tokens) as u64, tokens as u64, 1)
        });
        for rows in group.chunks(most.min(held.unwrap_or(most)).max(1)) {
            for (row, value) in rows.iter().zip(of_rows(model, features, prepared, block, rows)?) {
                if let Ok(at) = found.binary_search_by_key(&row.item, |(item, _)| *item) {
                    found[at].1[row.option] = value;
                }
            }
        }
    }
    Ok(found)
}

/// The same of options of one length.
fn of_rows(
    model: &dyn Infer,
    features: &Tensor,
    prepared: &Prepared,
    block: &Block,
    rows: &[Row],
) -> Result<Vec<f64>, EvalError> {
    let (device, pad) = (prepared.device, prepared.processor.pad());
    let choices: Vec<_> = rows.iter().filter_map(|row| Some((row, prepared.choices[row.item].as_ref()?))).collect();
    let images: Vec<i64> =
        rows.iter().map(|row| (prepared.items[row.item].image - block.images.start) as i64).collect();
    let options: Vec<Vec<u32>> = choices.iter().map(|(row, choice)| choice.options[row.option].clone()).collect();
    let stems: Vec<Vec<u32>> = choices.iter().map(|(_, choice)| choice.stem.language.clone()).collect();
    let qformer: Vec<Vec<u32>> = choices.iter().map(|(_, choice)| choice.stem.qformer.clone()).collect();
    let whole: Vec<Vec<u32>> = stems.iter().zip(&options).map(|(stem, option)| [&stem[..], option].concat()).collect();
    let layout = choices.first().and_then(|(_, choice)| choice.stem.layout.clone());
    let mut prompts = Prompts {
        image: Tensor::from_slice(&images).to_kind(Kind::Int64).to_device(device),
        qformer: TextBatch::pad(&qformer, prepared.processor.qformer_pad(), device),
        language: TextBatch::pad(&whole, pad, device).behind(layout.clone()),
    };
    // A model with an encoder has no positions to run out of; one without reads stem and option as one sequence.
    model.check_prompts(&prompts)?;
    prompts.language = TextBatch::pad(&stems, pad, device).behind(layout);
    let forced = model.force_about(features, &prompts, &options);
    let tokens = options.first().map_or(0, Vec::len) as i64;
    let logits = forced.logits.narrow(1, 0, tokens).log_softmax(-1, Kind::Float);
    let targets = forced.targets.narrow(1, 0, tokens).unsqueeze(-1);
    let sums = logits.gather(-1, &targets, false).squeeze_dim(-1).to_kind(Kind::Double);
    let sums = sums.sum_dim_intlist(1, false, Kind::Double);
    Ok(Vec::try_from(sums.to_device(tch::Device::Cpu).contiguous().view(-1))?)
}
