//! Verifying models: does each one load and generate, and how fast.
//!
//! Nothing here links MLX: a model is loaded by a worker, a process of its own, so that whatever happens to it is that
//! model's result and never the end of the run.

pub mod protocol;
