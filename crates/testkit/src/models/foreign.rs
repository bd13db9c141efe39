//! The same small llama in the formats of other tools.

use serde_json::{Value, json};

use super::spec::sharded;
use super::{ModelSpec, json_file, tokenizer};
use crate::files::Files;
use crate::gguf::{GgmlType, Gguf, GgufTensor, GgufValue};
use crate::safetensors::{Dtype, Tensor};

/// The model every function here starts from.
fn base(seed: u64) -> ModelSpec {
    ModelSpec::llama().library("transformers").tags(&["test"]).base_model("acme/base").seed(seed)
}

/// The files of [`base`], with `quantization_config`, where `layer` makes the tensors of each layer but the embedding
/// and the head.
fn quantized(
    seed: u64,
    config: Value,
    dtype: Dtype,
    layer: impl Fn(&str, usize, usize) -> Vec<Tensor>,
) -> Files {
    let spec = base(seed).config("quantization_config", config).config(
        "torch_dtype",
        json!(match dtype {
            Dtype::F16 => "float16",
            _ => "bfloat16",
        }),
    );
    let mut tensors = spec.others(dtype);
    let mut parameters: usize = tensors.iter().map(Tensor::elements).sum();
    for (name, rows, columns) in spec.linears() {
        parameters += rows * columns;
        if name.contains("_proj") {
            tensors.extend(layer(&name, rows, columns));
        } else {
            let weight = Tensor::new(format!("{name}.weight"), dtype, &[rows, columns]);
            tensors.push(weight.random(seed, -0.05, 0.05));
        }
    }
    let mut out = vec![spec.readme(), json_file("config.json", &spec.config_json())];
    out.extend(tokenizer(256));
    out.extend(sharded(tensors, 1, parameters, "pt"));
    out.sort();
    out
}

/// GPTQ, 4 bits in groups of 32, with the old `quantize_config.json` beside the config.
pub fn gptq(seed: u64) -> Files {
    let config = json!({
        "bits": 4, "group_size": 32, "damp_percent": 0.01, "desc_act": false, "sym": true, "true_sequential": true,
        "quant_method": "gptq", "checkpoint_format": "gptq",
    });
    let mut files = quantized(seed, config, Dtype::F16, |name, rows, columns| {
        let groups: Vec<u8> = (0..columns as i32).flat_map(|column| (column / 32).to_le_bytes()).collect();
        vec![
            Tensor::new(format!("{name}.g_idx"), Dtype::I32, &[columns]).bytes(groups),
            Tensor::new(format!("{name}.qweight"), Dtype::I32, &[columns / 8, rows]).random(seed, 0.0, 0.0),
            Tensor::new(format!("{name}.qzeros"), Dtype::I32, &[columns / 32, rows / 8])
                .random(seed, 0.0, 0.0),
            Tensor::new(format!("{name}.scales"), Dtype::F16, &[columns / 32, rows])
                .random(seed, 0.005, 0.006),
        ]
    });
    let old = json!({
        "bits": 4, "group_size": 32, "damp_percent": 0.01, "desc_act": false, "sym": true, "true_sequential": true,
        "model_name_or_path": null, "model_file_base_name": "model",
    });
    files.push(json_file("quantize_config.json", &old));
    files.sort();
    files
}

/// AWQ, 4 bits in groups of 32.
pub fn awq(seed: u64) -> Files {
    let config = json!({
        "bits": 4, "group_size": 32, "modules_to_not_convert": null, "quant_method": "awq", "version": "gemm",
        "zero_point": true,
    });
    quantized(seed, config, Dtype::F16, |name, rows, columns| {
        vec![
            Tensor::new(format!("{name}.qweight"), Dtype::I32, &[columns, rows / 8]).random(seed, 0.0, 0.0),
            Tensor::new(format!("{name}.qzeros"), Dtype::I32, &[columns / 32, rows / 8])
                .random(seed, 0.0, 0.0),
            Tensor::new(format!("{name}.scales"), Dtype::F16, &[columns / 32, rows])
                .random(seed, 0.005, 0.006),
        ]
    })
}

/// bitsandbytes, NF4 with nested scales.
pub fn bitsandbytes(seed: u64) -> Files {
    let config = json!({
        "_load_in_4bit": true, "_load_in_8bit": false, "bnb_4bit_compute_dtype": "bfloat16",
        "bnb_4bit_quant_storage": "uint8", "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": true,
        "load_in_4bit": true, "load_in_8bit": false, "quant_method": "bitsandbytes",
    });
    quantized(seed, config, Dtype::BF16, |name, rows, columns| {
        let blocks = rows * columns / 64;
        let state = json!({
            "quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [rows, columns],
            "nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": 0.05,
        })
        .to_string()
        .into_bytes();
        let weight = format!("{name}.weight");
        vec![
            Tensor::new(weight.clone(), Dtype::U8, &[rows * columns / 2, 1]).random(seed, 0.0, 0.0),
            Tensor::new(format!("{weight}.absmax"), Dtype::U8, &[blocks]).random(seed, 0.0, 0.0),
            Tensor::new(format!("{weight}.nested_absmax"), Dtype::F32, &[blocks.div_ceil(256)])
                .random(seed, 0.01, 0.02),
            Tensor::new(format!("{weight}.nested_quant_map"), Dtype::F32, &[256]).random(seed, -1.0, 1.0),
            Tensor::new(format!("{weight}.quant_map"), Dtype::F32, &[16]).random(seed, -1.0, 1.0),
            Tensor::new(format!("{weight}.quant_state.bitsandbytes__nf4"), Dtype::U8, &[state.len()])
                .bytes(state),
        ]
    })
}

/// compressed-tensors, `pack-quantized`, 4 bits in groups of 32.
pub fn compressed_tensors(seed: u64) -> Files {
    let config = json!({
        "quant_method": "compressed-tensors", "format": "pack-quantized", "quantization_status": "compressed",
        "ignore": ["lm_head"], "kv_cache_scheme": null, "global_compression_ratio": null,
        "config_groups": {"group_0": {"targets": ["Linear"], "input_activations": null, "output_activations": null,
            "weights": {"num_bits": 4, "group_size": 32, "type": "int", "symmetric": true, "strategy": "group",
                "dynamic": false, "actorder": null, "observer": "minmax"}}},
    });
    quantized(seed, config, Dtype::BF16, |name, rows, columns| {
        let shape: Vec<u8> =
            [rows as i64, columns as i64].iter().flat_map(|side| side.to_le_bytes()).collect();
        vec![
            Tensor::new(format!("{name}.weight_packed"), Dtype::I32, &[rows, columns / 8])
                .random(seed, 0.0, 0.0),
            Tensor::new(format!("{name}.weight_scale"), Dtype::BF16, &[rows, columns / 32])
                .random(seed, 0.005, 0.006),
            Tensor::new(format!("{name}.weight_shape"), Dtype::I64, &[2]).bytes(shape),
        ]
    })
}

/// 8-bit floats with a scale for each block of 128 × 128, as DeepSeek publishes them.
pub fn fp8(seed: u64) -> Files {
    let config = json!({
        "activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8", "weight_block_size": [128, 128],
    });
    quantized(seed, config, Dtype::BF16, |name, rows, columns| {
        let blocks = [rows.div_ceil(128), columns.div_ceil(128)];
        vec![
            Tensor::new(format!("{name}.weight"), Dtype::F8E4M3, &[rows, columns]).random(seed, 0.0, 0.0),
            Tensor::new(format!("{name}.weight_scale_inv"), Dtype::F32, &blocks).random(seed, 0.01, 0.02),
        ]
    })
}

/// A model with nothing but `pytorch_model.bin`: a zip archive as `torch.save` starts one, without the tensors.
pub fn pytorch(seed: u64) -> Files {
    let spec = base(seed).config("torch_dtype", json!("float32"));
    let data = crate::rng::Rng::named(seed, "pytorch_model.bin").bytes(4096);
    let archive = zip(&[
        ("archive/data.pkl", b"\x80\x02}q\x00."),
        ("archive/byteorder", b"little"),
        ("archive/data/0", &data),
        ("archive/version", b"3\n"),
    ]);
    let mut out = vec![
        spec.readme(),
        json_file("config.json", &spec.config_json()),
        ("pytorch_model.bin".to_owned(), archive),
    ];
    out.extend(tokenizer(256));
    out.sort();
    out
}

/// A zip archive of stored files.
fn zip(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut directory = Vec::new();
    for (name, data) in files {
        let offset = out.len() as u32;
        // Version 2.0, no flags, stored, the earliest date, the sums and lengths, no extra field.
        let mut common = vec![20, 0, 0, 0, 0, 0, 0, 0, 0x21, 0];
        for number in [crc32(data), data.len() as u32, data.len() as u32] {
            common.extend_from_slice(&number.to_le_bytes());
        }
        common.extend_from_slice(&(name.len() as u16).to_le_bytes());
        common.extend_from_slice(&[0, 0]);
        out.extend_from_slice(b"PK\x03\x04");
        out.extend_from_slice(&common);
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(data);
        directory.extend_from_slice(b"PK\x01\x02\x14\x00");
        directory.extend_from_slice(&common);
        directory.extend_from_slice(&[0; 10]);
        directory.extend_from_slice(&offset.to_le_bytes());
        directory.extend_from_slice(name.as_bytes());
    }
    let start = out.len() as u32;
    let count = (files.len() as u16).to_le_bytes();
    out.extend_from_slice(&directory);
    out.extend_from_slice(b"PK\x05\x06\0\0\0\0");
    out.extend_from_slice(&count);
    out.extend_from_slice(&count);
    out.extend_from_slice(&(directory.len() as u32).to_le_bytes());
    out.extend_from_slice(&start.to_le_bytes());
    out.extend_from_slice(&[0, 0]);
    out
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}

/// One GGUF file `name`: a llama in `Q4_0` whose norms are `F32`, with a small vocabulary in its metadata.
pub fn gguf_model(seed: u64, name: &str) -> Files {
    let mut gguf = Gguf::new()
        .value("general.architecture", GgufValue::Text("llama".to_owned()))
        .value("general.name", GgufValue::Text("Tiny Llama".to_owned()))
        .value("general.file_type", GgufValue::U32(2))
        .value("general.quantization_version", GgufValue::U32(2))
        .value("llama.block_count", GgufValue::U32(1))
        .value("llama.context_length", GgufValue::U32(2048))
        .value("llama.embedding_length", GgufValue::U32(64))
        .value("llama.feed_forward_length", GgufValue::U32(128))
        .value("llama.attention.head_count", GgufValue::U32(2))
        .value("llama.attention.head_count_kv", GgufValue::U32(1))
        .value("llama.attention.layer_norm_rms_epsilon", GgufValue::F32(1e-5))
        .value("tokenizer.ggml.model", GgufValue::Text("gpt2".to_owned()))
        .value("tokenizer.ggml.tokens", GgufValue::Texts((0..64).map(|id| format!("t{id}")).collect()))
        .value("tokenizer.ggml.bos_token_id", GgufValue::U32(0))
        .value("tokenizer.ggml.eos_token_id", GgufValue::U32(1));
    for (name, shape, kind) in [
        ("token_embd.weight", vec![64, 64], GgmlType::Q4_0),
        ("blk.0.attn_norm.weight", vec![64], GgmlType::F32),
        ("blk.0.attn_q.weight", vec![64, 64], GgmlType::Q4_0),
        ("blk.0.attn_k.weight", vec![64, 32], GgmlType::Q4_0),
        ("blk.0.attn_v.weight", vec![64, 32], GgmlType::Q4_0),
        ("blk.0.attn_output.weight", vec![64, 64], GgmlType::Q4_0),
        ("blk.0.ffn_norm.weight", vec![64], GgmlType::F32),
        ("blk.0.ffn_gate.weight", vec![64, 128], GgmlType::Q4_0),
        ("blk.0.ffn_up.weight", vec![64, 128], GgmlType::Q4_0),
        ("blk.0.ffn_down.weight", vec![128, 64], GgmlType::Q4_0),
        ("output_norm.weight", vec![64], GgmlType::F32),
    ] {
        gguf = gguf.tensor(GgufTensor { name: name.to_owned(), shape, kind, seed });
    }
    vec![(name.to_owned(), gguf.encode())]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::safetensors::parse_header;

    #[test]
    fn every_format_has_valid_weights_and_says_its_method() {
        for (files, method, tensor) in [
            (gptq(1), "gptq", "model.layers.0.mlp.up_proj.qweight"),
            (awq(1), "awq", "model.layers.0.mlp.up_proj.qzeros"),
            (
                bitsandbytes(1),
                "bitsandbytes",
                "model.layers.0.mlp.up_proj.weight.quant_state.bitsandbytes__nf4",
            ),
            (compressed_tensors(1), "compressed-tensors", "model.layers.0.mlp.up_proj.weight_shape"),
            (fp8(1), "fp8", "model.layers.0.mlp.up_proj.weight_scale_inv"),
        ] {
            let find = |path: &str| files.iter().find(|(name, _)| name == path).map(|(_, bytes)| bytes);
            let config: Value = serde_json::from_slice(find("config.json").expect("a config")).expect("JSON");
            assert_eq!(config["quantization_config"]["quant_method"], method);
            let header = parse_header(find("model.safetensors").expect("weights")).expect("a valid file");
            assert!(header.contains_key(tensor), "{method} has no {tensor}");
        }
    }

    #[test]
    fn the_checksum_is_that_of_zip() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }
}
