//! Dense against sparse products for the shapes of a model's linears: what zeros are worth on a device.

use std::time::{Duration, Instant};

use ressa_experiment::job::{BenchKernels, Compute, KernelShape};
use ressa_runtime::{Device, tch_error};
use serde_json::{Value, json};
use tch::{Kind, TchError, Tensor};

use crate::{LabError, Progress};

/// Groups of calls that are timed; the median counts.
const GROUPS: usize = 7;
/// Calls before the first that is timed.
const WARM: usize = 2;
/// Shortest group: clocks and launches are coarse.
const GROUP: Duration = Duration::from_millis(4);
/// Most calls in a group.
const CALLS: u32 = 1000;
/// Columns of which the inputs of 2:4 kernels must be a multiple.
const COLUMNS: i64 = 8;
/// Seed of weights and inputs.
const SEED: i64 = 0;

/// A way to multiply with a weight that has zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kernel {
    /// libtorch's CUTLASS kernel for 2:4.
    Cutlass,
    /// NVIDIA's cuSPARSELt, where libtorch is built with it.
    CuSparseLt,
    /// Compressed rows.
    Csr,
}

impl Kernel {
    fn name(self) -> &'static str {
        match self {
            Kernel::Cutlass => "2:4 cutlass",
            Kernel::CuSparseLt => "2:4 cusparselt",
            Kernel::Csr => "csr",
        }
    }

    /// What there is for a device and a share of zeros.
    fn all(device: Device, sparsity: Option<f64>) -> &'static [Kernel] {
        match (device, sparsity) {
            (Device::Cuda(_), None) => &[Kernel::Cutlass, Kernel::CuSparseLt],
            _ => &[Kernel::Csr],
        }
    }
}

/// A weight `[outputs, inputs]` in the form of a kernel.
enum Prepared {
    Cutlass(Tensor, Tensor),
    CuSparseLt(Tensor),
    Csr(Tensor),
}

impl Prepared {
    fn of(kernel: Kernel, weight: &Tensor) -> Result<Self, TchError> {
        Ok(match kernel {
            Kernel::Cutlass => {
                let (packed, places) = Tensor::f_internal_to_sparse_semi_structured(weight)?;
                Prepared::Cutlass(packed, places)
            }
            Kernel::CuSparseLt => Prepared::CuSparseLt(weight.f_internal_cslt_compress()?),
            Kernel::Csr => Prepared::Csr(weight.f_to_sparse_csr(None::<i64>)?),
        })
    }

    /// The weight times `x` `[inputs, batch]`.
    fn times(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let batch = x.size()[1];
        match self {
            Prepared::Cutlass(packed, places) => {
                Tensor::f_internal_sparse_semi_structured_mm(packed, places, &padded(x)?, None::<Kind>)?
                    .f_narrow(1, 0, batch)
            }
            Prepared::CuSparseLt(packed) => {
                let none = None::<&Tensor>;
                Tensor::f_internal_cslt_sparse_mm(packed, &padded(x)?, none, none, None::<Kind>, false, 0, 1, -1)?
                    .f_narrow(1, 0, batch)
            }
            Prepared::Csr(weight) => weight.f_matmul(x),
        }
    }
}

/// Inputs `[inputs, batch]` with columns of zeros behind, up to a multiple of [`COLUMNS`]. PyTorch's own 2:4 tensors do the same in each product, so a
/// product is timed with it.
fn padded(x: &Tensor) -> Result<Tensor, TchError> {
    match (-x.size()[1]).rem_euclid(COLUMNS) {
        0 => Ok(x.shallow_clone()),
        missing => x.f_constant_pad_nd([0, missing]),
    }
}

/// Times every shape with every batch; each sparse product is compared with the dense one before.
pub(crate) fn run(job: &BenchKernels, device: Device, progress: Progress<'_>) -> Result<Value, LabError> {
    let kind = match job.dtype {
        Some(Compute::Float32) => Kind::Float,
        Some(Compute::Bfloat16) => Kind::BFloat16,
        Some(Compute::Float16) => Kind::Half,
        None if device == Device::Cpu => Kind::Float,
        None => Kind::BFloat16,
    };
    let kernels = Kernel::all(device, job.sparsity);
    let many = job.shapes.len().max(1);
    let shape = |(at, shape): (usize, &KernelShape)| {
        progress(at as f64 / many as f64, &format!("{} x {}", shape.outputs, shape.inputs));
        let dense = weight(shape, job.sparsity, (kind, device)).map_err(failed)?;
        let zeros = zeros(&dense).map_err(failed)?;
        let found = kernels.iter().map(|kernel| measured(*kernel, &dense, job, (kind, device)));
        Ok(json!({ "shape": shape, "zeros": zeros, "kernels": found.collect::<Vec<_>>() }))
    };
    let shapes = job.shapes.iter().enumerate().map(shape).collect::<Result<Vec<_>, LabError>>()?;
    Ok(json!({
        "device": ressa_runtime::device_name(device),
        "cuda": device != Device::Cpu,
        "dtype": format!("{kind:?}").to_lowercase(),
        "pattern": job.sparsity.map_or_else(|| json!("2:4"), |sparsity| json!(sparsity)),
        "shapes": shapes,
    }))
}

fn failed(error: TchError) -> LabError {
    LabError::from(ressa_models::ModelError::from(error))
}

/// One kernel on one weight: times by batch, or why it does not run here.
fn measured(kernel: Kernel, dense: &Tensor, job: &BenchKernels, on: (Kind, Device)) -> Value {
    let told = |error: TchError| tch_error(&error);
    let mut found = match Prepared::of(kernel, dense).map_err(told) {
        Err(reason) => json!({ "unusable": reason }),
        Ok(sparse) => by_batch(&job.batches, |batch| {
            let x = noise(&[dense.size()[1], batch as i64], on).map_err(told)?;
            let apart = apart(&sparse.times(&x).map_err(told)?, &dense.f_matmul(&x).map_err(told)?);
            // Written so that what is no number counts as wrong.
            let is_right = apart <= tolerance(on.0);
            if !is_right {
                return Err(format!("its product differs from the dense one by {apart:.1e}"));
            }
            let (mut one, mut other) = (|| dense.f_matmul(&x), || sparse.times(&x));
            compared([&mut one, &mut other], on.1).map_err(told)
        }),
    };
    found["kernel"] = json!(kernel.name());
    found
}

/// What `measure` finds at each batch, seconds of a product, dense and sparse; a kernel that runs at none of them does not run.
fn by_batch(batches: &[u32], mut measure: impl FnMut(u32) -> Result<[f64; 2], String>) -> Value {
    let rows: Vec<Row> = batches.iter().map(|&batch| Row { batch, seconds: measure(batch) }).collect();
    match rows.iter().all(|row| row.seconds.is_err()).then(|| rows.first()).flatten() {
        Some(Row { seconds: Err(reason), .. }) => json!({ "unusable": reason }),
        _ => json!({ "rows": rows.iter().map(Row::shown).collect::<Vec<_>>(), "break_even": break_even(&rows) }),
    }
}

/// A batch.
#[derive(Debug)]
struct Row {
    batch: u32,
    /// Seconds of a product, dense and sparse, or why the sparse one does not run.
    seconds: Result<[f64; 2], String>,
}

impl Row {
    fn shown(&self) -> Value {
        let batch = self.batch;
        match &self.seconds {
            Ok([dense, sparse]) => {
                json!({ "batch": batch, "dense_seconds": dense, "sparse_seconds": sparse, "speedup": dense / sparse })
            }
            Err(reason) => json!({ "batch": batch, "unusable": reason }),
        }
    }

    fn is_faster(&self) -> bool {
        self.seconds.as_ref().is_ok_and(|[dense, sparse]| sparse < dense)
    }
}

/// The smallest batch from which on the sparse product takes less time than the dense one, at every batch that was asked for; batches ascend.
fn break_even(rows: &[Row]) -> Option<u32> {
    let last_slow = rows.iter().rposition(|row| !row.is_faster());
    rows.get(last_slow.map_or(0, |at| at + 1)).map(|row| row.batch)
}

/// Median seconds of two calls that take turns, so that both see the same machine.
fn compared(
    mut calls: [&mut dyn FnMut() -> Result<Tensor, TchError>; 2],
    device: Device,
) -> Result<[f64; 2], TchError> {
    let mut per_group = [1u32; 2];
    for (call, many) in calls.iter_mut().zip(&mut per_group) {
        for _ in 0..WARM {
            group(*call, 1, device)?;
        }
        let once = group(*call, 1, device)?;
        *many = (GROUP.as_secs_f64() / once.max(1e-9)).ceil().clamp(1.0, f64::from(CALLS)) as u32;
    }
    let mut found = [Vec::new(), Vec::new()];
    for _ in 0..GROUPS {
        for ((call, &many), found) in calls.iter_mut().zip(&per_group).zip(&mut found) {
            found.push(group(*call, many, device)? / f64::from(many));
        }
    }
    Ok(found.map(|mut seconds| {
        seconds.sort_by(f64::total_cmp);
        seconds[seconds.len() / 2]
    }))
}

/// Seconds of so many calls.
fn group(call: &mut dyn FnMut() -> Result<Tensor, TchError>, many: u32, device: Device) -> Result<f64, TchError> {
    wait(device);
    let start = Instant::now();
    for _ in 0..many {
        drop(call()?);
    }
    wait(device);
    Ok(start.elapsed().as_secs_f64())
}

fn wait(device: Device) {
    if let Device::Cuda(index) = device {
        tch::Cuda::synchronize(index as i64);
    }
}

/// Largest difference relative to the largest value.
fn apart(found: &Tensor, wanted: &Tensor) -> f64 {
    let (found, wanted) = (found.to_dense(None::<Kind>, false).to_kind(Kind::Float), wanted.to_kind(Kind::Float));
    let largest = wanted.abs().max().double_value(&[]);
    (found - wanted).abs().max().double_value(&[]) / largest.max(1e-30)
}

/// What sums in another order, rounded to a type, may differ by, relative to the largest value.
fn tolerance(kind: Kind) -> f64 {
    match kind {
        Kind::Float => 1e-4,
        _ => 2e-2,
    }
}

/// A weight with two values in every four columns, in turn at every pair of places; or a share of zeros anywhere.
fn weight(shape: &KernelShape, sparsity: Option<f64>, on: (Kind, Device)) -> Result<Tensor, TchError> {
    /// Places of a group that are kept: all pairs.
    const PAIRS: [[u8; 4]; 6] = [[1, 1, 0, 0], [1, 0, 1, 0], [1, 0, 0, 1], [0, 1, 1, 0], [0, 1, 0, 1], [0, 0, 1, 1]];
    let size = [shape.outputs as i64, shape.inputs as i64];
    ressa_runtime::seed(SEED);
    let values = noise(&size, on)?;
    let keep = match sparsity {
        None => {
            let groups = (size[0] * size[1] + 3) / 4;
            let pairs = Tensor::from_slice(&PAIRS.concat()).view([6, 4]).to_device(on.1);
            let turn = Tensor::f_arange(groups, (Kind::Int64, on.1))?.f_remainder(6)?;
            pairs.f_index_select(0, &turn)?.f_view([-1])?.f_narrow(0, 0, size[0] * size[1])?.f_view(size)?
        }
        Some(sparsity) => Tensor::f_rand(size, (Kind::Float, on.1))?.f_ge(sparsity)?.f_to_kind(Kind::Uint8)?,
    };
    values.f_mul(&keep.f_to_kind(on.0)?)
}

/// Values drawn between -1 and 1.
fn noise(size: &[i64], (kind, device): (Kind, Device)) -> Result<Tensor, TchError> {
    (Tensor::f_rand(size, (Kind::Float, device))? * 2.0 - 1.0).f_to_kind(kind)
}

/// The share of zeros of a weight, as counted.
fn zeros(weight: &Tensor) -> Result<f64, TchError> {
    let values = weight.f_count_nonzero(None::<i64>)?.f_int64_value(&[])?;
    Ok(1.0 - values as f64 / weight.numel().max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape() -> KernelShape {
        KernelShape { outputs: 48, inputs: 64, layers: 1, example: "a".to_owned() }
    }

    #[test]
    fn weights_have_the_zeros_that_are_asked_for() {
        let on = (Kind::Float, Device::Cpu);
        let two = weight(&shape(), None, on).unwrap().ne(0.0).to_kind(Kind::Int64).view([-1, 4]);
        let counts = two.sum_dim_intlist(1, false, Kind::Int64);
        assert_eq!(counts.le(2).all().int64_value(&[]), 1);
        // A value that is drawn may be zero, once in 2^24.
        assert!(counts.eq(2).sum(Kind::Int64).int64_value(&[]) >= 48 * 16 - 1);
        for (asked, margin) in [(0.9, 2e-3), (0.99, 1e-3), (0.999, 2e-4)] {
            // Seven standard deviations of a million draws and more.
            let shape = KernelShape { outputs: 1000, inputs: 1000, ..shape() };
            let found = zeros(&weight(&shape, Some(asked), on).unwrap()).unwrap();
            assert!((found - asked).abs() < margin, "{asked}: {found}");
        }
    }

    /// Zeros of a linear as large as those of published models have no order: a value's neighbour is kept as often as any other.
    #[test]
    fn zeros_anywhere_are_not_in_runs() {
        let shape = KernelShape { outputs: 2048, inputs: 11_008, ..shape() };
        let kept = weight(&shape, Some(0.9), (Kind::Float, Device::Cpu)).unwrap().narrow(0, 1984, 64).ne(0.0);
        let both = kept.narrow(1, 1, 11_007).logical_and(&kept.narrow(1, 0, 11_007));
        let count = |places: &Tensor| places.sum(Kind::Int64).int64_value(&[]) as f64;
        let neighbours = count(&both) / count(&kept);
        assert!((neighbours - 0.1).abs() < 0.01, "{neighbours}");
    }

    #[test]
    fn inputs_have_as_many_columns_as_kernels_take() {
        let x = Tensor::ones([2, 3], (Kind::Float, Device::Cpu));
        let wide = padded(&x).unwrap();
        assert_eq!(wide.size(), [2, 8]);
        assert_eq!(Vec::<f32>::try_from(wide.get(1)).unwrap(), [1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(padded(&wide).unwrap().size(), [2, 8]);
    }

    #[test]
    fn a_batch_that_does_not_run_leaves_the_others() {
        let measure = |batch: u32| if batch == 1 { Err("too narrow".to_owned()) } else { Ok([2.0, 1.0]) };
        let found = by_batch(&[1, 8, 32], measure);
        let said: Vec<Option<&str>> = (0..3).map(|row| found["rows"][row]["unusable"].as_str()).collect();
        assert_eq!(said, [Some("too narrow"), None, None], "{found}");
        assert_eq!((&found["rows"][1]["speedup"], &found["break_even"]), (&json!(2.0), &json!(8)));
        assert_eq!(by_batch(&[1], measure), json!({ "unusable": "too narrow" }));
    }

    #[test]
    fn a_sparse_product_is_the_dense_one_and_another_is_refused() {
        let on = (Kind::Float, Device::Cpu);
        let dense = weight(&shape(), None, on).unwrap();
        let x = noise(&[64, 3], on).unwrap();
        let product = Prepared::of(Kernel::Csr, &dense).unwrap().times(&x).unwrap();
        assert!(apart(&product, &dense.matmul(&x)) < tolerance(Kind::Float));
        assert!(apart(&(product + 1.0), &dense.matmul(&x)) > tolerance(Kind::Float));
    }

    #[test]
    fn kernels_that_a_device_does_not_have_say_so() {
        let job = BenchKernels { shapes: vec![shape()], batches: vec![1, 4], sparsity: None, dtype: None };
        let on = (Kind::Float, Device::Cpu);
        let dense = weight(&shape(), None, on).unwrap();
        for kernel in [Kernel::Cutlass, Kernel::CuSparseLt] {
            let found = measured(kernel, &dense, &job, on);
            assert!(found["unusable"].as_str().is_some_and(|reason| !reason.is_empty()), "{found}");
        }
        let found = run(&job, Device::Cpu, &mut |_, _| ()).unwrap();
        let rows = found["shapes"][0]["kernels"][0]["rows"].as_array().unwrap();
        assert_eq!(rows.iter().map(|row| row["batch"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 4]);
        assert!(rows.iter().all(|row| row["speedup"].as_f64().unwrap() > 0.0));
    }

    #[test]
    fn the_break_even_batch_is_the_first_behind_the_last_slow_one() {
        let rows = |ratios: &[f64]| -> Vec<Row> {
            let row = |(at, &ratio): (usize, &f64)| Row { batch: 1 << at, seconds: Ok([ratio, 1.0]) };
            ratios.iter().enumerate().map(row).collect()
        };
        assert_eq!(break_even(&rows(&[0.5, 0.9, 1.2, 1.4])), Some(4));
        assert_eq!(break_even(&rows(&[1.5, 0.9, 1.2, 1.4])), Some(4));
        assert_eq!(break_even(&rows(&[1.1, 1.2])), Some(1));
        assert_eq!(break_even(&rows(&[1.1, 1.0])), None);
    }
}
