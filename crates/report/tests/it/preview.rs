use crate::world;
use ressa_experiment::{Experiment, config::Metric};
use std::path::Path;
#[test]
fn preview() {
    let out = Path::new("/tmp/preview2");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../experiments");
    let store = world::store(out);
    let mut all = vec![];
    for n in ["ablations", "methods"] {
        let e = Experiment::load(&root.join(format!("shapes/{n}.yaml")), &root, &[]).unwrap();
        world::fill(&store, &e.cells, |c, t| {
            if n == "methods" && c.run.prune.metric == Metric::Random && (c.seed == 1 || c.run.prune.pattern.to_string() == "2:4") { return None; }
            let r = c.run.prune.vision.sparsity;
            if c.run.prune.metric == Metric::None { return Some(95.0); }
            Some(60.0 + if n == "ablations" && format!("{:?}", c.run.restore.method) != "None" { 20.0 } else { -30.0 * r } + 9.0 * world::noise(&format!("{}{t}", c.run_id)))
        });
        let o = ressa_report::Options { results: out.to_owned(), published: None, strict: false };
        all.push(ressa_report::render(&e, &store, &o).unwrap());
    }
    ressa_report::render_index(out, &all).unwrap();
}
