//! What calibration remembers of a layer's inputs.
//!
//! A method says what it [`Needs`]; one pass collects what several methods need together. Everything is a function of the sequence of
//! tokens and of where samples end, not of how they were batched: squares and sums are taken in f32 within a sample and added in f64 across samples,
//! in sample order, and the Gram matrix is built from blocks of a fixed number of tokens, whatever sample they belong to. Samples that run
//! together ([`ColumnStatistics::observe_rows`]) are summed each for itself, and on a CPU added in the order of their numbers too.

mod block;
mod gram;
mod rank;

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    ops::BitOr,
};

use ressa_models::Observer;
use ressa_runtime::is_finite;
use tch::{Device, Kind, Tensor, no_grad};

pub use self::block::BlockStatistics;
use self::gram::Gram;
pub use self::rank::{RankDeficit, Worst};
use crate::error::PruneError;

/// What a method must be shown beside the weight. Sets unite with `|`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Norms of the input's columns.
    pub norms: bool,
    /// Sums of the columns per sample and their variances within samples.
    pub moments: bool,
    /// Inner products of the columns with each other.
    pub gram: bool,
}

impl Needs {
    /// Nothing: no calibration is run.
    pub const WEIGHT: Needs = Needs { norms: false, moments: false, gram: false };
    /// Column norms.
    pub const NORMS: Needs = Needs { norms: true, moments: false, gram: false };
    /// Sums and variances.
    pub const MOMENTS: Needs = Needs { norms: false, moments: true, gram: false };
    /// The Gram matrix.
    pub const GRAM: Needs = Needs { norms: false, moments: false, gram: true };

    /// Whether the weight is enough.
    pub fn is_empty(self) -> bool {
        self == Needs::WEIGHT
    }

    /// Whether `other` asks for nothing that this does not.
    pub fn covers(self, other: Needs) -> bool {
        self | other == self
    }
}

impl BitOr for Needs {
    type Output = Needs;

    fn bitor(self, other: Needs) -> Needs {
        Needs {
            norms: self.norms || other.norms,
            moments: self.moments || other.moments,
            gram: self.gram || other.gram,
        }
    }
}

/// Statistics of the columns of the inputs of one linear layer, or of layers that read the same input.
#[derive(Debug)]
pub struct ColumnStatistics {
    columns: i64,
    samples: u64,
    tokens: u64,
    squares: Option<Tensor>,
    moments: Option<Moments>,
    gram: Option<Gram>,
    /// Whether factors are kept, and the last one.
    remembers: bool,
    factor: RefCell<Option<Factor>>,
    /// What samples that ran together have summed and was not added yet.
    apart: Vec<Apart>,
    /// Whether everything was finite when somebody last looked; forgotten when more is added.
    finite: Cell<Option<bool>>,
}

/// Sums over the tokens of samples that ran together, f32 `[samples, in]`.
#[derive(Debug)]
struct Apart {
    /// Places of the samples in the order of all.
    numbers: Vec<usize>,
    squares: Option<Tensor>,
    /// Sums, and squared distances from the sample's own mean.
    moments: Option<[Tensor; 2]>,
}

/// A factor of the Gram matrix with the settings it was made with.
#[derive(Debug)]
struct Factor {
    settings: (bool, u64),
    upper: Tensor,
    dead: Tensor,
}

/// f64 `[in]` each.
#[derive(Debug)]
struct Moments {
    /// Sum over all finished samples.
    sum: Tensor,
    /// Squared distances from the sample's own mean, summed over all finished samples.
    scatter: Tensor,
    /// Tokens in finished samples, each as much as it counts.
    mass: f64,
    /// The sample that is being observed.
    open: Option<Open>,
}

/// Weight of the tokens, sum and scatter of what has been seen of a sample.
#[derive(Debug)]
struct Open {
    mass: f64,
    sum: Tensor,
    scatter: Tensor,
}

impl ColumnStatistics {
    /// Empty statistics of a layer with `columns` inputs.
    pub fn new(columns: i64, needs: Needs, device: Device) -> Self {
        let zeros = || Tensor::zeros([columns], (Kind::Double, device));
        let moments = || Moments { sum: zeros(), scatter: zeros(), mass: 0.0, open: None };
        Self {
            columns,
            samples: 0,
            tokens: 0,
            squares: needs.norms.then(zeros),
            moments: needs.moments.then(moments),
            gram: needs.gram.then(|| Gram::new(columns, device)),
            remembers: false,
            factor: RefCell::new(None),
            apart: Vec::new(),
            finite: Cell::new(None),
        }
    }

    /// The statistics of some columns alone, i64 in ascending order, as if the layer read nothing else.
    #[must_use]
    pub fn columns_alone(&self, columns: &Tensor) -> Self {
        let of = |values: &Tensor| values.index_select(0, &columns.to_device(values.device()));
        let gram = |gram: &Gram| {
            let upper = gram.upper();
            let columns = columns.to_device(upper.device());
            Gram::from_upper(upper.index_select(0, &columns).index_select(1, &columns))
        };
        let moments = |of_all: &Moments| Moments {
            sum: of(&of_all.sum),
            scatter: of(&of_all.scatter),
            mass: of_all.mass,
            open: None,
        };
        Self {
            columns: columns.size()[0],
            samples: self.samples,
            tokens: self.tokens,
            squares: self.squares.as_ref().map(of),
            moments: self.moments.as_ref().map(moments),
            gram: self.gram.as_ref().map(gram),
            remembers: false,
            factor: RefCell::new(None),
            apart: Vec::new(),
            finite: Cell::new(None),
        }
    }

    /// What is being collected.
    pub fn collects(&self) -> Needs {
        Needs { norms: self.squares.is_some(), moments: self.moments.is_some(), gram: self.gram.is_some() }
    }

    /// Inputs of the layer.
    pub fn columns(&self) -> i64 {
        self.columns
    }

    /// Finished samples.
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// Rows seen.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// Adds one sample's inputs `[..., in]`.
    pub fn add_sample(&mut self, input: &Tensor) {
        self.observe(input);
        self.end_sample();
    }

    /// Counts a sample whose inputs have been observed.
    pub fn end_sample(&mut self) {
        self.end_samples(1);
    }

    /// Counts samples whose inputs have been observed together.
    pub fn end_samples(&mut self, samples: u64) {
        self.samples += samples;
        if let Some(moments) = &mut self.moments
            && let Some(open) = moments.open.take()
        {
            moments.mass += open.mass;
            let _ = moments.sum.g_add_(&open.sum);
            let _ = moments.scatter.g_add_(&open.scatter);
        }
    }

    /// `sqrt(sum of squares / samples)` of each column, f32 `[in]`; zero for an input that is never alive. `None` if not collected.
    pub fn norm(&self) -> Option<Tensor> {
        let squares = self.squares.as_ref()?;
        Some((squares / (self.samples.max(1) as f64)).sqrt().to_kind(Kind::Float))
    }

    /// Sum of each column over tokens, averaged over samples, f32 `[in]`. `None` if not collected.
    pub fn sum(&self) -> Option<Tensor> {
        let moments = self.moments.as_ref()?;
        Some((&moments.sum / (self.samples.max(1) as f64)).to_kind(Kind::Float))
    }

    /// Population variance of each column within a sample, averaged over tokens, f32 `[in]`: differences between the means of samples do not
    /// count. `None` if not collected.
    pub fn variance(&self) -> Option<Tensor> {
        let moments = self.moments.as_ref()?;
        Some((&moments.scatter / (if moments.mass > 0.0 { moments.mass } else { 1.0 })).to_kind(Kind::Float))
    }

    /// `2 / samples * X^T X`, f32 `[in, in]`, symmetric: SparseGPT's Hessian. `None` if not collected.
    pub fn hessian(&self) -> Option<Tensor> {
        let upper = self.hessian_upper()?;
        Some(upper.triu(0) + upper.triu(1).transpose(0, 1))
    }

    /// As [`ColumnStatistics::hessian`], a new tensor of which only the upper triangle is right.
    pub(crate) fn hessian_upper(&self) -> Option<Tensor> {
        let mut upper = self.gram.as_ref()?.upper();
        let _ = upper.g_mul_scalar_(2.0 / self.samples.max(1) as f64);
        Some(upper)
    }

    /// Keeps the last factor from now on.
    pub fn remember(&mut self) {
        self.remembers = true;
    }

    /// A factor of the Gram matrix and the dead columns, made by `make` unless it is the one that was kept. `settings` is what it depends on beside
    /// the matrix. What is added later makes it forget.
    pub(crate) fn factor<E>(
        &self,
        settings: (bool, u64),
        make: impl FnOnce() -> Result<(Tensor, Tensor), E>,
    ) -> Result<(Tensor, Tensor), E> {
        if let Some(known) = self.factor.borrow().as_ref().filter(|known| known.settings == settings) {
            return Ok((known.upper.shallow_clone(), known.dead.shallow_clone()));
        }
        let (upper, dead) = make()?;
        if self.remembers {
            let known = Factor { settings, upper: upper.shallow_clone(), dead: dead.shallow_clone() };
            self.factor.replace(Some(known));
        }
        Ok((upper, dead))
    }

    /// Whether every input seen so far was finite.
    pub fn is_finite(&self) -> bool {
        if let Some(known) = self.finite.get() {
            return known;
        }
        let found = self.sums().iter().all(is_finite);
        self.finite.set(Some(found));
        found
    }

    /// What is not finite as soon as one input is not.
    fn sums(&self) -> Vec<Tensor> {
        let squares = self.squares.iter().map(Tensor::shallow_clone);
        let moments = self.moments.iter().flat_map(|of| [of.scatter.shallow_clone(), of.sum.shallow_clone()]);
        squares.chain(moments).chain(self.gram.iter().map(Gram::diagonal)).collect()
    }

    /// Everything collected, as named tensors: `samples` and `tokens` (i64), and where collected `squares`, `sum`, `scatter` (f64 `[in]`,
    /// totals), `mass` (f64, the weight of all tokens, where it is not their number) and `gram` (f32 `[in, in]`, upper triangle).
    pub fn to_tensors(&self) -> BTreeMap<String, Tensor> {
        let mut tensors = BTreeMap::new();
        let mut put = |name: &str, tensor: Tensor| tensors.insert(name.to_owned(), tensor.to_device(Device::Cpu));
        put("samples", Tensor::from(self.samples as i64));
        put("tokens", Tensor::from(self.tokens as i64));
        if let Some(squares) = &self.squares {
            put("squares", squares.copy());
        }
        if let Some(moments) = &self.moments {
            put("sum", moments.sum.copy());
            put("scatter", moments.scatter.copy());
            if moments.mass != self.tokens as f64 {
                put("mass", Tensor::from(moments.mass));
            }
        }
        if let Some(gram) = &self.gram {
            put("gram", gram.upper().triu(0));
        }
        tensors
    }

    /// Reads what [`ColumnStatistics::to_tensors`] gave. More samples can be added; the Gram matrix is then built from other blocks of tokens
    /// than without the interruption, so it may differ in its last bits.
    ///
    /// # Errors
    /// A part is missing or has another shape than the rest.
    pub fn from_tensors(mut tensors: BTreeMap<String, Tensor>, device: Device) -> Result<Self, PruneError> {
        let broken = |reason: String| PruneError::Statistics { reason };
        let mut whole = |name: &str| {
            let tensor = tensors.remove(name).filter(|t| t.numel() == 1 && t.kind() == Kind::Int64);
            let tensor = tensor.ok_or_else(|| broken(format!("`{name}` is missing or not a whole number")))?;
            u64::try_from(tensor.int64_value(&[])).map_err(|_| broken(format!("`{name}` is negative")))
        };
        let (samples, tokens) = (whole("samples")?, whole("tokens")?);
        let mass = tensors.remove("mass").filter(|t| t.numel() == 1).map(|t| t.double_value(&[]));
        let mass = mass.filter(|mass| mass.is_finite() && *mass >= 0.0).unwrap_or(tokens as f64);
        let columns = tensors.values().next().and_then(|t| t.size().last().copied()).unwrap_or(0);
        let mut take = |name: &str, kind: Kind, shape: &[i64]| match tensors.remove(name) {
            None => Ok(None),
            Some(t) if t.kind() == kind && t.size() == shape => Ok(Some(t.to_device(device).copy())),
            Some(t) => Err(broken(format!("`{name}` is {:?} {:?}, expected {kind:?} {shape:?}", t.kind(), t.size()))),
        };
        let squares = take("squares", Kind::Double, &[columns])?;
        let sum = take("sum", Kind::Double, &[columns])?;
        let scatter = take("scatter", Kind::Double, &[columns])?;
        let gram = take("gram", Kind::Float, &[columns, columns])?;
        let moments = match (sum, scatter) {
            (Some(sum), Some(scatter)) => Some(Moments { sum, scatter, mass, open: None }),
            (None, None) => None,
            _ => return Err(broken("one of `sum` and `scatter` is missing".to_owned())),
        };
        if let Some(name) = tensors.into_keys().next() {
            return Err(broken(format!("`{name}` is not a statistic")));
        }
        let (gram, factor, finite) = (gram.map(Gram::from_upper), RefCell::new(None), Cell::new(None));
        let apart = Vec::new();
        Ok(Self { columns, samples, tokens, squares, moments, gram, remembers: false, factor, apart, finite })
    }
}

/// Whether all inputs of several layers were finite. On a device that is asked once, however many layers there are.
pub(crate) fn all_finite<'a>(of: impl Iterator<Item = &'a ColumnStatistics>) -> bool {
    let of: Vec<&ColumnStatistics> = of.collect();
    let sums: Vec<Tensor> = of.iter().flat_map(|statistics| statistics.sums()).collect();
    if sums.iter().all(|sums| sums.device() == Device::Cpu) {
        return of.iter().all(|statistics| statistics.is_finite());
    }
    let flags: Vec<Tensor> = sums.iter().map(|sums| sums.isfinite().all()).collect();
    let finite = Tensor::stack(&flags, 0).all().int64_value(&[]) == 1;
    if finite {
        of.iter().for_each(|statistics| statistics.finite.set(Some(true)));
    }
    finite
}

impl ColumnStatistics {
    /// Adds inputs `[..., in]` of which each row counts as much as `weights` (f32 `[rows]` on the host, not negative) says: as if it were seen so
    /// many times. Rows of weight zero are not seen at all.
    pub fn observe_weighted(&mut self, input: &Tensor, weights: &Tensor) {
        no_grad(|| {
            let rows = input.detach().reshape([-1, self.columns]).to_kind(Kind::Float);
            let weights = weights.to_device(Device::Cpu);
            let seen = weights.gt(0.0).nonzero().squeeze_dim(1);
            let (rows, weights) =
                (rows.index_select(0, &seen.to_device(rows.device())), weights.index_select(0, &seen));
            if weights.eq(1.0).all().int64_value(&[]) == 1 {
                self.add(&rows, None);
            } else {
                let mass = weights.sum(Kind::Double).double_value(&[]);
                self.add(&rows, Some((&weights.unsqueeze(1).to_device(rows.device()), mass)));
            }
        });
    }

    /// Adds the inputs of several samples that run together, `[samples, ..., in]`, each seen once by its layer. `numbers` are their places in the
    /// order in which sums are added on a CPU, once all have been observed: [`ColumnStatistics::settle`]. A Gram matrix takes them as they come.
    pub fn observe_rows(&mut self, input: &Tensor, numbers: &[usize]) {
        no_grad(|| {
            self.factor.replace(None);
            self.finite.set(None);
            let samples = numbers.len() as i64;
            let rows = input.detach().reshape([samples, -1, self.columns]);
            let tokens = rows.size()[1];
            self.tokens += (samples * tokens).unsigned_abs();
            let of_samples = |rows: &Tensor| rows.sum_dim_intlist([1i64].as_slice(), false, Kind::Float);
            if let Some(gram) = &mut self.gram {
                gram.add(&rows.reshape([-1, self.columns]));
            }
            let rows = if self.squares.is_some() || self.moments.is_some() { rows.to_kind(Kind::Float) } else { rows };
            let squares = self.squares.as_ref().map(|_| of_samples(&rows.square()));
            let moments = self.moments.as_mut().filter(|_| tokens > 0).map(|moments| {
                moments.mass += (samples * tokens) as f64;
                let mean = rows.mean_dim([1i64].as_slice(), true, Kind::Float);
                [of_samples(&rows), of_samples(&(&rows - mean).square())]
            });
            self.apart.push(Apart { numbers: numbers.to_vec(), squares, moments });
            if rows.device() != Device::Cpu {
                self.settle();
            }
        });
    }

    /// Adds what samples that ran together have summed: on a CPU one after the other in the order of their numbers, else at once.
    pub fn settle(&mut self) {
        let apart = std::mem::take(&mut self.apart);
        let mut order: Vec<(usize, usize, Option<i64>)> = Vec::new();
        for (at, Apart { numbers, squares, moments }) in apart.iter().enumerate() {
            let sums = squares.iter().chain(moments.iter().flatten());
            if sums.into_iter().all(|sums| sums.device() == Device::Cpu) {
                order.extend(numbers.iter().enumerate().map(|(row, &number)| (number, at, Some(row as i64))));
            } else {
                order.push((0, at, None));
            }
        }
        order.sort_unstable();
        let add = |total: &mut Tensor, sums: &Tensor, row: Option<i64>| {
            let sums = sums.to_kind(Kind::Double);
            let _ = total.g_add_(&match row {
                Some(row) => sums.get(row),
                None => sums.sum_dim_intlist([0i64].as_slice(), false, Kind::Double),
            });
        };
        for (_, at, row) in order {
            if let (Some(total), Some(squares)) = (&mut self.squares, &apart[at].squares) {
                add(total, squares, row);
            }
            if let (Some(moments), Some([sum, scatter])) = (&mut self.moments, &apart[at].moments) {
                add(&mut moments.sum, sum, row);
                add(&mut moments.scatter, scatter, row);
            }
        }
    }

    /// Adds rows `[tokens, in]` with weights `[tokens, 1]` and their sum.
    fn add(&mut self, given: &Tensor, weighting: Option<(&Tensor, f64)>) {
        self.factor.replace(None);
        self.finite.set(None);
        let weights = weighting.map(|(weights, _)| weights);
        let count = given.size()[0] as u64;
        self.tokens += count;
        let in_floats = self.squares.is_some() || self.moments.is_some() || weights.is_some();
        let rows = &if in_floats { given.to_kind(Kind::Float) } else { given.shallow_clone() };
        if let Some(squares) = &mut self.squares {
            let square = weighted(rows.square(), weights);
            let of_sample = square.sum_dim_intlist([0i64].as_slice(), false, Kind::Float);
            let _ = squares.g_add_(&of_sample.to_kind(Kind::Double));
        }
        if let Some(moments) = &mut self.moments
            && count > 0
        {
            moments.observe(rows, weighting);
        }
        if let Some(gram) = &mut self.gram {
            match weights {
                None => gram.add(given),
                Some(weights) => gram.add(&(rows * weights.sqrt())),
            }
        }
    }
}

fn weighted(rows: Tensor, weights: Option<&Tensor>) -> Tensor {
    match weights {
        None => rows,
        Some(weights) => rows * weights,
    }
}

impl Observer for ColumnStatistics {
    fn observe(&mut self, input: &Tensor) {
        no_grad(|| self.add(&input.detach().reshape([-1, self.columns]), None));
    }
}

impl Moments {
    fn observe(&mut self, rows: &Tensor, weighting: Option<(&Tensor, f64)>) {
        let weights = weighting.map(|(weights, _)| weights);
        let over = [0i64];
        let total = |rows: Tensor| rows.sum_dim_intlist(over.as_slice(), false, Kind::Float);
        let (mass, mean) = match weighting {
            None => (rows.size()[0] as f64, rows.mean_dim(over.as_slice(), true, Kind::Float)),
            Some((weights, mass)) => (mass, (total(rows * weights) / mass).unsqueeze(0)),
        };
        let scatter = total(weighted((rows - &mean).square(), weights)).to_kind(Kind::Double);
        let sum = total(weighted(rows.shallow_clone(), weights)).to_kind(Kind::Double);
        self.open = Some(match self.open.take() {
            None => Open { mass, sum, scatter },
            Some(before) => {
                // Chan's rule for joining two scatters about their own means.
                let (here, there) = (mass, before.mass);
                let apart = &sum / here - &before.sum / there;
                Open {
                    mass: before.mass + mass,
                    scatter: before.scatter + scatter + apart.square() * (here * there / (here + there)),
                    sum: before.sum + sum,
                }
            }
        });
    }
}
