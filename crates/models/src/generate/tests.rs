//! Searches over a decoder whose logits are a table: closed forms of each setting, and what transformers found over random tables.

use ressa_experiment::job::SearchOptions;
use serde::Deserialize;
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

use super::{Before, Decoder, Start, cache::Cache, search};
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

    /// Probabilities of the next token by the last one; each row is completed by what is missing to 1 on its first zero.
    fn of(rows: &[&[f32]]) -> Self {
        let logits = |row: &&[f32]| row.iter().map(|p| p.max(1e-30).ln()).collect();
        Self::new(&rows.iter().map(logits).collect::<Vec<_>>())
    }

    fn search(&self, prompts: &[Vec<i64>], eos: &[i64], search_: &Search) -> Result<Vec<Answer>, ModelError> {
        let last: Vec<i64> = prompts.iter().filter_map(|prompt| prompt.last().copied()).collect();
        let logits = self.0.index_select(0, &Tensor::from_slice(&last));
        let before = |prompt: &Vec<i64>| Before { length: prompt.len(), ids: prompt.clone() };
        let prompts: Vec<Before> = prompts.iter().map(before).collect();
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
