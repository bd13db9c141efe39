//! What kind of model lies in a snapshot, and whether it is whole, for the files that many programs write.

use chrono::DateTime;
use mlxman_manifest::catalog::Catalog;
use mlxman_manifest::registry::{Registry, SyncOptions};
use mlxman_manifest::{AdapterKind, Format, HealthStatus, Observation, inspect};
use mlxman_store::{ProblemKind, Progress, StoreKind, StoreSpec, layout_of};
use mlxman_testkit::safetensors::{Dtype, Tensor, encode};
use mlxman_testkit::{GgmlType, Gguf, GgufTensor, GgufValue, HubStore, text};

type Files = Vec<(String, Vec<u8>)>;

#[expect(clippy::needless_pass_by_value, reason = "every caller makes them for it")]
fn found(files: Files) -> Observation {
    let dir = tempfile::tempdir().expect("a directory");
    let hub = HubStore::create(dir.path().join("hub"));
    let _ = hub.repo("acme/model").snapshot(&files).with_ref("main");
    let spec = StoreSpec::new(StoreKind::Hub, hub.root());
    let scan = layout_of(StoreKind::Hub).scan(&spec, &Progress::default()).expect("a scan");
    let observation = inspect(&scan, &scan.models[0], &Progress::default());
    // What is said to be evidence is there.
    for (field, evidence) in &observation.evidence {
        let is_file = files.iter().any(|(path, _)| *path == evidence.file);
        let told = ["repo name", "safetensors header", scan.models[0].key.as_str()];
        assert!(is_file || told.contains(&evidence.file.as_str()), "{field}: {evidence:?}");
    }
    observation
}

fn problems(found: &Observation) -> Vec<(ProblemKind, Option<&str>)> {
    found.health.problems.iter().map(|problem| (problem.kind, problem.path.as_deref())).collect()
}

#[track_caller]
fn is_complete(found: &Observation) {
    assert_eq!(found.health.status, HealthStatus::Complete, "{:?}", found.health.problems);
    assert!(found.health.problems.is_empty(), "{:?}", found.health.problems);
}

fn bytes(path: &str, start: &[u8]) -> (String, Vec<u8>) {
    let mut bytes = start.to_vec();
    bytes.resize(500, 0);
    (path.to_owned(), bytes)
}

fn weights(path: &str, tensors: &[(&str, &[usize])], metadata: &[(&str, &str)]) -> (String, Vec<u8>) {
    let tensors: Vec<Tensor> =
        tensors.iter().map(|(name, shape)| Tensor::new(*name, Dtype::F16, shape)).collect();
    (path.to_owned(), encode(&tensors, metadata))
}

const PT: &[(&str, &str)] = &[("format", "pt")];
const MLX: &[(&str, &str)] = &[("format", "mlx")];
const ZIP: &[u8] = b"PK\x03\x04";

fn gguf(path: &str, values: &[(&str, GgufValue)], tensors: &[(&str, &[u64], GgmlType)]) -> (String, Vec<u8>) {
    let mut file = Gguf::new();
    for (key, value) in values {
        file = file.value(key, value.clone());
    }
    for (name, shape, kind) in tensors {
        file =
            file.tensor(GgufTensor { name: (*name).to_owned(), shape: shape.to_vec(), kind: *kind, seed: 1 });
    }
    (path.to_owned(), file.encode())
}

fn word(text: &str) -> GgufValue {
    GgufValue::Text(text.to_owned())
}

/// One file or part of a llama in the mix of types with this number.
fn llama(path: &str, file_type: u32, part: Option<(u32, u32)>) -> (String, Vec<u8>) {
    let mut values = vec![
        ("general.architecture", word("llama")),
        ("general.file_type", GgufValue::U32(file_type)),
        ("llama.block_count", GgufValue::U32(2)),
        ("tokenizer.ggml.tokens", GgufValue::Texts(vec!["a".to_owned()])),
    ];
    if let Some((number, count)) = part {
        values.push(("split.no", GgufValue::U32(number)));
        values.push(("split.count", GgufValue::U32(count)));
    }
    let kind = if file_type == 1 { GgmlType::F16 } else { GgmlType::Q8_0 };
    gguf(path, &values, &[("token_embd.weight", &[32, 4], kind)])
}

fn projector(path: &str) -> (String, Vec<u8>) {
    let values = [("general.architecture", word("clip")), ("general.file_type", GgufValue::U32(1))];
    gguf(path, &values, &[("v.patch_embd.weight", &[64, 8], GgmlType::F16)])
}

fn gguf_adapter(path: &str) -> (String, Vec<u8>) {
    let values = [
        ("general.architecture", word("llama")),
        ("general.type", word("adapter")),
        ("adapter.type", word("lora")),
        ("adapter.lora.alpha", GgufValue::F32(32.0)),
        ("general.file_type", GgufValue::U32(1)),
        ("general.base_model.0.repo_url", word("https://huggingface.co/acme/base")),
    ];
    gguf(
        path,
        &values,
        &[
            ("blk.0.attn_q.weight.lora_a", &[64, 16], GgmlType::F16),
            ("blk.0.attn_q.weight.lora_b", &[16, 64], GgmlType::F16),
        ],
    )
}

#[test]
fn a_projector_an_adapter_and_an_imatrix_beside_a_model_say_nothing_of_it() {
    let imatrix = gguf(
        "imatrix.gguf",
        &[("general.type", word("imatrix"))],
        &[("blk.0.in_sum2", &[64], GgmlType::F32)],
    );
    // Before the model and behind it in the order of names.
    for name in ["a-Q4_K_M.gguf", "z-Q4_K_M.gguf"] {
        let found = found(vec![
            llama(name, 15, None),
            projector("mmproj-f16.gguf"),
            gguf_adapter("lora.gguf"),
            imatrix.clone(),
        ]);
        assert_eq!(found.format, Format::Gguf);
        assert_eq!(found.architecture.model_type.as_deref(), Some("llama"));
        assert_eq!(found.architecture.layers, Some(2));
        assert_eq!(found.architecture.modality.as_deref(), Some("vision-language"));
        assert_eq!(found.quantization.label.as_deref(), Some("Q4_K_M"));
        assert!(found.quantization.variants.is_empty());
        assert_eq!(found.parameter_count, Some(128));
        assert_eq!(found.quantization.bits_per_weight, Some(8.5));
        is_complete(&found);
    }
    let alone = found(vec![imatrix]);
    assert_eq!(problems(&alone), [(ProblemKind::NoWeights, None)]);
    let seeing = found(vec![projector("mmproj.gguf")]);
    assert_eq!((seeing.format, &seeing.architecture.model_type), (Format::Gguf, &None));
    assert_eq!((seeing.parameter_count, &seeing.quantization.label), (None, &None));
    is_complete(&seeing);
}

#[test]
fn several_quantizations_of_one_model() {
    let several = found(vec![
        llama("m-F16.gguf", 1, None),
        llama("m-Q4_K_M.gguf", 15, None),
        llama("m-Q8_0.gguf", 7, None),
    ]);
    assert_eq!(several.quantization.label, None);
    assert_eq!(several.quantization.variants, ["Q4_K_M", "Q8_0", "f16"]);
    assert_eq!(several.quantization.method.as_deref(), Some("gguf"));
    assert_eq!(several.quantization.bits_per_weight, None);
    assert_eq!((several.parameter_count, several.precision.as_deref()), (Some(128), None));
    assert_eq!(several.architecture.model_type.as_deref(), Some("llama"));
    is_complete(&several);
    let floats = found(vec![llama("m.gguf", 1, None)]);
    assert_eq!((floats.quantization.label.as_deref(), &floats.quantization.method), (Some("f16"), &None));
    assert_eq!(floats.precision.as_deref(), Some("f16"));
    // Two models are not one.
    let other = gguf(
        "b.gguf",
        &[("general.architecture", word("qwen3")), ("general.file_type", GgufValue::U32(7))],
        &[("token_embd.weight", &[32, 8], GgmlType::Q8_0)],
    );
    let two = found(vec![llama("a.gguf", 7, None), other]);
    assert_eq!((two.architecture.model_type, two.parameter_count), (None, None));
}

#[test]
fn each_set_of_parts_is_whole_or_not_by_itself() {
    let mut files: Files =
        (0..2).map(|n| llama(&format!("BF16/m-0000{}-of-00002.gguf", n + 1), 15, Some((n, 2)))).collect();
    files.push(llama("m-Q4_K_M.gguf", 15, None));
    is_complete(&found(files.clone()));
    assert_eq!(found(files.clone()).parameter_count, None, "256 in the parts, 128 in the file");
    files.push(llama("Q8_0/m-00002-of-00004.gguf", 7, Some((1, 4))));
    let broken = found(files);
    assert_eq!(problems(&broken), [(ProblemKind::MissingShard, Some("Q8_0/m"))]);
    assert!(
        broken.health.problems[0].message.contains("4 files and 3 of them"),
        "{:?}",
        broken.health.problems
    );
    assert_eq!(broken.health.status, HealthStatus::Incomplete);
    // Half of a model says nothing of the whole.
    let half = found(vec![llama("m-00001-of-00002.gguf", 7, Some((0, 2)))]);
    assert_eq!((half.parameter_count, half.quantization.bits_per_weight), (None, None));
    assert_eq!(half.quantization.label.as_deref(), Some("Q8_0"));
    let none = gguf(
        "x.gguf",
        &[("split.no", GgufValue::U64(u64::MAX)), ("split.count", GgufValue::U64(u64::MAX))],
        &[],
    );
    let _ = found(vec![none]);
}

#[test]
fn a_lora_of_llama_cpp() {
    let found = found(vec![gguf_adapter("lora-f16.gguf")]);
    assert_eq!((found.format, found.adapter.kind), (Format::Adapter, AdapterKind::Adapter));
    assert_eq!((found.adapter.rank, found.adapter.scale), (Some(16), Some(2.0)));
    assert_eq!(found.adapter.method.as_deref(), Some("lora"));
    assert_eq!(found.adapter.base.as_deref(), Some("acme/base"));
    assert_eq!((found.parameter_count, found.quantization.label.as_deref()), (None, None));
    is_complete(&found);
}

#[test]
fn weights_of_any_program_are_weights() {
    let bert = || text("config.json", r#"{"model_type": "bert"}"#);
    let index = r#"{"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"], "safety_checker": [null, null]}"#;
    let cases: Vec<(&str, Files, Format)> = vec![
        ("flax", vec![bert(), bytes("flax_model.msgpack", b"\x81")], Format::Unknown),
        ("tensorflow", vec![bert(), bytes("tf_model.h5", b"\x89HDF")], Format::Unknown),
        ("nemo", vec![bytes("parakeet.nemo", ZIP)], Format::Unknown),
        ("onnx", vec![bert(), bytes("onnx/model.onnx", &[8, 8, 0x12, 7])], Format::Onnx),
        ("whisper.cpp", vec![bytes("ggml-base.en.bin", b"lmgg")], Format::Unknown),
        ("ctranslate2", vec![text("config.json", "{}"), bytes("model.bin", &[6, 0, 0, 0])], Format::Unknown),
        ("openvino", vec![bert(), bytes("openvino_model.bin", ZIP)], Format::Unknown),
        (
            "core ml",
            vec![
                text("config.json", "{}"),
                bytes("tiny/A.mlmodelc/model.mil", b"x"),
                bytes("tiny/A.mlmodelc/weights/weight.bin", b"\x80\x02"),
            ],
            Format::Coreml,
        ),
        ("torch", vec![bert(), bytes("pytorch_model.bin", ZIP)], Format::Pytorch),
        ("old torch", vec![bert(), bytes("pytorch_model.bin", b"\x80\x02\x8a\x0a")], Format::Pytorch),
        (
            "peft",
            vec![
                text("adapter_config.json", r#"{"peft_type": "LORA", "r": 4}"#),
                bytes("adapter_model.bin", ZIP),
            ],
            Format::Adapter,
        ),
        (
            "diffusers",
            vec![
                text("model_index.json", index),
                bytes("unet/diffusion_pytorch_model.bin", ZIP),
                bytes("vae/diffusion_pytorch_model.bin", ZIP),
            ],
            Format::Diffusers,
        ),
    ];
    for (name, files, format) in cases {
        let found = found(files);
        assert_eq!(found.format, format, "{name}");
        assert_eq!(found.health.status, HealthStatus::Complete, "{name}: {:?}", found.health.problems);
    }
}

#[test]
fn what_training_leaves_is_no_weights() {
    let config = || text("config.json", r#"{"model_type": "llama"}"#);
    let leftovers: Vec<Files> = vec![
        vec![bytes("optimizer.pt", ZIP), bytes("scheduler.pt", ZIP), bytes("rng_state.pth", ZIP)],
        vec![bytes("training_args.bin", ZIP), bytes("scaler.pt", ZIP), bytes("random_states_0.bin", ZIP)],
        vec![weights("optimizer.safetensors", &[("a", &[2, 2])], MLX)],
        vec![text("tokenizer.json", "{}")],
        vec![],
    ];
    for mut files in leftovers {
        files.push(config());
        let found = found(files);
        assert_eq!(problems(&found), [(ProblemKind::NoWeights, None)]);
        assert_eq!((found.format, found.parameter_count), (Format::Unknown, None));
    }
}

const A: (&str, &[usize]) = ("model.embed_tokens.weight", &[8, 4]);
const B: (&str, &[usize]) = ("model.norm.weight", &[4]);

fn index(shards: [&str; 2]) -> (String, Vec<u8>) {
    let map = format!(r#"{{"weight_map": {{"{}": "{}", "{}": "{}"}}}}"#, A.0, shards[0], B.0, shards[1]);
    text("model.safetensors.index.json", &map)
}

#[test]
fn an_index_is_stale_where_nothing_is_missing() {
    let config = || text("config.json", r#"{"model_type": "llama"}"#);
    let [one, two] = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
    let four = || index(["model-00001-of-00004.safetensors", "model-00004-of-00004.safetensors"]);
    let stale = [(ProblemKind::StaleIndex, Some("model.safetensors.index.json"))];
    let whole: Vec<Files> = vec![
        vec![four(), weights(one, &[A], MLX), weights(two, &[B], MLX)],
        vec![index([one, two]), weights("weights.safetensors", &[A, B], MLX)],
        vec![index([one, two]), weights("model.safetensors", &[A], PT)],
        vec![index([one, two]), weights(one, &[A, B], PT), weights(two, &[("x", &[2, 2])], PT)],
    ];
    for mut files in whole {
        files.push(config());
        let found = found(files);
        assert_eq!(problems(&found), stale);
        assert_eq!(found.health.status, HealthStatus::Complete);
    }
    let right = found(vec![config(), index([one, two]), weights(one, &[A], PT), weights(two, &[B], PT)]);
    is_complete(&right);
    let missing = found(vec![config(), index([one, two]), weights(one, &[A], PT)]);
    assert_eq!(problems(&missing), [(ProblemKind::MissingShard, Some(two))]);
    let lacking =
        found(vec![config(), index([one, two]), weights(one, &[A], PT), weights(two, &[("x", &[2])], PT)]);
    assert_eq!(problems(&lacking), [(ProblemKind::MissingTensor, Some(two))]);
    assert_eq!(lacking.health.status, HealthStatus::Damaged);
    // MLX does not read the index, and quantizing renames what it stacks.
    let again = [("lm_head.weight", &[4, 8][..]), ("lm_head.scales", &[4, 1][..])];
    let mlx = found(vec![config(), index([one, two]), weights(one, &[A], MLX), weights(two, &again, MLX)]);
    assert_eq!(problems(&mlx), stale);
    let gone = found(vec![config(), index([one, two])]);
    assert_eq!(problems(&gone), [(ProblemKind::MissingShard, Some(one))]);
}

#[test]
fn shards_without_an_index() {
    let config = || text("config.json", r#"{"model_type": "llama"}"#);
    let shard = |path: &str| weights(path, &[A], MLX);
    let found_of = |files: Files| found([vec![config()], files].concat());
    let part =
        found_of(vec![shard("model-00001-of-00004.safetensors"), shard("model-00003-of-00004.safetensors")]);
    assert_eq!(problems(&part), [(ProblemKind::MissingShard, Some("model-00002-of-00004.safetensors"))]);
    is_complete(&found_of(vec![shard("model-00001-of-00001.safetensors")]));
    is_complete(&found_of(vec![shard("model-00000-of-00001.safetensors")]));
    // Left over beside the whole.
    is_complete(&found_of(vec![shard("model.safetensors"), shard("model-00001-of-00004.safetensors")]));
    // Pickles, by their index and without it.
    let map = r#"{"weight_map": {"a": "pytorch_model-00001-of-00002.bin", "b": "pytorch_model-00002-of-00002.bin"}}"#;
    let by_index = || text("pytorch_model.bin.index.json", map);
    let first = || bytes("pytorch_model-00001-of-00002.bin", ZIP);
    let second = Some("pytorch_model-00002-of-00002.bin");
    for files in [vec![by_index(), first()], vec![first()]] {
        assert_eq!(problems(&found_of(files)), [(ProblemKind::MissingShard, second)]);
    }
    is_complete(&found_of(vec![by_index(), shard("model.safetensors")]));
    assert_eq!(problems(&found_of(vec![by_index()])), [(ProblemKind::NoWeights, None)]);
}

#[test]
fn the_format_is_what_the_configuration_says() {
    let file = |metadata| weights("model.safetensors", &[A], metadata);
    let cases: Vec<(&str, Files, Format)> = vec![
        (
            "model_type",
            vec![text("config.json", r#"{"model_type": "llama"}"#), file(PT)],
            Format::Transformers,
        ),
        ("class", vec![text("config.json", r#"{"architectures": ["X"]}"#), file(&[])], Format::Transformers),
        ("timm", vec![text("config.json", r#"{"architecture": "resnet50"}"#), file(PT)], Format::Unknown),
        (
            "vae",
            vec![text("config.json", r#"{"_class_name": "AutoencoderKL"}"#), file(PT)],
            Format::Diffusers,
        ),
        (
            "vae.bin",
            vec![text("config.json", r#"{"_class_name": "V"}"#), bytes("x.bin", ZIP)],
            Format::Diffusers,
        ),
        (
            "checkpoint",
            vec![file(&[("format", "pt"), ("modelspec.architecture", "stable-diffusion-xl-v1-base")])],
            Format::Unknown,
        ),
        ("alone", vec![file(PT)], Format::Unknown),
        (
            "unsaid",
            vec![text("config.json", r#"{"model_type": "x"}"#), weights("weights.safetensors", &[A], &[])],
            Format::Unknown,
        ),
        ("mlx", vec![text("config.json", "{}"), file(MLX)], Format::Mlx),
    ];
    for (name, files, format) in cases {
        let found = found(files);
        assert_eq!(found.format, format, "{name}");
        assert_eq!(found.health.status, HealthStatus::Complete, "{name}");
    }
    let vae = found(vec![text("config.json", r#"{"_class_name": "AutoencoderKL"}"#), file(PT)]);
    assert_eq!(vae.architecture.model_type.as_deref(), Some("AutoencoderKL"));
}

#[test]
fn pipelines_without_an_index_are_not_taken_for_pictures() {
    let parts = |metadata: &[(&str, &str)]| -> Files {
        ["transformer", "vae", "text_encoder"]
            .iter()
            .map(|part| weights(&format!("{part}/model.safetensors"), &[A], metadata))
            .collect()
    };
    let video = found(parts(MLX));
    assert_eq!((video.format, video.architecture.modality.as_deref()), (Format::Mlx, None));
    let plain = found(parts(&[]));
    assert_eq!((plain.format, plain.architecture.modality.as_deref()), (Format::Diffusers, None));
    let mflux = found(parts(&[("mflux_version", "0.9.0")]));
    assert_eq!((mflux.format, mflux.architecture.modality.as_deref()), (Format::Mlx, Some("image")));
    let told = [parts(MLX), vec![text("README.md", "---\npipeline_tag: image-to-video\n---\n")]].concat();
    assert_eq!(found(told).architecture.modality.as_deref(), Some("video"));
    for (class, modality) in [
        ("WanPipeline", Some("video")),
        ("StableVideoDiffusionPipeline", Some("video")),
        ("StableAudioPipeline", Some("audio")),
        ("FluxPipeline", Some("image")),
        ("SomethingNewPipeline", None),
    ] {
        let index = format!(r#"{{"_class_name": "{class}", "vae": ["diffusers", "A"]}}"#);
        let found = found([parts(PT), vec![text("model_index.json", &index)]].concat());
        assert_eq!(found.architecture.modality.as_deref(), modality, "{class}");
    }
}

#[test]
fn a_model_with_its_adapters_in_it_is_a_model() {
    let layer = |number: usize| -> Vec<(String, Vec<usize>)> {
        let name = format!("model.layers.{number}.mlp.up_proj");
        vec![
            (format!("{name}.base_layer.weight"), vec![16, 16]),
            (format!("{name}.lora_A.speech.weight"), vec![4, 16]),
            (format!("{name}.lora_B.speech.weight"), vec![16, 4]),
            (format!("{name}.lora_A.vision.weight"), vec![2, 16]),
            (format!("{name}.lora_B.vision.weight"), vec![16, 2]),
        ]
    };
    let shard = |path: &str, number: usize, from: usize| {
        let tensors = layer(number);
        let tensors: Vec<(&str, &[usize])> =
            tensors[from..].iter().map(|(name, shape)| (name.as_str(), shape.as_slice())).collect();
        weights(path, &tensors, PT)
    };
    let config = text("config.json", r#"{"model_type": "phi4mm", "architectures": ["Phi4MMForCausalLM"]}"#);
    let found = found(vec![
        config,
        shard("model-00001-of-00002.safetensors", 0, 0),
        shard("model-00002-of-00002.safetensors", 1, 1),
    ]);
    assert_eq!((found.format, found.adapter.kind), (Format::Transformers, AdapterKind::None));
    assert_eq!(found.parameter_count, Some(256 + 2 * 192));
    // Its shards are there without an index: a note, and nothing is missing.
    let kinds: Vec<ProblemKind> = found.health.problems.iter().map(|problem| problem.kind).collect();
    assert_eq!((found.health.status, kinds), (HealthStatus::Complete, vec![ProblemKind::MissingIndex]));
}

#[test]
fn what_adapters_say_of_themselves() {
    // diffusers' oldest names, without any configuration.
    let old = found(vec![weights(
        "pytorch_lora_weights.safetensors",
        &[
            ("unet.down_blocks.0.attn1.processor.to_q_lora.down.weight", &[4, 64]),
            ("unet.down_blocks.0.attn1.processor.to_q_lora.up.weight", &[64, 4]),
            ("unet.down_blocks.0.attn1.processor.to_k_lora.down.weight", &[4, 64]),
            ("unet.down_blocks.0.attn1.processor.to_k_lora.up.weight", &[64, 4]),
        ],
        PT,
    )]);
    assert_eq!((old.format, old.adapter.rank), (Format::Adapter, Some(4)));
    assert_eq!(old.adapter.keys, ["attn1.to_k", "attn1.to_q"]);
    // A narrow layer is no rank: the place counts, not the smaller number.
    for (name, shape, rank) in [
        ("layers.0.q_proj.lora_A.weight", &[32, 8][..], 32),
        ("layers.0.q_proj.lora_a", &[8, 32][..], 32),
        ("layers.0.switch_mlp.up_proj.lora_a", &[2, 8, 64][..], 8),
        ("lora_unet_down_blocks_0_proj_in.lora_down.weight", &[32, 320, 1, 1][..], 32),
    ] {
        let found = found(vec![weights("adapters.safetensors", &[(name, shape)], &[])]);
        assert_eq!((found.format, found.adapter.rank), (Format::Adapter, Some(rank)), "{name}");
    }
    let kohya = |path: &str, rank: usize, base: &str| {
        let name =
            |block: usize, part: &str| format!("lora_unet_down_blocks_{block}_attn1_{part}.lora_down.weight");
        let (a, b, c) = (name(0, "to_q"), name(1, "to_q"), name(1, "to_out_0"));
        let said = rank.to_string();
        let metadata =
            [("ss_network_dim", said.as_str()), ("ss_network_alpha", "2"), ("ss_base_model_version", base)];
        weights(path, &[(&a, &[rank, 64]), (&b, &[rank, 64]), (&c, &[rank, 64])], &metadata)
    };
    let one = found(vec![kohya("a.safetensors", 4, "sd_v1")]).adapter;
    assert_eq!((one.rank, one.scale, one.base.as_deref()), (Some(4), Some(0.5), Some("sd_v1")));
    assert_eq!(one.keys, ["to_out_0", "to_q"]);
    let two = found(vec![kohya("a.safetensors", 4, "sd_v1"), kohya("b.safetensors", 8, "sdxl")]);
    assert_eq!((two.format, two.adapter.kind), (Format::Adapter, AdapterKind::Adapter));
    assert_eq!((two.adapter.rank, two.adapter.scale, &two.adapter.base), (None, None, &None));
    assert!(!two.evidence.contains_key("adapter.rank") && !two.evidence.contains_key("adapter.base"));
    assert_eq!(two.adapter.method.as_deref(), Some("lora"));
}

#[test]
fn a_rank_that_a_pattern_changes() {
    let config = |more: &str| {
        let config = format!(
            r#"{{"peft_type": "LORA", "r": 8, "lora_alpha": 16, "base_model_name_or_path": "a/b"{more}}}"#
        );
        text("adapter_config.json", &config)
    };
    let file = |ranks: [usize; 2]| {
        weights(
            "adapter_model.safetensors",
            &[
                ("base_model.model.layers.0.q_proj.lora_A.weight", &[ranks[0], 64]),
                ("base_model.model.layers.0.q_proj.lora_B.weight", &[64, ranks[0]]),
                ("base_model.model.layers.0.v_proj.lora_A.weight", &[ranks[1], 64]),
            ],
            PT,
        )
    };
    let rank = |more: &str, ranks| {
        let adapter = found(vec![config(more), file(ranks)]).adapter;
        (adapter.rank, adapter.scale)
    };
    assert_eq!(rank("", [8, 8]), (Some(8), Some(2.0)));
    assert_eq!(rank(r#", "rank_pattern": {"q_proj": 32}"#, [32, 8]), (None, None));
    assert_eq!(rank(r#", "rank_pattern": {"_proj": 32}"#, [32, 32]), (Some(32), Some(0.5)));
    assert_eq!(rank(r#", "alpha_pattern": {"q_proj": 128}"#, [8, 8]), (Some(8), None));
}

#[test]
fn an_adapter_beside_a_models_own_weights() {
    let lora = weights("adapters.safetensors", &[("model.layers.0.q_proj.lora_a", &[64, 8])], MLX);
    let config = text("adapter_config.json", r#"{"fine_tune_type": "lora", "lora_parameters": {"rank": 8}}"#);
    let llama = text("config.json", r#"{"model_type": "llama"}"#);
    let found = found(vec![lora, config, llama, weights("model.safetensors", &[A, B], MLX)]);
    assert_eq!((found.format, found.adapter.kind), (Format::Mlx, AdapterKind::Unknown));
    assert_eq!(found.adapter.found_inside, ["."]);
    assert_eq!(found.evidence["adapter.kind"].file, "adapter_config.json");
}

#[test]
fn a_merge_may_be_of_whole_models() {
    let readme = "---\nbase_model:\n- a/one\n- b/two\nbase_model_relation: merge\n---\n";
    let llama = text("config.json", r#"{"model_type": "llama"}"#);
    let found = found(vec![text("README.md", readme), llama, weights("model.safetensors", &[A], PT)]);
    assert_eq!(found.adapter.kind, AdapterKind::Unknown);
    assert_eq!((&found.adapter.fused_from, found.adapter.currently_fused), (&None, None));
    assert_eq!(found.evidence["adapter.kind"].key.as_deref(), Some("base_model_relation: merge"));
}

#[test]
fn modality_and_numbers_by_configuration() {
    let of = |config: &str, more: &[&str]| {
        let mut files = vec![text("config.json", config), weights("model.safetensors", &[A], PT)];
        files.extend(more.iter().map(|path| text(path, "[]")));
        found(files).architecture
    };
    let modality = |config: &str, more: &[&str]| of(config, more).modality;
    let cases = [
        (
            r#"{"architectures": ["LlavaQwen2ForCausalLM"], "mm_vision_tower": "mobileclip"}"#,
            Some("vision-language"),
        ),
        (
            r#"{"architectures": ["Phi3VForCausalLM"], "img_processor": {"name": "c"}}"#,
            Some("vision-language"),
        ),
        (
            r#"{"architectures": ["Phi4MMForCausalLM"], "img_processor": null, "audio_processor": {"a": 1}}"#,
            None,
        ),
        (r#"{"architectures": ["Qwen3ForCausalLM"], "vision_config": null}"#, Some("text")),
        (r#"{"architectures": ["Qwen2AudioForConditionalGeneration"], "audio_config": {"a": 1}}"#, None),
        (r#"{"architectures": ["InternVLChatModel"], "vision_config": {"a": 1}}"#, Some("vision-language")),
        (r#"{"architectures": ["CLIPModel"], "vision_config": {"a": 1}}"#, None),
        (r#"{"architectures": ["BertForMaskedLM"], "model_type": "bert", "vocab_size": 9}"#, Some("text")),
        (
            r#"{"architectures": ["BertModel"], "model_type": "bert", "vocab_size": 9, "num_hidden_layers": 2}"#,
            None,
        ),
        (r#"{"model_type": "llama", "vocab_size": 9, "num_hidden_layers": 2}"#, Some("text")),
    ];
    for (config, expected) in cases {
        assert_eq!(modality(config, &[]).as_deref(), expected, "{config}");
    }
    for file in ["modules.json", "1_Pooling/config.json"] {
        assert_eq!(modality(r#"{"model_type": "bert"}"#, &[file]).as_deref(), Some("embedding"));
        assert_eq!(
            modality(r#"{"architectures": ["Qwen3ForCausalLM"]}"#, &[file]).as_deref(),
            Some("embedding")
        );
    }
    let omni = of(
        r#"{"model_type": "qwen2_5_omni", "talker_config": {"hidden_size": 896},
            "thinker_config": {"text_config": {"hidden_size": 3584, "num_hidden_layers": 28}}}"#,
        &[],
    );
    assert_eq!((omni.hidden_size, omni.layers), (Some(3584), Some(28)));
}

#[test]
fn single_files_stand_for_components() {
    let index = r#"{"_class_name": "FluxPipeline", "transformer": ["diffusers", "T"], "vae": ["diffusers", "A"],
        "text_encoder": ["transformers", "C"], "text_encoder_2": ["transformers", "T"]}"#;
    let files: Files = vec![
        text("model_index.json", index),
        weights("flux1-dev.safetensors", &[("double_blocks.0.w", &[100])], &[]),
        weights("ae.safetensors", &[("decoder.w", &[10])], &[]),
        weights("text_encoder/model.safetensors", &[A], PT),
        weights("text_encoder_2/model.safetensors", &[A], PT),
        text("tokenizer/vocab.json", "{}"),
        text("tokenizer/merges.txt", "x"),
        text("tokenizer_2/spiece.model", "x"),
    ];
    let whole = found(files.clone());
    is_complete(&whole);
    assert_eq!(whole.parameter_count, Some(100 + 10 + 32 + 32));
    let without: Files = files.iter().filter(|(path, _)| path != "ae.safetensors").cloned().collect();
    assert_eq!(problems(&found(without)), [(ProblemKind::MissingComponent, Some("vae"))]);
    // The directories count where they are there: the single files are the same again.
    let both =
        [files, vec![weights("transformer/m.safetensors", &[A], PT), weights("vae/m.safetensors", &[A], PT)]];
    assert_eq!(found(both.concat()).parameter_count, Some(4 * 32));
}

#[test]
fn what_the_catalog_requires_stands_for_components() {
    let files = [
        text("model_index.json", r#"{"_class_name": "X", "transformer": ["d", "T"], "vae": ["d", "A"]}"#),
        weights("big.safetensors", &[("w", &[4])], &[]),
        weights("vae/m.safetensors", &[A], PT),
    ];
    let dir = tempfile::tempdir().unwrap();
    let hub = HubStore::create(dir.path().join("hub"));
    let _ = hub.repo("acme/model").snapshot(&files).with_ref("main");
    let health = |required: &str| {
        let entries = dir.path().join("catalog");
        fs_err::create_dir_all(&entries).unwrap();
        let entry = format!(
            r#"{{"schema_version": 1, "name": "x", "description": "x", "source": {{"repo_id": "acme/model"}},
                "format": "diffusers", "allows_lora": true, "required_files": ["{required}"]}}"#
        );
        fs_err::write(entries.join("x.json"), entry).unwrap();
        let (catalog, problems) = Catalog::default().with_user_entries(&entries).unwrap();
        assert!(problems.is_empty());
        let specs = [StoreSpec::new(StoreKind::Hub, hub.root())];
        let options = SyncOptions::fast(DateTime::UNIX_EPOCH);
        let survey = Registry::at(dir.path().join("home")).survey(&specs, &catalog, &options).unwrap();
        survey.stores[0].models[0].summary.health
    };
    assert_eq!(health("{big.safetensors,transformer/*.safetensors}"), HealthStatus::Complete);
    assert_eq!(health("vae/*.safetensors"), HealthStatus::Incomplete);
    assert_eq!(health("{none.safetensors,transformer/*.safetensors}"), HealthStatus::Incomplete);
}
