//! Where models lie on a disk.
//!
//! A *store* is one place that holds models: a Hugging Face hub cache, or a folder of models. This crate is the only
//! one that knows how a store is laid out. It walks a store once, in parallel, with one stat for each entry, and hands
//! back a [`Scan`]: the models found, what else lies there, and a [`Ledger`] that can tell how many bytes the
//! filesystem would get back if a given set of them went.
//!
//! It never prints, never reads the environment or the clock, and never follows a link out of its store. A scan writes nothing;
//! [`Editor`] makes the changes that a plan's steps are, and [`UseLog`] lies in no store.

/// The directory in a store's root that keeps what was taken from the store, until it is emptied. No model lies there.
pub const TRASH: &str = ".mlxman-trash";

mod access;
mod details;
mod edit;
mod extents;
mod filesystem;
mod held;
mod layout;
mod ledger;
mod links;
mod mapped;
mod open_files;
mod problem;
mod safe;
mod scan;
mod share;
mod shared_access;
mod spec;
mod uses;
mod watch;

pub use access::{DirHandle, Entry, EntryKind, Stat};
pub use details::{Details, Listing, ListingFile, LocalDownload, LocalFile};
pub use edit::{Before, Change, Dir, DirAttributes, Editor, LockFile};
pub use filesystem::Filesystem;
pub use held::Held;
pub use layout::{Layout, layout_of};
pub use ledger::{Ledger, OwnerId, Reclaim, Tally};
pub use links::{FileId, LooseLink, StoreLinks, Way, Waypoint, follow};
pub use mapped::mapped;
pub use open_files::OpenFiles;
pub use problem::{Problem, ProblemKind, Severity};
pub use safe::{is_safe_component, is_safe_relative};
pub use scan::{
    Blob, FileEntry, FoundModel, Group, Link, RepoKind, RepoSnapshot, Scan, ScanError, Stray, StrayItem,
    Usage,
};
pub use share::{Extended, GoOn, Sharing, acting_user, same_attributes, same_blocks, same_content};
pub use shared_access::SharedAccess;
pub use spec::{ParseStoreError, Resolved, StoreKind, StoreSpec, resolve};
pub use uses::{Use, UseLog, UsedBy, Uses};
pub use watch::{Late, Progress, watch};
