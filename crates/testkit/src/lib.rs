//! Tolerant tensor assertions, golden files, tidy checks.
