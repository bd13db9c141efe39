use chrono::{DateTime, Utc};
use mlxman_manifest::registry::StoreProblem;
use mlxman_store::{Filesystem, ProblemKind, Usage, UsedBy};
use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};

use crate::filter::{FilterArgs, NearMiss};
use crate::policy::PolicyArgs;

/// The version of the plan's form.
pub(crate) const PLAN_VERSION: u32 = 1;

/// What could be removed, why, and what the filesystem would get back. A plan holds for one state of its stores.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "mlxman plan")]
#[non_exhaustive]
pub struct Plan {
    /// Version of this form.
    #[schemars(range(min = 1, max = 1))]
    pub schema_version: u32,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// What made it, such as `mlxman 0.1.0`.
    pub generator: String,
    /// The filters it was made with; none means: what is safe to go.
    pub filters: FilterArgs,
    /// The same in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filters_in_words: Vec<String>,
    /// The policies it was made with; none means that the filters alone choose.
    #[serde(default)]
    pub policies: PolicyArgs,
    /// The same in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policies_in_words: Vec<String>,
    /// The stores it is about.
    pub stores: Vec<PlanStore>,
    /// What would go, in the order in which the rows are shown.
    pub candidates: Vec<Candidate>,
    /// What several rows share: it goes with the last of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shared_items: Vec<SharedItem>,
    /// What matched, or would be safe, and is kept all the same.
    pub kept: Vec<Kept>,
    /// What the filesystems get back when all candidates go: shared blobs and hard links count once, so it can be more
    /// than the rows' sum, which price each row alone.
    pub total_reclaimable_bytes: u64,
    /// Whether more may come back: a filesystem lets files share blocks.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub total_reclaimable_at_least: bool,
    /// Budgets that cannot be met with what may go: nothing is named for their sake.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shortfalls: Vec<Shortfall>,
    /// Values of filters that no model has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub near_misses: Vec<NearMiss>,
    /// Stores and manifests that could not be read, and so are not in the plan.
    pub problems: Vec<StoreProblem>,
}

/// A store as the plan saw it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct PlanStore {
    /// The store, as `KIND=PATH`.
    pub store: String,
    /// The device number of its root.
    pub device: u64,
    /// The inode number of its root.
    pub inode: u64,
    /// BLAKE3 over everything in the store that the plan depends on.
    pub state: String,
    /// What it takes.
    pub usage: Usage,
    /// Its filesystem.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filesystem: Option<Filesystem>,
}

/// Why something is a candidate, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Rule {
    /// The user's filters match it.
    Filter,
    /// No ref names this snapshot, and its repo has another that one does.
    Detached,
    /// A snapshot or directory without a file.
    Empty,
    /// A partial download that nobody writes.
    DeadPartial,
    /// A blob that no snapshot uses.
    Orphan,
    /// A repo without a snapshot.
    BrokenRepo,
    /// Lock files of a repo that is gone.
    StaleLocks,
    /// A record whose model is no longer there.
    Missing,
    /// A snapshot with links whose blobs are gone.
    Broken,
    /// More recent snapshots of its repo are kept, as many as were asked for.
    KeepLast,
    /// It was not used for so long.
    OlderThan,
    /// A newer revision of the same repo, or a finer precision of the same model, is here and was verified.
    Superseded,
    /// The same model lies in the stores once more, in a better place.
    Duplicate,
    /// The stores take more than they may.
    MaxSize,
    /// The disk has less space left than it should.
    Free,
}

/// One reason for which something is a candidate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Reason {
    /// By name.
    pub rule: Rule,
    /// In words.
    pub reason: String,
}

/// A budget that cannot be met.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct Shortfall {
    /// Which one: `max_size` or `free`.
    pub rule: Rule,
    /// The stores that it is about.
    pub stores: Vec<String>,
    /// What was asked for: the most bytes that the stores may take, or the bytes that are to be free.
    pub target_bytes: u64,
    /// What they take now, or what is free now.
    pub now_bytes: u64,
    /// Bytes that would have to go.
    pub needed_bytes: u64,
    /// Bytes that may go, with what the other policies name.
    pub possible_bytes: u64,
    /// The difference: so much is missing.
    pub missing_bytes: u64,
    /// The same in words, and what to do.
    pub message: String,
}

/// One row of a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct Candidate {
    /// The model; absent for what is no model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// For what is no model: where it lies, relative to the store's root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The store, as `KIND=PATH`.
    pub store: String,
    /// The model's place in the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The repo.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repo_id: Option<String>,
    /// The revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// Why, by name.
    pub rule: Rule,
    /// The name of its problem, for what is no model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<ProblemKind>,
    /// Why, in words.
    pub reason: String,
    /// Every policy that names it, where several do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<Reason>,
    /// Whether it cannot be had again once it is gone, as far as anybody can tell.
    #[serde(default)]
    pub irreplaceable: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub irreplaceable_reason: Option<String>,
    /// Apparent bytes.
    pub size_bytes: u64,
    /// What the filesystem gets back if this, and only this, goes.
    pub reclaimable_bytes: u64,
    /// Whether more may come back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reclaimable_at_least: bool,
    /// When it was last used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used: Option<DateTime<Utc>>,
    /// What says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_by: Option<UsedBy>,
    /// When it was last written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_modified: Option<DateTime<Utc>>,
    /// Whether the user pinned it; such a thing is never a candidate.
    pub pinned: bool,
    /// Whether somebody uses it right now; such a thing is never a candidate.
    pub in_use: bool,
    /// Every file, link and directory that goes with this row alone: what anybody else needs is not among them.
    pub items: Vec<Item>,
}

/// What an item is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ItemKind {
    /// A regular file.
    File,
    /// A symbolic link.
    Link,
    /// A directory.
    Dir,
}

/// One thing on the disk, as the plan saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct Item {
    /// Relative to the store's root.
    pub path: String,
    /// What it is.
    pub kind: ItemKind,
    /// Device number.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
    /// Apparent bytes.
    pub size: u64,
    /// Time of last modification, in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// A link's text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link_target: Option<String>,
}

/// Something on the disk that several rows share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct SharedItem {
    /// What it is.
    pub item: Item,
    /// The rows that must all go before it does, by their place in `candidates`, from 0.
    pub needs: Vec<usize>,
}

/// Why something is kept, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Keep {
    /// The user pinned it.
    Pinned,
    /// The user pinned the same model under another name: in a store that is not there now, or is mounted twice.
    PinnedElsewhere,
    /// A download is writing to its repo, or a program has it open.
    InUse,
    /// The snapshot that a ref names is not whole: this one may be the only one of the repo that loads.
    NewerIncomplete,
    /// It was fetched after the repo's refs were last written: somebody asked for that revision by its commit, and its
    /// time of grace is not over.
    AskedForByCommit,
    /// No ref names it, so somebody may have asked for it by its commit, and its time of grace is not over.
    Grace,
    /// It cannot be had again.
    Irreplaceable,
    /// It is one of the most recent snapshots of its repo, which are to be kept.
    KeepLast,
    /// Another one goes because this one stays.
    StandsForAnother,
    /// A link of another model or store leads to it.
    LinkedFrom,
    /// Another store lies in its directory.
    HoldsStore,
    /// The snapshot that a ref names has not all that this one has: other weights, or no tokenizer.
    NotReplaced,
    /// Not all of it can be read, or somebody who may need it could not be asked.
    Unreadable,
    /// It is the only snapshot of its repo: somebody asked for that revision by name.
    OnlySnapshot,
    /// Its manifest cannot be read, so what the user said of it is not known.
    ManifestInvalid,
}

impl Keep {
    /// The word in JSON and tables.
    pub fn word(self) -> String {
        serde_json::to_value(self).ok().and_then(|word| Some(word.as_str()?.to_owned())).unwrap_or_default()
    }
}

/// One thing that is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct Kept {
    /// The model, or the path of what is none.
    pub model: String,
    /// The store, as `KIND=PATH`.
    pub store: String,
    /// Why, by name.
    pub rule: Keep,
    /// Why, in words.
    pub reason: String,
}

/// The JSON Schema of a plan.
pub fn plan_schema() -> Schema {
    mlxman_manifest::schema_of::<Plan>()
}
