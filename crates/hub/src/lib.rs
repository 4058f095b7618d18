//! Checkpoints from the Hugging Face hub, into the cache that its other clients use.
