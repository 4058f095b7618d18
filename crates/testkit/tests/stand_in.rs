//! The stand-in itself: computes what the CPU computes, refuses what CUDA refuses, counts. Each test runs again as a process of its own
//! with devices lent to it, since libtorch's CUDA half must be loaded before anything asks for it.

#![cfg(target_os = "linux")]

use std::{env, process::Command};

use ressa_runtime::{DeviceChoice, RuntimeOptions};
use ressa_testkit::stand_in::{Report, StandIn, reports};
use tch::{Device, Kind, TchError, Tensor};

/// Set in the process that has the devices.
const LENT: &str = "RESSA_TEST_DEVICES_LENT";

/// Runs `body` in a process with devices and gives its report; `None` in that process itself.
fn with(stand_in: &dyn Fn() -> StandIn, test: &str, body: impl FnOnce()) -> Option<Report> {
    if env::var_os(LENT).is_some() {
        ressa_runtime::init(&RuntimeOptions { device: DeviceChoice::Cuda(0), threads: 1 }).unwrap();
        body();
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report");
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env(LENT, "1");
    stand_in().lend(&mut command, &report);
    let ended = command.output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    reports(&report).pop()
}

fn numbers(count: i64) -> Tensor {
    Tensor::arange(count, (Kind::Float, Device::Cpu)).sin()
}

fn refused(result: Result<Tensor, TchError>) -> bool {
    result.is_err_and(|e| e.to_string().contains("Expected all tensors to be on the same device"))
}

#[test]
fn values_are_those_of_the_cpu_to_the_bit() {
    let report = with(&StandIn::new, "values_are_those_of_the_cpu_to_the_bit", || {
        let run = |device: Device| {
            let x = numbers(2 * 3 * 8 * 16).view([2, 3, 8, 16]).to_device(device).set_requires_grad(true);
            let bias = numbers(8 * 8).view([8, 8]).to_device(device);
            let attended = Tensor::scaled_dot_product_attention(&x, &x, &x, Some(&bias), 0.0, false, None, false);
            let normal = attended.layer_norm([16], None::<&Tensor>, None::<&Tensor>, 1e-5, false);
            // libtorch has several ways to the gradients of these.
            let (gated, activated) =
                (normal.silu() * x.gelu("tanh"), x.index_select(3, &Tensor::arange(16, (Kind::Int64, device))));
            let loss = ((gated + activated).softmax(-1, Kind::Float) * &x).sum(Kind::Float);
            loss.backward();
            let (values, places) = x.detach().view([-1]).topk(9, 0, true, true);
            [loss.detach(), x.grad(), values, places].map(|tensor| tensor.to_device(Device::Cpu))
        };
        for (there, here) in run(Device::Cuda(0)).iter().zip(&run(Device::Cpu)) {
            assert!(there.equal(here), "{there:?} {here:?}");
        }
    });
    assert!(report.is_none_or(|report| report.violations == 0 && report.launches > 10));
}

#[test]
fn mixed_devices_are_refused_as_cuda_refuses_them() {
    let two = || StandIn { devices: 2, ..StandIn::new() };
    let report = with(&two, "mixed_devices_are_refused_as_cuda_refuses_them", || {
        let (here, there) = (numbers(4), numbers(4).to_device(Device::Cuda(0)));
        let elsewhere = numbers(4).to_device(Device::Cuda(1));
        assert!(refused(there.f_add(&here)) && refused(here.f_add(&there)) && refused(there.f_add(&elsewhere)));
        assert!(refused(there.f_masked_fill_tensor(&here.gt(0.0), &Tensor::from(0.0f32))));
        assert!(refused(there.f_index_put(&[Some(Tensor::from_slice(&[1i64]))], &here.narrow(0, 0, 1), false)));
        assert!(refused(Tensor::f_cat(&[&there, &here], 0)));
        // What CUDA takes from the host.
        assert!(there.f_add(&Tensor::from(2.0f32)).is_ok());
        assert!(there.f_index(&[Some(Tensor::from_slice(&[1i64, 2]))]).is_ok());
        assert!(elsewhere.f_add(&there.to_device(Device::Cuda(1))).is_ok());
    });
    assert!(report.is_none_or(|report| report.violations == 6 && report.refused.len() >= 5));
}

#[test]
fn memory_copies_and_waits_are_counted() {
    let report = with(&StandIn::new, "memory_copies_and_waits_are_counted", || {
        let up = numbers(1000).to_device(Device::Cuda(0));
        let twice = &up + &up;
        let _one = twice.double_value(&[3]);
        let _down = twice.to_device(Device::Cpu);
    });
    let Some(report) = report else { return };
    assert_eq!((report.up_bytes, report.down_bytes), (4000, 4000));
    // The number and the copy down.
    assert_eq!(report.syncs, 2);
    assert_eq!(report.peak_bytes, [2 * 4096]);
}

#[test]
fn a_full_device_says_so_and_goes_on() {
    let small = || StandIn { bytes: Some(1 << 20), ..StandIn::new() };
    let report = with(&small, "a_full_device_says_so_and_goes_on", || {
        let options = (Kind::Float, Device::Cuda(0));
        let error = Tensor::f_zeros([1 << 19], options).unwrap_err().to_string();
        assert!(ressa_runtime::is_out_of_memory(&error), "{error}");
        assert!(Tensor::f_zeros([1 << 16], options).is_ok());
    });
    assert!(report.is_none_or(|report| report.peak_bytes == [1 << 18]));
}

#[test]
fn without_values_memory_is_counted_and_not_touched() {
    let shapes = || StandIn { shapes_only: true, ..StandIn::new() };
    let report = with(&shapes, "without_values_memory_is_counted_and_not_touched", || {
        // 256 GiB and a product of 70 Tflop.
        let options = (Kind::BFloat16, Device::Cuda(0));
        let weight = Tensor::zeros([1 << 17, 1 << 20], options);
        let product = Tensor::zeros([256, 1 << 20], options).linear::<&Tensor>(&weight, None);
        assert_eq!((product.size(), product.kind()), (vec![256, 1 << 17], Kind::BFloat16));
        // A kernel that only cards have, and its gradient, are one launch each.
        let x = Tensor::ones([64, 4096], options).set_requires_grad(true);
        let weight = Tensor::ones([4096], options).set_requires_grad(true);
        let normal = x.internal_fused_rms_norm([4096], Some(&weight), 1e-6).0;
        normal.sum(Kind::BFloat16).backward();
        assert_eq!((x.grad().size(), weight.grad().size()), (vec![64, 4096], vec![4096]));
        // Small tensors have values.
        assert_eq!(Tensor::from_slice(&[3i64, 4]).to_device(Device::Cuda(0)).sum(Kind::Int64).int64_value(&[]), 7);
    });
    assert!(report.is_none_or(|report| report.peak_bytes[0] > 1 << 38));
}
