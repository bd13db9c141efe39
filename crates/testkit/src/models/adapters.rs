//! LoRA adapters.

use serde_json::json;

use super::{Card, ModelSpec, json_file};
use crate::files::Files;
use crate::safetensors::{Dtype, Tensor, encode};

const RANK: usize = 8;
const KEYS: [&str; 2] = ["self_attn.q_proj", "self_attn.v_proj"];

fn targets(spec: &ModelSpec) -> Vec<(String, usize, usize)> {
    spec.linears().into_iter().filter(|(name, ..)| KEYS.iter().any(|key| name.ends_with(key))).collect()
}

/// An adapter of rank 8 as PEFT saves it, for a model like `spec` whose repo is `base`.
pub fn peft_adapter(spec: &ModelSpec, base: &str) -> Files {
    let seed = spec.model_seed();
    let mut tensors = Vec::new();
    for (name, rows, columns) in targets(spec) {
        let part = |part: &str| format!("base_model.model.{name}.lora_{part}.weight");
        tensors.push(Tensor::new(part("A"), Dtype::F32, &[RANK, columns]).random(seed, -0.05, 0.05));
        tensors.push(Tensor::new(part("B"), Dtype::F32, &[rows, RANK]).random(seed, -0.05, 0.05));
    }
    let config = json!({
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": base, "revision": null,
        "inference_mode": true, "r": RANK, "lora_alpha": 16, "lora_dropout": 0.05, "bias": "none",
        "fan_in_fan_out": false, "init_lora_weights": true, "modules_to_save": null, "use_dora": false,
        "use_rslora": false, "rank_pattern": {}, "alpha_pattern": {}, "target_modules": ["q_proj", "v_proj"],
    });
    let card = Card {
        library: "peft",
        license: "apache-2.0",
        base_model: Some(base),
        relation: Some("adapter"),
        pipeline: None,
        tags: &["lora".to_owned()],
        title: "random adapter",
    };
    vec![
        card.file(),
        json_file("adapter_config.json", &config),
        ("adapter_model.safetensors".to_owned(), encode(&tensors, &[("format", "pt")])),
    ]
}

/// An adapter of rank 8 as `mlx_lm.lora` saves it, for a model like `spec` that was loaded from `base`.
pub fn mlx_adapter(spec: &ModelSpec, base: &str) -> Files {
    let seed = spec.model_seed();
    let mut tensors = Vec::new();
    for (name, rows, columns) in targets(spec) {
        tensors.push(
            Tensor::new(format!("{name}.lora_a"), Dtype::F32, &[columns, RANK]).random(seed, -0.05, 0.05),
        );
        tensors
            .push(Tensor::new(format!("{name}.lora_b"), Dtype::F32, &[RANK, rows]).random(seed, -0.05, 0.05));
    }
    let layers = spec.config_json()["num_hidden_layers"].clone();
    let config = json!({
        "adapter_path": "adapters", "batch_size": 4, "data": "data", "fine_tune_type": "lora",
        "grad_checkpoint": false, "iters": 100, "learning_rate": 1e-5, "mask_prompt": false,
        "lora_parameters": {"rank": RANK, "scale": 20.0, "dropout": 0.0, "keys": KEYS},
        "max_seq_length": 2048, "model": base, "num_layers": layers, "optimizer": "adam", "seed": 0,
        "save_every": 100, "steps_per_eval": 200, "steps_per_report": 10, "test": false, "train": true,
        "val_batches": 25,
    });
    let weights = encode(&tensors, &[("format", "mlx")]);
    vec![
        json_file("adapter_config.json", &config),
        ("0000100_adapters.safetensors".to_owned(), weights.clone()),
        ("adapters.safetensors".to_owned(), weights),
    ]
}
