//! Memory exhaustion: tried again once with less at a time.

use ressa_experiment::search::SHRINK;

use crate::PipelineError;

/// Runs `work` with `rows` rows at once, and once more with an eighth of them if memory runs out. How much is computed at once must
/// change memory and time only.
pub(crate) fn retry_smaller<T>(
    rows: usize,
    mut work: impl FnMut(usize) -> Result<T, PipelineError>,
) -> Result<T, PipelineError> {
    match ressa_runtime::unless_out_of_memory(|| work(rows)) {
        Some(done) => done,
        None => work((rows / SHRINK).max(1)),
    }
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use super::*;

    const FULL: &str = "DefaultCPUAllocator: can't allocate memory";

    /// Succeeds with 16 rows or fewer; otherwise fails as `fail` does.
    fn attempt(fail: impl Fn() -> Result<usize, PipelineError>) -> (Result<usize, PipelineError>, Vec<usize>) {
        let mut seen = Vec::new();
        let done = retry_smaller(128, |rows| {
            seen.push(rows);
            if rows <= 16 { Ok(rows) } else { fail() }
        });
        (done, seen)
    }

    #[test]
    fn exhausted_memory_is_tried_once_more_with_fewer_rows() {
        for (done, seen) in [
            attempt(|| Err(ressa_eval::EvalError::Tensor(FULL.to_owned()).into())),
            attempt(|| panic!("called `Result::unwrap()` on an `Err` value: Torch(\"{FULL}\")")),
        ] {
            assert_eq!((done.unwrap(), seen), (16, vec![128, 16]));
        }
        let mut attempts = 0;
        let lasting = retry_smaller(128, |_| {
            attempts += 1;
            Err::<(), _>(ressa_eval::EvalError::Tensor(FULL.to_owned()).into())
        });
        assert!(attempts == 2 && lasting.unwrap_err().is_out_of_memory());
    }

    #[test]
    fn other_failures_are_not_tried_again() {
        let (done, seen) = attempt(|| Err(PipelineError::Unsupported("no".to_owned())));
        assert!(done.is_err() && seen == [128]);
        let panic = catch_unwind(|| attempt(|| panic!("a defect"))).unwrap_err();
        assert_eq!(ressa_runtime::panic_message(&*panic), "a defect");
    }
}
