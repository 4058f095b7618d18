//! Execute a plan with worker processes, resumably.
