//! Single steps on model folders.

mod random;
