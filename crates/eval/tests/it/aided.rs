//! Captions nearest to images, prompts behind them, and masks that a model fills.

use ressa_data::{
    Benchmark, Content, Family, Image, Item, PoolCaption, Processor, shapes::vocabulary, tokenizer::FIRST_WORD,
    tokenizer::PIXEL_MEAN_STD, tokenizer::VOCABULARY_SIZE, write_processor_files,
};
use ressa_eval::{
    Aided, Batching, CaptionPool, Copies, CopyAnswer, EvalError, PredictOptions, Prediction, Prepared, ScoreOptions,
    fill, nearest, predict, score,
};
use ressa_experiment::{
    Task,
    config::{SmoothingConfig, SmoothingMethod},
};
use ressa_models::{Answer, AnswerBatch, Forced, Infer, ModelError, Prompts, Retrieve, Search, TextBatch};
use ressa_runtime::Device;
use tch::Tensor;

use crate::echo::Echo;

fn processor(family: Family) -> Processor {
    let folder = tempfile::tempdir().expect("a temporary folder");
    write_processor_files(folder.path(), family, 1).expect("files are written");
    Processor::load(folder.path()).expect("files are read")
}

fn echo() -> Echo {
    Echo { width: VOCABULARY_SIZE as i64, normalised: PIXEL_MEAN_STD, retrieves: true }
}

/// Questions about images whose grey value is the id of a word, two about each.
fn benchmark(images: usize, question: &str) -> Benchmark {
    let image = |i: usize| Image::from_planes(48, 48, vec![(FIRST_WORD as usize + i) as u8; 3 * 48 * 48]);
    let item = |at: usize| Item {
        id: at.to_string(),
        image: at / 2,
        content: Content::Question { text: question.to_owned(), answers: vec!["red".to_owned()], template: None },
    };
    let images: Vec<Image> = (0..images).map(|i| image(i).expect("three planes")).collect();
    Benchmark::new(Task::Gqa, images.clone(), (0..2 * images.len()).map(item).collect())
}

#[test]
fn captions_are_those_nearest_to_an_image_however_the_work_is_cut() {
    let (words, processor) = (vocabulary::words(), processor(Family::T5));
    let benchmark = benchmark(7, "what");
    // Of image 3, two captions; of image 5, none. Lengths differ, so on a CPU they run apart.
    let texts: Vec<String> = [0, 3, 1, 6, 2, 3, 4]
        .iter()
        .enumerate()
        .map(|(at, &word)| [words[word], "a", "a", "a"][..1 + at % 3].join(" "))
        .collect();
    let captions: Vec<PoolCaption> = texts.iter().map(|text| PoolCaption { text: text.clone(), image: None }).collect();
    let tokens: Vec<Vec<u32>> = texts.iter().map(|text| processor.encode_qformer(text).unwrap()).collect();
    let found = |batching: Batching, count: usize| {
        let pool = CaptionPool::embed(&echo(), captions.clone(), &tokens, 0, &batching, Device::Cpu).unwrap();
        let prepared = Prepared::images_of(&processor, &benchmark, Device::Cpu).unwrap();
        nearest(&echo(), &prepared, &pool, count, &batching, &mut |_| ()).unwrap()
    };
    let all = found(Batching::exact(128), 2);
    assert_eq!(all.len(), 14);
    let of_image = |image: usize| all[2 * image].clone();
    assert_eq!(of_image(3), [texts[1].clone(), texts[5].clone()]);
    assert_eq!(of_image(6), [texts[3].clone(), texts[0].clone()], "among equals, what comes first in the pool");
    assert_eq!(of_image(5), [texts[0].clone(), texts[1].clone()]);
    assert!(
        (0..7).all(|image| all[2 * image] == all[2 * image + 1]),
        "both questions about an image have its captions"
    );
    assert_eq!(found(Batching::exact(2), 2), all);
    assert_eq!(found(Batching::padded(3), 2), all);

    let blind = Echo { retrieves: false, ..echo() };
    let error = CaptionPool::embed(&blind, captions, &tokens, 0, &Batching::exact(2), Device::Cpu).unwrap_err();
    assert!(matches!(error, EvalError::NoCaptionHead) && error.to_string().contains("evaluate.retrieved.checkpoint"));
}

/// The model that says the last word of its prompt says that of the captions behind the question; the prediction keeps the question alone.
#[test]
fn a_language_model_reads_more_than_is_asked() {
    let (processor, benchmark) = (processor(Family::T5), benchmark(2, "what color is the"));
    let behind = |at: usize, text: &str| format!("{text} {}", if at < 2 { "square" } else { "ring" });
    let prepared = Prepared::worded(&processor, &benchmark, &behind, Device::Cpu).unwrap();
    let said: Vec<(String, String)> = predict(&echo(), &prepared, &PredictOptions::default(), &mut |_| ())
        .unwrap()
        .into_iter()
        .map(|prediction| match prediction {
            Prediction::Answer { prompt, prediction, .. } => (prompt, prediction),
            other => panic!("{other:?}"),
        })
        .collect();
    let last = |at: usize| said[at].1.split(' ').next_back().unwrap();
    assert_eq!([0, 1, 2, 3].map(last), ["square", "square", "ring", "ring"]);
    assert!(said.iter().all(|(prompt, _)| prompt == "what color is the"));
}

/// Writes a word behind the first sentinel of a prompt, as a T5 does; or, where it has no encoder, the prompt itself with that word for each mask.
struct Filler {
    word: u32,
    sentinel: u32,
    mask: u32,
    decodes: bool,
}

impl Infer for Filler {
    fn encode_images(&self, pixels: &Tensor) -> Tensor {
        pixels.narrow(1, 0, 1).flatten(1, -1).unsqueeze(1)
    }

    fn query_output(&self, features: &Tensor, prompts: &Prompts) -> Tensor {
        features.index_select(0, &prompts.image)
    }

    fn project(&self, queries: &Tensor) -> Tensor {
        queries.shallow_clone()
    }

    fn generate(&self, prefix: &Tensor, prompt: &TextBatch, search: &Search) -> Result<Vec<Answer>, ModelError> {
        let row = |row: i64| {
            let ids: Vec<i64> = Vec::try_from(prompt.ids.get(row)).expect("ids");
            let ids: Vec<u32> = ids.into_iter().map(|id| id as u32).collect();
            let tokens = match self.decodes {
                false if ids.contains(&self.sentinel) => vec![self.sentinel, self.word],
                false => vec![self.word],
                true => ids.iter().map(|&id| if id == self.mask { self.word } else { id }).collect(),
            };
            assert!(tokens.len() <= search.max_new_tokens, "{} of {}", tokens.len(), search.max_new_tokens);
            Answer { tokens, ended: false }
        };
        Ok((0..prefix.size()[0]).map(row).collect())
    }

    fn force_padded(&self, _: Option<&Tensor>, _: &TextBatch, _: AnswerBatch<'_>) -> Forced {
        unreachable!("nothing is forced")
    }

    fn force_traced(&self, _: Option<&Tensor>, _: &TextBatch, _: &[Vec<u32>]) -> (Forced, Vec<Tensor>) {
        unreachable!("nothing is forced")
    }

    fn text_positions(&self) -> Option<usize> {
        self.decodes.then_some(64)
    }
}

impl Retrieve for Filler {
    fn retrieval_images(&self, _: &Tensor) -> Option<Tensor> {
        None
    }

    fn retrieval_texts(&self, _: &TextBatch) -> Option<Tensor> {
        None
    }
}

#[test]
fn masks_are_filled_by_sentinels_or_by_asking() {
    let question = "what color is the square";
    let benchmark = benchmark(1, question);
    // One word of five is masked.
    let config = SmoothingConfig { mask: 0.2, copies: 4, prompt: "{}".to_owned(), ..SmoothingConfig::default() };
    for (family, decodes) in [(Family::T5, false), (Family::Llama, true)] {
        let processor = processor(family);
        let id = |text: &str| processor.encode_answer(text).unwrap()[0];
        let model =
            Filler { word: id("striped"), sentinel: processor.id("<extra_id_0>").unwrap(), mask: id("___"), decodes };
        let masked = Copies::new(&benchmark, &config).unfilled(SmoothingMethod::Masked);
        let filled = fill(
            &model,
            &processor,
            Copies::new(&benchmark, &config),
            &config,
            &Batching::exact(128),
            Device::Cpu,
            &mut |_| (),
        )
        .unwrap();
        let texts = |benchmark: &Benchmark| benchmark.questions();
        let (masked, whole) = (texts(&masked.benchmark), texts(&filled.benchmark));
        assert_eq!((masked.len(), &filled.filled[..]), (8, &[true; 8][..]), "{family:?}");
        let left = texts(&Copies::new(&benchmark, &config).unfilled(SmoothingMethod::Removed).benchmark);
        for ((masked, whole), left) in masked.iter().zip(&whole).zip(&left) {
            assert_eq!(&masked.split(' ').filter(|word| *word != "___").collect::<Vec<_>>().join(" "), left);
            assert_eq!(&masked.replace("___", "striped"), whole, "{family:?}");
            assert_eq!(masked.matches("___").count(), 1);
        }
    }
    let other = Filler { word: 7, sentinel: 1, mask: 1, decodes: false };
    let processor = processor(Family::T5);
    let run = |model: &Filler| {
        let copies = Copies::new(&benchmark, &config);
        fill(model, &processor, copies, &config, &Batching::exact(8), Device::Cpu, &mut |_| ()).unwrap()
    };
    // A T5 that writes no sentinel fills nothing.
    let left = run(&other);
    assert!(left.filled.iter().all(|filled| !filled));
    assert!(left.benchmark.questions().iter().all(|question| question.contains("___")));
}

/// The letter counts, however it is spelled: three of five copies say B.
#[test]
fn agreement_is_of_what_the_scorer_reads() {
    let copies = ["A", "B", "B.", "(B)", "A"].map(|text| CopyAnswer {
        prompt: String::new(),
        prediction: text.to_owned(),
        filled: None,
    });
    let voted = Prediction::Choice {
        id: "1-0".to_owned(),
        prompt: String::new(),
        prediction: "B".to_owned(),
        options: vec!["ice".to_owned(), "fire".to_owned()],
        answer: 1,
        log_likelihoods: Vec::new(),
        tokens: Vec::new(),
        kinds: Vec::new(),
        aided: Aided { copies: copies.to_vec(), ..Aided::default() },
    };
    let scored = score(Task::Mmbench, &[voted], &ScoreOptions::default()).unwrap();
    assert_eq!(scored.parts["agreement"].value, 60.0);
}
