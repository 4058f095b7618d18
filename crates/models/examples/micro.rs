//! scratch
use ressa_runtime::{Device, DeviceChoice, RuntimeOptions, cpu_seconds};
use tch::{Kind, Tensor};
fn time(what: &str, mut work: impl FnMut()) {
    work();
    let start = cpu_seconds();
    (0..40).for_each(|_| work());
    println!("{what}: {:.2} ms", (cpu_seconds() - start) * 1e3 / 40.0);
}
fn main() {
    ressa_runtime::init(&RuntimeOptions { device: DeviceChoice::Cpu, threads: 1 }).unwrap();
    let o = (Kind::Float, Device::Cpu);
    let x = Tensor::randn([96, 21, 96], o).set_requires_grad(true);
    let w = Tensor::randn([96], o).set_requires_grad(true);
    let b = Tensor::randn([96], o).set_requires_grad(true);
    let g = Tensor::randn([96, 21, 96], o);
    let go = |y: Tensor| (y * &g).sum(Kind::Float).backward();
    time("identity", || go(&x + 1.0));
    time("fused rms", || go(x.internal_fused_rms_norm([96], Some(&w), 1e-6).0));
    time("rms_norm", || go(x.rms_norm([96], Some(&w), 1e-6)));
    time("manual rms", || go(&x * (x.square().mean_dim([-1].as_slice(), true, Kind::Float) + 1e-6).rsqrt() * &w));
    time("vector norm rms", || go(&x * (x.linalg_vector_norm(2.0, [-1].as_slice(), true, Kind::Float).square() / 96.0 + 1e-6).rsqrt() * &w));
    time("layer_norm", || go(x.layer_norm([96], Some(&w), Some(&b), 1e-6, true)));
    let wt = Tensor::randn([96, 96], o).set_requires_grad(true);
    time("linear", || go(x.linear(&wt, None::<&Tensor>)));
    let w3 = [Tensor::randn([96, 96], o).set_requires_grad(true), Tensor::randn([96, 96], o).set_requires_grad(true), Tensor::randn([96, 96], o).set_requires_grad(true)];
    let g3 = Tensor::randn([96, 21, 288], o);
    time("3 linears", || {
        let parts: Vec<Tensor> = w3.iter().map(|w| x.linear(w, None::<&Tensor>)).collect();
        let l = parts.iter().enumerate().map(|(i, p)| (p * g3.narrow(2, 96 * i as i64, 96)).sum(Kind::Float)).reduce(|a, b| a + b).unwrap();
        l.backward()
    });
    time("fused linears", || {
        let parts = x.linear(&Tensor::cat(&w3, 0), None::<&Tensor>).chunk(3, -1);
        let l = parts.iter().enumerate().map(|(i, p)| (p * g3.narrow(2, 96 * i as i64, 96)).sum(Kind::Float)).reduce(|a, b| a + b).unwrap();
        l.backward()
    });
    for t in [12i64, 21, 37, 60] {
        let q = Tensor::randn([96, t, 96], o).set_requires_grad(true);
        let heads = |x: &Tensor| x.view([96, t, 6, 16]).transpose(1, 2);
        let bias = Tensor::randn([96, 6, t, t], o);
        let g = Tensor::randn([96, t, 96], o);
        let join = |x: Tensor| x.transpose(1, 2).reshape([96, t, 96]);
        time(&format!("{t} sdpa bias"), || {
            (join(Tensor::scaled_dot_product_attention(&heads(&q), &heads(&q), &heads(&q), Some(&bias), 0.0, false, 1.0, false)) * &g).sum(Kind::Float).backward()
        });
        time(&format!("{t} manual bias"), || {
            let (q, k, v) = (heads(&q), heads(&q), heads(&q));
            (join((q.matmul(&k.transpose(-2, -1)) + &bias).softmax(-1, None::<Kind>).matmul(&v)) * &g).sum(Kind::Float).backward()
        });
        let gb = bias.copy().set_requires_grad(true);
        time(&format!("{t} sdpa grad bias"), || {
            (join(Tensor::scaled_dot_product_attention(&heads(&q), &heads(&q), &heads(&q), Some(&gb), 0.0, false, 1.0, false)) * &g).sum(Kind::Float).backward()
        });
        time(&format!("{t} manual grad bias"), || {
            let (q, k, v) = (heads(&q), heads(&q), heads(&q));
            (join((q.matmul(&k.transpose(-2, -1)) + &gb).softmax(-1, None::<Kind>).matmul(&v)) * &g).sum(Kind::Float).backward()
        });
        time(&format!("{t} sdpa causal"), || {
            (join(Tensor::scaled_dot_product_attention::<Tensor>(&heads(&q), &heads(&q), &heads(&q), None, 0.0, true, 1.0, false)) * &g).sum(Kind::Float).backward()
        });
        time(&format!("{t} sdpa plain"), || {
            (join(Tensor::scaled_dot_product_attention::<Tensor>(&heads(&q), &heads(&q), &heads(&q), None, 0.0, false, 1.0, false)) * &g).sum(Kind::Float).backward()
        });
    }
    let f = Tensor::randn([96, 21, 320], o).set_requires_grad(true);
    let gf = Tensor::randn([96, 21, 320], o);
    time("gelu exact", || (f.gelu("none") * &gf).sum(Kind::Float).backward());
    time("silu", || (f.silu() * &gf).sum(Kind::Float).backward());
    time("relu", || (f.relu() * &gf).sum(Kind::Float).backward());
}
