//! The one filter set that every command shares: which models does the user mean?
//!
//! A [`FilterSet`] is built from the plain strings of [`FilterArgs`] and asked about [`Facts`], what is known of one
//! model. It knows nothing of manifests or stores. Every kind of filter that was given must hold; of several values
//! of one kind, any one is enough.
//!
//! What is not known matches nothing: `context<8k` and `context!=8k` both leave out a model whose context length is
//! not known. Only `context=unknown` finds it.

mod error;
mod expr;
mod fields;
mod label;
mod near;
mod pattern;
pub mod quantity;
mod read;
mod set;

pub use error::{FilterError, FilterErrorKind};
pub use expr::{Expr, Op};
pub use fields::{Facts, Field, Kind, Value, field, fields};
pub use label::normalize_quantization;
pub use near::{NearMiss, near_misses, nearest};
pub use read::parse_exprs;
pub use set::{FilterArgs, FilterSet};

#[cfg(test)]
mod tests;
