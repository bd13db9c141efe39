//! See the package's description.

pub mod filter;
