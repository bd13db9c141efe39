//! Image models: a diffusers pipeline, and one that mflux saved.

use serde_json::{Map, Value, json};

use super::{Card, json_file};
use crate::files::{Files, text};
use crate::safetensors::{Dtype, Tensor, encode};

const WIDTH: usize = 64;

/// The layers of each component: name, rows, columns.
fn component(name: &str) -> Vec<(String, usize, usize)> {
    let parts: &[&str] = match name {
        "transformer" => {
            &["x_embedder", "transformer_blocks.0.attn.to_q", "transformer_blocks.0.ff.linear1", "proj_out"]
        }
        "vae" => &["encoder.mid_block.attentions.0.to_q", "decoder.mid_block.attentions.0.to_q"],
        _ => &["text_model.encoder.layers.0.self_attn.q_proj", "text_model.encoder.layers.0.mlp.fc1"],
    };
    parts.iter().map(|part| ((*part).to_owned(), WIDTH, WIDTH)).collect()
}

fn tokenizer() -> Files {
    let vocab: Map<String, Value> = ["<|startoftext|>", "<|endoftext|>", "a", "b", "ab</w>"]
        .iter()
        .enumerate()
        .map(|(id, name)| ((*name).to_owned(), json!(id)))
        .collect();
    let config = json!({
        "tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>", "unk_token": "<|endoftext|>",
    });
    vec![
        text("tokenizer/merges.txt", "#version: 0.2\na b</w>\n"),
        json_file("tokenizer/tokenizer_config.json", &config),
        text("tokenizer/vocab.json", &Value::Object(vocab).to_string()),
    ]
}

fn card(library: &str, base: &str, tags: &[&str]) -> (String, Vec<u8>) {
    let tags: Vec<String> = tags.iter().map(|tag| (*tag).to_owned()).collect();
    Card {
        library,
        license: "apache-2.0",
        base_model: Some(base),
        relation: None,
        pipeline: Some("text-to-image"),
        tags: &tags,
        title: "random weights",
    }
    .file()
}

/// A Flux-like pipeline as diffusers saves it, in bfloat16.
pub fn diffusers(seed: u64, tags: &[&str]) -> Files {
    let index = json!({
        "_class_name": "FluxPipeline", "_diffusers_version": "0.30.0",
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"], "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"], "transformer": ["diffusers", "FluxTransformer2DModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    });
    let scheduler = json!({
        "_class_name": "FlowMatchEulerDiscreteScheduler", "_diffusers_version": "0.30.0",
        "num_train_timesteps": 1000, "shift": 1.0,
    });
    let transformer = json!({
        "_class_name": "FluxTransformer2DModel", "_diffusers_version": "0.30.0", "attention_head_dim": 32,
        "guidance_embeds": false, "in_channels": 64, "joint_attention_dim": 64, "num_attention_heads": 2,
        "num_layers": 1, "num_single_layers": 0, "patch_size": 1,
    });
    let vae = json!({
        "_class_name": "AutoencoderKL", "_diffusers_version": "0.30.0", "in_channels": 3, "latent_channels": 16,
        "out_channels": 3, "sample_size": 64, "scaling_factor": 0.3611,
    });
    let encoder = json!({
        "architectures": ["CLIPTextModel"], "model_type": "clip_text_model", "hidden_size": WIDTH,
        "intermediate_size": WIDTH, "num_hidden_layers": 1, "num_attention_heads": 2, "torch_dtype": "bfloat16",
        "vocab_size": 5,
    });
    let mut out = vec![
        card("diffusers", "black-forest-labs/FLUX.1-schnell", tags),
        json_file("model_index.json", &index),
        json_file("scheduler/scheduler_config.json", &scheduler),
        json_file("text_encoder/config.json", &encoder),
        json_file("transformer/config.json", &transformer),
        json_file("vae/config.json", &vae),
    ];
    for (name, file) in [
        ("text_encoder", "model.safetensors"),
        ("transformer", "diffusion_pytorch_model.safetensors"),
        ("vae", "diffusion_pytorch_model.safetensors"),
    ] {
        let tensors: Vec<Tensor> = component(name)
            .into_iter()
            .map(|(part, rows, columns)| {
                Tensor::new(format!("{part}.weight"), Dtype::BF16, &[rows, columns]).random(seed, -0.05, 0.05)
            })
            .collect();
        out.push((format!("{name}/{file}"), encode(&tensors, &[("format", "pt")])));
    }
    out.extend(tokenizer());
    out.sort();
    out
}

/// The same model as `mflux-save` writes it with 4 bits: no config, the level in the metadata of each weight file.
pub fn mflux(seed: u64, tags: &[&str]) -> Files {
    let metadata = [("mflux_version", "0.9.0"), ("quantization_level", "4")];
    let mut out = vec![card("mlx", "black-forest-labs/FLUX.1-schnell", tags)];
    for name in ["text_encoder", "transformer", "vae"] {
        let mut tensors = Vec::new();
        for (part, rows, columns) in component(name) {
            let groups = [rows, columns / 64];
            let named = |kind: &str| format!("{part}.{kind}");
            tensors.push(Tensor::new(named("biases"), Dtype::BF16, &groups).random(seed, -0.052, -0.048));
            tensors.push(Tensor::new(named("scales"), Dtype::BF16, &groups).random(seed, 0.0055, 0.0063));
            tensors
                .push(Tensor::new(named("weight"), Dtype::U32, &[rows, columns / 8]).random(seed, 0.0, 0.0));
        }
        let weight_map: Map<String, Value> =
            tensors.iter().map(|tensor| (tensor.name.clone(), json!("0.safetensors"))).collect();
        let index = json!({"metadata": {"mflux_version": "0.9.0", "quantization_level": "4"}, "weight_map": weight_map});
        out.push((format!("{name}/0.safetensors"), encode(&tensors, &metadata)));
        out.push(json_file(&format!("{name}/model.safetensors.index.json"), &index));
    }
    out.extend(tokenizer());
    out.sort();
    out
}
