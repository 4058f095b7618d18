//! Each item gets the prediction for its own image and prompt, however the work is cut.

use ressa_data::{
    Benchmark, Content, Family, Image, Item, Processor, World, shapes::vocabulary, tokenizer::FIRST_WORD,
    tokenizer::PIXEL_MEAN_STD, tokenizer::VOCABULARY_SIZE, write_processor_files,
};
use ressa_eval::{Batching, Direction, EvalError, PredictOptions, Prediction, Prepared, predict};
use ressa_experiment::{Task, config::DataConfig};
use ressa_models::presets;
use ressa_runtime::Device;

use crate::echo::Echo;

fn processor() -> Processor {
    let folder = tempfile::tempdir().expect("a temporary folder");
    write_processor_files(folder.path(), Family::T5, 1).expect("files are written");
    Processor::load(folder.path()).expect("files are read")
}

fn echo() -> Echo {
    Echo { width: VOCABULARY_SIZE as i64, normalised: PIXEL_MEAN_STD, retrieves: true }
}

/// Images whose grey value is the id of a word.
fn images(count: usize) -> Vec<Image> {
    let image = |i: usize| Image::from_planes(48, 48, vec![(FIRST_WORD as usize + i) as u8; 3 * 48 * 48]);
    (0..count).map(|i| image(i).expect("three planes")).collect()
}

fn options(rows: usize) -> PredictOptions {
    PredictOptions { batching: Batching::exact(rows), ..PredictOptions::default() }
}

#[test]
fn answers_belong_to_their_images_and_questions() {
    let words = vocabulary::words();
    // Prompts of one to four words, several per image and images out of order.
    let items: Vec<Item> = (0..60)
        .map(|i| Item {
            id: i.to_string(),
            image: i * 7 % 20,
            content: Content::Question {
                text: words[i..=i + i % 4].join(" "),
                answers: vec![format!("{} {}", words[i * 7 % 20], words[i + i % 4])],
                template: None,
            },
        })
        .collect();
    let benchmark = Benchmark::new(Task::Gqa, images(20), items);
    let prepared = Prepared::new(&processor(), &benchmark, Device::Cpu).expect("known words");
    let mut shares = Vec::new();
    let all = predict(&echo(), &prepared, &options(1000), &mut |share| shares.push(share)).expect("answers");
    for (item, prediction) in benchmark.items().iter().zip(&all) {
        let Prediction::Answer { id, prediction, answers, .. } = prediction else { panic!("not an answer") };
        assert_eq!((id, prediction), (&item.id, &answers[0]));
    }
    assert!(shares.is_sorted() && shares.last() == Some(&1.0), "{shares:?}");
    for rows in [1, 3, 7] {
        assert_eq!(predict(&echo(), &prepared, &options(rows), &mut |_| ()).expect("answers"), all, "{rows} rows");
    }
}

#[test]
fn real_models_say_the_same_alone_and_in_batches() {
    let world = World::new(&DataConfig::default()).expect("shapes");
    let vocabulary = VOCABULARY_SIZE as i64;
    for (family, config) in
        [(Family::T5, presets::shapes_flant5(vocabulary)), (Family::Llama, presets::shapes_vicuna(vocabulary))]
    {
        let folder = tempfile::tempdir().expect("a temporary folder");
        write_processor_files(folder.path(), family, 10).expect("files are written");
        let processor = Processor::load(folder.path()).expect("files are read");
        let model = presets::random(&config, 3).expect("a model");
        for task in Task::PAPER {
            let prepared = Prepared::new(&processor, &world.benchmark(task, 8), Device::Cpu).expect("known words");
            let together = predict(&model, &prepared, &options(64), &mut |_| ()).expect("predictions");
            let alone = predict(&model, &prepared, &options(1), &mut |_| ()).expect("predictions");
            assert_eq!(together, alone, "{family:?} {task}");
        }
    }
}

#[test]
fn retrieval_ranks_the_right_pairs() {
    let words = vocabulary::words();
    // The caption of image 3 names image 4, whose own caption names no image at all.
    let named = |image: usize| match image {
        3 => words[4],
        4 => words[50],
        _ => words[image],
    };
    let items: Vec<Item> = (0..6)
        .rev()
        .map(|image| Item {
            id: format!("caption-{image}"),
            image,
            content: Content::Retrieval { caption: [named(image), "a", "a"][..1 + image % 3].join(" ") },
        })
        .collect();
    let benchmark = Benchmark::new(Task::Flickr30k, images(6), items);
    let prepared = Prepared::new(&processor(), &benchmark, Device::Cpu).expect("known words");
    let ranks = predict(&echo(), &prepared, &options(2), &mut |_| ()).expect("ranks");
    let first = |direction| -> Vec<usize> {
        let mut right: Vec<usize> = ranks
            .iter()
            .filter_map(|prediction| match prediction {
                Prediction::Rank { direction: d, image, rank: 1, .. } if *d == direction => Some(*image),
                _ => None,
            })
            .collect();
        right.sort_unstable();
        right
    };
    assert_eq!(ranks.len(), 12);
    assert_eq!(first(Direction::ImageToText), [0, 1, 2, 5]);
    assert_eq!(first(Direction::TextToImage), [0, 1, 2, 5]);
    assert_eq!(predict(&echo(), &prepared, &options(100), &mut |_| ()).expect("ranks"), ranks);

    let blind = Echo { retrieves: false, ..echo() };
    let error = predict(&blind, &prepared, &options(2), &mut |_| ());
    assert!(matches!(error, Err(EvalError::NoRetrievalHead(Task::Flickr30k))));
}
