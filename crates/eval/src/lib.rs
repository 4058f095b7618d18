//! Score a model on a benchmark exactly as the benchmark's authors do.
