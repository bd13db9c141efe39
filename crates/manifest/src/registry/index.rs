//! The registry's index: one file that says of every manifest what a table and a filter need, and by what a sync can
//! tell that nothing changed. It is a cache: lost or damaged, it is made again from the manifests.

use std::collections::BTreeMap;
use std::path::Path;

use chrono::{DateTime, Utc};
use mlxman_store::{Filesystem, Usage};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::summary::Summary;

/// Changes when the index's form does; another version's index is made again.
pub(super) const VERSION: u32 = 2;

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
    /// Device and inode of its root: a mount point whose volume is away is another directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<(u64, u64)>,
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
    /// That somebody changed the file since this program wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) edited: Option<Edited>,
    pub(super) summary: Summary,
    /// Further manifests of the same model, whose words of the user count as well: one in the models' folder and one
    /// in the registry.
    #[serde(skip)]
    pub(super) also: Vec<String>,
    /// Whether another manifest of the same model stands for it.
    #[serde(skip)]
    pub(super) shadowed: bool,
}

/// What is remembered of a manifest that somebody else changed.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Edited {
    /// The tags that this program wrote last, where that is known: those beyond them are the user's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) tags: Option<Vec<String>>,
}

impl Entry {
    pub(super) fn new(file: &str, stamp: Stamp, summary: Summary) -> Self {
        Entry {
            file: file.to_owned(),
            stamp,
            fingerprint: String::new(),
            weights: String::new(),
            hashed: false,
            invalid: None,
            edited: None,
            summary,
            also: Vec::new(),
            shadowed: false,
        }
    }

    /// The tags that this program wrote last, where that is known.
    pub(super) fn written_tags(&self) -> Option<&[String]> {
        match &self.edited {
            None => Some(&self.summary.tags),
            Some(edited) => edited.tags.as_deref(),
        }
    }
}

/// By what a file is known to be the one that was read or written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stamp {
    ino: u64,
    size: u64,
    mtime_ns: i64,
    ctime_ns: i64,
}

impl Stamp {
    /// What is no regular file has none.
    #[expect(clippy::unnecessary_cast, reason = "the fields' types differ between platforms")]
    pub(super) fn of_stat(stat: &rustix::fs::Stat) -> Option<Self> {
        let ns = |seconds: i64, ns: i64| seconds.saturating_mul(1_000_000_000).saturating_add(ns);
        let file = rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::RegularFile;
        file.then(|| Stamp {
            ino: stat.st_ino as u64,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            mtime_ns: ns(stat.st_mtime as i64, stat.st_mtime_nsec as i64),
            // So that a change of its mode is seen.
            ctime_ns: ns(stat.st_ctime as i64, stat.st_ctime_nsec as i64),
        })
    }
}

impl Index {
    pub(super) fn read(path: &Path) -> Self {
        let read = fs_err::read(path).ok().and_then(|bytes| serde_json::from_slice::<Index>(&bytes).ok());
        read.filter(|index| index.version == VERSION).unwrap_or_default()
    }
}
