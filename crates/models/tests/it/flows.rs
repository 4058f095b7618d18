//! Block by block is the plain forward, and taps see what the blocks see.

use std::sync::{Arc, Mutex};

use ressa_models::{InBlocks, Infer, MaskSet, Model, Observer, Sample, Surgery, Tower, VisionLanguage};
use tch::Tensor;

use crate::common::{answers, instructions, models, parts_are_blocks, pixels, prompts};

fn sample() -> Sample {
    let (_, texts) = instructions();
    Sample { pixels: pixels(1), prompt: prompts(&[0], &texts[..1]), answer: answers()[0].clone() }
}

/// Every model, and again with the projection as the last block of its connector.
fn models_and_joined() -> Vec<(String, Model)> {
    let plain = models().into_iter().map(|(name, model)| (name.to_owned(), model));
    let joined = models().into_iter().map(|(name, mut model)| {
        let (layers, blocks) = (model.linears().len(), model.blocks(Tower::Connector));
        assert!(model.join_projection(), "{name}");
        assert_eq!((model.linears().len(), model.blocks(Tower::Connector)), (layers + 1, blocks + 1), "{name}");
        assert!(model.connectors().iter().all(|linear| linear.name() != "language_projection"), "{name}");
        (format!("{name}, joined"), model)
    });
    plain.chain(joined).collect()
}

#[test]
fn all_blocks_one_by_one_equal_the_plain_forward_bit_for_bit() {
    let _no_grad = tch::no_grad_guard();
    for (name, model) in models_and_joined() {
        let sample = sample();
        let features = model.encode_images(&sample.pixels);
        let prefix = model.visual_prefix(&features, &sample.prompt);
        let forced = model.force(Some(&prefix), &sample.prompt.language, std::slice::from_ref(&sample.answer));
        for (tower, plain) in [(Tower::Vision, features), (Tower::Connector, prefix), (Tower::Language, forced.logits)]
        {
            let start = model.enter(tower, &sample);
            parts_are_blocks(&name, &model, tower, &start);
            let end = (0..model.blocks(tower)).fold(start, |flow, block| model.run_block(tower, block, &flow));
            assert!(model.leave(tower, &end).equal(&plain), "{name} {tower}");
        }
    }
}

#[derive(Default)]
struct Seen(Vec<Tensor>);

impl Observer for Seen {
    fn observe(&mut self, input: &Tensor) {
        self.0.push(input.copy());
    }
}

#[test]
fn every_linear_is_in_exactly_one_block_and_shows_its_inputs_while_tapped() {
    let _no_grad = tch::no_grad_guard();
    for (name, model) in models_and_joined() {
        let sample = sample();
        for tower in Tower::ALL {
            let mut flow = model.enter(tower, &sample);
            for block in 0..model.blocks(tower) {
                let seen: Vec<_> = model.linears().iter().map(|_| Arc::new(Mutex::new(Seen::default()))).collect();
                let taps: Vec<_> =
                    model.linears().iter().zip(&seen).map(|((_, linear), seen)| linear.tap(seen.clone())).collect();
                flow = model.run_block(tower, block, &flow);
                drop(taps);
                for ((id, linear), seen) in model.linears().iter().zip(&seen) {
                    let seen = &seen.lock().expect("no test panics while holding it").0;
                    let expected = usize::from(id.tower == tower && id.block == block);
                    assert_eq!(seen.len(), expected, "{name}: {} seen from {tower} {block}", id.name);
                    assert!(seen.iter().all(|x| x.size().last() == Some(&linear.shape().1)), "{name}: {}", id.name);
                }
                let calls = |at: usize| seen[at].lock().expect("as above").0.len();
                let before: Vec<usize> = (0..seen.len()).map(calls).collect();
                let _ = model.encode_images(&sample.pixels);
                assert!((0..seen.len()).all(|at| calls(at) == before[at]), "{name}: seen without a tap");
            }
        }
    }
}

#[test]
fn a_clone_shares_weights_and_has_masks_of_its_own() {
    let _no_grad = tch::no_grad_guard();
    for (name, mut model) in models_and_joined() {
        let sample = sample();
        let clone = model.shallow_clone();
        let layers =
            |model: &dyn VisionLanguage| model.linears().into_iter().map(|(id, _)| id.clone()).collect::<Vec<_>>();
        assert_eq!(layers(&model), layers(clone.as_ref()), "{name}");
        let before = clone.encode_images(&sample.pixels);
        let (id, linear) = model.linears_mut().remove(0);
        assert_eq!(id.name, "vision_model.encoder.layers.0.self_attn.qkv");
        linear.set_mask(Some(linear.weight().gt(0.0))).expect("same shape");
        assert!(!model.encode_images(&sample.pixels).equal(&before), "{name}");
        assert!(clone.encode_images(&sample.pixels).equal(&before), "{name}");
        let (mine, theirs) = (model.tensors(), clone.tensors());
        assert!(mine.iter().all(|(name, tensor)| tensor.data_ptr() == theirs[name].data_ptr()), "{name}");
        let masked = model.shallow_clone().encode_images(&sample.pixels);
        assert!(
            masked.equal(&model.encode_images(&sample.pixels)),
            "{name}: a clone begins with the masks of its origin"
        );
    }
}

/// A mask that names the projection makes it a layer; masks that do not leave it beside them.
#[test]
fn masks_say_whether_the_projection_is_a_layer() {
    let _no_grad = tch::no_grad_guard();
    for (name, model) in models() {
        let prefix =
            |model: &dyn VisionLanguage| model.visual_prefix(&model.encode_images(&pixels(1)), &sample().prompt);
        let dense = prefix(&model);
        let mut masks = MaskSet::new();
        let mut plain = model.shallow_clone();
        masks.apply(plain.as_mut()).expect("none");
        assert_eq!(plain.linears().len(), model.linears().len(), "{name}");
        let projection = model.connectors().into_iter().find(|linear| linear.name() == "language_projection");
        masks.insert("language_projection", projection.expect("a projection").weight().gt(0.0));
        let mut masked = model.shallow_clone();
        masks.apply(masked.as_mut()).expect("fits");
        assert_eq!(masked.linears().len(), model.linears().len() + 1, "{name}");
        assert!(!prefix(masked.as_ref()).equal(&dense) && prefix(&model).equal(&dense), "{name}");
        assert_eq!(MaskSet::of(masked.as_ref()).count().kept, masks.count().kept, "{name}");
    }
}
