//! Pointer losses: the language model's states must know which cell an object phrase means, what is there, and how two objects lie to
//! each other. This is what lets positions reach the answer; without it, questions about places stay at chance for thousands of steps.

use ressa_data::shapes::{Grounding, grounding::ABSENT};
use tch::Tensor;

use crate::{
    auxiliary::{Auxiliary, content_loss, standardised},
    compose::Asked,
};

/// States of the language model over `[queries][prompt]`, `[rows, positions, width]` each.
pub struct States<'a> {
    /// After the block where phrases must have found their cell.
    pub pointed: &'a Tensor,
    /// After the block where two objects must have been compared.
    pub compared: &'a Tensor,
    /// After the block where yes or no must be decided.
    pub decided: &'a Tensor,
    /// After the last block that reads the prompt.
    pub last: &'a Tensor,
    /// Positions before the first word of the question: queries and leading special tokens.
    pub offset: usize,
    /// Special tokens after the last word: T5's end token.
    pub trailing: usize,
}

/// The sum of the pointer losses, and nothing where no question refers to anything. `answers` are the first tokens of the answers.
pub fn loss(
    heads: &Auxiliary,
    states: &States<'_>,
    asked: &[Asked<'_>],
    groundings: &[Grounding],
    answers: &Tensor,
) -> Option<Tensor> {
    let rows = asked.len() as f64;
    let share = |labels: &[i64]| labels.len() as f64 / rows;
    let mut total = Sum::default();

    let (mut phrases, mut phrase_cells) = (Places::default(), Vec::new());
    let (mut present, mut contents) = (Places::default(), Vec::new());
    let (mut targets, mut target_cells) = (Places::default(), Vec::new());
    let (mut relations, mut first_cells) = (Places::default(), Vec::new());
    let (mut columns, mut rows_compared) = (Vec::new(), Vec::new());
    let (mut decisions, mut truths) = (Places::default(), Vec::new());
    let mut ends = Places::default();
    for (row, (grounding, asked)) in groundings.iter().zip(asked).enumerate() {
        let labels = asked.scene.cell_labels();
        let last_word = states.offset + asked.question.text.split(' ').count() - 1;
        ends.push(row, last_word + states.trailing);
        for &(word, cell) in &grounding.phrases {
            phrases.push(row, states.offset + word);
            phrase_cells.push(cell as i64);
            if cell != ABSENT {
                present.push(row, states.offset + word);
                contents.extend(labels[cell]);
            }
        }
        match (grounding.target, grounding.comparison) {
            (Some(cell), Some([column, compared_row])) => {
                relations.push(row, last_word);
                first_cells.push(cell as i64);
                columns.push(column as i64);
                rows_compared.push(compared_row as i64);
            }
            (Some(cell), None) => {
                targets.push(row, last_word);
                target_cells.push(cell as i64);
            }
            _ => {}
        }
        if let "yes" | "no" = asked.question.answer.as_str() {
            decisions.push(row, last_word);
            truths.push(i64::from(asked.question.answer == "yes"));
        }
    }

    if !phrases.is_empty() {
        total.add(heads.pointer.forward(&phrases.of(states.pointed)), &phrase_cells, 1.0);
    }
    if !present.is_empty() {
        let labels = Tensor::from_slice(&contents).view([-1, 4]);
        total.add_loss(content_loss(&heads.attribute.forward(&present.of(states.last)), &labels) * 0.5);
    }
    if !targets.is_empty() {
        total.add(heads.target.forward(&targets.of(states.last)), &target_cells, 2.0 * share(&target_cells));
    }
    if !relations.is_empty() {
        let at = relations.of(states.compared);
        let compared = heads.comparison.forward(&at);
        total.add(heads.compared.forward(&at), &first_cells, 2.0 * share(&first_cells));
        total.add(compared.narrow(1, 0, 3), &columns, 4.0 * share(&columns));
        total.add(compared.narrow(1, 3, 3), &rows_compared, 4.0 * share(&rows_compared));
    }
    if !decisions.is_empty() {
        total.add(heads.truth.forward(&decisions.of(states.decided)), &truths, 4.0 * share(&truths));
    }
    if states.trailing > 0 {
        // The decoder can only find an answer where it always stands: T5's end token, whatever the question's length.
        total.add_loss(heads.answer.forward(&ends.of(states.last)).cross_entropy_for_logits(answers));
    }
    total.0
}

/// A sum of losses that may stay empty.
#[derive(Default)]
struct Sum(Option<Tensor>);

impl Sum {
    fn add(&mut self, logits: Tensor, labels: &[i64], weight: f64) {
        self.add_loss(logits.cross_entropy_for_logits(&Tensor::from_slice(labels)) * weight);
    }

    fn add_loss(&mut self, loss: Tensor) {
        self.0 = Some(match self.0.take() {
            Some(sum) => sum + loss,
            None => loss,
        });
    }
}

/// Positions in a batch of states.
#[derive(Default)]
struct Places {
    rows: Vec<i64>,
    positions: Vec<i64>,
}

impl Places {
    fn push(&mut self, row: usize, position: usize) {
        self.rows.push(row as i64);
        self.positions.push(position as i64);
    }

    fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The standardised states at these positions, `[places, width]`.
    fn of(&self, states: &Tensor) -> Tensor {
        let rows = Tensor::from_slice(&self.rows);
        let positions = Tensor::from_slice(&self.positions);
        standardised(&states.index(&[Some(rows), Some(positions)]))
    }
}
