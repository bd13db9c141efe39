//! What reading a model's contents found: part of a verification at the level `integrity`.

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What reading a model's contents found. Files are counted once for each content that several names share.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Integrity {
    /// Files of the model.
    pub files: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Files that were read in this run.
    pub read_files: u64,
    /// Bytes of them.
    pub read_bytes: u64,
    /// Files that were found whole by an earlier run and have not changed since: they were not read again.
    pub skipped_files: u64,
    /// Bytes of them.
    pub skipped_bytes: u64,
    /// Files that this run did not get to, and no earlier one has found whole.
    pub unreached_files: u64,
    /// Bytes of them.
    pub unreached_bytes: u64,
    /// When the file was read whose check is the oldest, of those that were found whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest_check: Option<DateTime<Utc>>,
    /// Files that are not what they should be, or cannot be read.
    pub damaged: Vec<DamagedFile>,
    /// Files that the model needs and does not have.
    pub missing: Vec<MissingFile>,
    /// Files that somebody changed: what there is to compare with is of their content before.
    pub changed: Vec<ChangedFile>,
    /// Files that there is nothing to compare with: nobody can tell whether they are whole.
    pub uncheckable: Vec<String>,
}

/// By what a file was found to be damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DamagedHow {
    /// Its SHA-256.
    Sha256,
    /// The SHA-1 that git gives it as a blob.
    GitSha1,
    /// Its BLAKE3, which an earlier `sync` took, though its time of modification is the same.
    Blake3,
    /// Its size, as the repo's listing has it.
    Size,
    /// Its link leads to another blob than the repo's listing names.
    WrongBlob,
    /// Its content is what its name says, and the repo's listing says another size: the listing is at fault.
    Listing,
    /// It cannot be read.
    Unreadable,
}

/// A file that is not what it should be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DamagedFile {
    /// Relative to the model's directory.
    pub path: String,
    /// What it should be: a hash, or a size in bytes.
    pub expected: String,
    /// What it is; or what the system said.
    pub found: String,
    /// By what it was found out.
    pub how: DamagedHow,
    /// The first byte of the range in which it is damaged, where an earlier run took note of its parts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_from: Option<u64>,
    /// The last byte of that range.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_to: Option<u64>,
    /// The command that fetches just this file again, where it is known where it came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fetch_again: Option<String>,
}

/// A file that the model needs and does not have.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MissingFile {
    /// Relative to the model's directory; absent where nothing names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// What needs it.
    pub why: String,
    /// The command that fetches it, where it is known where it came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fetch_again: Option<String>,
}

/// A file that somebody changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ChangedFile {
    /// Relative to the model's directory.
    pub path: String,
    /// Since when.
    pub since: ChangedSince,
}

/// Since when a file has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChangedSince {
    /// Since it was downloaded.
    Download,
    /// Since an earlier `sync` took its BLAKE3.
    Sync,
    /// While it was being read: read it again when nobody writes it.
    Reading,
}

impl ChangedSince {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            ChangedSince::Download => "changed since download",
            ChangedSince::Sync => "changed since its hash was taken",
            ChangedSince::Reading => "changed while it was read",
        }
    }
}
