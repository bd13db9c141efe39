//! The registry's index: one file that says of every manifest what a table and a filter need, and by what a sync can
//! tell that nothing changed. It is a cache: lost or damaged, it is made again from the manifests.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use chrono::{DateTime, Utc};
use mlxman_store::{Filesystem, Usage};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::summary::Summary;

/// Changes when the index's form does; another version's index is made again.
pub(super) const VERSION: u32 = 1;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Index {
    pub(super) version: u32,
    pub(super) generator: String,
    pub(super) stores: BTreeMap<String, StoreRecord>,
    pub(super) entries: Vec<Entry>,
}

/// What the last sync found in a store beside its models.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct StoreRecord {
    /// Its filesystem.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filesystem: Option<Filesystem>,
    /// What it takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// What lies in it and is no model.
    #[serde(default)]
    pub problems: Vec<StoreProblem>,
    /// When it was last read.
    pub synced_at: DateTime<Utc>,
}

/// What lies in a store and is no model: an orphan blob, a dead partial file, stale locks, a ref to nowhere, a repo
/// without a snapshot; or what is wrong with the store itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct StoreProblem {
    /// The store, as `KIND=PATH`.
    pub store: String,
    /// What is wrong, where, and what to do.
    #[serde(flatten)]
    pub problem: mlxman_store::Problem,
    /// The repo it lies in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repo_id: Option<String>,
    /// Apparent bytes.
    pub size_bytes: u64,
    /// Bytes that the filesystem gets back if this, and only this, goes.
    pub reclaimable_bytes: u64,
    /// Whether more may come back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reclaimable_at_least: bool,
    /// When it was last written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_modified: Option<DateTime<Utc>>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Entry {
    /// The manifest's file: a name in the registry's directory, or an absolute path in a models' folder.
    pub(super) file: String,
    pub(super) stamp: Stamp,
    /// Of everything that the observation depends on.
    pub(super) fingerprint: String,
    /// Of the weight files alone.
    #[serde(default)]
    pub(super) weights: String,
    /// Whether every file's hash is in the manifest.
    #[serde(default)]
    pub(super) hashed: bool,
    /// Why the manifest could not be used: the file was left as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) invalid: Option<String>,
    pub(super) summary: Summary,
}

/// By what a file is known to be the one that was read or written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stamp {
    ino: u64,
    size: u64,
    mtime_ns: i64,
}

impl Stamp {
    pub(super) fn of(path: &Path) -> Option<Self> {
        fs_err::symlink_metadata(path).ok().as_ref().and_then(Stamp::from_metadata)
    }

    /// From a file's own metadata; what is no regular file has none.
    pub(super) fn from_metadata(meta: &std::fs::Metadata) -> Option<Self> {
        meta.is_file().then(|| Stamp {
            ino: meta.ino(),
            size: meta.size(),
            mtime_ns: meta.mtime().saturating_mul(1_000_000_000).saturating_add(meta.mtime_nsec()),
        })
    }
}

impl Index {
    pub(super) fn read(path: &Path) -> Self {
        let read = fs_err::read(path).ok().and_then(|bytes| serde_json::from_slice::<Index>(&bytes).ok());
        read.filter(|index| index.version == VERSION).unwrap_or_default()
    }
}
