//! The source tree keeps its own rules.

mod assertions;
mod tidy;
