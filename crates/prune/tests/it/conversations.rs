//! Models whose image stands among words: what calibration takes to the language model is what a forward pass takes there.

use std::path::Path;

use ressa_models::{InBlocks, Layout, LoadOptions, Model, Mosaic, Prompts, Sample, TextBatch, Tower, load_model};
use ressa_prune::{
    PruneError,
    statistics::Needs,
    walk::{CalibrationSet, Flows, InMemory, Look, Shown, Walk},
};
use tch::{Device, Kind, Tensor};

struct Two(Vec<Sample>);

impl CalibrationSet for Two {
    type Error = PruneError;

    fn images(&self) -> usize {
        self.0.len()
    }

    fn pixels(&self, image: usize) -> Result<Tensor, PruneError> {
        Ok(self.0[image].pixels.shallow_clone())
    }

    fn texts(&self) -> usize {
        self.0.len()
    }

    fn text(&self, at: usize) -> (usize, &Prompts, &[u32]) {
        (at, &self.0[at].prompt, &self.0[at].answer)
    }
}

fn sample([height, width]: [i64; 2], layout: Layout, text: &[u32]) -> Sample {
    let pixels = Tensor::arange(3 * height * width, (Kind::Float, Device::Cpu));
    Sample {
        pixels: (pixels * 0.37).sin().view([1, 3, height, width]),
        prompt: Prompts {
            image: Tensor::from_slice(&[0i64]),
            qformer: TextBatch::pad(&[Vec::new()], 0, Device::Cpu),
            language: TextBatch::prompts(vec![(Some(layout), text.to_vec())], 0, Device::Cpu).unwrap(),
        },
        answer: vec![12, 13],
    }
}

/// Words, so many features, and words between: `[words, features, ...]`.
fn layout(image_token: u32, parts: &[usize]) -> Layout {
    let part = |(at, &count): (usize, &usize)| vec![if at % 2 == 1 { image_token } else { 9 }; count];
    let ids = parts.iter().enumerate().flat_map(part).collect();
    Layout { ids, image_token, grids: Vec::new(), mosaic: None }
}

fn model(name: &str) -> Model {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/tests/goldens").join(name);
    load_model(&folder, &LoadOptions::on(Device::Cpu)).unwrap()
}

#[test]
fn calibration_reads_the_words_around_an_image() {
    let mosaic = Mosaic { tiles: [1, 2], side: 4, cut: [1, 0] };
    let canvas = mosaic.canvas(16);
    let cases = [
        ("llava-default", [15, 15], layout(41, &[3, 9])),
        ("llava-layers", [12, 12], layout(41, &[2, 9])),
        ("qwen2-vl", [16, 24], Layout { grids: vec![[1, 2, 3]], ..layout(5, &[3, 6]) }),
        ("smolvlm", [32, 32], layout(4, &[2, 4, 1, 4, 2, 4])),
        ("internvl", [16, 8], layout(4, &[2, 8])),
        (
            "llava-next",
            [i64::from(canvas.0), i64::from(canvas.1)],
            Layout { mosaic: Some(mosaic), ..layout(4, &[3, mosaic.features()]) },
        ),
    ];
    for (name, size, layout) in cases {
        let model = model(name);
        let texts: [&[u32]; 3] = [&[10, 11, 12], &[13, 14, 15], &[16]];
        let samples = Two(texts.map(|text| sample(size, layout.clone(), text)).into());
        let mut walk = Walk::new(Shown(&model), InMemory::new(Device::Cpu));
        let look = Look { needs: Needs::NORMS, tokens: Default::default() };
        walk.arrive(Tower::Language, &samples, look).unwrap();
        let rows = walk.layout().rows.clone();
        assert!(rows.len() < 3, "{name}: prompts of one length run together");
        for (at, samples_of) in rows.iter().enumerate() {
            let flow = walk.flows.get(at).unwrap();
            for (row, &number) in samples_of.iter().enumerate() {
                let wanted = tch::no_grad(|| model.enter(Tower::Language, &samples.0[number]));
                let found = flow.hidden.narrow(0, row as i64, 1);
                assert_eq!(found.size(), wanted.hidden.size(), "{name}");
                let apart = (&found - &wanted.hidden).abs().max().double_value(&[]);
                assert!(apart < 1e-5 * wanted.hidden.abs().max().double_value(&[]), "{name}: {apart}");
                let kinds = model.token_kinds(Tower::Language, 0, &flow);
                assert_eq!(kinds.len() as i64, found.size()[1], "{name}");
            }
        }
    }
}
