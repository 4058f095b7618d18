//! Results computed ahead of their use, on a thread of their own.

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc,
        mpsc::{Receiver, sync_channel},
    },
    thread::{self, JoinHandle},
};

/// Numbered results that follow from their number alone, at most `depth` of them computed before they are asked for.
///
/// Which thread computes a result does not change it. An error arrives where its result was asked for, and so does a panic (libtorch
/// reports exhausted memory by one). Asking out of order starts over at the number asked for.
pub struct Ahead<T> {
    make: Arc<dyn Fn(usize) -> T + Send + Sync>,
    count: usize,
    depth: usize,
    running: Option<Running<T>>,
}

/// A thread that computes the results from `next` on.
struct Running<T> {
    next: usize,
    /// Taken to tell the thread that nobody waits any longer.
    results: Option<Receiver<thread::Result<T>>>,
    thread: Option<JoinHandle<()>>,
}

impl<T: Send + 'static> Ahead<T> {
    /// Results `0..count` of `make`. A `depth` of 0 computes each when it is asked for, without a thread.
    pub fn new(count: usize, depth: usize, make: impl Fn(usize) -> T + Send + Sync + 'static) -> Self {
        Self { make: Arc::new(make), count, depth, running: None }
    }

    /// The result of a number.
    pub fn get(&mut self, number: usize) -> T {
        if self.depth == 0 {
            return (self.make)(number);
        }
        let known = self.running.take().filter(|running| running.next == number);
        let Some(mut running) = known.or_else(|| self.start(number)) else {
            return (self.make)(number);
        };
        let received = running.results.as_ref().and_then(|results| results.recv().ok());
        match received {
            Some(Ok(result)) => {
                running.next += 1;
                self.running = Some(running);
                result
            }
            Some(Err(panic)) => resume_unwind(panic),
            None => (self.make)(number), // a number beyond the last
        }
    }

    /// Starts a thread; `None` where the system has none left.
    fn start(&self, first: usize) -> Option<Running<T>> {
        // One more result is finished while it waits for room.
        let (sender, results) = sync_channel(self.depth - 1);
        let (make, count) = (Arc::clone(&self.make), self.count);
        let work = move || {
            for number in first..count {
                let result = catch_unwind(AssertUnwindSafe(|| make(number)));
                let last = result.is_err();
                if sender.send(result).is_err() || last {
                    return;
                }
            }
        };
        let thread = thread::Builder::new().name("loader".to_owned()).spawn(work).ok()?;
        Some(Running { next: first, results: Some(results), thread: Some(thread) })
    }
}

impl<T> Drop for Running<T> {
    /// Waits for the result that is being computed, so that no thread outlives its stage.
    fn drop(&mut self) {
        self.results = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn squares(depth: usize) -> Ahead<Result<usize, String>> {
        Ahead::new(10, depth, |number| if number == 6 { Err("six".to_owned()) } else { Ok(number * number) })
    }

    #[test]
    fn results_and_errors_arrive_in_order_at_any_depth() {
        let expected: Vec<_> = (0..10).map(|number| squares(0).get(number)).collect();
        assert_eq!(expected[6], Err("six".to_owned()));
        for depth in 1..4 {
            let mut ahead = squares(depth);
            assert_eq!((0..10).map(|number| ahead.get(number)).collect::<Vec<_>>(), expected);
            // Out of order, again, and beyond the end.
            assert_eq!([3, 3, 4, 9, 11].map(|number| ahead.get(number)), [3, 3, 4, 9, 11].map(|n| Ok(n * n)));
        }
    }

    #[test]
    fn no_more_than_the_depth_is_computed_ahead() {
        for depth in 1..4 {
            let made = Arc::new(AtomicUsize::new(0));
            let counted = Arc::clone(&made);
            let mut ahead = Ahead::new(100, depth, move |number| {
                counted.fetch_add(1, Ordering::SeqCst);
                number
            });
            for number in 0..50 {
                assert_eq!(ahead.get(number), number);
                assert!(made.load(Ordering::SeqCst) <= number + 1 + depth);
            }
            drop(ahead);
            assert!(made.load(Ordering::SeqCst) <= 50 + depth, "nothing is computed after the end");
        }
    }

    #[test]
    fn a_panic_arrives_where_it_belongs_and_can_be_tried_again() {
        let attempts = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&attempts);
        let mut ahead = Ahead::new(5, 2, move |number| {
            assert!(number != 3 || counted.fetch_add(1, Ordering::SeqCst) > 0, "out of memory");
            number
        });
        assert_eq!([0, 1, 2].map(|number| ahead.get(number)), [0, 1, 2]);
        let panic = catch_unwind(AssertUnwindSafe(|| ahead.get(3))).unwrap_err();
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"out of memory"));
        assert_eq!([3, 4].map(|number| ahead.get(number)), [3, 4]);
    }
}
