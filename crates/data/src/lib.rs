//! Benchmarks and corpora as typed samples with fixed splits, and the preprocessing that makes batches of them.
