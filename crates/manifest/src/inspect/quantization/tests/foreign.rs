use mlxman_testkit::bitsandbytes;
use mlxman_testkit::safetensors::{Dtype, Tensor};
use serde_json::{Value, json};

use super::{Made, claimed, file, is_contradicted, label, method, tensor};

const MATRIX: &str = "model.layers.0.mlp.down_proj";

fn of(parts: &[(&str, Dtype, &[usize])]) -> Vec<Tensor> {
    parts.iter().map(|(part, dtype, shape)| Tensor::new(format!("{MATRIX}.{part}"), *dtype, shape)).collect()
}

#[test]
fn bitsandbytes_in_4_bits() {
    let files = bitsandbytes(1);
    let config: Value =
        serde_json::from_slice(&files.iter().find(|(path, _)| path == "config.json").unwrap().1).unwrap();
    let (rows, width) = (256, 512);
    let tensors = [
        tensor("model.embed_tokens.weight", Dtype::BF16, &[100, 64]),
        tensor(&format!("{MATRIX}.weight"), Dtype::U8, &[rows * width / 2, 1]),
        tensor(&format!("{MATRIX}.weight.absmax"), Dtype::U8, &[rows * width / 64]),
        tensor(&format!("{MATRIX}.weight.nested_absmax"), Dtype::F32, &[8]),
        tensor(&format!("{MATRIX}.weight.nested_quant_map"), Dtype::F32, &[256]),
        tensor(&format!("{MATRIX}.weight.quant_map"), Dtype::F32, &[16]),
        tensor(&format!("{MATRIX}.weight.quant_state.bitsandbytes__nf4"), Dtype::U8, &[86]),
    ];
    let found = Made::new().json("config.json", &config).model(&tensors).inspect();
    assert_eq!((label(&found), method(&found)), (Some("4bit"), Some("bitsandbytes")));
    assert_eq!(found.parameter_count, Some(100 * 64 + (rows * width) as u64));
    assert_eq!(found.precision.as_deref(), Some("bf16"));
    assert_eq!(found.quantization.group_size, Some(64));
    // Without a word in the configuration.
    let found = Made::new().model(&tensors).inspect();
    assert_eq!((label(&found), method(&found)), (Some("4bit"), Some("bitsandbytes")));
    assert_eq!(file(&found, "quantization.method"), Some("model.safetensors"));
}

#[test]
fn a_component_says_it_for_the_pipeline() {
    let block = "transformer_blocks.0.ff.net.2";
    let transformer = [
        tensor(&format!("{block}.weight"), Dtype::U8, &[64 * 64 / 2, 1]),
        tensor(&format!("{block}.weight.absmax"), Dtype::F32, &[64]),
        tensor(&format!("{block}.weight.quant_map"), Dtype::F32, &[16]),
        tensor(&format!("{block}.weight.quant_state.bitsandbytes__nf4"), Dtype::U8, &[82]),
        tensor(&format!("{block}.bias"), Dtype::BF16, &[64]),
    ];
    let vae = [tensor("decoder.x.weight", Dtype::F16, &[300, 300])];
    let claim = json!({ "load_in_4bit": true, "quant_method": "bitsandbytes", "bnb_4bit_quant_type": "nf4" });
    let index = json!({ "_class_name": "FluxPipeline", "transformer": ["diffusers", "FluxTransformer2DModel"],
        "vae": ["diffusers", "AutoencoderKL"] });
    let found = Made::new()
        .json("model_index.json", &index)
        .json("transformer/config.json", &json!({ "quantization_config": claim }))
        .json("vae/config.json", &json!({}))
        .weights("transformer/diffusion_pytorch_model.safetensors", &transformer, &[("format", "pt")])
        .weights("vae/diffusion_pytorch_model.safetensors", &vae, &[("format", "pt")])
        .inspect();
    assert_eq!((label(&found), method(&found)), (Some("4bit"), Some("bitsandbytes")));
    assert_eq!(file(&found, "quantization.label"), Some("transformer/config.json"));
    assert_eq!(found.parameter_count, Some(64 * 64 + 64 + 300 * 300));
    assert!(!is_contradicted(&found));
}

#[test]
fn nvidias_formats() {
    let nvfp4 = of(&[
        ("weight", Dtype::U8, &[256, 128]),
        ("weight_scale", Dtype::F8E4M3, &[256, 16]),
        ("weight_scale_2", Dtype::F32, &[]),
        ("input_scale", Dtype::F32, &[]),
    ]);
    let claim = json!({ "quant_method": "modelopt", "quant_algo": "NVFP4" });
    let found = claimed(&claim, &nvfp4);
    assert_eq!((label(&found), method(&found)), (Some("nvfp4"), Some("modelopt")));
    assert_eq!((found.quantization.bits, found.quantization.group_size), (Some(4), Some(16)));
    assert_eq!(found.parameter_count, Some(256 * 256));
    // In the file that the older program wrote, and in none.
    let own = json!({ "producer": { "name": "modelopt" }, "quantization": { "quant_algo": "NVFP4", "group_size": 16 } });
    let found = Made::new()
        .json("config.json", &json!({ "model_type": "llama" }))
        .json("hf_quant_config.json", &own)
        .model(&nvfp4)
        .inspect();
    assert_eq!(
        (label(&found), file(&found, "quantization.label")),
        (Some("nvfp4"), Some("hf_quant_config.json"))
    );
    assert_eq!(label(&Made::new().model(&nvfp4).inspect()), Some("nvfp4"));

    let fp8 = of(&[
        ("weight", Dtype::F8E4M3, &[256, 256]),
        ("weight_scale", Dtype::F32, &[]),
        ("input_scale", Dtype::F32, &[]),
    ]);
    let found = claimed(&json!({ "quant_method": "modelopt", "quant_algo": "FP8" }), &fp8);
    assert_eq!((label(&found), method(&found)), (Some("fp8"), Some("modelopt")));
    assert_eq!(found.parameter_count, Some(256 * 256));
    // What claims one and is the other.
    let found = claimed(&claim, &fp8);
    assert_eq!((label(&found), is_contradicted(&found)), (Some("fp8"), true));
}

#[test]
fn a_quantized_model_has_no_floats_label() {
    let packed =
        of(&[("W_q", Dtype::U8, &[512, 1024]), ("scale", Dtype::BF16, &[64]), ("zero", Dtype::BF16, &[64])]);
    let exl2 = of(&[
        ("q_weight", Dtype::I32, &[64, 256]),
        ("q_groups", Dtype::I16, &[8]),
        ("q_scale", Dtype::I32, &[4, 32]),
        ("q_scale_max", Dtype::F16, &[4]),
    ]);
    let unknown = of(&[("weight", Dtype::U8, &[256, 64]), ("weight_scale", Dtype::BF16, &[1])]);
    let cases = [
        (json!({ "quant_method": "exl2", "bits": 4.0 }), &exl2, Some("4bit"), Some(4)),
        (json!({ "quant_method": "exl2", "bits": 3.5 }), &exl2, None, None),
        (
            json!({ "quant_method": "hqq", "quant_config": { "weight_quant_params": { "nbits": 4, "group_size": 64 } } }),
            &packed,
            Some("4bit"),
            Some(4),
        ),
        (json!({ "quant_method": "quanto", "weights": "int4" }), &unknown, Some("4bit"), Some(4)),
        (json!({ "quant_method": "quanto", "weights": "float8" }), &unknown, Some("fp8"), Some(8)),
        (json!({ "quant_method": "eetq", "weights": "int8" }), &unknown, Some("8bit"), Some(8)),
        (
            json!({ "quant_method": "torchao", "quant_type": { "default": { "_type": "Int4WeightOnlyConfig" } } }),
            &unknown,
            Some("4bit"),
            Some(4),
        ),
        (
            json!({ "quant_method": "torchao", "quant_type": "int8_dynamic_activation_int4_weight" }),
            &unknown,
            Some("4bit"),
            Some(4),
        ),
        (
            json!({ "quant_method": "torchao", "quant_type": { "default": {
                "_type": "Float8DynamicActivationFloat8WeightConfig" } } }),
            &unknown,
            Some("fp8"),
            Some(8),
        ),
        (json!({ "quant_method": "bitnet" }), &unknown, None, None),
    ];
    for (claim, tensors, expected, bits) in cases {
        let mut tensors = tensors.clone();
        tensors.push(tensor("model.embed_tokens.weight", Dtype::BF16, &[1000, 512]));
        let found = claimed(&claim, &tensors);
        assert_eq!((label(&found), found.quantization.bits), (expected, bits), "{claim}");
        assert_eq!(method(&found), claim["quant_method"].as_str(), "{claim}");
        assert!(!is_contradicted(&found), "{claim}");
        let counted = (claim["quant_method"] == "hqq").then_some(2 * 512 * 1024 + 1000 * 512);
        assert_eq!(found.parameter_count, counted, "{claim}");
    }
}

#[test]
fn shapes_prove_the_bits_of_gptq() {
    let (inputs, outputs) = (1024, 512);
    let made = |bits: usize| {
        of(&[
            ("qweight", Dtype::I32, &[inputs * bits / 32, outputs]),
            ("qzeros", Dtype::I32, &[inputs / 128, outputs * bits / 32]),
            ("scales", Dtype::F16, &[inputs / 128, outputs]),
            ("g_idx", Dtype::I32, &[inputs]),
            ("bias", Dtype::F16, &[outputs]),
        ])
    };
    let count = Some((inputs * outputs + outputs) as u64);
    for bits in [2, 3, 4, 8] {
        let found = Made::new().model(&made(bits)).inspect();
        assert_eq!((label(&found), method(&found)), (Some(&*format!("{bits}bit")), Some("gptq")));
        assert_eq!((found.parameter_count, found.quantization.group_size), (count, Some(128)));
    }
    // The old settings alone.
    let settings = json!({ "bits": 8, "group_size": 128, "desc_act": true });
    let found = Made::new()
        .json("config.json", &json!({ "model_type": "llama" }))
        .json("quantize_config.json", &settings)
        .model(&made(8))
        .inspect();
    assert_eq!((label(&found), found.parameter_count), (Some("8bit"), count));
    assert_eq!(file(&found, "quantization.bits"), Some("quantize_config.json"));
    assert_eq!(file(&found, "quantization.method"), Some("quantize_config.json"));
    // A claim of something else.
    let found = claimed(&json!({ "quant_method": "gptq", "bits": 4, "group_size": 128 }), &made(8));
    assert_eq!((label(&found), found.parameter_count), (Some("8bit"), count));
    assert!(is_contradicted(&found));
    // Neither index nor zeros nor scales nor settings: no number is guessed.
    let bare = of(&[("qweight", Dtype::I32, &[128, outputs])]);
    let found = Made::new().model(&bare).inspect();
    assert_eq!((label(&found), found.parameter_count), (None, None));
    let found = claimed(&json!({ "quant_method": "gptq", "bits": 8 }), &bare);
    assert_eq!((label(&found), found.parameter_count), (Some("8bit"), Some(128 * 4 * outputs as u64)));
}

#[test]
fn awq_packs_along_the_output() {
    let tensors = of(&[
        ("qweight", Dtype::I32, &[1024, 64]),
        ("qzeros", Dtype::I32, &[8, 64]),
        ("scales", Dtype::F16, &[8, 512]),
    ]);
    let found = Made::new().model(&tensors).inspect();
    assert_eq!((label(&found), method(&found)), (Some("4bit"), Some("awq")));
    assert_eq!((found.parameter_count, found.quantization.group_size), (Some(1024 * 512), Some(128)));
}

#[test]
fn compressed_tensors_by_format() {
    let claim = |format: &str, bits: u64, kind: &str, group: Option<u64>| {
        let weights = json!({ "num_bits": bits, "type": kind, "group_size": group });
        json!({ "quant_method": "compressed-tensors", "format": format,
            "config_groups": { "group_0": { "targets": ["Linear"], "weights": weights } } })
    };
    let mxfp4 = of(&[("weight_packed", Dtype::U8, &[256, 128]), ("weight_scale", Dtype::U8, &[256, 8])]);
    let nvfp4 = of(&[
        ("weight_packed", Dtype::U8, &[256, 128]),
        ("weight_scale", Dtype::F8E4M3, &[256, 16]),
        ("weight_global_scale", Dtype::F32, &[1]),
        ("input_global_scale", Dtype::F32, &[1]),
    ]);
    let int8 = of(&[
        ("weight_packed", Dtype::I32, &[256, 64]),
        ("weight_scale", Dtype::BF16, &[256, 2]),
        ("weight_shape", Dtype::I64, &[2]),
    ]);
    let fp8 = of(&[("weight", Dtype::F8E4M3, &[256, 256]), ("weight_scale", Dtype::BF16, &[256, 1])]);
    for (claim, tensors, expected) in [
        (claim("mxfp4-pack-quantized", 4, "float", Some(32)), mxfp4, "mxfp4"),
        (claim("nvfp4-pack-quantized", 4, "float", Some(16)), nvfp4, "nvfp4"),
        (claim("pack-quantized", 8, "int", Some(128)), int8.clone(), "8bit"),
        (claim("float-quantized", 8, "float", None), fp8, "fp8"),
    ] {
        let found = claimed(&claim, &tensors);
        assert_eq!((label(&found), found.parameter_count), (Some(expected), Some(256 * 256)), "{expected}");
        assert_eq!((method(&found), is_contradicted(&found)), (Some("compressed-tensors"), false));
    }
    // Nothing says how many bits: nothing is counted.
    assert_eq!(Made::new().model(&int8).inspect().parameter_count, None);
}

#[test]
fn a_stale_claim_is_told() {
    let tensors = [
        tensor("model.embed_tokens.weight", Dtype::BF16, &[2000, 64]),
        tensor("model.layers.0.self_attn.q_proj.weight", Dtype::BF16, &[64, 64]),
    ];
    let claim = json!({ "quant_method": "mxfp4", "modules_to_not_convert": [] });
    let found = claimed(&claim, &tensors);
    assert_eq!((label(&found), method(&found), found.quantization.bits), (Some("bf16"), None, None));
    assert!(is_contradicted(&found));
    // With a part of the weights away, what is claimed may be in it.
    let found = Made::new()
        .json("config.json", &json!({ "model_type": "gpt_oss", "quantization_config": claim }))
        .weights("model-00001-of-00002.safetensors", &tensors, &[("format", "pt")])
        .inspect();
    assert_eq!((label(&found), is_contradicted(&found)), (Some("mxfp4"), false));
    // A cache's scheme says nothing of weights.
    let claim = json!({ "quant_method": "modelopt", "quant_algo": null, "kv_cache_quant_algo": "FP8" });
    let found = claimed(&claim, &tensors);
    assert_eq!((label(&found), is_contradicted(&found)), (Some("bf16"), false));
}

#[test]
fn experts_in_one_tensor() {
    let experts = "model.layers.0.mlp.experts";
    let tensors = [
        tensor(&format!("{experts}.gate_up_proj"), Dtype::F8E4M3, &[4, 128, 64]),
        tensor(&format!("{experts}.gate_up_proj_scale_inv"), Dtype::F32, &[4, 1, 1]),
        tensor(&format!("{experts}.gate_up_proj_bias"), Dtype::BF16, &[4, 128]),
    ];
    let found = claimed(&json!({ "quant_method": "fp8" }), &tensors);
    assert_eq!((label(&found), is_contradicted(&found)), (Some("fp8"), false));
    assert_eq!(found.parameter_count, Some(4 * 128 * 64 + 4 * 128));

    let tensors = [
        tensor(&format!("{experts}.gate_up_proj_blocks"), Dtype::U8, &[4, 128, 2, 16]),
        tensor(&format!("{experts}.gate_up_proj_scales"), Dtype::U8, &[4, 128, 2]),
        tensor(&format!("{experts}.gate_up_proj_bias"), Dtype::BF16, &[4, 128]),
    ];
    let found = claimed(&json!({ "quant_method": "mxfp4" }), &tensors);
    assert_eq!((label(&found), method(&found)), (Some("mxfp4"), Some("mxfp4")));
    assert_eq!(found.parameter_count, Some(4 * 128 * 64 + 4 * 128));
}
