//! One of several equal shares of the runs, for machines that divide an experiment among themselves: `--partition 2/8`.

use std::{fmt, str::FromStr};

/// Maximum number of parts.
const MOST: u32 = 100_000;

/// A part of the runs: those whose identity falls into it. It follows from the run alone, so a run stays in its part when the grid grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Which part, counted from 1.
    part: u32,
    /// How many there are.
    of: u32,
}

impl Partition {
    /// Whether a run, by its identity of hexadecimal digits, belongs to the part.
    pub fn contains(self, run: &str) -> bool {
        let digits = run.bytes().take(16).filter_map(|digit| (digit as char).to_digit(16));
        let number = digits.fold(0, |number: u64, digit| number << 4 | u64::from(digit));
        number % u64::from(self.of) == u64::from(self.part - 1)
    }
}

impl FromStr for Partition {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text.split_once('/').and_then(|(part, of)| Some((part.parse().ok()?, of.parse().ok()?)));
        match numbers {
            Some((part, of)) if (1..=MOST).contains(&of) && (1..=of).contains(&part) => Ok(Self { part, of }),
            _ => Err(format!("`{text}` is not a part such as 2/8: the second of eight, counted from 1")),
        }
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.part, self.of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs() -> Vec<String> {
        (0..4000_u32).map(|n| blake3::hash(&n.to_le_bytes()).to_hex().to_string()).collect()
    }

    #[test]
    fn every_run_is_in_exactly_one_part_and_parts_are_alike() {
        for of in [1, 2, 7, 8] {
            let parts: Vec<Partition> = (1..=of).map(|part| format!("{part}/{of}").parse().unwrap()).collect();
            let mut sizes = vec![0_usize; parts.len()];
            for run in runs() {
                let within: Vec<usize> = (0..parts.len()).filter(|&at| parts[at].contains(&run)).collect();
                assert_eq!(within.len(), 1, "{run} of {of}");
                sizes[within[0]] += 1;
            }
            let expected = runs().len() / parts.len();
            assert!(sizes.iter().all(|size| size.abs_diff(expected) < expected / 4), "{sizes:?}");
        }
    }

    #[test]
    fn parts_are_written_as_fractions() {
        assert_eq!("2/8".parse::<Partition>().unwrap().to_string(), "2/8");
        for wrong in ["", "2", "0/8", "9/8", "1/0", "-1/2", "1/2/3", "a/b", "1/100001", " 1/2"] {
            assert!(wrong.parse::<Partition>().is_err(), "{wrong}");
        }
    }
}
