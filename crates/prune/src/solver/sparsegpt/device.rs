//! The walk over the columns in tensor operations, for devices other than the host.
//!
//! A walk of small steps costs launches, not arithmetic, so everything that is at the same columns takes its steps together: all rows, and all groups
//! of layers of a block of the network, each with its own `U`. Their rows are cut into tiles of one height, and a tile's product with its group's
//! `U` is one of a batch. Nothing is copied to the host, and nothing waits.

use std::cmp::Reverse;

use tch::{Device, Kind, Tensor};

use super::{LayerProblem, Threshold, Walk, gcd, n_of_m, quota};
use crate::select::device;

/// Columns whose errors are solved for together. A row's triangular system takes as many squared.
const STEP: i64 = 32;
/// Tiles are at least so high; lower ones would read more of `U` than of the weights.
const TILE: i64 = 32;
/// Rows of a tile where the heights of the layers have no useful divisor: the last tile of each is then filled with zeros.
const FILLED_TILE: i64 = 64;

/// A group of layers with its walk.
pub(super) struct Group<'a> {
    pub layers: &'a [LayerProblem<'a>],
    pub walk: Walk,
}

/// Walks the columns of groups that all ask for the same kind of pattern, in blocks of so many columns.
pub(super) fn walk(groups: &mut [Group<'_>], block: i64, threshold: Threshold) {
    let widest = groups.iter().map(|group| group.walk.columns).max().unwrap_or(0);
    let mut from = 0;
    while from < widest {
        // Those of one width here go together.
        let mut here: Vec<&mut Group<'_>> = groups.iter_mut().filter(|group| group.walk.columns > from).collect();
        let width = |group: &Group<'_>| block.min(group.walk.columns - from);
        here.sort_by_key(|group| Reverse(width(group)));
        for alike in here.chunk_by_mut(|left, right| width(left) == width(right)) {
            let to = from + width(alike[0]);
            Block::of(alike, from, to).walk(alike, threshold);
        }
        from += block;
    }
}

/// The same columns of some groups. Rows of all groups follow each other, in tiles of one height.
pub(super) struct Block {
    from: i64,
    to: i64,
    /// First row of each group, and the number of all rows.
    starts: Vec<i64>,
    rows: i64,
    tiles: i64,
    /// The group of each tile; `None` where there is one group.
    owners: Option<Tensor>,
    device: Device,
}

impl Block {
    pub(super) fn of(groups: &[&mut Group<'_>], from: i64, to: i64) -> Self {
        let heights: Vec<i64> = groups.iter().map(|group| group.walk.weight.size()[0]).collect();
        let device = groups[0].walk.weight.device();
        if let &[rows] = heights.as_slice() {
            return Self { from, to, starts: vec![0], rows, tiles: 1, owners: None, device };
        }
        let common = heights.iter().copied().fold(0, gcd);
        let tile = if common >= TILE { common } else { FILLED_TILE };
        let (mut starts, mut owners) = (Vec::new(), Vec::new());
        for (owner, height) in heights.iter().enumerate() {
            starts.push(owners.len() as i64 * tile);
            owners.resize(owners.len() + ((height + tile - 1) / tile).max(1) as usize, owner as i64);
        }
        let tiles = owners.len() as i64;
        let owners = Some(Tensor::from_slice(&owners).to_device(device));
        Self { from, to, starts, rows: tiles * tile, tiles, owners, device }
    }

    pub(super) fn walk(&self, groups: &mut [&mut Group<'_>], threshold: Threshold) {
        let weight = self.gather(groups);
        let corner = |walk: &Walk| walk.upper.narrow(0, self.from, self.width()).narrow(1, self.from, self.width());
        let upper = Tensor::stack(&groups.iter().map(|group| corner(&group.walk)).collect::<Vec<_>>(), 0);
        let done = match groups[0].walk.groups.first().copied().flatten() {
            None => self.walk_unstructured(groups, &weight, &upper, threshold),
            Some((of, count)) => match n_of_m::Masks::all(of as i64, count as i64, self.device) {
                Some(masks) => self.walk_groups(&masks, &weight, &upper),
                None => self.walk_wide_groups(of as i64, count as i64, &weight, &upper),
            },
        };
        self.put_back(groups, &done);
    }

    fn width(&self) -> i64 {
        self.to - self.from
    }

    /// Columns of all rows, f32 `[tiles, height, width]`.
    fn gather(&self, groups: &[&mut Group<'_>]) -> Tensor {
        let mut parts = Vec::new();
        for (at, group) in groups.iter().enumerate() {
            let weight = group.walk.weight.narrow(1, self.from, self.width());
            let end = self.starts.get(at + 1).copied().unwrap_or(self.rows);
            let missing = end - self.starts[at] - weight.size()[0];
            parts.push(weight);
            if missing > 0 {
                parts.push(Tensor::zeros([missing, self.width()], (Kind::Float, self.device)));
            }
        }
        Tensor::cat(&parts, 0).view([self.tiles, -1, self.width()])
    }

    /// Of a tensor `[groups, ...]` the entry of each tile.
    fn of_tiles(&self, of_groups: &Tensor) -> Tensor {
        match &self.owners {
            Some(owners) => of_groups.index_select(0, owners),
            None => of_groups.shallow_clone(),
        }
    }

    /// Writes what was found into the groups, and corrects their columns to the right.
    fn put_back(&self, groups: &mut [&mut Group<'_>], done: &Done) {
        let flat = |tensor: &Tensor| tensor.reshape([self.rows, self.width()]);
        let pruned = flat(&done.pruned);
        let weight = flat(&done.weight).masked_fill(&pruned, 0.0);
        let (keep, importance) = (pruned.logical_not(), flat(&done.importance));
        let errors = flat(&done.errors).to_kind(Kind::Float).neg();
        for (group, &start) in groups.iter_mut().zip(&self.starts) {
            let walk = &mut group.walk;
            let rows = walk.weight.size()[0];
            let put = |target: &Tensor, values: &Tensor| {
                target.narrow(1, self.from, self.width()).copy_(&values.narrow(0, start, rows));
            };
            put(&walk.weight, &weight);
            put(&walk.keep, &keep);
            put(&walk.importance, &importance);
            let right = walk.columns - self.to;
            if right > 0 {
                let upper = walk.upper.narrow(0, self.from, self.width()).narrow(1, self.to, right);
                let _ = walk.weight.narrow(1, self.to, right).addmm_(&errors.narrow(0, start, rows), &upper);
            }
        }
    }

    /// What goes is chosen for the whole block first.
    fn walk_unstructured(
        &self,
        groups: &[&mut Group<'_>],
        weight: &Tensor,
        upper: &Tensor,
        threshold: Threshold,
    ) -> Done {
        let solved = Solved::new(self, weight, upper);
        let importance = solved.saliency((0, self.width()));
        let flat = importance.view([self.rows, self.width()]);
        let keep = Tensor::ones(flat.size(), (Kind::Bool, self.device));
        for part in self.questions(groups, threshold) {
            let values = flat.narrow(0, part.start, part.rows);
            let kept = match part.question {
                Question::Number { members, count } => device::keep(&values.reshape([-1, members]), count),
                Question::Place { members, index } => {
                    let values = values.reshape([-1, members]);
                    values.gt_tensor(&values.kthvalue(index + 1, 1, true).0)
                }
            };
            keep.narrow(0, part.start, part.rows).copy_(&kept.reshape(values.size()));
        }
        let pruned = keep.logical_not().view_as(weight);
        let errors: Vec<Tensor> = (0..self.width())
            .step_by(STEP as usize)
            .map(|at| solved.step(&pruned.narrow(2, at, STEP.min(self.width() - at)), at))
            .collect();
        Done { weight: weight.shallow_clone(), pruned, importance, errors: Tensor::cat(&errors, 2) }
    }

    /// What is asked of each layer; those that follow each other and ask the same, at once.
    fn questions(&self, groups: &[&mut Group<'_>], threshold: Threshold) -> Vec<Part> {
        let mut parts: Vec<Part> = Vec::new();
        for (group, &start) in groups.iter().zip(&self.starts) {
            for (layer, &(first, rows)) in group.layers.iter().zip(&group.walk.places) {
                let (start, rows, columns) = (start + first as i64, rows as i64, group.walk.columns);
                let question = match threshold {
                    Threshold::Inclusive => {
                        let members = rows * self.width();
                        let index = quota::inclusive(layer.selection, members as usize, rows, columns) as i64;
                        Question::Place { members, index: index.min(members - 1) }
                    }
                    Threshold::Exact => {
                        let (members, count) = quota::exact(layer.selection, rows, (self.from, self.to), columns);
                        Question::Number { members, count }
                    }
                };
                match parts.last_mut() {
                    Some(part) if part.question == question && part.start + part.rows == start => part.rows += rows,
                    _ => parts.push(Part { start, rows, question }),
                }
            }
        }
        parts
    }

    /// N:M groups with few masks: see [`n_of_m`]. In f64, whatever products in f32 are allowed to round to.
    fn walk_groups(&self, masks: &n_of_m::Masks, weight: &Tensor, upper: &Tensor) -> Done {
        let (weight, upper) = (weight.to_kind(Kind::Double), upper.to_kind(Kind::Double));
        let tables = masks.tables(&upper);
        let [scores, solutions] = [self.of_tiles(&tables.scores), self.of_tiles(&tables.errors)];
        let (minus, of) = (self.of_tiles(&upper.neg()), masks.of);
        let (mut squares, mut chosen, mut errors) = (Vec::new(), Vec::new(), Vec::new());
        for (number, at) in (0..self.width()).step_by(of as usize).enumerate() {
            let here = weight.narrow(2, at, of);
            let square = here.square();
            let mask = square.bmm(&scores.select(1, number as i64)).argmin(2, true);
            let all = here.bmm(&solutions.select(1, number as i64));
            let wanted = mask.unsqueeze(3).expand([self.tiles, -1, 1, of], true);
            let error = all.view([self.tiles, -1, masks.count(), of]).gather(2, &wanted, false).squeeze_dim(2);
            let rest = self.width() - at;
            let right = minus.narrow(1, at, of).narrow(2, at, rest);
            let _ = weight.narrow(2, at, rest).baddbmm_(&error, &right);
            squares.push(square);
            chosen.push(mask);
            errors.push(error);
        }
        let pruned = masks.pruned.index_select(0, &Tensor::cat(&chosen, 2).view([-1])).view_as(&weight);
        let diagonal = self.of_tiles(&upper.diagonal(0, 1, 2).square()).unsqueeze(1);
        let importance = Tensor::cat(&squares, 2) / diagonal;
        Done { weight, pruned, importance, errors: Tensor::cat(&errors, 2) }
    }

    /// N:M groups with more masks than could be tried.
    fn walk_wide_groups(&self, of: i64, count: i64, weight: &Tensor, upper: &Tensor) -> Done {
        let solved = Solved::new(self, weight, upper);
        let (mut importances, mut all, mut errors) = (Vec::new(), Vec::new(), Vec::new());
        for at in (0..self.width()).step_by(of as usize) {
            let importance = solved.saliency((at, of));
            let pruned = device::keep(&importance.view([self.rows, of]), count).logical_not();
            let pruned = pruned.view([self.tiles, -1, of]);
            errors.push(solved.step(&pruned, at));
            importances.push(importance);
            all.push(pruned);
        }
        let [pruned, importance, errors] = [&all, &importances, &errors].map(|parts| Tensor::cat(parts, 2));
        Done { weight: weight.shallow_clone(), pruned, importance, errors }
    }
}

/// A block after its walk: weights of which what goes is yet to be zeroed, what goes, what ranked it, the errors; `[tiles, height, width]`.
struct Done {
    weight: Tensor,
    pruned: Tensor,
    importance: Tensor,
    errors: Tensor,
}

/// Rows that are asked the same.
struct Part {
    start: i64,
    rows: i64,
    question: Question,
}

/// What is asked of each `members` values that follow each other.
#[derive(Clone, Copy, PartialEq)]
enum Question {
    /// The `count` smallest go.
    Number { members: i64, count: i64 },
    /// The value at this place in their order goes, and all that do not exceed it.
    Place { members: i64, index: i64 },
}

/// Errors by triangular systems. Within a few columns the errors `e` of a row's pruned weights satisfy `e_j U_jj + sum over i < j of e_i U_ij = w_j` for
/// each pruned `j`, a system of its own for each row: with `M_ij = U_ij / U_jj` where `j` is pruned, else 0, it is `e (I + M) = w / diag(U)`
/// there. All are solved by one call, and what stays is corrected by one product.
struct Solved<'a> {
    block: &'a Block,
    /// f32 `[tiles, height, width]`, corrected as steps are taken.
    weight: &'a Tensor,
    /// `1 / U_jj` of each tile, `[tiles, 1, width]`.
    inverse: Tensor,
    /// `U_ij / U_jj` of each tile.
    ratios: Tensor,
    /// `-U` of each tile.
    minus: Tensor,
}

impl<'a> Solved<'a> {
    fn new(block: &'a Block, weight: &'a Tensor, upper: &Tensor) -> Self {
        let diagonal = upper.diagonal(0, 1, 2).unsqueeze(1);
        let [inverse, ratios, minus] =
            [diagonal.reciprocal(), upper / &diagonal, upper.neg()].map(|of| block.of_tiles(&of));
        Self { block, weight, inverse, ratios, minus }
    }

    /// `w^2 / U_jj^2` of some columns, the first of which is given, as they are now.
    fn saliency(&self, (at, columns): (i64, i64)) -> Tensor {
        (self.weight.narrow(2, at, columns) * self.inverse.narrow(2, at, columns)).square()
    }

    /// Corrects the columns from `at` on, and those to their right, for what goes of them; gives the errors `[tiles, height, columns]`.
    fn step(&self, pruned: &Tensor, at: i64) -> Tensor {
        let columns = pruned.size()[2];
        let ratios = self.ratios.narrow(1, at, columns).narrow(2, at, columns).unsqueeze(1);
        let systems = (ratios * pruned.unsqueeze(2)).view([self.block.rows, columns, columns]);
        let scaled = self.weight.narrow(2, at, columns) * self.inverse.narrow(2, at, columns) * pruned;
        let scaled = scaled.view([self.block.rows, 1, columns]);
        let errors =
            systems.linalg_solve_triangular(&scaled, true, false, true).reshape([self.block.tiles, -1, columns]);
        let rest = self.block.width() - at;
        let right = self.minus.narrow(1, at, columns).narrow(2, at, rest);
        let _ = self.weight.narrow(2, at, rest).baddbmm_(&errors, &right);
        errors
    }
}
