//! What could be removed, and why: filters over manifests, policies, and plans.
//!
//! A [`Plan`] is built from a [`Survey`](mlxman_manifest::registry::Survey) by [`preview`]; it names every file it
//! would remove and what the filesystem would get back. [`apply()`] moves exactly that into the store's [`Trash`], from which
//! it can be put back until it is emptied.

mod apply;
mod cache;
mod dedupe;
mod facts;
pub mod filter;
mod grace;
mod guards;
mod irreplaceable;
mod items;
mod pins;
mod plan;
mod policy;
mod preview;
mod reach;
mod repair;
mod replaced;
mod trash;

pub use apply::{
    Applied, AppliedStore, ApplyError, Only, PlanError, Skipped, Watched, applied_schema, apply, trash_dir,
};
pub use cache::{
    HubCache, HubLeftover, HubRepo, HubReport, HubRevision, LeftoverKind, Measured, XetCache, hub_schema,
    measure,
};
pub use dedupe::{
    Applying, DuplicateCopy, DuplicateGroup, Duplicates, EqualFile, HashCache, How, LeftFile, MIN_SIZE,
    Search, apply_dedupe, duplicates_schema, find_duplicates,
};
pub use facts::facts_of;
pub use plan::{
    Candidate, Item, ItemKind, Keep, Kept, Plan, PlanStore, Reason, Rule, SharedItem, Shortfall, plan_schema,
};
pub use policy::{
    Explanation, GuardAnswer, Outcome, Policies, PolicyAnswer, PolicyArgs, PolicyError, explain,
    explain_schema,
};
pub use preview::{Asked, PinnedElsewhere, preview};
pub use repair::{
    Content, Finding, Repair, RepairChange, RepairKind, RepairStore, Repairs, RepairsAsked, mend, quoted,
    repairs_schema,
};
pub use trash::{
    Action, DirTimes, Freed, Journal, JournalError, JournalRow, OpenError, Purpose, Recovered, Run, Seen,
    State, Step, Trash, TrashEntry, TrashListing, UndoReport, Undone, journal_schema, list as list_trash,
};
