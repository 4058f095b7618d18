//! Inputs that nobody meant: whatever a file, an override or a worker's line says, the answer is a result or an error, never a panic.
//!
//! Each target feeds the program's own functions, in this process, with changes of sound inputs. `scripts/fuzz.sh --seconds N [TARGET ...]`
//! runs targets for as long as one likes; an input that makes one panic, hang or take the process along is written down. Such inputs are kept
//! in `tests/corpus`, and every run of the tests repeats them, with a few fresh changes of every seed.

// What a fuzzer finds is read by whoever started it.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod driver;
mod json;
mod mutate;
mod targets;

use std::{env, time::Duration};

use driver::{Driver, corpus};
use targets::TARGETS;

/// Fresh changes of each target in an ordinary run of the tests.
const FRESH: u64 = 40;

#[test]
fn inputs_that_once_were_trouble_are_survived() {
    for (name, make) in TARGETS {
        let mut driver = Driver::new(name, make());
        for (file, input) in corpus(name) {
            driver.try_one(&input, &file);
        }
        driver.run_for(FRESH, 1);
        assert_eq!(driver.findings(), Vec::<String>::new(), "{name}");
    }
}

/// For `scripts/fuzz.sh`, which says how long and what.
#[test]
#[ignore = "runs for as long as it is told"]
fn fuzz() {
    let number = |name: &str| env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let wanted = env::var("FUZZ_TARGETS").unwrap_or_default();
    let wanted: Vec<&str> = wanted.split_whitespace().collect();
    let duration = Duration::from_secs(number("FUZZ_SECONDS").unwrap_or(60));
    let seed = number("FUZZ_SEED").unwrap_or_else(driver::now);
    let mut found = Vec::new();
    for (name, make) in TARGETS.iter().filter(|(name, _)| wanted.is_empty() || wanted.contains(name)) {
        let mut driver = Driver::new(name, make());
        for (file, input) in corpus(name) {
            driver.try_one(&input, &file);
        }
        let inputs = driver.run_until(duration, seed);
        println!(
            "{name}: {inputs} inputs in {} s from seed {seed}, {} findings",
            duration.as_secs(),
            driver.findings().len()
        );
        found.extend(driver.findings());
    }
    assert_eq!(found, Vec::<String>::new());
}
