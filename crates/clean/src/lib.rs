//! What could be removed, and why: filters over manifests, and plans.
//!
//! A [`Plan`] is built from a [`Survey`](mlxman_manifest::registry::Survey) by [`preview`]; it names every file it
//! would remove and what the filesystem would get back. Nothing here touches a store.

mod facts;
pub mod filter;
mod guards;
mod items;
mod plan;
mod preview;
mod reach;
mod replaced;

pub use facts::facts_of;
pub use plan::{Candidate, Item, ItemKind, Keep, Kept, Plan, PlanStore, Rule, SharedItem, plan_schema};
pub use preview::{Asked, PinnedElsewhere, preview};
