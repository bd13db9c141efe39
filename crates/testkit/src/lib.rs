//! Makes small valid models and stores of every layout, for tests, the demo and the benchmarks.
//!
//! Everything here is deterministic: the same calls give the same bytes, names and commits. Only modification times
//! differ, and [`set_age`] sets those relative to a time that is passed in.
//!
//! ```
//! use mlxman_testkit::{HubStore, ModelSpec, Quant};
//!
//! let dir = tempfile::tempdir().expect("a temporary directory");
//! let hub = HubStore::create(dir.path().join("hub"));
//! let files = ModelSpec::llama().quant(Quant::Affine { bits: 4, group: 64 }).files();
//! let snapshot = hub.repo("acme/tiny-4bit").snapshot(&files).with_ref("main");
//! assert!(snapshot.path().join("config.json").exists());
//! ```
//!
//! A function that can't write what it was asked for panics and names the path: there is nothing a test could do
//! about it. The layouts are written for Unix, where a hub cache is made of symbolic links.

mod demo;
mod files;
mod folder;
mod gguf;
mod hash;
mod hub;
mod models;
mod rng;
pub mod safetensors;
mod sandbox;
mod tiny_lm;
mod tree;

pub use demo::{Demo, demo_store};
pub use files::{Files, set_age, text, write_files};
pub use folder::FolderStore;
pub use gguf::{GgmlType, Gguf, GgufTensor, GgufValue};
pub use hash::{git_sha1, lfs_pointer_sha1, sha1_hex, sha256_hex, xet_hash};
pub use hub::{HubStore, Kind, Repo, Snapshot, etag, is_lfs};
pub use models::{
    ModelSpec, Quant, awq, bitsandbytes, compressed_tensors, diffusers, fp8, gguf_model, gptq, mflux,
    mlx_adapter, peft_adapter, pytorch,
};
pub use sandbox::{Output, Sandbox};
pub use tiny_lm::{Answers, Golden};
pub use tree::{BigTree, big_tree};
