//! Models of nothing but headers, and what is found of them.

mod count;
mod foreign;
mod mlx;

use std::path::Path;

use mlxman_store::{ProblemKind, Progress, StoreKind, StoreSpec, layout_of};
use mlxman_testkit::safetensors::{Dtype, Tensor, write_sparse};
use serde_json::{Value, json};

use super::label::is_router;
use crate::inspect::{Observation, inspect};

/// A model in the making.
pub(super) struct Made(tempfile::TempDir);

impl Made {
    pub(super) fn new() -> Self {
        let made = Made(tempfile::tempdir().unwrap());
        fs_err::create_dir(made.0.path().join("m")).unwrap();
        made
    }

    fn path(&self, path: &str) -> std::path::PathBuf {
        let path = self.0.path().join("m").join(path);
        fs_err::create_dir_all(path.parent().unwrap_or(Path::new(""))).unwrap();
        path
    }

    pub(super) fn json(self, path: &str, value: &Value) -> Self {
        fs_err::write(self.path(path), value.to_string()).unwrap();
        self
    }

    /// A weight file of these tensors.
    pub(super) fn weights(self, path: &str, tensors: &[Tensor], metadata: &[(&str, &str)]) -> Self {
        write_sparse(&self.path(path), tensors, metadata);
        self
    }

    pub(super) fn model(self, tensors: &[Tensor]) -> Self {
        self.weights("model.safetensors", tensors, &[("format", "pt")])
    }

    pub(super) fn inspect(&self) -> Observation {
        let spec = StoreSpec::new(StoreKind::Folder, self.0.path());
        let scan = layout_of(StoreKind::Folder).scan(&spec, &Progress::default()).unwrap();
        assert_eq!(scan.models.len(), 1, "{:?}", scan.models);
        inspect(&scan, &scan.models[0], &Progress::default())
    }
}

/// A model of these tensors, with this as its `quantization_config`.
pub(super) fn claimed(claim: &Value, tensors: &[Tensor]) -> Observation {
    let config = json!({ "model_type": "llama", "quantization_config": claim });
    Made::new().json("config.json", &config).model(tensors).inspect()
}

pub(super) fn tensor(name: &str, dtype: Dtype, shape: &[usize]) -> Tensor {
    Tensor::new(name, dtype, shape)
}

/// What MLX packs a matrix into, in the affine mode.
pub(super) fn packed(module: &str, rows: usize, width: usize, bits: usize, group: usize) -> [Tensor; 3] {
    let part = |part: &str, dtype, columns| Tensor::new(format!("{module}.{part}"), dtype, &[rows, columns]);
    [
        part("weight", Dtype::U32, width * bits / 32),
        part("scales", Dtype::BF16, width / group),
        part("biases", Dtype::BF16, width / group),
    ]
}

pub(super) fn label(found: &Observation) -> Option<&str> {
    found.quantization.label.as_deref()
}

pub(super) fn method(found: &Observation) -> Option<&str> {
    found.quantization.method.as_deref()
}

/// The file that said so.
pub(super) fn file<'a>(found: &'a Observation, field: &str) -> Option<&'a str> {
    Some(found.evidence.get(field)?.file.as_str())
}

pub(super) fn is_contradicted(found: &Observation) -> bool {
    found.health.problems.iter().any(|problem| problem.kind == ProblemKind::QuantizationContradicted)
}

/// Every module for which a model file of mlx_lm 0.32.2 asks for 8 bits because it routes.
#[test]
fn the_routers_of_mlx_lm() {
    for module in [
        "model.layers.0.mlp.gate",
        "model.layers.0.router.gate",
        "model.layers.0.mlp.router.gate",
        "model.layers.0.mlp.gate.gate_proj",
        "model.layers.0.router.proj",
        "model.layers.0.mlp.router",
        "model.layers.0.block_sparse_moe.router.layer",
        "model.layers.0.feed_forward.router",
        "model.layers.0.mlp.gate.proj",
        "model.layers.0.feed_forward.gate",
        "model.layers.0.mlp.router.classifier",
        "model.layers.0.block_sparse_moe.gate",
        "model.layers.0.mlp.shared_expert_gate",
        "model.layers.0.mlp.gate.gate",
        "model.layers.0.mlp.gate.wg",
    ] {
        assert!(is_router(module), "{module}");
    }
    for module in [
        "model.layers.0.mlp.gate_proj",
        "model.layers.0.self_attn.o_proj",
        "model.layers.0.mlp.down_proj",
        "model.layers.0.mlp.switch_mlp.gate_proj",
        "model.layers.0.mlp.shared_expert.gate_proj",
        "lm_head",
        "classifier",
    ] {
        assert!(!is_router(module), "{module}");
    }
}
