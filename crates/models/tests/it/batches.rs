//! A row of a batch is what the sample gives alone.

use ressa_models::{Infer, Prompts, Retrieve, Search, TextBatch};
use ressa_testkit::assert_close;
use tch::{Device, Tensor};

use crate::common::{answers, instructed, instructions, models, pixels, prefix, prompts};

const TOLERANCE: f64 = 1e-5;

#[test]
fn forced_rows_equal_their_samples_alone() {
    let _no_grad = tch::no_grad_guard();
    let (images, texts) = instructions();
    for (name, model) in models() {
        let batch = prompts(&images, &texts);
        let together = prefix(&model, &batch);
        let forced = model.force(Some(&together), &batch.language, &answers());
        for row in 0..texts.len() {
            let alone = prompts(&images[row..=row], &texts[row..=row]);
            let alone_prefix = prefix(&model, &alone);
            assert_close(&format!("{name} prefix {row}"), &together.narrow(0, row as i64, 1), &alone_prefix, TOLERANCE);
            let single = model.force(Some(&alone_prefix), &alone.language, &answers()[row..=row]);
            let tokens = answers()[row].len() as i64 + 1;
            let of_batch = forced.logits.narrow(0, row as i64, 1).narrow(1, 0, tokens);
            assert_close(&format!("{name} logits {row}"), &of_batch, &single.logits, TOLERANCE);
        }
        let counted = forced.mask.sum(tch::Kind::Int64).int64_value(&[]);
        assert_eq!(counted, answers().iter().map(|a| a.len() as i64 + 1).sum::<i64>());
    }
}

#[test]
fn generated_rows_equal_their_samples_alone() {
    let (images, texts) = instructions();
    for (name, model) in models() {
        for beams in [1, 3] {
            let search = Search { max_new_tokens: 9, beams, ..Search::default() };
            let batch = prompts(&images, &texts);
            let together = model.generate(&prefix(&model, &batch), &batch.language, &search).unwrap();
            for row in 0..texts.len() {
                let alone = prompts(&images[row..=row], &texts[row..=row]);
                let single = model.generate(&prefix(&model, &alone), &alone.language, &search).unwrap();
                assert_eq!(together[row], single[0], "{name}, {beams} beams, row {row}");
            }
        }
    }
}

#[test]
fn text_without_an_image_is_read_and_its_rows_are_independent() {
    let _no_grad = tch::no_grad_guard();
    let (_, texts) = instructions();
    for (name, model) in models() {
        let forced = model.force(None, &TextBatch::pad(&texts, 0, Device::Cpu), &answers());
        for row in 0..texts.len() {
            let alone = TextBatch::pad(&texts[row..=row], 0, Device::Cpu);
            let single = model.force(None, &alone, &answers()[row..=row]);
            let tokens = answers()[row].len() as i64 + 1;
            let of_batch = forced.logits.narrow(0, row as i64, 1).narrow(1, 0, tokens);
            assert_close(&format!("{name} text {row}"), &of_batch, &single.logits, TOLERANCE);
        }
    }
}

#[test]
fn retrieval_embeddings_have_length_one_and_rows_of_their_own() {
    let _no_grad = tch::no_grad_guard();
    let (_, texts) = instructions();
    for (name, model) in instructed() {
        let batch = TextBatch::pad(&texts, 0, Device::Cpu);
        let found = model.retrieval_texts(&batch).expect("presets have the head");
        assert_close(
            name,
            &found.norm_scalaropt_dim(2.0, [-1], false),
            &Tensor::ones([5], (tch::Kind::Float, Device::Cpu)),
            1e-6,
        );
        for row in 0..texts.len() {
            let alone = model.retrieval_texts(&TextBatch::pad(&texts[row..=row], 0, Device::Cpu)).expect("as before");
            assert_close(name, &found.narrow(0, row as i64, 1), &alone, TOLERANCE);
        }
        let images = model.retrieval_images(&model.encode_images(&pixels(2))).expect("as before");
        let first = model.retrieval_images(&model.encode_images(&pixels(1))).expect("as before");
        assert_eq!(images.size(), [2, 3, 8]);
        assert_close(name, &images.narrow(0, 0, 1), &first, TOLERANCE);
    }
}

#[test]
fn traced_states_cover_the_prompt_and_leave_the_logits_alone() {
    let _no_grad = tch::no_grad_guard();
    let (images, texts) = instructions();
    for (name, model) in models() {
        let batch: Prompts = prompts(&images, &texts);
        let prefix = prefix(&model, &batch);
        let (forced, states) = model.force_traced(Some(&prefix), &batch.language, &answers());
        assert!(forced.logits.equal(&model.force(Some(&prefix), &batch.language, &answers()).logits), "{name}");
        assert_eq!(states.len(), 2, "{name}");
        assert!(states.iter().all(|state| state.size() == [5, 3 + 7, 32]), "{name}");
    }
}
