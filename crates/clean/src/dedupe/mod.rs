//! Equal files: finding them across repos and stores, and making one copy of them.
//!
//! Equal are files of one size whose head and tail are equal, and then the BLAKE3 of the whole. That only finds them:
//! [`apply_dedupe`] has the bytes compared once more before it changes anything, by the kernel where that shares blocks.

mod apply;
mod cache;
mod find;
mod read;

use chrono::{DateTime, Utc};
use mlxman_manifest::registry::StoreProblem;
use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};

pub use apply::{Applying, apply_dedupe};
pub use cache::HashCache;
pub use find::{Search, find_duplicates};

/// The version of the form.
const DUPLICATES_VERSION: u32 = 1;

/// Smaller files are left alone unless somebody asks for them: there are many, they save next to nothing, and they are the
/// ones that people edit (configurations, chat templates).
pub const MIN_SIZE: u64 = 1 << 20;

const NAMED_ELSEWHERE: &str = "has a name outside of the stores, so nothing would be freed";
const NAMED_IN_SEVERAL: &str = "has names in several stores";

/// Equal files, and what the filesystems would get back if each group of them were one copy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "mlxman duplicates")]
#[non_exhaustive]
pub struct Duplicates {
    /// Version of this form.
    #[schemars(range(min = 1, max = 1))]
    pub schema_version: u32,
    /// When it was looked for.
    pub created_at: DateTime<Utc>,
    /// The stores that were looked at, as `KIND=PATH`.
    pub stores: Vec<String>,
    /// Files of fewer bytes were not looked at.
    pub min_size_bytes: u64,
    /// Groups of equal files, what saves most first.
    pub groups: Vec<DuplicateGroup>,
    /// Files that are equal, or may be, and stay as they are.
    pub left: Vec<LeftFile>,
    /// What the filesystems would get back.
    pub saves_bytes: u64,
    /// Whether more may come back: of some blocks it is not known who else has them.
    pub saves_at_least: bool,
    /// What of it is expected, and known only when it is tried: whether the filesystem lets files share blocks.
    pub expected_bytes: u64,
    /// Files that were read whole for this.
    pub hashed_files: u64,
    /// Bytes that were read whole for this.
    pub hashed_bytes: u64,
    /// Whether it was stopped before all was read: there may be more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub interrupted: bool,
    /// Stores and files that could not be read.
    pub problems: Vec<StoreProblem>,
}

/// Files with the same content, one of which stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct DuplicateGroup {
    /// Apparent bytes of each.
    pub size_bytes: u64,
    /// BLAKE3 of the content.
    pub blake3: String,
    /// The copy that stays.
    pub keeps: EqualFile,
    /// The others.
    pub copies: Vec<DuplicateCopy>,
    /// What the filesystem would get back.
    pub saves_bytes: u64,
}

/// A copy that could go, while its name stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct DuplicateCopy {
    /// The file.
    #[serde(flatten)]
    pub file: EqualFile,
    /// How it would become one with the copy that stays.
    pub how: How,
    /// Whether it is known that this can be done there.
    pub certain: bool,
    /// What the filesystem would get back.
    pub saves_bytes: u64,
    /// Whether more may come back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub saves_at_least: bool,
}

/// How two files become one copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum How {
    /// They share their blocks until one of them is written to: each stays a file of its own.
    Reflink,
    /// They become one file with two names: to edit one is to edit the other.
    HardLink,
}

impl How {
    /// In words.
    pub fn word(self) -> &'static str {
        match self {
            How::Reflink => "reflink",
            How::HardLink => "hard link",
        }
    }
}

/// A file, with all the names that it has in the stores.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct EqualFile {
    /// For people: a model that has it, and its place there.
    pub what: String,
    /// The store, as `KIND=PATH`.
    pub store: String,
    /// Where it lies, relative to the store's root.
    pub path: String,
    /// Further names of the same file in the stores, as `KIND=PATH` and the place there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<(String, String)>,
    /// Models that have it.
    pub models: Vec<String>,
    /// Device number.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
    /// Allocated bytes.
    pub allocated_bytes: u64,
    /// Time of last modification, in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Time of last change of the inode.
    pub ctime_ns: i64,
}

/// A file that stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct LeftFile {
    /// For people: a model that has it, and its place there.
    pub what: String,
    /// The store, as `KIND=PATH`.
    pub store: String,
    /// Where it lies, relative to the store's root.
    pub path: String,
    /// Apparent bytes.
    pub size_bytes: u64,
    /// Why.
    pub reason: String,
}

/// The JSON Schema of equal files.
pub fn duplicates_schema() -> Schema {
    mlxman_manifest::schema_of::<Duplicates>()
}
