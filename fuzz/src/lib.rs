//! Fuzz targets for every parser that reads a file mlxman did not write, and a driver for them on stable Rust.
//!
//! A target is a module of [`targets`] with a `run` and its `seeds`, and a line in the table there. The seeds lie in
//! `corpus/<target>/`, written by `mlxman-fuzz --write-seeds`; the driver mutates them, and so does cargo-fuzz, for
//! which `fuzz_targets/` holds an entry point each.

pub mod corpus;
pub mod mutate;
pub mod targets;
