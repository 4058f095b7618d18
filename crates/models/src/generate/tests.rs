//! Searches over a decoder whose logits are a table: closed forms of each setting, and what transformers found over random tables.

use ressa_experiment::job::SearchOptions;
use serde::Deserialize;
use serde_json::{Value, json};
use tch::Tensor;

use super::{Decoder, PromptPrefix, Start, cache::Cache, search};
use crate::{
    Answer, EarlyStopping, ModelError, Search,
    config::{GenerationConfig, TextConfig},
};

/// The next token's logits depend on the last token only.
struct Table(Tensor);

impl Table {
    fn new(rows: &[Vec<f32>]) -> Self {
        Self(Tensor::from_slice(&rows.concat()).view([rows.len() as i64, -1]))
    }

    /// Probabilities of the next token by the last one.
    fn of(rows: &[&[f32]]) -> Self {
        let logits = |row: &&[f32]| row.iter().map(|p| p.max(1e-30).ln()).collect();
        Self::new(&rows.iter().map(logits).collect::<Vec<_>>())
    }

    fn search(&self, prompts: &[Vec<i64>], eos: &[i64], search_: &Search) -> Result<Vec<Answer>, ModelError> {
        let last: Vec<i64> = prompts.iter().filter_map(|prompt| prompt.last().copied()).collect();
        let logits = self.0.index_select(0, &Tensor::from_slice(&last));
        let before = |prompt: &Vec<i64>| PromptPrefix { length: prompt.len(), ids: prompt.clone() };
        let prompts: Vec<PromptPrefix> = prompts.iter().map(before).collect();
        let start = Start { cache: Cache::empty(last.len() as i64), logits, eos: eos.to_vec(), prompts };
        search(self, start, search_)
    }

    /// The answer to a prompt of one token.
    fn answer(&self, from: i64, eos: &[i64], settings: &Search) -> Vec<u32> {
        self.search(&[vec![from]], eos, settings).unwrap().remove(0).tokens
    }
}

impl Decoder for Table {
    fn step(&self, tokens: &Tensor, cache: &mut Cache) -> Tensor {
        let turn = cache.advance();
        assert_eq!(tokens.size()[0], turn.bias.size()[0] * turn.beams);
        self.0.index_select(0, tokens)
    }
}

#[derive(Deserialize)]
struct Searches {
    tables: Vec<Vec<Vec<f32>>>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    table: usize,
    options: Value,
    eos: Vec<i64>,
    prompts: Vec<Vec<i64>>,
    tokens: Vec<Vec<u32>>,
}

fn text_config(fields: &Value) -> TextConfig {
    serde_json::from_value(fields.clone()).expect("a language model's configuration")
}

fn resolve(options: &Value, generation: &Value, text: &Value) -> Result<Search, ModelError> {
    let options: SearchOptions = serde_json::from_value(options.clone()).expect("options");
    let generation: GenerationConfig = serde_json::from_value(generation.clone()).expect("generation settings");
    Search::resolve(&options, &generation, &text_config(text))
}

/// Options as a folder's settings give the same search as options of the user, except `"never"`, which only a folder can ask for.
#[test]
fn random_searches_find_what_transformers_finds() {
    let Searches { tables, cases } = serde_json::from_str(include_str!("../../tests/goldens/searches.json")).unwrap();
    let tables: Vec<Table> = tables.iter().map(|rows| Table::new(rows)).collect();
    let t5 = json!({ "model_type": "t5" });
    for Case { table, options, eos, prompts, tokens } in cases {
        let settings = resolve(&json!({}), &options, &t5).unwrap();
        if options["early_stopping"] != "never" {
            assert_eq!(resolve(&options, &json!({}), &t5).unwrap(), settings, "{options}");
        }
        let together = tables[table].search(&prompts, &eos, &settings).unwrap();
        for (row, answer) in together.iter().enumerate() {
            assert_eq!(answer.tokens, tokens[row], "row {row}: {options}, ends {eos:?}, prompts {prompts:?}");
            let ended = answer.tokens.last().is_some_and(|&token| eos.contains(&i64::from(token)));
            assert_eq!(answer.ended, ended);
            assert_eq!(answer.content().len(), answer.tokens.len() - usize::from(ended));
            let alone = tables[table].search(&prompts[row..=row], &eos, &settings).unwrap();
            assert_eq!(*answer, alone[0], "{options}");
        }
    }
}

const END: i64 = 1;

#[test]
fn an_end_before_the_shortest_length_is_no_choice() {
    // The end is always likeliest, then token 2.
    let row: &[f32] = &[0.1, 0.6, 0.3];
    let table = Table::of(&[row, row, row]);
    for beams in [1, 2] {
        let new = Search { beams, min_new_tokens: 3, ..Search::default() };
        assert_eq!(table.answer(0, &[END], &new), [2, 2, 2, 1]);
        // The prompt counts towards the whole length: rows of one and of three tokens, alone or together.
        let whole = Search { beams, min_length: 4, ..Search::default() };
        let found = table.search(&[vec![0], vec![0, 2, 0]], &[END], &whole).unwrap();
        assert_eq!([&*found[0].tokens, &*found[1].tokens], [&[2, 2, 2, 1][..], &[2, 1]]);
        assert!(found[0].ended && found[0].content() == [2, 2, 2]);
    }
}

#[test]
fn the_longest_length_counts_what_stands_before() {
    let table = Table::of(&[&[0.0, 0.1, 0.9], &[1.0, 0.0, 0.0], &[0.9, 0.1, 0.0]]);
    for beams in [1, 3] {
        let search = Search { beams, max_new_tokens: usize::MAX, max_length: Some(5), ..Search::default() };
        let found = table.search(&[vec![0], vec![2, 2, 2, 0]], &[END], &search).unwrap();
        assert_eq!([&*found[0].tokens, &*found[1].tokens], [&[2, 0, 2, 0][..], &[2]]);
        assert!(!found[0].ended && found[0].content() == [2, 0, 2, 0]);
        let message = table.search(&[vec![0], vec![0; 5]], &[END], &search).unwrap_err().to_string();
        assert!(message.contains("`max_length` is 5 and 5 tokens"), "{message}");
    }
}

#[test]
fn repetitions_are_penalised_once_each_whatever_the_sign_of_their_score() {
    let greedy = |repetition_penalty| Search { repetition_penalty, max_new_tokens: 2, ..Search::default() };
    // Positive logits are divided: 2 / 1.2 > 1.5, 2 / 1.4 < 1.5, however often the prompt says 0.
    let table = Table::new(&[vec![2.0, -9.0, 1.5], vec![0.0; 3], vec![2.0, -9.0, 1.5]]);
    let found = |penalty| table.search(&[vec![0, 0, 0]], &[END], &greedy(penalty)).unwrap().remove(0).tokens;
    assert_eq!((found(1.2), found(1.4)), (vec![0, 0], vec![2, 0]), "once both are there they are as before");
    // Without the prompt, the first answer is not penalised yet.
    let alone = Search { penalize_prompt: false, ..greedy(1.4) };
    assert_eq!(table.search(&[vec![0, 0, 0]], &[END], &alone).unwrap().remove(0).tokens, [0, 2]);
    // Negative logits are multiplied; a penalty below 1 rewards.
    let table = Table::new(&[vec![-1.0, -9.0, -1.3], vec![0.0; 3], vec![-1.3, -9.0, -1.0]]);
    let found = |penalty| table.answer(0, &[END], &greedy(penalty));
    assert_eq!((found(1.2), found(1.4), found(0.5)), (vec![0, 0], vec![2, 2], vec![0, 0]));
    // Logits of 7 and 6.5 change places by a penalty of 1.2. Beams are penalised in log-probabilities, -0.47 and -0.97, which do not.
    let table = Table::new(&[vec![7.0, -4.0, 6.5], vec![0.0; 3], vec![7.0, -4.0, 6.5]]);
    let found = |beams| {
        let search = Search { beams, repetition_penalty: 1.2, max_new_tokens: 1, ..Search::default() };
        table.answer(0, &[END], &search)
    };
    assert_eq!((found(1), found(2)), (vec![2], vec![0]));
}

#[test]
fn the_sign_of_the_length_penalty_decides_between_short_and_long() {
    // At once with 0.4, or after two more tokens with 0.3.
    let table =
        Table::of(&[&[0.0, 0.4, 0.3, 0.3], &[1.0, 0.0, 0.0, 0.0], &[0.0, 0.0, 0.0, 1.0], &[0.0, 1.0, 0.0, 0.0]]);
    let found = |length_penalty| {
        let search = Search { beams: 3, length_penalty, max_new_tokens: 4, ..Search::default() };
        table.answer(0, &[END], &search)
    };
    assert_eq!(found(-1.0), [1]);
    assert_eq!(found(0.0), [1]);
    assert_eq!(found(1.0), [2, 3, 1]);
}

#[test]
fn early_stopping_takes_the_first_finished_or_waits_for_what_may_be_better() {
    let search =
        |early_stopping, longest| Search { beams: 2, early_stopping, max_new_tokens: longest, ..Search::default() };
    // Finished after two steps: ln 0.4 and ln 0.21 / 2. Still running: 3 3 of ln 0.225 / 2, which improves as it grows.
    let table =
        Table::of(&[&[0.0, 0.4, 0.35, 0.25], &[1.0, 0.0, 0.0, 0.0], &[0.0, 0.6, 0.4, 0.0], &[0.0, 0.1, 0.0, 0.9]]);
    assert_eq!(table.answer(0, &[END], &search(EarlyStopping::FirstFinished, 6)), [2, 1]);
    assert_eq!(table.answer(0, &[END], &search(EarlyStopping::Heuristic, 6)), [3; 6]);
    // Running: ln 0.2 / 2, worse than both finished ones now, better than both at length 8.
    let table =
        Table::of(&[&[0.0, 0.5, 0.3, 0.2], &[1.0, 0.0, 0.0, 0.0], &[0.0, 1.0, 0.0, 0.0], &[0.0, 0.0, 0.0, 1.0]]);
    assert_eq!(table.answer(0, &[END], &search(EarlyStopping::Heuristic, 8)), [2, 1]);
    assert_eq!(table.answer(0, &[END], &search(EarlyStopping::Never, 8)), [3; 8]);
}

#[test]
fn any_of_several_ends_ends_and_more_beams_than_tokens_do_no_harm() {
    let table = Table::of(&[&[0.1, 0.2, 0.7], &[1.0, 0.0, 0.0], &[0.3, 0.6, 0.1]]);
    for beams in [1, 2, 7] {
        let search = Search { beams, max_new_tokens: 4, length_penalty: 0.0, ..Search::default() };
        assert_eq!(table.answer(0, &[1, 2], &search), [2], "{beams}");
        assert_eq!(table.answer(0, &[1], &search), [2, 1], "{beams}");
    }
}

#[test]
fn options_win_over_the_folder_and_the_folder_over_defaults() {
    let (none, t5) = (json!({}), json!({ "model_type": "t5" }));
    let llama = json!({ "model_type": "llama", "max_position_embeddings": 64 });
    let found = |options: Value, generation: Value, text: &Value| resolve(&options, &generation, text).unwrap();
    assert_eq!(found(none.clone(), none.clone(), &t5), Search::default());
    // The default length is of new tokens, as far as positions reach; any other is of everything.
    let bounded = Search { max_length: Some(64), ..Search::default() };
    assert_eq!(found(none.clone(), json!({ "max_length": 20 }), &llama), bounded);
    let whole = Search { max_new_tokens: usize::MAX, max_length: Some(21), ..Search::default() };
    assert_eq!(found(none.clone(), json!({ "max_length": 21 }), &llama), whole);
    assert_eq!(found(json!({ "max_length": 21 }), json!({ "max_length": 9 }), &t5), whole);
    let new =
        found(json!({ "max_length": 30, "min_length": 3 }), json!({ "max_new_tokens": 7, "min_new_tokens": 2 }), &t5);
    assert_eq!(new, Search { max_new_tokens: 7, min_new_tokens: 2, ..Search::default() });
    let old = json!({ "model_type": "t5", "num_beams": 4, "length_penalty": 2.0, "early_stopping": "never", "bad_words_ids": null });
    let expected = Search {
        beams: 3,
        length_penalty: 2.0,
        early_stopping: EarlyStopping::Never,
        repetition_penalty: 1.5,
        ..Search::default()
    };
    assert_eq!(
        found(json!({ "repetition_penalty": 1.5 }), json!({ "num_beams": 3, "do_sample": true }), &old),
        expected
    );
}

#[test]
fn settings_that_no_search_can_have_are_named() {
    let (none, t5) = (json!({}), json!({ "model_type": "t5" }));
    for (options, generation, named) in [
        (json!({ "num_beams": 0 }), &none, "`num_beams` is 0"),
        (json!({ "max_new_tokens": 0 }), &none, "`max_new_tokens` is 0"),
        (json!({ "repetition_penalty": -1.0 }), &none, "`repetition_penalty` is -1"),
        (none.clone(), &json!({ "num_beams": "many" }), "`num_beams` in `generation_config.json`"),
        (none.clone(), &json!({ "early_stopping": 3 }), "`early_stopping` in `generation_config.json`"),
        (
            none.clone(),
            &json!({ "no_repeat_ngram_size": 2 }),
            "`no_repeat_ngram_size` in `generation_config.json` is `2`",
        ),
    ] {
        let message = resolve(&options, generation, &t5).unwrap_err().to_string();
        assert!(message.contains(named), "{message}");
    }
}
