//! Arithmetic that the processor of this machine does not have.

use std::collections::BTreeSet;

use ressa_experiment::job::Compute;
use ressa_sweep::{Graph, Inventory};

use super::Preflight;

/// Whether libtorch multiplies matrices in two bytes at the speed of float32, or near it. Without AVX-512 (on ARM, without its own
/// instructions for bfloat16) it goes element by element: 6 to 9 times slower than float32 on an AMD EPYC with AVX2 alone.
pub(super) fn is_fast_in_two_bytes() -> bool {
    #[cfg(target_arch = "x86_64")]
    return is_x86_feature_detected!("avx512bw");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("bf16");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    true
}

/// Notes what the stages that are still to be made would compute slowly on a processor that `is_fast`, or is not.
pub(super) fn look(graph: &Graph, inventory: &Inventory, is_fast: bool, found: &mut Preflight) {
    if is_fast {
        return;
    }
    let open = graph.stages.iter().zip(&inventory.present).filter(|(_, present)| !**present);
    let slow: BTreeSet<&str> = open
        .filter_map(|(stage, _)| stage.node.stage.compute())
        .filter(|compute| *compute != Compute::Float32)
        .map(Compute::name)
        .collect();
    for compute in slow {
        found.note(
            "model.compute",
            format!(
                "this processor has no instructions for {compute}, so libtorch is several times slower with it than with float32; where it is \
                 the hours that count, set `model.compute=float32` (other numbers, results of its own)"
            ),
        );
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use ressa_experiment::Experiment;

    use super::*;

    #[test]
    fn what_a_processor_is_slow_at_is_said_of_stages_that_are_to_be_made() {
        let told = |compute: &str, is_fast: bool, present: bool| {
            let experiments = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../experiments");
            let file = experiments.join("shapes/smoke.yaml");
            let experiment = Experiment::load(&file, &experiments, &[format!("model.compute={compute}")]).unwrap();
            let graph = Graph::of([&experiment], true);
            let inventory = Inventory { present: vec![present; graph.stages.len()], damaged: Vec::new() };
            let mut found = Preflight::default();
            look(&graph, &inventory, is_fast, &mut found);
            found.notes.into_iter().map(|note| note.what).collect::<Vec<_>>()
        };
        assert!(told("bfloat16", false, false)[0].contains("no instructions for bfloat16"));
        assert_eq!(told("bfloat16", true, false), [""; 0]);
        assert_eq!(told("bfloat16", false, true), [""; 0]);
        assert_eq!(told("float32", false, false), [""; 0]);
    }
}
