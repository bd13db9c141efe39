//! The stores that the demo shows.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::files::{Files, set_age};
use crate::folder::FolderStore;
use crate::hash::sha256_hex;
use crate::hub::HubStore;
use crate::models::{ModelSpec, Quant, diffusers, mflux, mlx_adapter, peft_adapter};
use crate::rng::Rng;

const DAY: Duration = Duration::from_secs(86_400);

/// Where [`demo_store`] put things.
#[derive(Clone, Debug)]
pub struct Demo {
    /// The hub cache.
    pub hub: PathBuf,
    /// The folder of models.
    pub models: PathBuf,
}

/// Makes the demo's stores in `root`: a hub cache `hub` with models in several quantizations, an older revision that no
/// ref names, a partial download that died three days before `now`, a blob that nothing uses and an adapter; and a
/// folder `models`.
pub fn demo_store(root: &Path, now: SystemTime) -> Demo {
    let hub = HubStore::create(root.join("hub"));
    let spec = || ModelSpec::llama().relation("quantized").pipeline("text-generation");

    let flux = with_t5(mflux(1, &["flux", "image", "mlx", "text-to-image"]));
    let _ = hub.repo("mzbac/flux1.schnell.4bit.mlx").snapshot(&flux).with_ref("main");
    let _ = hub
        .repo("black-forest-labs/FLUX.1-schnell")
        .snapshot(&with_t5(diffusers(1, &["flux", "text-to-image"])))
        .with_ref("main");

    let llama = hub.repo("mlx-community/Tiny-Llama-4bit");
    let four = spec()
        .quant(Quant::Affine { bits: 4, group: 64 })
        .base_model("acme/Tiny-Llama")
        .tags(&["chat", "mlx"]);
    let old = llama.snapshot(&four.clone().seed(1).files());
    let _ = llama.snapshot(&four.seed(2).files()).with_ref("main");

    let qwen = ModelSpec::new("qwen2").quant(Quant::Affine { bits: 8, group: 64 }).tied(true);
    let qwen = qwen.base_model("acme/Tiny-Qwen").relation("quantized").tags(&["chat", "mlx"]);
    let _ = hub.repo("mlx-community/Tiny-Qwen-8bit").snapshot(&qwen.files()).with_ref("main");
    let mixed =
        spec().quant(Quant::Mixed { low: 4, high: 8 }).base_model("acme/Tiny-Llama").seed(3).shards(2);
    let _ = hub.repo("mlx-community/Tiny-Llama-mixed-4-8bit").snapshot(&mixed.files()).with_ref("main");
    let mxfp4 = spec().quant(Quant::Mxfp4).base_model("acme/Tiny-Llama").seed(4);
    let _ = hub.repo("mlx-community/Tiny-Llama-mxfp4").snapshot(&mxfp4.files()).with_ref("main");
    let base = ModelSpec::llama().library("transformers").tags(&["chat"]).seed(5);
    let _ = hub.repo("acme/Tiny-Llama").snapshot(&base.files()).with_ref("main");
    let adapter = peft_adapter(&base, "acme/Tiny-Llama");
    let _ = hub.repo("acme/tiny-llama-lora").snapshot(&adapter).with_ref("main");

    let bytes = Rng::new(6).bytes(96 * 1024);
    let orphan = llama.orphan(&bytes);
    let partial = llama.partial(&sha256_hex(b"a file that never arrived"), "5f3a9c01", &bytes[..40 * 1024]);
    for path in [orphan, partial, old.path(), old.blob_of("model.safetensors")] {
        set_age(&path, now, 3 * DAY);
    }

    let folder = FolderStore::create(root.join("models"));
    let fused = ModelSpec::new("qwen3").quant(Quant::Affine { bits: 4, group: 32 }).seed(7);
    folder.model("tiny-qwen3-4bit", &fused.base_model("acme/Tiny-Qwen3").files());
    folder.model("acme/tiny-llama-f16", &ModelSpec::llama().quant(Quant::F16).seed(8).files());
    folder.model("my-adapter", &mlx_adapter(&base, "acme/Tiny-Llama"));
    let local = spec().quant(Quant::Affine { bits: 6, group: 64 }).base_model("acme/Tiny-Llama").seed(9);
    folder.local_dir("tiny-llama-6bit", "mlx-community/Tiny-Llama-6bit", &local.files(), now - 20 * DAY);
    Demo { hub: hub.root().to_owned(), models: folder.root().to_owned() }
}

/// The second text encoder and tokenizer that a Flux pipeline has.
fn with_t5(mut files: Files) -> Files {
    let encoder: Files = files
        .iter()
        .filter_map(|(path, bytes)| {
            let rest = path.strip_prefix("text_encoder/")?;
            Some((format!("text_encoder_2/{rest}"), bytes.clone()))
        })
        .collect();
    files.extend(encoder);
    files.push(("tokenizer_2/spiece.model".to_owned(), b"a tokenizer's model".to_vec()));
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_demo_has_what_it_shows() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let demo = demo_store(dir.path(), SystemTime::now());
        let repos = fs_err::read_dir(&demo.hub).expect("the cache");
        let repos = repos.filter(|entry| {
            let name = entry.as_ref().expect("an entry").file_name();
            name.to_string_lossy().starts_with("models--")
        });
        assert_eq!(repos.count(), 8);
        let llama = demo.hub.join("models--mlx-community--Tiny-Llama-4bit");
        assert_eq!(fs_err::read_dir(llama.join("snapshots")).expect("snapshots").count(), 2);
        assert!(
            demo.models.join("tiny-llama-6bit/.cache/huggingface/download/config.json.metadata").exists()
        );
    }
}
