//! Names of a block's parts, and what they tell of where a matrix stands.

/// Read the hidden state of their block.
pub(super) const READ_HIDDEN: [&str; 39] = [
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
    "Wqkv",
    "query_key_value",
    "qkv",
    "c_attn",
    "c_fc",
    "fc1",
    "linear1",
    "dense_h_to_4h",
    "to_q",
    "to_k",
    "to_v",
    "add_q_proj",
    "add_k_proj",
    "add_v_proj",
    "q",
    "k",
    "v",
    "wq",
    "wk",
    "wv",
    "query",
    "key",
    "value",
];

/// Write into the hidden state of their block: as many rows as it is wide.
pub(super) const WRITE_HIDDEN: [&str; 14] = [
    "o_proj",
    "out_proj",
    "down_proj",
    "fc2",
    "w2",
    "wo",
    "o",
    "c_proj",
    "dense",
    "dense_4h_to_h",
    "linear2",
    "out",
    "to_out.0",
    "net.2",
];

/// Norms of the hidden state, before or after a part of a block.
pub(super) const NORMS: [&str; 15] = [
    "input_layernorm",
    "post_attention_layernorm",
    "pre_feedforward_layernorm",
    "attention_norm",
    "ffn_norm",
    "layer_norm",
    "layer_norm1",
    "layer_norm2",
    "self_attn_layer_norm",
    "final_layer_norm",
    "ln_1",
    "ln_2",
    "ln1",
    "ln2",
    "attn_ln",
];

/// Queries, keys and values, and what follows them.
pub(super) const ATTENTIONS: [(&str, [&str; 3]); 6] = [
    ("o_proj", ["q_proj", "k_proj", "v_proj"]),
    ("out_proj", ["q_proj", "k_proj", "v_proj"]),
    ("to_out.0", ["to_q", "to_k", "to_v"]),
    ("o", ["q", "k", "v"]),
    ("wo", ["wq", "wk", "wv"]),
    ("out", ["query", "key", "value"]),
];

/// Whether `name` is the last part, or the last parts, of `path`.
pub(super) fn is_at_end(path: &str, name: &str) -> bool {
    path.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// Attention to something else than the block's own input.
pub(super) fn reads_elsewhere(parent: &str) -> bool {
    ["cross", "encoder_attn", "attn2", "EncDecAttention"].iter().any(|part| parent.contains(part))
}

/// A part of a model that sees or hears, of which the language model's numbers say nothing.
pub(super) fn is_tower(module: &str) -> bool {
    let parts = ["vision", "audio", "visual", "tower", "img_processor", "image_", "speech"];
    parts.iter().any(|part| module.contains(part))
}

/// `model.layers.0` of `model.layers.0.self_attn.q_proj`.
pub(super) fn block_of(module: &str) -> Option<&str> {
    let mut end = 0;
    let mut found = None;
    let mut previous = "";
    for part in module.split('.') {
        end += part.len();
        let is_stack = ["layers", "blocks", "block"].iter().any(|name| previous.ends_with(name))
            || ["h", "layer"].contains(&previous) && found.is_none();
        if is_stack && !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()) {
            found = Some(&module[..end]);
        }
        previous = part;
        end += 1;
    }
    found
}
