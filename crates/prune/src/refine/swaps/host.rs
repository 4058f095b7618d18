//! The swaps of rows in memory, one row after the other on each thread.

use tch::Tensor;

use super::{SparseSwaps, Start, Swapped};
use crate::rows::{each_part, flags, floats, rows_per_part, with_floats};

/// The Gram matrix in memory.
struct Gram<'a> {
    values: &'a [f32],
    columns: usize,
}

impl Gram<'_> {
    fn row(&self, column: usize) -> &[f32] {
        &self.values[column * self.columns..][..self.columns]
    }

    fn at(&self, row: usize, column: usize) -> f64 {
        f64::from(self.values[row * self.columns + column])
    }
}

/// A row whose weights are swapped.
struct Row<'a> {
    dense: &'a [f32],
    weight: &'a mut [f32],
    keep: &'a mut [bool],
    /// What must not come back; empty where anything may.
    gone: &'a [bool],
    /// `G (dense - weight)`.
    product: Vec<f64>,
}

/// Some rows of one thread.
struct Part<'a> {
    dense: &'a [f32],
    weight: &'a mut [f32],
    keep: &'a mut [bool],
    gone: &'a [bool],
    product: &'a [f32],
    least: &'a [f64],
    error: &'a mut [f64],
}

/// A pair of columns and what swapping them does to the row's error.
#[derive(Clone, Copy)]
struct Swap {
    back: usize,
    gone: usize,
    change: f64,
}

pub(super) fn swap(method: &SparseSwaps, start: &Start<'_>) -> Swapped {
    let size = start.part.dense.size();
    let (rows, columns) = (size[0] as usize, size[1] as usize);
    let doubles = |tensor: &Tensor| Vec::<f64>::try_from(tensor).unwrap_or_default();
    let (dense, product) = (floats(&start.part.dense), floats(&start.product));
    let (mut weight, mut keep) = (floats(&start.part.weight), flags(&start.part.keep));
    let gone = start.part.gone.as_ref().map(flags).unwrap_or_default();
    let (of, least, mut error) = (start.of, doubles(&start.least), doubles(&start.before));
    with_floats(start.gram, |values| {
        let gram = Gram { values, columns };
        let diagonal: Vec<f64> = (0..columns).map(|at| gram.at(at, at)).collect();
        let run = rows_per_part(rows, columns.saturating_mul(method.max_swaps.max(1)));
        let wide = (run * columns).max(1);
        let parts = (dense.chunks(wide).zip(weight.chunks_mut(wide)).zip(keep.chunks_mut(wide)))
            .zip(product.chunks(wide).zip(least.chunks(run).zip(error.chunks_mut(run))))
            .enumerate()
            .map(|(at, (((dense, weight), keep), (product, (least, error))))| {
                let gone = gone.get(at * wide..at * wide + keep.len()).unwrap_or_default();
                Part { dense, weight, keep, gone, product, least, error }
            });
        each_part(parts, |part| part.swap(method, of, &gram, &diagonal));
    });
    let back = |tensor: Tensor| tensor.view(size.as_slice());
    Swapped {
        keep: back(Tensor::from_slice(&keep)),
        weight: back(Tensor::from_slice(&weight)),
        after: Tensor::from_slice(&error),
    }
}

impl Part<'_> {
    fn swap(self, method: &SparseSwaps, of: Option<i64>, gram: &Gram<'_>, diagonal: &[f64]) {
        let width = gram.columns;
        let mut lists = [Least::new(method.candidates), Least::new(method.candidates)];
        for (number, error) in self.error.iter_mut().enumerate() {
            let at = number * width..(number + 1) * width;
            let mut row = Row {
                dense: &self.dense[at.clone()],
                weight: &mut self.weight[at.clone()],
                keep: &mut self.keep[at.clone()],
                gone: self.gone.get(at.clone()).unwrap_or_default(),
                product: self.product[at].iter().map(|&value| f64::from(value)).collect(),
            };
            for _ in 0..method.max_swaps {
                let best = match of {
                    Some(of) => row.best_in_groups(of as usize, gram, diagonal),
                    None => row.best_of_candidates(&mut lists, gram, diagonal),
                };
                let Some(best) = best.filter(|best| best.change < -self.least[number]) else { break };
                row.make(best, gram);
                *error += best.change;
            }
        }
    }
}

impl Row<'_> {
    /// Whether a weight is pruned and may come back.
    fn may_return(&self, at: usize) -> bool {
        !self.keep[at] && self.gone.get(at) != Some(&true)
    }

    /// What bringing a pruned weight back adds to the error, alone.
    fn come_back(&self, at: usize, diagonal: &[f64]) -> f64 {
        let weight = f64::from(self.dense[at]);
        weight * (weight * diagonal[at] - self.product[at] * 2.0)
    }

    /// What pruning a kept weight adds to the error, alone.
    fn leave(&self, at: usize, diagonal: &[f64]) -> f64 {
        let weight = f64::from(self.weight[at]);
        weight * (weight * diagonal[at] + self.product[at] * 2.0)
    }

    /// Swaps two weights that alone change the error by so much.
    fn pair(&self, (back, alone): (usize, f64), (gone, with): (usize, f64), gram: &Gram<'_>) -> Swap {
        let weights = f64::from(self.dense[back]) * f64::from(self.weight[gone]);
        Swap { back, gone, change: alone + with - weights * 2.0 * gram.at(back, gone) }
    }

    fn best_in_groups(&self, of: usize, gram: &Gram<'_>, diagonal: &[f64]) -> Option<Swap> {
        let mut best: Option<Swap> = None;
        for group in (0..self.keep.len()).step_by(of) {
            for back in (group..group + of).filter(|&at| self.may_return(at)) {
                let alone = self.come_back(back, diagonal);
                for gone in (group..group + of).filter(|&at| self.keep[at]) {
                    let swap = self.pair((back, alone), (gone, self.leave(gone, diagonal)), gram);
                    if best.is_none_or(|best| swap.change < best.change) {
                        best = Some(swap);
                    }
                }
            }
        }
        best
    }

    /// `lists` are those of what may come back and of what may go, whatever they hold.
    fn best_of_candidates(&self, lists: &mut [Least; 2], gram: &Gram<'_>, diagonal: &[f64]) -> Option<Swap> {
        let [backs, gones] = lists;
        backs.found.clear();
        gones.found.clear();
        for at in 0..self.keep.len() {
            if self.keep[at] {
                gones.offer(self.leave(at, diagonal), at);
            } else if self.may_return(at) {
                backs.offer(self.come_back(at, diagonal), at);
            }
        }
        let mut best: Option<Swap> = None;
        for back in &backs.found {
            for gone in &gones.found {
                let swap = self.pair((back.at, back.score), (gone.at, gone.score), gram);
                if best.is_none_or(|best| swap.change < best.change) {
                    best = Some(swap);
                }
            }
        }
        best
    }

    fn make(&mut self, Swap { back, gone, .. }: Swap, gram: &Gram<'_>) {
        let (added, removed) = (f64::from(self.dense[back]), f64::from(self.weight[gone]));
        for ((product, &from_gone), &from_back) in self.product.iter_mut().zip(gram.row(gone)).zip(gram.row(back)) {
            *product = *product + removed * f64::from(from_gone) - added * f64::from(from_back);
        }
        (self.weight[back], self.weight[gone]) = (self.dense[back], 0.0);
        (self.keep[back], self.keep[gone]) = (true, false);
    }
}

/// The columns with the smallest scores, in their order; of equal ones (in f32) the lower column first.
struct Least {
    most: usize,
    found: Vec<Candidate>,
}

#[derive(Clone, Copy)]
struct Candidate {
    at: usize,
    score: f64,
}

impl Least {
    fn new(most: usize) -> Self {
        Self { most, found: Vec::new() }
    }

    /// Columns must be offered in ascending order.
    fn offer(&mut self, score: f64, at: usize) {
        let rank = score as f32;
        if self.found.len() == self.most {
            if self.found.last().is_none_or(|last| rank >= last.score as f32) {
                return;
            }
            self.found.pop();
        }
        let place = self.found.partition_point(|other| other.score as f32 <= rank);
        self.found.insert(place, Candidate { at, score });
    }
}
