//! Copies of a question with masked words, filled in by the model where it can, all answered, and a vote (Ji et al., arXiv 2404.12274; Zeng et al.,
//! arXiv 2105.03743 where the words stay masked).

use ressa_data::{Benchmark, Content, Item, Masked, Processor, perturb};
use ressa_experiment::{
    Task,
    config::{SmoothingConfig, SmoothingMethod},
};
use ressa_models::{Retrieve, Search};
use ressa_runtime::Device;

use crate::{Batching, CopyAnswer, EvalError, Prediction, Prepared, predict::answers, score::answer_read};

/// A benchmark whose questions are copied and masked.
pub struct Copies {
    /// Every item as often as it has copies, copies behind each other, with the questions as they were and without answers.
    benchmark: Benchmark,
    masked: Vec<Masked>,
}

/// Copies of questions, ready to be worded and asked.
pub struct Filled {
    /// The benchmark with the questions that are asked.
    pub benchmark: Benchmark,
    /// Of each copy, whether the model filled every masked word; empty where it was not asked to.
    pub filled: Vec<bool>,
}

impl Copies {
    /// Masks the copies of a benchmark's questions, before they are worded.
    pub fn new(benchmark: &Benchmark, config: &SmoothingConfig) -> Self {
        let copy = |(at, question): (usize, String)| {
            (0..config.copies).map(move |copy| Masked::new(&question, at, copy, config)).collect::<Vec<_>>()
        };
        let masked = benchmark.questions().into_iter().enumerate().flat_map(copy).collect();
        Self { benchmark: benchmark.clone().copied(config.copies as usize), masked }
    }

    /// The copies with their words masked, or left out.
    pub fn unfilled(self, method: SmoothingMethod) -> Filled {
        let masked = &self.masked;
        let question = |at: usize, _: &str| match method {
            SmoothingMethod::Removed => masked[at].left(),
            _ => masked[at].text(),
        };
        Filled { benchmark: self.benchmark.with_questions(question), filled: Vec::new() }
    }
}

/// Lets a model fill the masked words of copies, without sampling. A model with an encoder (T5) is given sentinels in the places of the gaps, as in its
/// pre-training, and writes what belongs there; a decoder-only model is asked by the prompt of the settings and writes the question again. Both see the
/// image. What a model leaves open, or answers with something else than the question, stays masked and is counted.
///
/// # Errors
/// [`EvalError::NoFilling`] where the tokenizer has no sentinels; texts or images that cannot be read; a failed tensor operation.
pub fn fill(
    model: &dyn Retrieve,
    processor: &Processor,
    copies: Copies,
    config: &SmoothingConfig,
    batching: &Batching,
    device: Device,
    progress: &mut dyn FnMut(f64),
) -> Result<Filled, EvalError> {
    /// Tokens of a word, and what a question may grow by.
    const TOKENS_OF_WORD: usize = 4;
    const GROWTH: usize = 8;
    let Copies { benchmark, masked } = copies;
    let is_decoder = model.text_positions().is_some();
    let first = perturb::sentinel(0);
    if !is_decoder && processor.id(&first).is_none() {
        let what = format!("the tokenizer has no token `{first}`, which stands for a gap in a text that a T5 fills");
        return Err(EvalError::NoFilling(what));
    }
    // Whatever the task's prompt is, the question is all there is to fill. A Q-Former reads the words that are left.
    let left = benchmark.clone().as_questions(|at| masked[at].left());
    let gaps = |at: usize, _: &str| match is_decoder {
        true => config.prompt.replacen("{}", &masked[at].text(), 1),
        false => masked[at].with_sentinels(),
    };
    let prepared = Prepared::worded(processor, &left, &gaps, device)?;
    let words = masked.iter().map(|copy| if is_decoder { copy.words() } else { copy.gone() });
    let max_new_tokens = TOKENS_OF_WORD * words.max().unwrap_or_default() + GROWTH;
    let search = Search { max_new_tokens, beams: 1, ..Search::default() };
    let written = tch::no_grad(|| answers(model, &prepared, &search, batching, &mut |_, _| Ok(()), progress))?;
    // Sentinels are special tokens, which a reply has no use for.
    let texts = written.iter().map(|tokens| processor.detokenize(tokens, is_decoder));
    let texts = texts.collect::<Result<Vec<String>, _>>()?;
    let one = |(copy, text): (&Masked, &String)| match (copy.gone() > 0, is_decoder) {
        (false, _) => (copy.text(), true),
        (true, true) => copy.filled_as_asked(text).map_or_else(|| (copy.text(), false), |text| (text, true)),
        (true, false) => copy.filled_behind_sentinels(text),
    };
    let (questions, filled): (Vec<String>, Vec<bool>) = masked.iter().zip(&texts).map(one).unzip();
    Ok(Filled { benchmark: benchmark.with_questions(|at, _| questions[at].clone()), filled })
}

/// One prediction of each item of a benchmark from those of its copies, see [`Copies`]: what most of them say as the task's scorer reads it, and among
/// equals the earliest. Of options, whose likelihoods are compared, the mean over the copies counts.
///
/// `filled` says of each copy whether the model filled every masked word; empty where it was not asked to. The prompts that are kept are those of the
/// benchmark, which has the questions without masks, worded.
pub fn vote(predictions: Vec<Prediction>, copies: usize, filled: &[bool], benchmark: &Benchmark) -> Vec<Prediction> {
    let of_item = |(at, item): (usize, &Item)| {
        let own = at * copies..predictions.len().min((at + 1) * copies);
        let flags = filled.get(own.clone()).unwrap_or_default();
        decided(benchmark.task(), predictions.get(own)?, flags, item)
    };
    benchmark.items().iter().enumerate().filter_map(of_item).collect()
}

/// One item's copies as one prediction; `None` where there are none.
fn decided(task: Task, copies: &[Prediction], filled: &[bool], item: &Item) -> Option<Prediction> {
    let said = |(at, one): (usize, &Prediction)| match one {
        Prediction::Answer { prompt, prediction, .. } | Prediction::Choice { prompt, prediction, .. } => {
            Some(CopyAnswer { prompt: prompt.clone(), prediction: prediction.clone(), filled: filled.get(at).copied() })
        }
        _ => None,
    };
    let said: Vec<CopyAnswer> = copies.iter().enumerate().filter_map(said).collect();
    let read = |one: &Prediction| match one {
        Prediction::Answer { prediction, .. } => Some(answer_read(task, prediction, &[])),
        Prediction::Choice { prediction, options, .. } => Some(answer_read(task, prediction, options)),
        _ => None,
    };
    let mut decided = copies.get(winner(&copies.iter().filter_map(read).collect::<Vec<_>>())?)?.clone();
    if let (
        Prediction::Answer { prompt, .. } | Prediction::Choice { prompt, .. },
        Content::Question { text, .. } | Content::Choice { text, .. },
    ) = (&mut decided, &item.content)
    {
        prompt.clone_from(text);
    }
    if let (
        Prediction::Answer { answers, template, .. },
        Content::Question { answers: own, template: own_template, .. },
    ) = (&mut decided, &item.content)
    {
        answers.clone_from(own);
        template.clone_from(own_template);
    }
    if let Prediction::Choice { log_likelihoods, .. } = &mut decided {
        *log_likelihoods = mean_likelihoods(copies);
    }
    if let Some(aided) = decided.aided_mut() {
        aided.copies = said;
    }
    Some(decided)
}

/// The earliest of the most frequent answers.
fn winner(answers: &[String]) -> Option<usize> {
    let votes = |answer: &String| answers.iter().filter(|other| *other == answer).count();
    // Of equals, `max_by_key` takes the last.
    (0..answers.len()).rev().max_by_key(|&at| votes(&answers[at]))
}

fn mean_likelihoods(copies: &[Prediction]) -> Vec<f64> {
    let mut means: Vec<f64> = Vec::new();
    for copy in copies {
        let Prediction::Choice { log_likelihoods, .. } = copy else { continue };
        means.resize(log_likelihoods.len(), 0.0);
        means.iter_mut().zip(log_likelihoods).for_each(|(mean, value)| *mean += value / copies.len() as f64);
    }
    means
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Aided;

    #[test]
    fn most_copies_decide_and_the_earliest_of_equals() {
        let of = |answers: &[&str]| winner(&answers.iter().map(|answer| (*answer).to_owned()).collect::<Vec<_>>());
        assert_eq!(of(&["red", "blue", "blue"]), Some(1));
        assert_eq!(of(&["red", "blue", "blue", "red"]), Some(0));
        assert_eq!(of(&["red", "blue", "green"]), Some(0));
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn a_vote_compares_what_the_scorer_reads_and_has_the_answers_of_the_item() {
        let said = |prediction: &str| Prediction::Answer {
            id: "3".to_owned(),
            prompt: String::new(),
            prediction: prediction.to_owned(),
            answers: Vec::new(),
            template: None,
            aided: Aided::default(),
        };
        let content = Content::Question {
            text: "whole".to_owned(),
            answers: vec!["yes".to_owned()],
            template: Some("popular".to_owned()),
        };
        let item = Item { id: "3".to_owned(), image: 0, content };
        let vote = |task: Task, texts: &[&str]| {
            let copies: Vec<Prediction> = texts.iter().map(|text| said(text)).collect();
            match decided(task, &copies, &[], &item) {
                Some(Prediction::Answer { prompt, prediction, answers, template, .. }) => {
                    assert_eq!((prompt.as_str(), answers.len(), template.as_deref()), ("whole", 1, Some("popular")));
                    prediction
                }
                other => panic!("no answer: {other:?}"),
            }
        };
        assert_eq!(vote(Task::Pope, &["no", "no", "Yes, there is a dog.", "yes", "Yes."]), "Yes, there is a dog.");
        assert_eq!(vote(Task::Vqav2, &["cat", "cat", "dog", "a dog", "Dog."]), "dog");
        assert_eq!(vote(Task::Mme, &["no", "Yes", "yes, it is"]), "Yes");
    }

    #[test]
    fn options_have_the_mean_of_their_likelihoods_and_votes_their_prompts() {
        let choice = |prediction: &str, likelihoods: [f64; 2]| Prediction::Choice {
            id: "3".to_owned(),
            prompt: format!("masked {prediction}"),
            prediction: prediction.to_owned(),
            options: vec!["yes".to_owned(), "no".to_owned()],
            answer: 0,
            log_likelihoods: likelihoods.to_vec(),
            tokens: vec![1, 1],
            kinds: Vec::new(),
            aided: Aided::default(),
        };
        let copies = [choice("A", [-1.0, -3.0]), choice("B", [-2.0, -1.0]), choice("B", [-3.0, -2.0])];
        let content = Content::Choice {
            text: "whole".to_owned(),
            stem: String::new(),
            question: String::new(),
            context: None,
            options: Vec::new(),
            answer: 0,
            kinds: Vec::new(),
        };
        let item = Item { id: "3".to_owned(), image: 0, content };
        let Some(Prediction::Choice { prompt, prediction, log_likelihoods, aided, .. }) =
            decided(Task::Scienceqa, &copies, &[true, false, true], &item)
        else {
            panic!("no choice")
        };
        assert_eq!((prompt.as_str(), prediction.as_str(), log_likelihoods), ("whole", "B", vec![-2.0, -2.0]));
        assert_eq!(
            aided.copies.iter().map(|copy| copy.filled).collect::<Vec<_>>(),
            [Some(true), Some(false), Some(true)]
        );
        assert_eq!(aided.copies[1].prompt, "masked B");
    }
}
