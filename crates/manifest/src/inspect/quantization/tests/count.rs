use mlxman_testkit::safetensors::Dtype;
use serde_json::json;

use super::{Made, tensor};

#[test]
fn buffers_are_no_parameters() {
    let gpt2 = [
        tensor("wte.weight", Dtype::F32, &[100, 64]),
        tensor("h.0.attn.bias", Dtype::F32, &[1, 1, 128, 128]),
        tensor("h.0.attn.masked_bias", Dtype::F32, &[]),
        tensor("h.0.attn.c_attn.weight", Dtype::F32, &[64, 192]),
        tensor("h.0.attn.c_attn.bias", Dtype::F32, &[192]),
    ];
    assert_eq!(Made::new().model(&gpt2).inspect().parameter_count, Some(100 * 64 + 64 * 192 + 192));
    let neox = [
        tensor("gpt_neox.layers.0.attention.bias", Dtype::U8, &[1, 1, 128, 128]),
        tensor("gpt_neox.layers.0.attention.rotary_emb.inv_freq", Dtype::F16, &[8]),
        tensor("gpt_neox.layers.0.attention.dense.weight", Dtype::F16, &[64, 64]),
    ];
    assert_eq!(Made::new().model(&neox).inspect().parameter_count, Some(64 * 64));
    let others = [
        tensor("fc.weight", Dtype::F32, &[10, 64]),
        tensor("bn1.weight", Dtype::F32, &[64]),
        tensor("bn1.running_mean", Dtype::F32, &[64]),
        tensor("bn1.running_var", Dtype::F32, &[64]),
        tensor("bn1.num_batches_tracked", Dtype::I64, &[]),
        tensor("embeddings.position_ids", Dtype::I64, &[1, 77]),
        tensor("layers.0.self_attn.k_scale", Dtype::F32, &[1]),
        tensor("layers.0.self_attn.v_scale", Dtype::F32, &[1]),
        tensor("layers.0.fc.weight_zero_point", Dtype::F32, &[64]),
        // Learned, though it is called a scale.
        tensor("logit_scale", Dtype::F32, &[1]),
    ];
    assert_eq!(Made::new().model(&others).inspect().parameter_count, Some(640 + 64 + 1));
}

#[test]
fn dense_modules_of_a_sentence_transformer_count() {
    let linear = |rows, width| [tensor("linear.weight", Dtype::F32, &[rows, width])];
    let modules = json!([
        { "idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer" },
        { "idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling" },
        { "idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense" },
    ]);
    let made = Made::new()
        .json("config.json", &json!({ "model_type": "gemma3_text" }))
        .json("1_Pooling/config.json", &json!({}))
        .model(&[tensor("embed_tokens.weight", Dtype::F32, &[64, 64])])
        .weights("2_Dense/model.safetensors", &linear(256, 64), &[("format", "pt")]);
    assert_eq!(made.inspect().parameter_count, Some(64 * 64));
    assert_eq!(made.json("modules.json", &modules).inspect().parameter_count, Some(64 * 64 + 256 * 64));
}
