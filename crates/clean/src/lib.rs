//! What could be removed, and why: filters over manifests, and plans.
//!
//! A [`Plan`] is built from a [`Survey`](mlxman_manifest::registry::Survey) by [`preview`]; it names every file it
//! would remove and what the filesystem would get back. [`apply()`] moves exactly that into the store's [`Trash`], from which
//! it can be put back until it is emptied.

mod apply;
mod dedupe;
mod facts;
pub mod filter;
mod guards;
mod items;
mod plan;
mod preview;
mod reach;
mod replaced;
mod trash;

pub use apply::{
    Applied, AppliedStore, ApplyError, Only, PlanError, Skipped, Watched, applied_schema, apply, trash_dir,
};
pub use dedupe::{
    Applying, DuplicateCopy, DuplicateGroup, Duplicates, EqualFile, Finding, HashCache, How, LeftFile,
    MIN_SIZE, apply_dedupe, duplicates_schema, find_duplicates,
};
pub use facts::facts_of;
pub use plan::{Candidate, Item, ItemKind, Keep, Kept, Plan, PlanStore, Rule, SharedItem, plan_schema};
pub use preview::{Asked, PinnedElsewhere, preview};
pub use trash::{
    Action, DirTimes, Freed, Journal, JournalError, JournalRow, OpenError, Purpose, Recovered, Seen, State,
    Step, Trash, TrashEntry, TrashListing, UndoReport, Undone, journal_schema, list as list_trash,
};
