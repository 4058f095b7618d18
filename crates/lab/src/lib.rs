//! Single steps on a model folder: run it, look inside, compare, write it back.
