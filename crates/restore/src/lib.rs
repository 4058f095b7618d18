//! Recover what pruning cost without reviving a single pruned weight.
