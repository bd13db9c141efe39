//! See the package's description.

pub mod catalog;
