//! Whether the weights of a folder are what someone says they are: its own certificate, or claims on the command line.

use std::collections::{BTreeMap, BTreeSet};

use ressa_experiment::{Pattern, Tower};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::{
    Checkpoint, Entry, File, FolderCertificate,
    certificate::{examine, hex},
    names::counted_in,
    scan::{Counts, crowded_groups, is_counted},
};

/// What is claimed beside the folder's own certificate.
#[derive(Clone, Debug, Default)]
pub struct Claims {
    /// N:M pattern of every prunable linear.
    pub pattern: Option<Pattern>,
    /// Least fraction of zeros in a tower. Each row of a matrix may have rounded its share down.
    pub sparsity: Option<f64>,
    /// Towers that the two speak of; all that are there when empty.
    pub towers: Vec<Tower>,
}

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub struct Verification {
    /// Whether the folder has a certificate of its own.
    pub certificate: bool,
    /// Prunable weights by tower.
    pub towers: BTreeMap<Tower, TowerFound>,
    /// Prunable linears, and every other tensor in which something is wrong.
    pub tensors: Vec<TensorFound>,
    /// What does not hold beyond single tensors.
    pub violations: Vec<String>,
}

/// Prunable weights of a tower.
#[derive(Clone, Debug, Default, Serialize)]
pub struct TowerFound {
    /// Prunable linears.
    pub linears: u64,
    /// Zeros.
    pub zeros: u64,
    /// Weights.
    pub elements: u64,
    /// Zeros as a fraction.
    pub sparsity: f64,
    /// The pattern that every linear follows.
    pub pattern: Option<Pattern>,
    /// Rows of the matrices.
    #[serde(skip)]
    rows: u64,
    #[serde(skip)]
    patterns: BTreeSet<Option<Pattern>>,
}

/// One tensor.
#[derive(Clone, Debug, Serialize)]
pub struct TensorFound {
    /// Its name.
    pub name: String,
    /// Its tower, for a prunable linear.
    pub tower: Option<Tower>,
    /// Elements.
    pub elements: u64,
    /// Zeros of either sign.
    pub zeros: u64,
    /// Infinities and NaNs.
    pub non_finite: u64,
    /// The pattern that was found.
    pub pattern: Option<Pattern>,
    /// Groups that hold more than the claimed pattern allows.
    pub crowded_groups: u64,
    /// What does not hold.
    pub violations: Vec<String>,
}

impl Verification {
    /// Whether everything holds.
    pub fn holds(&self) -> bool {
        self.violations.is_empty() && self.tensors.iter().all(|tensor| tensor.violations.is_empty())
    }
}

/// Recounts the weights of a folder and compares them with every claim.
pub fn verify(checkpoint: &Checkpoint, own: Option<&FolderCertificate>, claims: &Claims) -> Verification {
    let tensors: Vec<(&File, &Entry)> = checkpoint.tensors().collect();
    let examined = examine(&tensors, own.is_some());
    let mut found = Verification {
        certificate: own.is_some(),
        towers: BTreeMap::new(),
        tensors: Vec::new(),
        violations: Vec::new(),
    };
    let is_spoken_of = |tower: Tower| claims.towers.is_empty() || claims.towers.contains(&tower);
    for ((file, entry), (counts, digest)) in tensors.iter().zip(examined) {
        let tower = counted_in(&entry.name, &entry.shape, own.is_some_and(|own| own.projection));
        let counts = counts.unwrap_or_default();
        let mut tensor = describe(entry, tower, &counts);
        let pattern = claims.pattern.filter(|_| tower.is_some_and(is_spoken_of));
        tensor.check_pattern(file, entry, pattern);
        if let Some(own) = own {
            tensor.check_own(file, entry, own, &digest);
        }
        if let Some(tower) = tower {
            found.towers.entry(tower).or_default().add(entry, &tensor);
        }
        if tower.is_some() || !tensor.violations.is_empty() {
            found.tensors.push(tensor);
        }
    }
    if let Some(container) = own.and_then(|own| own.container.as_ref()) {
        for (name, claim) in &container.sha256 {
            let is_named = |file: &&File| file.path().file_name().is_some_and(|found| found.to_string_lossy() == *name);
            let digest = checkpoint.files().iter().find(is_named).map(|file| hex(&Sha256::digest(file.stored())));
            if digest.as_ref() != Some(claim) {
                let what = if digest.is_none() { "is not there" } else { "has other bytes than the certificate says" };
                found.violations.push(format!("`{name}` {what}"));
            }
        }
    }
    if let Some(own) = own {
        let lost = own.tensors.keys().filter(|name| checkpoint.get(name).is_none());
        found.violations.extend(lost.map(|name| format!("the certificate names `{name}`, which is not there")));
        for (tower, claim) in &own.towers {
            let sums = found.towers.get(tower).map_or((0, 0), |sums| (sums.zeros, sums.elements));
            if sums != (claim.zeros, claim.elements) {
                let (zeros, elements) = sums;
                found.violations.push(format!(
                    "tower `{tower}`: {zeros} of {elements} weights are zero, the certificate says {} of {}",
                    claim.zeros, claim.elements
                ));
            }
        }
    }
    found.check_sparsity(claims);
    found
}

fn describe(entry: &Entry, tower: Option<Tower>, counts: &Counts) -> TensorFound {
    let mut violations = Vec::new();
    if counts.non_finite > 0 {
        violations.push(format!("{} values are not finite", counts.non_finite));
    }
    TensorFound {
        name: entry.name.clone(),
        tower,
        elements: entry.elements() as u64,
        zeros: counts.zeros,
        non_finite: counts.non_finite,
        pattern: tower.and_then(|_| counts.pattern(entry.shape[1])),
        crowded_groups: 0,
        violations,
    }
}

impl TensorFound {
    fn check_pattern(&mut self, file: &File, entry: &Entry, pattern: Option<Pattern>) {
        let Some(Pattern::NOfM { keep, of }) = pattern else { return };
        if !is_counted(entry.dtype) {
            self.violations.push(format!("its type {} cannot be counted", entry.dtype));
            return;
        }
        self.crowded_groups = crowded_groups(file, entry, keep, of);
        if self.crowded_groups > 0 {
            self.violations.push(format!("{} groups hold more than {keep}:{of} allows", self.crowded_groups));
        }
    }

    fn check_own(&mut self, file: &File, entry: &Entry, own: &FolderCertificate, digest: &str) {
        let Some(claim) = own.tensors.get(&entry.name) else {
            self.violations.push("the certificate does not name it".to_owned());
            return;
        };
        if (claim.dtype.as_str(), &claim.shape) != (entry.dtype.to_string().as_str(), &entry.shape) {
            let (dtype, shape) = (&entry.dtype, &entry.shape);
            let says = format!("{} {:?}", claim.dtype, claim.shape);
            self.violations.push(format!("it is {dtype} {shape:?}, the certificate says {says}"));
            return;
        }
        if let Some(zeros) = claim.zeros.filter(|&zeros| zeros != self.zeros) {
            self.violations.push(format!("{} values are zero, the certificate says {zeros}", self.zeros));
        }
        if claim.blake3 != digest {
            self.violations.push("its bytes are not those of the certificate".to_owned());
            // Bytes that are the same follow the same pattern.
            if self.violations.iter().all(|violation| !violation.contains("groups hold")) {
                self.check_pattern(file, entry, claim.pattern);
            }
        }
    }
}

impl TowerFound {
    fn add(&mut self, entry: &Entry, tensor: &TensorFound) {
        self.linears += 1;
        self.rows += entry.shape[0] as u64;
        self.zeros += tensor.zeros;
        self.elements += tensor.elements;
        self.sparsity = self.zeros as f64 / self.elements.max(1) as f64;
        self.patterns.insert(tensor.pattern);
        self.pattern = if self.patterns.len() == 1 { self.patterns.first().copied().flatten() } else { None };
    }
}

impl Verification {
    fn check_sparsity(&mut self, claims: &Claims) {
        for &tower in &claims.towers {
            if !self.towers.contains_key(&tower) {
                self.violations.push(format!("there is no tower `{tower}`"));
            }
        }
        let Some(least) = claims.sparsity else { return };
        for (tower, sums) in &self.towers {
            let is_spoken_of = claims.towers.is_empty() || claims.towers.contains(tower);
            if is_spoken_of && ((sums.zeros + sums.rows) as f64) < least * sums.elements as f64 {
                let (zeros, elements) = (sums.zeros, sums.elements);
                let message = format!("{zeros} of {elements} weights are zero, fewer than a share of {least}");
                self.violations.push(format!("tower `{tower}`: {message}"));
            }
        }
    }
}
