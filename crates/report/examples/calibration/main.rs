//! How often a claim is decided although nothing is there to decide: false verdicts against their stated rates, by simulation.
//!
//! `cargo run --release -p ressa-report --example calibration [REPETITIONS]` draws worlds in which the two sides of a claim score the same
//! (or differ by exactly what is tolerated), takes measurements as a sweep would, and prints how often the rule of this version and the
//! one before it say *holds* and *does not hold*. Each may happen in 2.5 % of the repetitions.
#![allow(clippy::print_stdout, reason = "an example prints what it finds")]

mod before;
mod world;

use ressa_report::{
    Verdict,
    claim::{greater, peak},
    evidence::Difference,
};

use world::{Design, Run};

/// Score of all sides, in points.
const SCORE: f64 = 60.0;
/// Points that a near-optimal label may lie below the best.
const TOLERANCE: f64 = 2.0;

/// How often a rule said holds and does not hold.
#[derive(Clone, Copy, Default)]
struct Counts {
    holds: usize,
    fails: usize,
}

impl Counts {
    fn add(&mut self, verdict: Verdict) {
        self.holds += usize::from(verdict == Verdict::Holds);
        self.fails += usize::from(verdict == Verdict::DoesNotHold);
    }
}

fn main() {
    let repetitions = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(2000);
    println!("{repetitions} repetitions; each rate may be 2.5 %, and is known to {:.1} %", error(repetitions));

    heading("`greater`, no true difference: both verdicts are false");
    let equal = |labels: usize| vec![(SCORE, SCORE); labels];
    for design in designs() {
        let scores = equal(design.labels);
        run(&design, repetitions, &|design, seed| compare(design, &scores, seed));
    }

    heading("`peak`, all labels equal, tolerance 0: \"does not hold\" is false");
    for design in designs().into_iter().filter(|design| design.labels > 1) {
        let scores = vec![SCORE; design.labels];
        run(&design, repetitions, &|design, seed| lead(design, &scores, 0.0, seed));
    }

    heading("`peak`, one label is better by the tolerance of 2 and hardly more: \"holds\" is false");
    for design in designs().into_iter().filter(|design| design.labels > 1) {
        let mut scores = vec![SCORE; design.labels];
        scores[1] += TOLERANCE;
        run(&design, repetitions, &|design, seed| lead(design, &scores, TOLERANCE, seed));
    }

    heading("`greater`, true difference of 6 points: \"holds\" is right");
    for design in designs() {
        let scores = vec![(SCORE + 6.0, SCORE); design.labels];
        run(&design, repetitions, &|design, seed| compare(design, &scores, seed));
    }
}

fn designs() -> Vec<Design> {
    let plain =
        Design { name: "", labels: 1, seeds: 3, items: 1000, common: 0.6, own: 0.2, seed_std: 0.05, cluster: 1 };
    let mut designs = Vec::new();
    for labels in [1, 7] {
        for items in [200, 1000] {
            for seeds in [1, 3, 5] {
                // A single seed can only speak for itself: no other is meant.
                let seed_std = if seeds == 1 { 0.0 } else { plain.seed_std };
                designs.push(Design { labels, items, seeds, seed_std, ..plain });
            }
        }
    }
    // One seed taken for all seeds, which is why such verdicts name it: what other seeds would do is not covered.
    designs.push(Design { name: "seeds differ, one is taken", seeds: 1, ..plain });
    for labels in [1, 7] {
        let varied = |name, design: Design| Design { name, labels, ..design };
        designs.push(varied("items in common 95 %", Design { common: 0.9, own: 0.05, ..plain }));
        designs.push(varied("seeds change nothing", Design { common: 0.6, own: 0.4, seed_std: 0.0, ..plain }));
        designs.push(varied("seeds differ widely", Design { seed_std: 0.2, ..plain }));
        designs.push(varied("4 questions an image", Design { cluster: 4, ..plain }));
    }
    designs
}

fn heading(text: &str) {
    println!("\n{text}");
    println!("| labels | seeds | items | | holds, before | now | does not hold, before | now |");
    println!("| ---: | ---: | ---: | --- | ---: | ---: | ---: | ---: |");
}

/// Prints a line of rates of the verdicts before and now. Repetitions are divided among the processors; each has its own stream of numbers, so the line is always the same.
fn run(design: &Design, repetitions: usize, trial: &(dyn Fn(&Design, u64) -> (Verdict, Verdict) + Sync)) {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let parts: Vec<(Counts, Counts)> = std::thread::scope(|scope| {
        let started: Vec<_> = (0..threads)
            .map(|thread| {
                scope.spawn(move || {
                    let (mut before, mut now) = (Counts::default(), Counts::default());
                    for repetition in (thread..repetitions).step_by(threads) {
                        let verdicts = trial(design, repetition as u64);
                        before.add(verdicts.0);
                        now.add(verdicts.1);
                    }
                    (before, now)
                })
            })
            .collect();
        started.into_iter().filter_map(|thread| thread.join().ok()).collect()
    });
    let rate = |of: fn(&(Counts, Counts)) -> usize| {
        format!("{:.1} %", 100.0 * parts.iter().map(of).sum::<usize>() as f64 / repetitions as f64)
    };
    println!(
        "| {} | {} | {} | {} | {} | {} | {} | {} |",
        design.labels,
        design.seeds,
        design.items,
        design.name,
        rate(|p| p.0.holds),
        rate(|p| p.1.holds),
        rate(|p| p.0.fails),
        rate(|p| p.1.fails)
    );
}

/// `greater`: the two sides at each label.
fn compare(design: &Design, scores: &[(f64, f64)], seed: u64) -> (Verdict, Verdict) {
    let sides: Vec<f64> = scores.iter().flat_map(|(a, b)| [*a, *b]).collect();
    let runs = design.draw(&sides, seed);
    let pairs: Vec<(&[Run], &[Run])> = runs.chunks(2).map(|pair| (pair[0].as_slice(), pair[1].as_slice())).collect();
    let differences: Vec<Difference> = pairs.iter().map(|(a, b)| design.difference(a, b)).collect();
    let all: Vec<Option<&Difference>> = differences.iter().map(Some).collect();
    let mean = |side: usize| design.mean(&runs.iter().skip(side).step_by(2).map(Vec::as_slice).collect::<Vec<_>>());
    let balance = design.difference(&mean(0), &mean(1));
    (before::greater(&pairs), greater::decide(&all, Some(&balance)).verdict)
}

/// `peak`: each other label against the first.
fn lead(design: &Design, scores: &[f64], tolerance: f64, seed: u64) -> (Verdict, Verdict) {
    let runs = design.draw(scores, seed);
    let leads: Vec<Difference> = runs[1..].iter().map(|other| design.difference(other, &runs[0])).collect();
    let pairs: Vec<(&[Run], &[Run])> = runs[1..].iter().map(|other| (other.as_slice(), runs[0].as_slice())).collect();
    let all: Vec<Option<&Difference>> = leads.iter().map(Some).collect();
    (before::peak(&pairs, tolerance), peak::decide(&all, tolerance).verdict)
}

/// Twice the standard error of a rate of 2.5 %, in percent.
fn error(repetitions: usize) -> f64 {
    200.0 * (0.025f64 * 0.975 / repetitions as f64).sqrt()
}
