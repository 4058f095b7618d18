//! What a teacher said can be kept, and be told by its most probable tokens.

use std::{cell::RefCell, collections::BTreeMap};

use ressa_experiment::{
    config::{DistillConfig, HiddenConfig},
    stage::AdaptTraining,
};
use ressa_models::{Infer, VisionLanguage, presets};
use ressa_restore::{Budgets, Output, Restoration, Teacher, TeacherOutputs, TeacherStore, TrainingOptions, train_with};

use crate::world::{Batches, dense, settings, student};

/// Keeps everything, and counts what it was asked for and what it could say.
#[derive(Default)]
struct Memory {
    known: RefCell<BTreeMap<u32, [Option<Vec<tch::Tensor>>; 2]>>,
    found: RefCell<u32>,
}

fn tensors(output: Option<&Output>) -> Option<Vec<tch::Tensor>> {
    output.map(|output| output.tensors().into_iter().map(tch::Tensor::shallow_clone).collect())
}

impl TeacherStore for Memory {
    fn get(&self, step: u32) -> Option<TeacherOutputs> {
        let known = self.known.borrow();
        let [questions, captions] = known.get(&step)?;
        *self.found.borrow_mut() += 1;
        let again = |kept: &Option<Vec<tch::Tensor>>| {
            Output::from_tensors(kept.as_ref()?.iter().map(tch::Tensor::shallow_clone).collect())
        };
        Some(TeacherOutputs { questions: again(questions), captions: again(captions), ..TeacherOutputs::default() })
    }

    fn put(&self, step: u32, taught: &TeacherOutputs) {
        let both = [tensors(taught.questions.as_ref()), tensors(taught.captions.as_ref())];
        assert!(self.known.borrow_mut().insert(step, both).is_none(), "step {step} was known");
    }
}

fn train(settings: &AdaptTraining, store: Option<&Memory>) -> Restoration {
    let model = dense();
    let teacher = Teacher::new(&model);
    let teacher = match store {
        Some(store) => teacher.remembering(store),
        None => teacher,
    };
    let options = TrainingOptions { masked: true, seed: 5, checkpoints: None, budgets: Budgets::default() };
    let mut student: Box<dyn VisionLanguage> = student();
    train_with(student.as_mut(), Some(teacher), settings, options, &mut Batches::default(), &mut |_| {})
        .expect("trains")
}

fn distilled(top_k: Option<u32>) -> AdaptTraining {
    settings(3, Some(DistillConfig { weight: 0.3, top_k, ..DistillConfig::default() }))
}

#[test]
fn a_teacher_that_remembers_says_the_same() {
    for top_k in [None, Some(4)] {
        for micro_batch in [None, Some(2)] {
            let settings = AdaptTraining { micro_batch, ..distilled(top_k) };
            let memory = Memory::default();
            let (alone, first, second) =
                (train(&settings, None), train(&settings, Some(&memory)), train(&settings, Some(&memory)));
            assert_eq!(*memory.found.borrow(), 3, "the second training asks for nothing new");
            assert_eq!(alone.losses, first.losses);
            assert_eq!(alone.losses, second.losses);
        }
        // What was said about whole batches serves parts of them.
        let memory = Memory::default();
        train(&distilled(top_k), Some(&memory));
        let parts = AdaptTraining { micro_batch: Some(1), ..distilled(top_k) };
        let (alone, remembered) = (train(&parts, None), train(&parts, Some(&memory)));
        for (one, other) in alone.losses.iter().zip(&remembered.losses) {
            assert!((one.total - other.total).abs() < 1e-5 * one.total, "{one:?} {other:?}");
        }
    }
}

/// A training about whose batches everything is known reads no weights of its teacher, and ends with the same bits.
#[test]
fn a_teacher_outside_is_read_when_something_is_not_known() {
    let settings = distilled(Some(4));
    let words = dense().search_sizes().map(|sizes| sizes.words);
    let reads = RefCell::new(0);
    let train = |store: Option<&Memory>, steps: u32, model: fn() -> Box<dyn VisionLanguage>| {
        let load = || {
            *reads.borrow_mut() += 1;
            Ok(model())
        };
        let teacher = Teacher::outside(words, load);
        let teacher = match store {
            Some(store) => teacher.remembering(store),
            None => teacher,
        };
        let options = TrainingOptions { masked: true, seed: 5, checkpoints: None, budgets: Budgets::default() };
        let settings = AdaptTraining { steps, ..settings.clone() };
        let mut student = student();
        train_with(student.as_mut(), Some(teacher), &settings, options, &mut Batches::default(), &mut |_| {})
    };
    let same = || -> Box<dyn VisionLanguage> { Box::new(dense()) };
    let memory = Memory::default();
    let first = train(Some(&memory), 3, same).expect("trains");
    assert_eq!(*reads.borrow(), 1);
    let second = train(Some(&memory), 3, same).expect("trains");
    assert_eq!(*reads.borrow(), 1, "everything is known");
    assert_eq!(first.losses, second.losses);
    let tensors = |found: &Restoration| -> Vec<tch::Tensor> {
        let parameters = found.adapters.iter().flat_map(|(_, update)| update.parameters());
        parameters.map(|(_, tensor)| tensor.shallow_clone()).collect()
    };
    assert!(tensors(&first).iter().zip(&tensors(&second)).all(|(one, other)| one.equal(other)));
    train(None, 3, same).expect("trains");
    assert_eq!(*reads.borrow(), 2, "nothing is remembered");
    // A step more: read once, however many parts and steps follow.
    train(Some(&memory), 5, same).expect("trains");
    assert_eq!(*reads.borrow(), 3);

    // What is wrong with it is said when it is read.
    let error = |model: fn() -> Box<dyn VisionLanguage>, store: &Memory| {
        train(Some(store), 6, model).expect_err("refused").to_string()
    };
    let other =
        || -> Box<dyn VisionLanguage> { Box::new(presets::random(&presets::tiny_flant5(48), 3).expect("a model")) };
    assert!(error(other, &memory).starts_with("the teacher knows 48 words"));
}

/// A student with fewer learned queries learns what its teacher answers; states of fewer tokens cannot be compared.
#[test]
fn a_teacher_may_have_more_queries() {
    let teacher = dense();
    let mut student: Box<dyn VisionLanguage> = student();
    student.keep_queries(&tch::Tensor::from_slice(&[0i64, 2])).expect("queries");
    assert_eq!((student.image_tokens(), student.shallow_clone().image_tokens()), (2, 2));
    let mut train = |config: DistillConfig| {
        let options = TrainingOptions { masked: true, seed: 5, checkpoints: None, budgets: Budgets::default() };
        let settings = settings(2, Some(config));
        let mut batches = Batches::default();
        train_with(student.as_mut(), Some(Teacher::new(&teacher)), &settings, options, &mut batches, &mut |_| {})
    };
    let logits = DistillConfig { weight: 0.3, ..DistillConfig::default() };
    assert!(train(logits.clone()).expect("trains").losses[0].distillation > 0.0);
    let hidden = HiddenConfig { weight: 1.0, ..HiddenConfig::default() };
    let error = train(DistillConfig { hidden, ..logits }).expect_err("refused").to_string();
    assert!(error.starts_with("the teacher reads an image or a prompt as other tokens"), "{error}");
}

/// Merging tokens never raises a divergence, and with nearly all of them told apart little is lost.
#[test]
fn fewer_tokens_tell_less() {
    let first = |top_k| train(&distilled(top_k), None).losses[0].distillation;
    let (all, most, few) = (first(None), first(Some(39)), first(Some(2)));
    assert!(few <= most + 1e-6 && most <= all + 1e-6, "{few} {most} {all}");
    assert!(few > 0.0 && (all - most) < 0.05 * all, "{few} {most} {all}");
    // As many as there are: nothing is merged.
    assert_eq!(first(Some(40)), all);
}
