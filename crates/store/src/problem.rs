use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How much a problem weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Worth knowing; nothing is wrong. Never changes an exit status.
    Info,
    /// Something is left over or missing, but what is there can be used.
    Warning,
    /// The model cannot be trusted to load, or something in the store cannot be read.
    Error,
}

macro_rules! problem_kinds {
    ($($(#[doc = $doc:literal])+ $variant:ident = $word:literal, $severity:ident;)+) => {
        /// What is wrong, by name. The names are part of the machine contract: they are not renamed.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        #[non_exhaustive]
        pub enum ProblemKind {
            $($(#[doc = $doc])+ #[serde(rename = $word)] $variant,)+
        }

        impl ProblemKind {
            /// Every kind.
            pub const ALL: &'static [ProblemKind] = &[$(ProblemKind::$variant,)+];

            /// The name in JSON and in tables.
            pub fn word(self) -> &'static str {
                match self { $(ProblemKind::$variant => $word,)+ }
            }

            /// How much it weighs.
            pub fn severity(self) -> Severity {
                match self { $(ProblemKind::$variant => Severity::$severity,)+ }
            }
        }
    };
}

problem_kinds! {
    /// A link of a snapshot whose blob is not there.
    DanglingLink = "dangling_link", Error;
    /// A link that leads out of its store; it was not followed.
    LinkOutsideStore = "link_outside_store", Error;
    /// A link to a link, or to something that is no file; it was not followed.
    LinkNotFollowed = "link_not_followed", Error;
    /// A small file that holds the text of a link: the store was copied by a program that does not keep links.
    FlattenedLink = "flattened_link", Error;
    /// A name with a separator, `..`, or another form that could lead out of the store.
    UnsafeName = "unsafe_name", Error;
    /// A name that is not UTF-8; the entry is counted but not read.
    NameNotUtf8 = "name_not_utf8", Warning;
    /// A file or directory that could not be read.
    Unreadable = "unreadable", Error;
    /// A snapshot or model directory with no file in it.
    EmptySnapshot = "empty_snapshot", Warning;
    /// A repo directory without a snapshot: what `mlx_lm.manage --delete` and broken downloads leave.
    RepoWithoutSnapshot = "repo_without_snapshot", Warning;
    /// A ref that names a revision of which there is no snapshot.
    RefToNowhere = "ref_to_nowhere", Warning;
    /// A ref whose file has white space around the 40 characters: huggingface_hub does not find such a revision.
    RefNewline = "ref_newline", Warning;
    /// A ref whose file does not hold a revision.
    RefInvalid = "ref_invalid", Warning;
    /// A partial download that nobody is writing.
    PartialDead = "partial_dead", Warning;
    /// A partial download in progress: its lock is held.
    PartialLive = "partial_live", Warning;
    /// A blob that no snapshot uses.
    OrphanBlob = "orphan_blob", Warning;
    /// Lock files that no process holds.
    StaleLocks = "stale_locks", Info;
    /// A shared blob without a readable `.refs`: nobody can tell who uses it, so it is never a candidate.
    SharedBlobUntracked = "shared_blob_untracked", Warning;
    /// A repo's blob that leads to a shared blob whose `.refs` does not name it: huggingface_hub removes that one when those
    /// go that it names.
    SharedBlobUnlisted = "shared_blob_unlisted", Warning;
    /// A hub cache inside a folder store; its models are found once it is named as a store of its own.
    HubInsideFolder = "hub_inside_folder", Info;
    /// A store that several users share, in which not all of them can read or write everything.
    SharedPermissions = "shared_permissions", Warning;
    /// The store did not answer in time.
    StoreTooSlow = "store_too_slow", Error;
    /// The store's root is not there, or is not a directory.
    StoreUnavailable = "store_unavailable", Error;
    /// A manifest that could not be read, or that its schema rejects; it was left as it is.
    ManifestInvalid = "manifest_invalid", Error;

    /// A models' folder whose own directory of manifests cannot be used; the registry's own directory has them instead.
    ManifestsElsewhere = "manifests_elsewhere", Warning;

    /// A JSON file of the model that is not JSON, too large, or too deep.
    ConfigInvalid = "config_invalid", Error;
    /// A safetensors header that cannot be read: too large, not JSON, or with offsets that cannot be.
    HeaderInvalid = "header_invalid", Error;
    /// A GGUF header that cannot be read.
    GgufInvalid = "gguf_invalid", Error;
    /// A weight file shorter than its header says.
    TruncatedWeights = "truncated_weights", Error;
    /// A weight file longer than its header says.
    TrailingBytes = "trailing_bytes", Error;
    /// A file whose size is not the one in the repo's listing.
    SizeMismatch = "size_mismatch", Error;
    /// A file whose bytes are not what its name, a listing or a record of them says: `verify --level integrity` found it.
    ContentDamaged = "content_damaged", Error;
    /// A weight file that the index names and that is not there.
    MissingShard = "missing_shard", Warning;
    /// A tensor that the index promises in a shard that does not have it.
    MissingTensor = "missing_tensor", Error;
    /// An index that does not say where the tensors lie; they are all here, and it is left from other weights.
    StaleIndex = "stale_index", Info;
    /// Shards without an index: programs that look a tensor's shard up in it do not load them.
    MissingIndex = "missing_index", Info;
    /// There are no weights.
    NoWeights = "no_weights", Warning;
    /// A component that `model_index.json` names and that has no weights.
    MissingComponent = "missing_component", Warning;
    /// A file that the catalog says this model must have.
    MissingRequiredFile = "missing_required_file", Warning;
    /// The configuration says one quantization, the tensors' shapes prove another.
    QuantizationContradicted = "quantization_contradicted", Warning;
    /// README front matter that is not YAML.
    FrontMatterInvalid = "front_matter_invalid", Info;
}

impl std::fmt::Display for ProblemKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.word())
    }
}

/// One thing that is wrong with a model or in a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct Problem {
    /// What is wrong, by name.
    pub kind: ProblemKind,
    /// How much it weighs.
    pub severity: Severity,
    /// The file or directory it is about: relative to the model's directory, or to the store's root for what is no
    /// model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// What happened and what to do about it, in a sentence.
    pub message: String,
}

impl Problem {
    /// A problem with the severity that its kind has.
    pub fn new(kind: ProblemKind, path: Option<&str>, message: impl Into<String>) -> Self {
        Problem { kind, severity: kind.severity(), path: path.map(str::to_owned), message: message.into() }
    }
}
