//! What is wrong in stores, what it costs, and what of it can be mended without a network.
//!
//! [`Repairs::of`] looks and touches nothing; [`mend`] carries out what it found through the store's trash, so that a
//! repair can be taken back as a removal can. A repair moves what it replaces into the trash and never writes into a file
//! that is there. Where the content is not on the disk, the command that fetches it is told instead.

mod carry;
mod commands;
mod content;
mod find;
mod index;
mod links;
mod refs;
mod sharing;

use std::path::PathBuf;

use chrono::{DateTime, Utc};
use mlxman_store::{Problem, Usage};
use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};

use crate::plan::Item;

pub use carry::mend;
pub use commands::quoted;
pub use content::Content;

/// The version of the form.
const REPAIRS_VERSION: u32 = 1;

/// Everything that is wrong in the stores, and what can be done about it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "mlxman repairs")]
#[non_exhaustive]
pub struct Repairs {
    /// Version of this form.
    #[schemars(range(min = 1, max = 1))]
    pub schema_version: u32,
    /// When the stores were looked at.
    pub created_at: DateTime<Utc>,
    /// What looked, such as `mlxman 0.1.0`.
    pub generator: String,
    /// The stores.
    pub stores: Vec<RepairStore>,
    /// What is wrong, by store and place.
    pub findings: Vec<Finding>,
    /// Bytes on the disks that are of no use as long as this is wrong, each inode once.
    pub useless_bytes: u64,
}

/// A store that was looked at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct RepairStore {
    /// The store, as `KIND=PATH`.
    pub store: String,
    /// What it takes; absent where it could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// Models in it.
    pub models: u64,
    /// Things that are wrong in it, notes left out.
    pub problems: u64,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct Finding {
    /// The store, as `KIND=PATH`.
    pub store: String,
    /// The model that it is wrong with; absent for what is no model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The model's place in the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The repo.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repo_id: Option<String>,
    /// Where in the store it is: relative to the store's root.
    pub place: String,
    /// What is wrong, where (of a model's, relative to the model), and how much it weighs.
    #[serde(flatten)]
    pub problem: Problem,
    /// Bytes on the disk that are of no use because of it: of leftovers what the filesystem would get back, of a model that
    /// cannot be loaded what it takes.
    pub useless_bytes: u64,
    /// What mends it, and can be undone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repair: Option<Repair>,
    /// Why nothing is mended now, although it could be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<String>,
    /// The command that mends it where `doctor --fix` does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
}

/// What mends something, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RepairKind {
    /// A partial download that nobody writes is removed.
    RemovePartial,
    /// A snapshot or model directory with no file in it is removed.
    RemoveEmpty,
    /// A ref is written anew with the 40 characters alone.
    RewriteRef,
    /// Text files that hold the text of a link become links again.
    Unflatten,
    /// A link is made, or made anew, to the blob that the repo's listing names.
    RestoreLink,
    /// A blob that nothing links to gets the link back that the repo's listing says it has.
    AdoptBlob,
    /// An index is made again from the headers of the shards.
    RebuildIndex,
    /// A repo's blob is put into the list of who uses its shared blob.
    ListUser,
}

/// A repair: what it changes in the store, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct Repair {
    /// What it is, by name.
    pub kind: RepairKind,
    /// What it does, in words.
    pub does: String,
    /// What it changes. Paths are relative to the store's root.
    pub changes: Vec<RepairChange>,
}

/// One change of a repair.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "do", rename_all = "snake_case")]
#[non_exhaustive]
pub enum RepairChange {
    /// A file or link goes into the trash, or an empty directory is removed.
    Take {
        /// What.
        item: Item,
    },
    /// A directory is made.
    MakeDir {
        /// Where.
        path: String,
    },
    /// A link is made where nothing is.
    Link {
        /// Where.
        path: String,
        /// Its text.
        target: String,
    },
    /// A repo's blob is put into the list of who uses a shared blob.
    List {
        /// The shared blob.
        payload: String,
        /// The repo's blob.
        line: String,
    },
    /// A file is made where nothing is.
    Write {
        /// Where.
        path: String,
        /// Its permissions.
        mode: u32,
        /// What it holds.
        #[serde(flatten)]
        content: Content,
    },
}

/// What [`Repairs::of`] is asked.
#[derive(Debug, Clone, Copy)]
pub struct RepairsAsked<'a> {
    /// The plan that a preview without filters makes of the same stores: what it would not remove is not removed here.
    pub removals: &'a crate::Plan,
    /// The hub cache that `hf` uses when it is not told otherwise.
    pub default_hub: Option<&'a PathBuf>,
    /// The time now.
    pub now: DateTime<Utc>,
}

/// The JSON Schema of [`Repairs`].
pub fn repairs_schema() -> Schema {
    mlxman_manifest::schema_of::<Repairs>()
}
