use mlxman_testkit::safetensors::Dtype;
use serde_json::json;

use super::{Made, claimed, file, is_contradicted, label, method, packed, tensor};

#[test]
fn what_nothing_settles_is_not_counted() {
    // 4 bits in groups of 64, 8 in groups of 32 and 2 in groups of 128 look like this.
    let found = Made::new().model(&packed("some.thing", 256, 256, 4, 64)).inspect();
    assert_eq!(found.parameter_count, None);
    assert_eq!(found.quantization.bits_per_weight, None);
    assert_eq!((label(&found), method(&found)), (None, Some("mlx")));

    // One matrix that is settled beside a larger one that is not.
    let mut tensors = packed("some.thing", 2560, 256, 4, 64).to_vec();
    tensors.extend(packed("other", 256, 256, 5, 64));
    let found = Made::new().model(&tensors).inspect();
    assert_eq!((found.parameter_count, found.quantization.bits_per_weight), (None, None));
    assert_eq!((label(&found), found.quantization.bits), (None, None));
}

#[test]
fn neighbours_tell_what_a_matrix_reads() {
    // As flux.swift saves a transformer and a text encoder: no claim anywhere, and no norm.
    let mut transformer = Vec::new();
    let block = "transformer_blocks.0";
    for (name, rows, width) in [
        ("attn.to_q", 256, 256),
        ("attn.to_out.0", 256, 256),
        ("attn.to_v", 256, 256),
        ("ff.net.0.proj", 1024, 256),
        ("ff.net.2", 256, 1024),
    ] {
        transformer.extend(packed(&format!("{block}.{name}"), rows, width, 4, 64));
    }
    let mut encoder = Vec::new();
    for name in ["q", "k", "v", "o"] {
        encoder.extend(packed(&format!("encoder.block.0.layer.0.SelfAttention.{name}"), 512, 512, 4, 64));
    }
    // Nothing measures this one; all the rest is the same.
    let clip = packed("text_model.encoder.layers.0.mlp.fc1", 1024, 256, 4, 64);
    let vae = [tensor("decoder.conv_in.weight", Dtype::F16, &[64, 3, 3, 16])];
    let found = Made::new()
        .weights("transformer/flux.safetensors", &transformer, &[("format", "mlx")])
        .weights("text_encoder_2/model.safetensors", &encoder, &[("format", "mlx")])
        .weights("text_encoder/model.safetensors", &clip, &[("format", "mlx")])
        .weights("vae/model.safetensors", &vae, &[("format", "mlx")])
        .inspect();
    assert_eq!((label(&found), found.quantization.group_size), (Some("4bit"), Some(64)));
    let count = 3 * 256 * 256 + 2 * 1024 * 256 + 4 * 512 * 512 + 1024 * 256 + 64 * 9 * 16;
    assert_eq!(found.parameter_count, Some(count));
    let said = found.evidence["quantization.bits"].key.as_deref().unwrap();
    assert!(said.ends_with("; 1 more, whose shapes leave it open, were taken to be the same"), "{said}");
}

#[test]
fn eight_bits_in_groups_of_32_are_told_by_neighbours_too() {
    let mut tensors = Vec::new();
    for name in ["fc1", "fc2", "attn.wq", "attn.wv", "attn.wo"] {
        tensors.extend(packed(&format!("blocks.0.{name}"), 256, 256, 8, 32));
    }
    let found = Made::new().model(&tensors).inspect();
    assert_eq!((label(&found), found.quantization.group_size), (Some("8bit"), Some(32)));
    assert_eq!(found.parameter_count, Some(5 * 256 * 256));
}

#[test]
fn a_gate_in_the_same_matrix_proves_nothing() {
    // GEGLU: `net.0.proj` has twice the rows that `net.2` reads.
    let mut tensors = packed("transformer_blocks.0.ff.net.0.proj", 2048, 256, 4, 64).to_vec();
    tensors.extend(packed("transformer_blocks.0.ff.net.2", 256, 1024, 4, 64));
    let found = Made::new().model(&tensors).inspect();
    assert_eq!(label(&found), Some("4bit"));
    assert_eq!(found.parameter_count, Some(2048 * 256 + 256 * 1024));
}

#[test]
fn metadata_of_mflux_settle_it() {
    let tensors = packed("proj_out", 256, 256, 8, 32);
    let metadata = [("quantization_level", "8"), ("group_size", "32")];
    let found = Made::new().weights("model.safetensors", &tensors, &metadata).inspect();
    assert_eq!((label(&found), found.quantization.group_size), (Some("8bit"), Some(32)));
    assert_eq!(found.parameter_count, Some(256 * 256));
    assert_eq!(found.evidence["quantization.bits"].key.as_deref(), Some("__metadata__.quantization_level"));
    // What the shapes forbid settles nothing.
    let metadata = [("quantization_level", "8"), ("group_size", "64")];
    let found = Made::new().weights("model.safetensors", &tensors, &metadata).inspect();
    assert_eq!((label(&found), found.parameter_count), (None, None));
}

#[test]
fn a_claim_that_shapes_allow_wins_over_what_is_likely() {
    // Twice as many queries as are read: a gate beside them, or so the claim makes it.
    let mut tensors = packed("model.layers.0.self_attn.q_proj", 512, 256, 4, 64).to_vec();
    tensors.extend(packed("model.layers.0.self_attn.v_proj", 128, 256, 4, 64));
    tensors.extend(packed("model.layers.0.self_attn.o_proj", 256, 256, 4, 64));
    let found = claimed(&json!({ "bits": 4, "group_size": 64 }), &tensors);
    assert_eq!((label(&found), is_contradicted(&found)), (Some("4bit"), false));
    assert_eq!(found.parameter_count, Some(512 * 256 + 128 * 256 + 256 * 256));
    assert_eq!(file(&found, "quantization.bits"), Some("config.json"));
    // Nothing of the product of 3 and 64 is possible.
    let found = claimed(&json!({ "bits": 3, "group_size": 64 }), &tensors);
    assert!(is_contradicted(&found));
    assert_ne!(label(&found), Some("3bit"));
}

#[test]
fn a_tower_is_not_measured_by_the_text() {
    let mut tensors = Vec::new();
    for (prefix, width) in [("vision_tower.encoder.layers", 768), ("language_model.model.layers", 1536)] {
        for layer in 0..2 {
            tensors.push(tensor(&format!("{prefix}.{layer}.input_layernorm.weight"), Dtype::BF16, &[width]));
            for name in ["q_proj", "k_proj", "v_proj", "o_proj"] {
                let module = format!("{prefix}.{layer}.self_attn.{name}");
                tensors.extend(packed(&module, width, width, 4, 64));
            }
        }
    }
    let config = json!({
        "model_type": "gemma4", "hidden_size": 1536, "text_config": { "hidden_size": 1536 },
        "vision_config": { "hidden_size": 768 }, "quantization": { "bits": 4, "group_size": 64 },
    });
    for with_claim in [true, false] {
        let mut config = config.clone();
        if !with_claim {
            config.as_object_mut().unwrap().remove("quantization");
        }
        let found = Made::new().json("config.json", &config).model(&tensors).inspect();
        assert_eq!((label(&found), is_contradicted(&found)), (Some("4bit"), false));
        assert_eq!(found.parameter_count, Some(2 * (768 + 4 * 768 * 768 + 1536 + 4 * 1536 * 1536)));
    }
}

#[test]
fn a_shared_block_that_reads_two_states_is_not_halved() {
    // zamba2: the block's own norm stands nearer than its layer's, and its output is half as wide.
    let layer = "model.layers.5";
    let mut tensors = vec![
        tensor(&format!("{layer}.input_layernorm.weight"), Dtype::BF16, &[256]),
        tensor(&format!("{layer}.shared_transformer.input_layernorm.weight"), Dtype::BF16, &[512]),
    ];
    for name in ["q_proj", "k_proj", "v_proj"] {
        tensors.extend(packed(&format!("{layer}.shared_transformer.self_attn.{name}"), 512, 512, 4, 64));
    }
    tensors.extend(packed(&format!("{layer}.shared_transformer.self_attn.o_proj"), 256, 512, 4, 64));
    let found = claimed(&json!({ "bits": 4, "group_size": 64 }), &tensors);
    assert_eq!((label(&found), is_contradicted(&found)), (Some("4bit"), false));
    assert_eq!(found.parameter_count, Some(256 + 512 + 3 * 512 * 512 + 256 * 512));
}

#[test]
fn a_finer_router_does_not_make_a_model_mixed() {
    for router in ["router.proj", "mlp.gate.gate_proj", "block_sparse_moe.router.layer"] {
        let mut tensors = packed("model.layers.0.mlp.up_proj", 512, 256, 4, 32).to_vec();
        tensors.extend(packed(&format!("model.layers.0.{router}"), 64, 256, 8, 128));
        let claim = json!({
            "bits": 4, "group_size": 32, format!("model.layers.0.{router}"): { "bits": 8, "group_size": 128 },
        });
        let found = claimed(&claim, &tensors);
        assert_eq!((label(&found), is_contradicted(&found)), (Some("4bit"), false), "{router}");
        let bare = Made::new().json("config.json", &json!({ "quantization": claim })).inspect();
        assert_eq!(label(&bare), Some("4bit"), "{router}");
    }
}

#[test]
fn the_same_is_said_each_time() {
    let mut tensors = Vec::new();
    for layer in 0..20 {
        tensors.extend(packed(&format!("model.layers.{layer}.mlp.fc1"), 256, 256, 5, 64));
        tensors.extend(packed(&format!("model.layers.{layer}.mlp.fc2"), 256, 256, 3, 32));
    }
    let made = Made::new().model(&tensors);
    let first = made.inspect();
    assert_eq!(label(&first), Some("mixed-3-5bit"));
    for _ in 0..5 {
        assert_eq!(made.inspect(), first);
    }
}
