//! Model folders as the hub has them.
