//! Masks and adapters of one linear.

use ressa_models::{Form, Linear, Lora, LoraParts, ModelError, ScaleLora, SparseLora, Spp, SppLora, Update};
use ressa_testkit::assert_close;
use tch::{Device, Kind, Tensor};

const F32: (Kind, Device) = (Kind::Float, Device::Cpu);

fn parts() -> (Tensor, Tensor, Tensor, Tensor) {
    let wave = |shape: [i64; 2], step: f64| (Tensor::arange(shape[0] * shape[1], F32) * step).sin().view(shape);
    (wave([6, 8], 0.7), wave([6, 8], 1.9).gt(0.0), wave([2, 8], 0.3), wave([6, 2], 1.1))
}

fn low_rank(masked: bool, a: &Tensor, b: &Tensor) -> Option<Box<dyn Update>> {
    let parts = LoraParts { a: a.shallow_clone(), b: b.shallow_clone(), scale: 2.0 };
    Some(if masked { Box::new(SparseLora(parts)) } else { Box::new(Lora(parts)) })
}

#[test]
fn the_effective_weight_is_the_formula() {
    let (w, m, a, b) = parts();
    let keep = m.to_kind(Kind::Float);
    let update = b.matmul(&a) * 2.0;
    let mut linear = Linear::new("l", w.shallow_clone(), None);
    let x = Tensor::ones([3, 8], F32);
    assert!(linear.effective_weight().equal(&w));

    linear.set_update(low_rank(true, &a, &b)).unwrap();
    assert_close("W + sBA", &linear.effective_weight(), &(&w + &update), 1e-6);

    linear.set_mask(Some(m.shallow_clone())).unwrap();
    assert_close("(W + sBA) M", &linear.effective_weight(), &((&w + &update) * &keep), 1e-6);
    let at_removed = linear.effective_weight().masked_select(&m.logical_not());
    assert_eq!(at_removed.count_nonzero(None).int64_value(&[]), 0, "exactly zero where removed");
    assert_close("x W^T", &linear.forward(&x), &x.matmul(&linear.effective_weight().tr()), 1e-6);

    linear.set_update(low_rank(false, &a, &b)).unwrap();
    assert_close("W M + sBA", &linear.effective_weight(), &(&w * &keep + &update), 1e-6);

    linear.set_update(None).unwrap();
    assert!(linear.effective_weight().equal(&(&w * &keep)));
    assert!(linear.weight().equal(&w), "the weight itself is never touched");
}

/// With a mask, and with the zeros of the weight itself.
#[test]
fn updates_that_scale_are_their_formulas() {
    let (w, m, a, b) = parts();
    let keep = m.to_kind(Kind::Float);
    let product = b.matmul(&a) * 2.0;
    // Three rows for six outputs: two each.
    let (factors, shares) = (
        parts().2.narrow(0, 0, 1).repeat([3, 1]) * Tensor::from_slice(&[1.0f32, -2.0, 0.5]).view([3, 1]),
        b.narrow(1, 0, 1),
    );
    let spread = Tensor::cat(&[0i64, 0, 1, 1, 2, 2].map(|row| factors.narrow(0, row, 1)), 0);
    let low_rank = || LoraParts { a: a.shallow_clone(), b: b.shallow_clone(), scale: 2.0 };
    let spp = || Spp { a: factors.shallow_clone(), b: shares.shallow_clone(), scale: 2.0 };
    let updates: [(Box<dyn Update>, Tensor); 3] = [
        (Box::new(ScaleLora(low_rank())), &w * &product),
        (Box::new(SppLora(low_rank())), &w + &w * &product),
        (Box::new(spp()), &w + &w * spread * &shares * 2.0),
    ];
    for (update, formula) in updates {
        let kind = update.kind();
        let mut linear = Linear::new("l", w.shallow_clone(), None);
        linear.set_update(Some(update.shallow_clone())).unwrap();
        assert_close(kind, &linear.effective_weight(), &formula, 1e-6);
        linear.set_mask(Some(m.shallow_clone())).unwrap();
        assert_close(kind, &linear.effective_weight(), &(&formula * &keep), 1e-6);
        let at_removed = linear.effective_weight().masked_select(&m.logical_not());
        assert_eq!(at_removed.count_nonzero(None).int64_value(&[]), 0, "{kind}: exactly zero where removed");
        linear.set_mask(None).unwrap();
        linear.set_weight(&w * &keep).unwrap();
        assert_close(kind, &linear.effective_weight(), &(&formula * &keep), 1e-6);
    }
    // Seven outputs for three rows: three, three, one.
    let uneven =
        Spp { a: Tensor::from_slice(&[1.0f32, 2.0, 3.0]).view([3, 1]), b: Tensor::ones([7, 1], F32), scale: 1.0 };
    let mut linear = Linear::new("l", Tensor::ones([7, 1], F32), None);
    linear.set_update(Some(Box::new(uneven))).unwrap();
    let formed = Vec::<f32>::try_from(linear.effective_weight().view([-1])).unwrap();
    assert_eq!(formed, [2.0, 2.0, 2.0, 3.0, 3.0, 3.0, 4.0]);
    let wide = Spp { a: Tensor::ones([8, 1], F32), b: Tensor::ones([7, 1], F32), scale: 1.0 };
    let error = linear.set_update(Some(Box::new(wide))).unwrap_err();
    assert!(matches!(error, ModelError::Shape { name, wanted, .. } if name == "l.spp_A" && wanted == [7, 1]));
}

#[test]
fn baking_leaves_outputs_and_nothing_but_the_weight() {
    let (w, m, a, b) = parts();
    let x = (Tensor::arange(24, F32) * 0.2).cos().view([3, 8]);
    for masked in [true, false] {
        let mut linear = Linear::new("l", w.shallow_clone(), None);
        linear.set_mask(Some(m.shallow_clone())).unwrap();
        linear.set_update(low_rank(masked, &a, &b)).unwrap();
        let before = linear.forward(&x);
        linear.matrix_mut().bake().unwrap();
        assert!(linear.forward(&x).equal(&before));
        assert_eq!(linear.matrix().form(), Form::Dense, "what is final needs neither mask nor update");
        let removed = linear.weight().masked_select(&m.logical_not()).count_nonzero(None).int64_value(&[]);
        assert_eq!(removed == 0, masked);
    }
}

#[test]
fn gradients_reach_adapters_only_and_only_through_kept_positions() {
    let (w, m, a, b) = parts();
    let (a, b) = (a.set_requires_grad(true), b.set_requires_grad(true));
    let mut linear = Linear::new("l", w.shallow_clone(), None);
    linear.set_mask(Some(m.shallow_clone())).unwrap();
    linear.set_update(low_rank(true, &a, &b)).unwrap();
    let x = Tensor::eye(8, F32);
    linear.forward(&x).sum(Kind::Float).backward();
    // With x = 1 the gradient on the effective weight is 1 wherever it is kept.
    let keep = m.to_kind(Kind::Float);
    assert_close("dB", &b.grad(), &(keep.matmul(&a.detach().tr()) * 2.0), 1e-6);
    assert_close("dA", &a.grad(), &(b.detach().tr().matmul(&keep) * 2.0), 1e-6);
    assert!(!w.grad().defined());
}

#[test]
fn what_does_not_fit_is_named() {
    let (w, m, a, b) = parts();
    let mut linear = Linear::new("tower.fc1", w, None);
    let error = linear.set_mask(Some(m.tr())).unwrap_err().to_string();
    assert_eq!(error, "tensor `tower.fc1` has shape [8, 6], the configuration asks for [6, 8]");
    let error = linear.set_update(low_rank(true, &b, &a)).unwrap_err();
    assert!(matches!(error, ModelError::Shape { name, .. } if name == "tower.fc1.lora_A"));
    assert_eq!(linear.matrix().form(), Form::Dense);
}
