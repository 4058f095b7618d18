//! Throw-away.
#![allow(missing_docs, clippy::print_stdout)]
use ressa_models::{ForwardInputs, LoadOptions, load_blip2, presets::published_config};
use tch::{Device, Kind, Tensor};
fn main() {
    let args: Vec<String> = std::env::args().collect();
    if args[1] == "config" {
        println!("{}", serde_json::to_string_pretty(&published_config(&args[2]).unwrap()).unwrap());
        return;
    }
    ressa_runtime::init(&ressa_runtime::RuntimeOptions { device: ressa_runtime::DeviceChoice::Cpu, threads: 2 })
        .unwrap();
    let t = std::time::Instant::now();
    let compute = if args.len() > 2 && args[2] == "bf16" {
        ressa_experiment::job::Compute::Bfloat16
    } else {
        ressa_experiment::job::Compute::Float32
    };
    let model = load_blip2(args[1].as_ref(), &LoadOptions { compute, ..LoadOptions::on(Device::Cpu) }).unwrap();
    println!("load {:.1}s peak {:?}", t.elapsed().as_secs_f64(), ressa_runtime::peak_memory_bytes());
    let t = std::time::Instant::now();
    let ids: Vec<i64> = [vec![32100; 32], (5..25).collect()].concat();
    let i = ForwardInputs {
        pixel_values: Tensor::randn([1, 3, 224, 224], (Kind::Float, Device::Cpu)),
        input_ids: Tensor::from_slice(&ids).unsqueeze(0),
        attention_mask: Tensor::ones([1, ids.len() as i64], (Kind::Int64, Device::Cpu)),
        labels: Some(Tensor::from_slice(&[5i64, 6, 7, 8, 9, 1]).unsqueeze(0)),
        qformer_input_ids: Some(Tensor::from_slice(&[101i64, 7, 8, 102]).unsqueeze(0)),
        qformer_attention_mask: None,
    };
    let o = model.forward(&i).unwrap();
    println!(
        "forward {:.1}s loss {:?} peak {:?}",
        t.elapsed().as_secs_f64(),
        o.loss.map(|l| l.double_value(&[])),
        ressa_runtime::peak_memory_bytes()
    );
}
