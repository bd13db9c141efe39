//! How wide what a quantized matrix reads is, proved by tensors that are not packed.
//!
//! A packed matrix shows its rows, and the product of bits and group size; four bits in groups of 64 and eight in
//! groups of 32 look the same. The width of its input settles it, and some other tensor of the same layer has that
//! width: the norm before it, or the rows of the matrix that it follows. What is wrong by a factor of two would prove
//! the wrong bits, so nothing is taken here that is only likely.

use std::collections::HashMap;

use serde_json::Value;

use super::tensors::{WeightFile, all};
use crate::formats::safetensors::TensorInfo;

/// Read the hidden state, behind the norm of their layer.
const READ_HIDDEN: [&str; 16] = [
    "q_proj",
    "k_proj",
    "v_proj",
    "qkv_proj",
    "q_a_proj",
    "kv_a_proj_with_mqa",
    "gate_proj",
    "up_proj",
    "gate_up_proj",
    "w1",
    "w3",
    "gate",
    "router",
    "shared_expert_gate",
    "in_proj_qkvz",
    "in_proj_ba",
];

pub(super) struct Widths<'a> {
    tensors: HashMap<(&'a str, &'a str), &'a TensorInfo>,
    /// Attention heads and key-value heads, as the configuration counts them.
    heads: Option<(u64, u64)>,
    /// The hidden size, where the configuration has one that holds for every part of the model.
    hidden: Option<u64>,
}

impl<'a> Widths<'a> {
    pub(super) fn new(files: &[&'a WeightFile], config: Option<&Value>) -> Self {
        let tensors = all(files).map(|(file, tensor)| ((file.component(), &*tensor.name), tensor)).collect();
        let number = |keys: &[&str]| keys.iter().find_map(|key| config?.get(key)?.as_u64());
        let heads = number(&["num_attention_heads"]).filter(|heads| *heads > 0).map(|heads| {
            (heads, number(&["num_key_value_heads"]).filter(|heads| *heads > 0).unwrap_or(heads))
        });
        let one_part = config.is_some_and(|config| {
            config.as_object().is_some_and(|map| {
                !map.keys().any(|key| key.ends_with("_config") && key != "quantization_config")
            })
        });
        let hidden = number(&["hidden_size", "d_model", "n_embd", "dim"]).filter(|_| one_part);
        Widths { tensors, heads, hidden }
    }

    /// The width of what `module` of this component reads.
    pub(super) fn of(&self, component: &str, module: &str) -> Option<u64> {
        let (parent, name) = module.rsplit_once('.').unwrap_or(("", module));
        let beside = |name: &str| self.get(component, parent, &format!("{name}.weight"));
        let rows = |name: &str| rows(beside(name)?);
        match name {
            "embed_tokens" => self.norm(component, &[&join(parent, "norm.weight")]),
            "lm_head" => {
                self.norm(component, &[&join(parent, "model.norm.weight"), &join(parent, "norm.weight")])
            }
            "down_proj" => {
                rows("up_proj").or_else(|| rows("gate_up_proj").filter(|n| n % 2 == 0).map(|n| n / 2))
            }
            "w2" => rows("w3"),
            "o_proj" => self.attention(component, parent),
            "q_b_proj" => self.norm(component, &[&join(parent, "q_a_layernorm.weight")]),
            "kv_b_proj" | "unembed_out" => self.norm(component, &[&join(parent, "kv_a_layernorm.weight")]),
            "embed_q" => self.unrotated(component, parent),
            _ if READ_HIDDEN.contains(&name) => {
                let layer = layer_of(parent)?;
                self.norm(
                    component,
                    &[
                        &join(layer, "input_layernorm.weight"),
                        &join(layer, "post_attention_layernorm.weight"),
                        &join(layer, "attention_norm.weight"),
                    ],
                )
                .or(self.hidden)
            }
            _ => None,
        }
    }

    fn get(&self, component: &str, parent: &str, name: &str) -> Option<&'a TensorInfo> {
        self.tensors.get(&(component, &*join(parent, name))).copied()
    }

    /// The length of the first of these norms that is there.
    fn norm(&self, component: &str, names: &[&str]) -> Option<u64> {
        names.iter().find_map(|name| match self.tensors.get(&(component, *name))?.shape[..] {
            [length] => Some(length),
            _ => None,
        })
    }

    /// What all heads of an attention give, in a row.
    fn attention(&self, component: &str, parent: &str) -> Option<u64> {
        let rows = |name: &str| rows(self.get(component, parent, &format!("{name}.weight"))?);
        // Latent attention: `unembed_out` is heads x head width x rank.
        if let Some(out) = self.get(component, parent, "unembed_out.weight") {
            return match out.shape[..] {
                [heads, width, _] => heads.checked_mul(width),
                _ => None,
            };
        }
        let (heads, shared) = self.heads?;
        if let Some(all) = rows("qkv_proj") {
            let each = heads.checked_add(shared.checked_mul(2)?)?;
            return (all % each == 0).then(|| all / each * heads);
        }
        // Twice as many rows as there should be are a gate beside the queries: then nothing is certain.
        let width = rows("v_proj").filter(|rows| rows % shared == 0)? / shared;
        let given = heads.checked_mul(width)?;
        (rows("q_proj") == Some(given)).then_some(given)
    }

    /// The part of a latent attention's query head that is not rotated.
    fn unrotated(&self, component: &str, parent: &str) -> Option<u64> {
        let get = |name: &str| self.get(component, parent, name);
        let heads = *get("embed_q.weight")?.shape.first().filter(|heads| **heads > 0)?;
        let rank = self.norm(component, &[&join(parent, "kv_a_layernorm.weight")])?;
        let rotated = rows(get("kv_a_proj_with_mqa.weight")?)?.checked_sub(rank)?;
        let queries = rows(get("q_b_proj.weight").or_else(|| get("q_proj.weight"))?)?;
        (queries % heads == 0).then(|| (queries / heads).checked_sub(rotated)).flatten()
    }
}

/// Rows of a matrix, or of each matrix of a stack: packing leaves them as they are.
fn rows(tensor: &TensorInfo) -> Option<u64> {
    tensor.shape.len().checked_sub(2).map(|at| tensor.shape[at])
}

fn join(parent: &str, name: &str) -> String {
    if parent.is_empty() { name.to_owned() } else { format!("{parent}.{name}") }
}

/// `model.layers.0` of `model.layers.0.self_attn`. Nothing for attention to something else than the layer's own input.
fn layer_of(parent: &str) -> Option<&str> {
    if parent.contains("cross") || parent.contains("encoder_attn") {
        return None;
    }
    let mut end = 0;
    let mut found = None;
    let mut previous = "";
    for part in parent.split('.') {
        end += part.len();
        if !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()) && previous.ends_with("layers")
        {
            found = Some(&parent[..end]);
        }
        previous = part;
        end += 1;
    }
    found
}
