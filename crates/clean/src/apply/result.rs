//! What came of a plan.

use chrono::{DateTime, Utc};
use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};

use super::PlanError;
use crate::trash::{Carried, Journal, JournalRow};

/// What came of applying a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "mlxman applied plan")]
#[non_exhaustive]
pub struct Applied {
    /// When.
    pub applied_at: DateTime<Utc>,
    /// What was done in each store.
    pub stores: Vec<AppliedStore>,
    /// What the filesystems got back already, but for the journals, which take their place until the trash is emptied.
    pub freed_bytes: u64,
    /// What they get back when the trash is emptied.
    pub reclaimable_bytes: u64,
}

/// What was done in one store.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct AppliedStore {
    /// The store, as `KIND=PATH`.
    pub store: String,
    /// The journal's name, for `mlxman undo`; absent where nothing was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Whether the store was not in the state any more that the plan was made for: of its rows only those were done
    /// that are as they were.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub changed_since_plan: bool,
    /// Rows that were done.
    pub done: Vec<JournalRow>,
    /// Rows that were not, and why.
    pub skipped: Vec<Skipped>,
    /// What stays of rows that were done, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left: Vec<Skipped>,
    /// What the filesystem got back already.
    pub freed_bytes: u64,
    /// What it gets back when the trash is emptied.
    pub reclaimable_bytes: u64,
}

impl Applied {
    /// Nothing yet.
    pub fn at(now: DateTime<Utc>) -> Self {
        Applied { applied_at: now, stores: Vec::new(), freed_bytes: 0, reclaimable_bytes: 0 }
    }

    /// What was done in one more store.
    pub fn add(&mut self, store: AppliedStore) {
        self.freed_bytes = self.freed_bytes.saturating_add(store.freed_bytes);
        self.reclaimable_bytes = self.reclaimable_bytes.saturating_add(store.reclaimable_bytes);
        self.stores.push(store);
    }
}

impl AppliedStore {
    /// Nothing yet.
    pub fn of(store: String) -> Self {
        AppliedStore { store, ..AppliedStore::default() }
    }

    /// Takes note of what came of a journal's rows.
    pub(crate) fn take(&mut self, journal: &Journal, carried: Carried) {
        let what = |row: usize| journal.rows[row].what.clone();
        let done = (0..journal.rows.len()).filter(|row| !carried.failed.contains_key(row));
        self.done.extend(done.map(|row| journal.rows[row].clone()));
        let skipped = carried.failed.into_iter();
        self.skipped.extend(skipped.map(|(row, reason)| Skipped { what: what(row), reason }));
        self.left.extend(carried.left.into_iter().map(|(what, reason)| Skipped { what, reason }));
    }
}

/// Something that was not touched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct Skipped {
    /// The model, or the path.
    pub what: String,
    /// Why.
    pub reason: String,
}

/// The JSON Schema of what came of a plan.
pub fn applied_schema() -> Schema {
    mlxman_manifest::schema_of::<Applied>()
}

/// Why a store was left as it is.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// The plan is refused.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The trash cannot be written.
    #[error("{store}: {why}; what was begun is taken back by the next command that looks at the store")]
    Trash {
        /// The store.
        store: String,
        /// What went wrong.
        why: String,
    },
}
