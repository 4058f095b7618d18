use crate::world;
use ressa_experiment::{Cell, Experiment, Task, Tower, config::{Metric, RestoreMethod}};
use std::path::Path;

pub fn score(cell: &Cell, task: Task) -> Option<f64> {
    let dense = match task { Task::Vqav2 => 93.0, Task::Gqa => 84.0, Task::Okvqa => 94.0, Task::Nocaps => 88.0, Task::Flickr30k => 95.0 };
    let p = &cell.run.prune;
    if p.metric == Metric::None { return Some(dense); }
    let (v, l) = (p.tower(Tower::Vision).sparsity, p.tower(Tower::Language).sparsity);
    let k = match p.metric { Metric::Wanda => 1.0, Metric::Magnitude => 1.25, _ => 2.2 };
    let pat = match p.pattern.to_string().as_str() { "2:4" => 1.5, "4:8" => 1.2, _ => 1.0 };
    let harm = |s: f64| (k * pat * s * s * s * 1.3f64).min(1.0);
    let mut keep = (1.0 - harm(v)) * (1.0 - if task.uses_language() { harm(l) * 1.1 } else { 0.0 }).max(0.0);
    let back = match cell.run.restore.method { RestoreMethod::None => 0.0, RestoreMethod::Lora => 0.8, RestoreMethod::LoraRemasked => 0.4, RestoreMethod::SparseLora => if cell.run.restore.distill.weight > 0.0 {0.78} else {0.75} };
    keep += (1.0 - keep) * back;
    Some((dense * keep + 1.5 * world::noise(&format!("{}{task}", cell.run_id))).clamp(0.0, 100.0))
}

#[test]
fn preview() {
    let out = Path::new("/tmp/preview");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../experiments");
    let store = world::store(out);
    let mut all = vec![];
    let names = ["allocation", "towers", "methods", "restoration"];
    let exps: Vec<_> = names.iter().map(|n| Experiment::load(&root.join(format!("shapes/{n}.yaml")), &root, &[]).unwrap_or_else(|e| panic!("{e:?}"))).collect();
    for e in &exps { world::fill(&store, &e.cells, |c, t| score(c, t)); }
    let t = std::time::Instant::now();
    for e in &exps {
        let o = ressa_report::Options { results: out.to_owned(), published: Some(root.join("paper/expected.csv")), strict: false };
        let t = std::time::Instant::now();
        all.push(ressa_report::render(e, &store, &o).unwrap());
        eprintln!("{} {:?}", e.name, t.elapsed());
    }
    ressa_report::render_index(out, &all).unwrap();
    eprintln!("all {:?}", t.elapsed());
}
