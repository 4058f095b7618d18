//! Feeds a target and notes what it does not survive.

use std::{
    fs,
    os::unix::fs::FileExt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use rand::{RngExt, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;

use crate::mutate::Form;

/// Half seconds that an input may take, many times what the slowest sound one takes. Counted by looking, so that a machine that stands still
/// or is busy elsewhere does not count.
const LONGEST: u32 = 120;
/// Largest input.
const LARGEST: usize = 1 << 20;
/// Findings after which a target is given up.
const ENOUGH: usize = 20;

/// Takes an input.
pub type Run = Box<dyn FnMut(&[u8])>;

/// What is fed with inputs.
pub struct Target {
    /// How inputs are changed.
    pub form: Form,
    /// Sound inputs.
    pub seeds: Vec<Vec<u8>>,
    /// Takes an input.
    pub run: Run,
}

/// A target with what was found.
pub struct Driver {
    name: &'static str,
    target: Target,
    found: Vec<String>,
    /// The input under way: what is left when the process dies over it.
    last: fs::File,
    last_path: PathBuf,
    /// Number of the input under way; 0 between inputs.
    under_way: Arc<AtomicU64>,
    inputs: u64,
}

/// The time as a seed.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_secs())
}

/// Inputs of a target that were trouble once, with their names.
pub fn corpus(name: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(name);
    let mut files: Vec<PathBuf> = fs::read_dir(folder).into_iter().flatten().map(|item| item.unwrap().path()).collect();
    files.sort();
    files.into_iter().map(|path| (path.display().to_string(), fs::read(&path).unwrap())).collect()
}

/// Whether an input is under way.
static FEEDING: AtomicBool = AtomicBool::new(false);

/// The message of the last panic with its place.
static PANIC: Mutex<String> = Mutex::new(String::new());

impl Driver {
    pub fn new(name: &'static str, target: Target) -> Self {
        std::panic::set_hook(Box::new(|info| {
            // A panic of the fuzzer itself is no finding, and has to be seen.
            if !FEEDING.load(Ordering::Relaxed) {
                eprintln!("{info}");
            }
            *PANIC.lock().unwrap_or_else(PoisonError::into_inner) = info.to_string();
        }));
        let last_path = std::env::temp_dir().join(format!("ressa-fuzz-{name}-{}.input", std::process::id()));
        let last = fs::File::create(&last_path).unwrap();
        let under_way = Arc::new(AtomicU64::new(0));
        let (watched, path) = (Arc::downgrade(&under_way), last_path.clone());
        // An input that never ends would end no test.
        thread::spawn(move || {
            let (mut seen, mut looks) = (0, 0);
            while let Some(now) = watched.upgrade().map(|number| number.load(Ordering::Relaxed)) {
                looks = if now == seen && now > 0 { looks + 1 } else { 0 };
                seen = now;
                if looks > LONGEST {
                    eprintln!("{name}: the input in {} does not end", path.display());
                    std::process::abort();
                }
                thread::sleep(Duration::from_millis(500));
            }
        });
        Self { name, target, found: Vec::new(), last, last_path, under_way, inputs: 0 }
    }

    /// What was found: a line each.
    pub fn findings(&self) -> Vec<String> {
        self.found.clone()
    }

    /// Feeds one input, which is kept under a name if it makes trouble.
    pub fn try_one(&mut self, input: &[u8], name: &str) {
        self.last.set_len(input.len() as u64).unwrap();
        self.last.write_all_at(input, 0).unwrap();
        self.inputs += 1;
        self.under_way.store(self.inputs, Ordering::Relaxed);
        let run = &mut self.target.run;
        FEEDING.store(true, Ordering::Relaxed);
        let outcome = catch_unwind(AssertUnwindSafe(|| run(input)));
        FEEDING.store(false, Ordering::Relaxed);
        self.under_way.store(0, Ordering::Relaxed);
        if outcome.is_err() {
            let message = PANIC.lock().unwrap_or_else(PoisonError::into_inner).replace('\n', " ");
            // One input of each kind is enough.
            if !self.found.iter().any(|found| found.ends_with(&message)) {
                self.found.push(format!("{}: {name}: {message}", self.name));
            }
        }
    }

    /// Feeds a number of changed seeds.
    pub fn run_for(&mut self, inputs: u64, seed: u64) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        for _ in 0..inputs {
            self.step(&mut rng);
        }
    }

    /// Feeds changed seeds for some time. Answers with how many.
    pub fn run_until(&mut self, duration: Duration, seed: u64) -> u64 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let (start, mut inputs) = (Instant::now(), 0);
        while start.elapsed() < duration && self.found.len() < ENOUGH {
            self.step(&mut rng);
            inputs += 1;
        }
        inputs
    }

    fn step(&mut self, rng: &mut ChaCha8Rng) {
        let seeds = &self.target.seeds;
        let mut input = seeds.choose(rng).expect("a target has seeds").clone();
        let other = seeds.choose(rng).expect("a target has seeds").clone();
        for _ in 0..1 << rng.random_range(0..4u32) {
            input = self.target.form.change(&input, &other, rng);
        }
        input.truncate(LARGEST);
        let before = self.found.len();
        let kept = self.last_path.with_extension(format!("{before}"));
        self.try_one(&input, &kept.display().to_string());
        if self.found.len() > before {
            fs::write(&kept, &input).unwrap();
            eprintln!("{}", self.found[before]);
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.last_path);
    }
}
