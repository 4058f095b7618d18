//! Models that read images at their own size: what is predicted of many images is what is predicted of each alone.

use std::path::{Path, PathBuf};

use ressa_data::{Benchmark, Content, Image, Item, Picture, Processor};
use ressa_eval::{Batching, PredictOptions, Prediction, Prepared, predict};
use ressa_experiment::Task;
use ressa_models::load_folder;
use ressa_runtime::Device;

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/tests/goldens")
}

/// Pictures of three sizes, two of each, mixed.
fn held() -> Vec<Picture> {
    let picture = |number: usize| {
        let (width, height) = [(40, 24), (24, 40), (30, 30)][number % 3];
        let values = (0..3 * width * height).map(|at| (at * (number + 3) % 251) as u8).collect();
        Picture::Held(Image::from_rgb(width as u32, height as u32, values).expect("all of its pixels"))
    };
    (0..6).map(picture).collect()
}

fn asked(pictures: Vec<Picture>) -> Benchmark {
    let questions = ["what is red ?", "is there a blue circle on the left of it ?", "what is it"];
    let item = |number: usize| Item {
        id: number.to_string(),
        image: number * 5 % pictures.len(),
        content: Content::Question {
            text: questions[number % questions.len()].to_owned(),
            answers: vec!["red".to_owned()],
            template: None,
        },
    };
    let items = (0..2 * pictures.len()).map(item).collect();
    Benchmark::of(Task::Gqa, pictures, items)
}

#[test]
fn images_of_many_sizes_are_answered_as_each_alone() {
    let files = || ["wide", "tall", "wide"].map(|name| Picture::File(goldens().join(format!("images/{name}.png"))));
    for name in ["qwen2-vl", "qwen2_5-vl-parts"] {
        let folder = goldens().join(name);
        let (model, processor) = (load_folder(&folder, Device::Cpu).unwrap(), Processor::load(&folder).unwrap());
        for pictures in [held(), files().to_vec()] {
            let benchmark = asked(pictures.clone());
            let predicted = |benchmark: &Benchmark, batching: Batching| {
                let prepared = Prepared::new(&processor, benchmark, Device::Cpu).unwrap();
                let options = PredictOptions { batching, ..PredictOptions::default() };
                predict(model.as_ref(), &prepared, &options, &mut |_| ()).unwrap()
            };
            let whole = predicted(&benchmark, Batching::exact(4));
            let ids = |found: &[Prediction]| -> Vec<String> {
                found
                    .iter()
                    .map(|one| match one {
                        Prediction::Answer { id, .. } => id.clone(),
                        other => panic!("not an answer: {other:?}"),
                    })
                    .collect()
            };
            let wanted: Vec<String> = benchmark.items().iter().map(|item| item.id.clone()).collect();
            assert_eq!(ids(&whole), wanted, "in the benchmark's order");
            for (item, found) in benchmark.items().iter().zip(&whole) {
                let alone = Item { image: 0, ..item.clone() };
                let alone = Benchmark::of(Task::Gqa, vec![pictures[item.image].clone()], vec![alone]);
                assert_eq!(&predicted(&alone, Batching::exact(1))[0], found, "{name}");
            }
            assert_eq!(ids(&predicted(&benchmark, Batching::padded(4))), wanted);
        }
    }
}
