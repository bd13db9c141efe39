//! What is told of a trash: what lies in it, what came of an undo or a recovery, and why something cannot be done.

use std::io;

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::empty::Freed;
use super::journal::{JournalRow, Purpose, State, TRASH};

/// What was done about a journal that somebody could not end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct Recovered {
    /// The store, as `KIND=PATH`.
    pub store: String,
    /// The journal.
    pub id: String,
    /// What was done, in words.
    pub done: String,
    /// What could not be put back, and why; it stays in the trash.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stuck: Vec<String>,
}

/// One journal of a trash.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct TrashEntry {
    /// The store, as `KIND=PATH`.
    pub store: String,
    /// The journal's name, for `undo`.
    pub id: String,
    /// When it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<DateTime<Utc>>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purpose: Option<Purpose>,
    /// How far it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,
    /// Whether another user wrote it: it is put back only when it is named.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub foreign: bool,
    /// What lies in it.
    pub rows: Vec<JournalRow>,
    /// Things that are kept.
    pub items: u64,
    /// What the filesystem gets back when it is emptied.
    pub reclaimable_bytes: u64,
    /// Why it cannot be read; it is left alone then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// What came of an undo.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct Undone {
    /// The store, as `KIND=PATH`.
    pub store: String,
    /// The journal.
    pub id: String,
    /// The rows that were put back.
    pub rows: Vec<JournalRow>,
    /// Files and links that left the trash.
    #[serde(default)]
    pub items: u64,
    /// What could not be put back, and why.
    pub stuck: Vec<String>,
    /// Whether something of it is still kept, to be put back another time.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub kept: bool,
}

/// What `trash list` and `trash empty` print.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "mlxman trash")]
#[non_exhaustive]
pub struct TrashListing {
    /// What is kept, oldest first.
    pub entries: Vec<TrashEntry>,
    /// What was freed for good.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub freed: Vec<Freed>,
    /// What the filesystems got back.
    pub freed_bytes: u64,
    /// What they got back besides: the journals themselves, with their directories.
    #[serde(default)]
    pub journal_bytes: u64,
    /// What they get back when the rest is emptied.
    pub reclaimable_bytes: u64,
    /// What went wrong.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
}

/// What `undo` prints.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "mlxman undo")]
#[non_exhaustive]
pub struct UndoReport {
    /// What was put back, by store.
    pub undone: Vec<Undone>,
    /// What went wrong.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
}

/// What keeps a trash from being opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Somebody else changes the store just now.
    #[error("another mlxman changes {store} just now; try again when it is done")]
    Busy {
        /// The store.
        store: String,
    },
    /// The system said no.
    #[error(
        "the trash of {store} cannot be used: {source}; is {TRASH} in it a directory that you may write to?"
    )]
    System {
        /// The store.
        store: String,
        /// What it said.
        source: io::Error,
    },
}

/// What makes an undo or an emptying impossible.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// There is no such journal.
    #[error("there is nothing called {id} in the trash; `mlxman trash list` shows what there is")]
    Unknown {
        /// What was asked for.
        id: String,
    },
    /// It cannot be read.
    #[error("the journal {id} cannot be read ({why}); its files lie in {TRASH}/{id}/items of {store}")]
    Unreadable {
        /// The journal.
        id: String,
        /// The store.
        store: String,
        /// Why.
        why: String,
    },
    /// Something else that was taken later has what this one's links lead to.
    #[error(
        "{id}: what its links lead to was removed later, as {other}: undo that first (`mlxman undo {other}`)"
    )]
    UndoFirst {
        /// The journal.
        id: String,
        /// The one that has it.
        other: String,
    },
    /// Something needs what it keeps.
    #[error("{id} is not emptied: {by}")]
    Needed {
        /// The journal.
        id: String,
        /// Who, and what to do.
        by: String,
    },
    /// The system said no in the middle; whoever comes next goes on.
    #[error("{id}: {what}: {source}; nothing is lost, try again")]
    System {
        /// The journal.
        id: String,
        /// What was being done.
        what: &'static str,
        /// What it said.
        source: io::Error,
    },
}
