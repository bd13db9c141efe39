//! The record of one model: what `*.manifest.json` holds.
//!
//! A superset of what the original `model_manifest.py` wrote: its fields stand at the top level under their old names
//! (`model`, `model_path`, `source_id`, `variant`, `precision`, `tags`, `notes`, `adapter`, `storage`,
//! `generated_at`). What the user said lies apart in `user`, and no observation ever changes it.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use mlxman_store::{Problem, RepoKind, UsedBy};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::verification::Verification;

/// The version of the record that this program writes.
pub const SCHEMA_VERSION: u32 = 1;

/// Everything known of one model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "mlxman manifest")]
pub struct Manifest {
    /// Version of this record's form.
    #[schemars(range(min = 1, max = 1))]
    pub schema_version: u32,
    /// What a person calls the model: its short name from the catalog, else its repo id, else its path in the folder;
    /// with `@` and eight characters of the revision where it is not the snapshot that a loader gets for the repo.
    pub model: String,
    /// The directory to load it from, absolute. Written for people and old tools: mlxman itself finds a model by
    /// `store` and `key`, and never trusts a path that stands in a file.
    pub model_path: String,
    /// The store, as `KIND=PATH`.
    pub store: String,
    /// Where it lies in the store: its directory, relative to the store's root. With `store` this is its identity.
    pub key: String,
    /// The repo id again, under the name that the original scripts gave it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_id: Option<String>,
    /// A variant's name, as an original manifest gave it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// The catalog entry that it matches, by short name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub catalog: Option<String>,
    /// Where it came from.
    #[serde(default)]
    pub source: Source,
    /// What kind of files it consists of.
    pub format: Format,
    /// What it is made of.
    #[serde(default)]
    pub architecture: Architecture,
    /// Parameters, counted from the tensors' shapes; for quantized tensors as many as were there before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameter_count: Option<u64>,
    /// The floating-point type of what is not quantized (for quantized models, of the scales): `f32`, `bf16`, `f16`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub precision: Option<String>,
    /// How it is quantized.
    #[serde(default)]
    pub quantization: Quantization,
    /// Whether a LoRA or another adapter is involved.
    #[serde(default)]
    pub adapter: Adapter,
    /// What it takes on the disk.
    pub storage: Storage,
    /// Whether it can be trusted to load.
    pub health: Health,
    /// What the newest verification found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verification: Option<Verification>,
    /// What the newest verification of its contents found (the level `integrity`): it says nothing of speeds, and
    /// takes no other result away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub integrity: Option<Verification>,
    /// Tags found, from the catalog and the README, with the user's added and those the user took away left out.
    #[serde(default)]
    pub tags: Vec<String>,
    /// The user's notes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notes: Option<String>,
    /// Whether the user said that it is never to be a candidate for removal.
    #[serde(default)]
    pub pinned: bool,
    /// What the user said; observation never changes it.
    #[serde(default, skip_serializing_if = "UserLayer::is_empty")]
    pub user: UserLayer,
    /// For each field that was found out: what said so. Keys are field names such as `quantization.bits`.
    #[serde(default)]
    pub evidence: BTreeMap<String, Evidence>,
    /// When the observation was made.
    pub generated_at: DateTime<Utc>,
    /// What made it, such as `mlxman 0.1.0`.
    pub generator: String,
}

/// Where a model came from.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Source {
    /// The repo on the hub.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repo_id: Option<String>,
    /// What the repo holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repo_kind: Option<RepoKind>,
    /// The commit, 40 hexadecimal characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// Refs of the store that name this revision, such as `main`.
    pub refs: Vec<String>,
    /// Whether no ref names it: it was fetched by its commit, or a newer revision took its ref. Absent where the
    /// layout has no refs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detached: Option<bool>,
    /// Whether it is the snapshot that a loader gets when it asks for the repo.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current: Option<bool>,
    /// Models that it was made from.
    pub base_model: Vec<String>,
    /// How it was made from them, as its README says: `quantized`, `finetune`, `merge`, `adapter`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base_model_relation: Option<String>,
    /// The licence's identifier.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub license: Option<String>,
    /// The library that it is made for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub library_name: Option<String>,
    /// The task that its README names, such as `text-generation`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pipeline_tag: Option<String>,
}

/// What kind of files a model consists of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Format {
    /// Safetensors (or npz) as MLX programs write them.
    Mlx,
    /// Safetensors as transformers writes them.
    Transformers,
    /// A diffusion pipeline: a directory a component.
    Diffusers,
    /// GGUF files, as llama.cpp writes them.
    Gguf,
    /// Pickled PyTorch files.
    Pytorch,
    /// ONNX graphs.
    Onnx,
    /// Packages of Core ML.
    Coreml,
    /// An adapter (LoRA, DoRA) without its base.
    Adapter,
    /// An Ollama tag.
    Ollama,
    /// None of these, or no weights to tell by.
    #[default]
    Unknown,
}

impl Format {
    /// The word in JSON, tables and filters.
    pub fn word(self) -> &'static str {
        match self {
            Format::Mlx => "mlx",
            Format::Transformers => "transformers",
            Format::Diffusers => "diffusers",
            Format::Gguf => "gguf",
            Format::Pytorch => "pytorch",
            Format::Onnx => "onnx",
            Format::Coreml => "coreml",
            Format::Adapter => "adapter",
            Format::Ollama => "ollama",
            Format::Unknown => "unknown",
        }
    }
}

/// What a model is made of.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Architecture {
    /// `model_type` of `config.json`, `general.architecture` of a GGUF file, or the class of a diffusion pipeline or of
    /// a part of one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_type: Option<String>,
    /// Layers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layers: Option<u64>,
    /// Width of the hidden state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hidden_size: Option<u64>,
    /// Attention heads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attention_heads: Option<u64>,
    /// Key and value heads, where they are fewer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_value_heads: Option<u64>,
    /// Longest context, in tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context_length: Option<u64>,
    /// Tokens in the vocabulary.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vocabulary_size: Option<u64>,
    /// Experts in a mixture.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub experts: Option<u64>,
    /// Experts that work on one token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub experts_per_token: Option<u64>,
    /// What goes in and out: `text`, `vision-language`, `image`, `video`, `audio`, `speech`, `embedding`, `vision`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub modality: Option<String>,
    /// Components of a pipeline.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub components: Vec<String>,
}

/// How a model is quantized.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Quantization {
    /// In a word: `4bit`, `8bit`, `mxfp4`, `mixed-4-8bit`, `fp8`, a GGUF type such as `Q4_K_M`; for what is not
    /// quantized its precision: `bf16`, `f16`, `f32`. Layers of a router are not counted as mixed: they are always
    /// kept finer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Whether only the repo's or file's name says so, and nothing inside proves it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub from_name: bool,
    /// The labels of all quantizations of the model that lie in its directory, where there are several: then `label` and
    /// what holds for only one of them are absent.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub variants: Vec<String>,
    /// `mlx`, `gptq`, `awq`, `bitsandbytes`, `compressed-tensors`, `fp8`, `gguf`, or another name that the
    /// configuration gives. Absent where nothing is quantized.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Bits of most quantized weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bits: Option<u64>,
    /// Weights that share a scale, in most layers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group_size: Option<u64>,
    /// MLX's mode: `affine`, `mxfp4`, `mxfp8`, `nvfp4`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// Layers whose quantization differs from the model's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overrides: Option<u64>,
    /// Bits on the disk for each parameter, all tensors counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bits_per_weight: Option<f64>,
}

/// Whether an adapter is involved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AdapterKind {
    /// Nothing says so.
    #[default]
    None,
    /// It is an adapter, and needs its base.
    Adapter,
    /// An adapter was fused into the weights.
    Fused,
    /// Something says that there may be one, and nothing settles it.
    Unknown,
}

impl AdapterKind {
    /// The word in JSON, tables and filters.
    pub fn word(self) -> &'static str {
        match self {
            AdapterKind::None => "none",
            AdapterKind::Adapter => "adapter",
            AdapterKind::Fused => "fused",
            AdapterKind::Unknown => "unknown",
        }
    }
}

/// What is known of an adapter.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Adapter {
    /// Whether one is involved.
    pub kind: AdapterKind,
    /// `lora`, `dora`, `full`, as the adapter's configuration names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Its rank.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rank: Option<u64>,
    /// The factor on its product: mlx_lm's `scale`, or `alpha / rank`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scale: Option<f64>,
    /// The layers' parts that it changes, such as `self_attn.q_proj`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<String>,
    /// The model that it is made for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
    /// The model or adapter that was fused in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fused_from: Option<String>,
    /// Whether programs can put a LoRA on this model, as the catalog or the user says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allows_lora: Option<bool>,
    /// Whether one is fused in, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub currently_fused: Option<bool>,
    /// Adapter directories found in the model's own directory; `.` for an adapter that lies beside the weights.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub found_inside: Vec<String>,
    /// Adapter directories found beside the model's own, made for this model or for the base that it names too: the
    /// model may have been fused from one of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub found_beside: Vec<String>,
    /// What a comparison of the tensors with the base said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comparison: Option<Comparison>,
}

/// What a comparison of a model's tensors with those of its base said.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Comparison {
    /// The base, by repo id.
    pub base: String,
    /// The base's revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_revision: Option<String>,
    /// Whether every tensor is the same, byte for byte.
    pub identical: bool,
    /// In a sentence: `identical to its base`, `differs in q_proj, v_proj of all layers`.
    pub summary: String,
    /// Tensors that differ.
    pub differing_tensors: u64,
    /// Tensors compared.
    pub compared_tensors: u64,
    /// Tensors that only one of the two has, or that have another shape or type.
    pub unmatched_tensors: u64,
    /// The parts that differ, such as `q_proj`; with as much of the path before it as tells it apart from other parts
    /// of the base, such as `experts.up_proj`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub modules: Vec<String>,
    /// The numbers of the layers in which any part differs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<u64>,
}

/// What a model takes on the disk.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Storage {
    /// Whether it was there at the last sync of its store.
    pub present: bool,
    /// Files.
    pub file_count: u64,
    /// Apparent bytes of its files, each inode once.
    pub size_bytes: u64,
    /// Bytes allocated on the disk for its files, each inode once.
    pub allocated_bytes: u64,
    /// Bytes that the filesystem gets back if this model, and only this one, goes.
    pub reclaimable_bytes: u64,
    /// Whether more may come back: the filesystem lets files share blocks.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub reclaimable_at_least: bool,
    /// When the latest of its files was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_modified: Option<DateTime<Utc>>,
    /// When one of its files was last read, as far as the filesystem keeps that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_accessed: Option<DateTime<Utc>>,
    /// When it was last used, as `last_used_by` says. Filled in when a manifest is shown, not in its file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_used: Option<DateTime<Utc>>,
    /// What says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_used_by: Option<UsedBy>,
    /// Its files.
    pub files: Vec<FileRecord>,
}

/// One file of a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FileRecord {
    /// Relative to the model's directory.
    pub path: String,
    /// Apparent bytes.
    pub size: u64,
    /// The blob in a hub cache: its name is a hash of its content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blob: Option<String>,
    /// SHA-256 that the hub gives for it (not checked by `sync`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// SHA-1 that git gives for it as a blob (not checked by `sync`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git_sha1: Option<String>,
    /// BLAKE3 that `sync` computed of its content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blake3: Option<String>,
}

/// Whether a model can be trusted to load.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum HealthStatus {
    /// Everything that loading needs is there, as far as can be told without reading the weights.
    #[default]
    Complete,
    /// Something is missing that was perhaps never downloaded.
    Incomplete,
    /// Something is broken.
    Damaged,
}

impl HealthStatus {
    /// The word in JSON, tables and filters.
    pub fn word(self) -> &'static str {
        match self {
            HealthStatus::Complete => "complete",
            HealthStatus::Incomplete => "incomplete",
            HealthStatus::Damaged => "damaged",
        }
    }
}

/// A model's health.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Health {
    /// In a word.
    pub status: HealthStatus,
    /// What is wrong.
    pub problems: Vec<Problem>,
}

/// What the user said of a model.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct UserLayer {
    /// Tags that the user added.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Tags that were found and that the user took away.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub untagged: Vec<String>,
    /// Notes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notes: Option<String>,
    /// A pin.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub pinned: bool,
    /// Values that the user set in place of what is observed, by field name (`sync --override a.b=value`).
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub overrides: BTreeMap<String, Value>,
}

impl UserLayer {
    /// Whether the user said nothing.
    pub fn is_empty(&self) -> bool {
        *self == UserLayer::default()
    }
}

/// What said so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Evidence {
    /// The file, relative to the model's directory; for what no file says, what did: `repo name`, `catalog`, `user`.
    pub file: String,
    /// The key in it, or what of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

impl Evidence {
    /// Evidence from a key in a file.
    pub fn new(file: impl Into<String>, key: impl Into<String>) -> Self {
        Evidence { file: file.into(), key: Some(key.into()) }
    }
}

impl Manifest {
    /// The program and version that write this record.
    pub fn generator() -> String {
        format!("mlxman {}", env!("CARGO_PKG_VERSION"))
    }
}
