//! Models that mlx_lm itself wrote, against what mlx_lm itself says of them: `tests/goldens/make_mlx_lm.py` made both.

#![expect(clippy::unwrap_used, reason = "clippy takes only the test functions themselves for tests")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use mlxman_manifest::{AdapterKind, Format, HealthStatus, Observation, inspect};
use mlxman_store::{ProblemKind, Progress, StoreKind, StoreSpec, layout_of};
use mlxman_testkit::safetensors::{Dtype, Tensor, write as write_safetensors};
use serde::Deserialize;
use serde_json::Value;

/// What mlx_lm says of a model.
#[derive(Debug, Deserialize)]
struct Expected {
    /// Weight files' lengths: what is checked in ends with the header.
    files: BTreeMap<String, u64>,
    /// Of the model before it was quantized.
    parameters: u64,
    model_type: Option<String>,
    precision: Option<String>,
    label: Option<String>,
    bits: Option<u64>,
    group_size: Option<u64>,
    mode: Option<String>,
    overrides: Option<u64>,
    bits_per_weight: Option<f64>,
    architecture: Option<Architecture>,
    adapter: Option<Adapter>,
}

#[derive(Debug, Deserialize)]
struct Architecture {
    layers: u64,
    hidden_size: u64,
    attention_heads: u64,
    key_value_heads: u64,
    vocabulary_size: u64,
    context_length: u64,
    experts: Option<u64>,
    experts_per_token: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct Adapter {
    method: String,
    rank: Option<u64>,
    scale: Option<f64>,
    keys: Vec<String>,
    base: String,
}

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens/mlx_lm")
}

/// Every case, by name.
fn cases() -> BTreeMap<String, Expected> {
    let mut cases = BTreeMap::new();
    for entry in fs_err::read_dir(goldens()).unwrap() {
        let entry = entry.unwrap();
        let told = fs_err::read(entry.path().join("expected.json")).unwrap();
        cases.insert(
            entry.file_name().into_string().unwrap(),
            serde_json::from_slice::<Expected>(&told).unwrap(),
        );
    }
    assert!(cases.len() > 50, "{} cases", cases.len());
    cases
}

/// Writes a case as mlx_lm left it, its weights sparse; `config` may change its configuration.
fn write(case: &str, expected: &Expected, dir: &Path, config: &dyn Fn(&mut Value)) {
    fs_err::create_dir_all(dir).unwrap();
    for entry in fs_err::read_dir(goldens().join(case)).unwrap() {
        let from = entry.unwrap().path();
        let name = from.file_name().unwrap().to_str().unwrap();
        let bytes = fs_err::read(&from).unwrap();
        match name {
            "expected.json" => {}
            "config.json" => {
                let mut value = serde_json::from_slice(&bytes).unwrap();
                config(&mut value);
                fs_err::write(dir.join(name), serde_json::to_vec(&value).unwrap()).unwrap();
            }
            _ => match name.strip_suffix(".header") {
                Some(weights) => {
                    let path = dir.join(weights);
                    fs_err::write(&path, &bytes).unwrap();
                    let file = fs_err::OpenOptions::new().write(true).open(&path).unwrap();
                    file.set_len(expected.files[weights]).unwrap();
                }
                None => fs_err::write(dir.join(name), &bytes).unwrap(),
            },
        }
    }
}

/// All cases in a folder store, inspected.
fn inspected(
    cases: &BTreeMap<String, Expected>,
    config: impl Fn(&mut Value),
) -> BTreeMap<String, Observation> {
    let dir = tempfile::tempdir().unwrap();
    for (case, expected) in cases {
        write(case, expected, &dir.path().join(case), &config);
    }
    let spec = StoreSpec::new(StoreKind::Folder, dir.path());
    let scan = layout_of(StoreKind::Folder).scan(&spec, &Progress::default()).unwrap();
    let found: BTreeMap<String, Observation> = scan
        .models
        .iter()
        .map(|model| (model.name.clone(), inspect(&scan, model, &Progress::default())))
        .collect();
    assert_eq!(found.keys().collect::<Vec<_>>(), cases.keys().collect::<Vec<_>>());
    found
}

/// Collects what differs, so that one run tells all.
#[derive(Default)]
struct Differences(Vec<String>);

impl Differences {
    #[expect(
        clippy::needless_pass_by_value,
        reason = "the calls read better without a reference to each literal"
    )]
    fn same<T: PartialEq + std::fmt::Debug>(&mut self, case: &str, what: &str, found: T, expected: T) {
        if found != expected {
            self.0.push(format!("{case}: {what} is {found:?}, and mlx_lm says {expected:?}"));
        }
    }

    /// What cannot be known may be absent; what is said must be right.
    fn same_or_absent<T: PartialEq + std::fmt::Debug>(
        &mut self,
        case: &str,
        what: &str,
        found: Option<T>,
        expected: Option<T>,
    ) {
        if found.is_some() {
            self.same(case, what, found, expected);
        }
    }

    #[track_caller]
    fn none(self) {
        assert!(self.0.is_empty(), "{} differences:\n{}", self.0.len(), self.0.join("\n"));
    }
}

/// What does not depend on what the configuration says of quantization.
fn always(differences: &mut Differences, case: &str, found: &Observation, expected: &Expected) {
    differences.same(case, "health", found.health.status, HealthStatus::Complete);
    differences.same(case, "problems", found.health.problems.len(), 0);
    differences.same(case, "evidence of a name", found.quantization.from_name, false);
    if let Some(adapter) = &expected.adapter {
        differences.same(case, "format", found.format, Format::Adapter);
        differences.same(case, "adapter", found.adapter.kind, AdapterKind::Adapter);
        differences.same(case, "method", found.adapter.method.as_ref(), Some(&adapter.method));
        differences.same(case, "rank", found.adapter.rank, adapter.rank);
        differences.same(case, "scale", found.adapter.scale, adapter.scale);
        differences.same(case, "keys", &found.adapter.keys, &adapter.keys);
        differences.same(case, "base", found.adapter.base.as_ref(), Some(&adapter.base));
        return;
    }
    let architecture = expected.architecture.as_ref().unwrap();
    let numbers = &found.architecture;
    differences.same(case, "format", found.format, Format::Mlx);
    differences.same(case, "adapter", found.adapter.kind, AdapterKind::None);
    differences.same(case, "precision", &found.precision, &expected.precision);
    differences.same(case, "model_type", &numbers.model_type, &expected.model_type);
    differences.same(case, "layers", numbers.layers, Some(architecture.layers));
    differences.same(case, "hidden_size", numbers.hidden_size, Some(architecture.hidden_size));
    differences.same(case, "attention_heads", numbers.attention_heads, Some(architecture.attention_heads));
    differences.same(case, "key_value_heads", numbers.key_value_heads, Some(architecture.key_value_heads));
    differences.same(case, "vocabulary_size", numbers.vocabulary_size, Some(architecture.vocabulary_size));
    differences.same(case, "context_length", numbers.context_length, Some(architecture.context_length));
    differences.same(case, "experts", numbers.experts, architecture.experts);
    differences.same(case, "experts_per_token", numbers.experts_per_token, architecture.experts_per_token);
    differences.same(case, "modality", numbers.modality.as_deref(), Some("text"));
}

fn close(found: f64, expected: f64) -> bool {
    (found - expected).abs() <= 0.01
}

fn exact(differences: &mut Differences, case: &str, found: &Observation, expected: &Expected) {
    let quantization = &found.quantization;
    differences.same(case, "label", &quantization.label, &expected.label);
    differences.same(case, "bits", quantization.bits, expected.bits);
    differences.same(case, "group size", quantization.group_size, expected.group_size);
    differences.same(case, "mode", &quantization.mode, &expected.mode);
    differences.same(case, "overrides", quantization.overrides, expected.overrides);
    differences.same(case, "method", quantization.method.as_deref(), expected.bits.map(|_| "mlx"));
    differences.same(case, "parameters", found.parameter_count, Some(expected.parameters));
    match (quantization.bits_per_weight, expected.bits_per_weight) {
        (Some(found), Some(expected)) if close(found, expected) => {}
        (found, expected) => differences.same(case, "bits per weight", found, expected),
    }
}

#[test]
fn what_is_said_of_a_model_is_what_mlx_lm_says() {
    let cases = cases();
    let mut differences = Differences::default();
    for (case, found) in inspected(&cases, |_| {}) {
        let expected = &cases[&case];
        always(&mut differences, &case, &found, expected);
        if expected.adapter.is_none() {
            exact(&mut differences, &case, &found, expected);
        }
    }
    differences.none();
}

#[test]
fn shapes_prove_the_same_without_the_configurations_word() {
    let cases = cases();
    let mut differences = Differences::default();
    let silent = |config: &mut Value| {
        for key in ["quantization", "quantization_config"] {
            config.as_object_mut().unwrap().remove(key);
        }
    };
    for (case, found) in inspected(&cases, silent) {
        let expected = &cases[&case];
        always(&mut differences, &case, &found, expected);
        if expected.adapter.is_none() {
            exact(&mut differences, &case, &found, expected);
        }
    }
    differences.none();
}

#[test]
fn without_a_configuration_what_shapes_cannot_tell_is_not_said() {
    let cases = cases();
    let mut differences = Differences::default();
    // Not even the number of heads, so that nothing tells the width of what the attention's output reads.
    let empty = |config: &mut Value| *config = serde_json::json!({ "model_type": "unheard_of" });
    for (case, found) in inspected(&cases, empty) {
        let expected = &cases[&case];
        let quantization = &found.quantization;
        if expected.adapter.is_some() {
            continue;
        }
        differences.same(&case, "format", found.format, Format::Mlx);
        differences.same(&case, "precision", &found.precision, &expected.precision);
        differences.same_or_absent(&case, "label", quantization.label.clone(), expected.label.clone());
        differences.same_or_absent(&case, "parameters", found.parameter_count, Some(expected.parameters));
        if let Some(bits) = expected.bits {
            differences.same_or_absent(&case, "overrides", quantization.overrides, expected.overrides);
            differences.same(&case, "bits", quantization.bits, Some(bits));
            differences.same(&case, "group size", quantization.group_size, expected.group_size);
            differences.same(&case, "mode", &quantization.mode, &expected.mode);
        }
        if let Some(said) = quantization.bits_per_weight {
            assert!(expected.bits_per_weight.is_some_and(|expected| close(said, expected)), "{case}: {said}");
        }
    }
    differences.none();
}

#[test]
fn shapes_are_believed_over_a_configuration_that_lies() {
    let cases = cases();
    let mut differences = Differences::default();
    // The same shapes of scales wherever there is another pair with them, else plainly wrong.
    let other = |bits: u64, group: u64| {
        let pairs = [2, 3, 4, 5, 6, 8].into_iter().flat_map(|bits| [32, 64, 128].map(|group| (bits, group)));
        let wrong: Vec<(u64, u64)> = pairs.filter(|pair| *pair != (bits, group)).collect();
        *wrong.iter().find(|pair| pair.0 * pair.1 == bits * group).unwrap_or(&wrong[0])
    };
    let lie = |config: &mut Value| {
        if let Some(claim) = config.get_mut("quantization").filter(|claim| claim["mode"] == "affine") {
            let (bits, group) = other(claim["bits"].as_u64().unwrap(), claim["group_size"].as_u64().unwrap());
            *claim = serde_json::json!({ "bits": bits, "group_size": group });
            config.as_object_mut().unwrap().remove("quantization_config");
        }
    };
    for (case, found) in inspected(&cases, lie) {
        let expected = &cases[&case];
        if expected.mode.as_deref() != Some("affine") {
            continue;
        }
        exact(&mut differences, &case, &found, expected);
        let told =
            found.health.problems.iter().any(|problem| problem.kind == ProblemKind::QuantizationContradicted);
        differences.same(&case, "whether the lie is told", told, true);
    }
    differences.none();
}

/// A matrix of `rows` by `width` as MLX packs it in groups of 64.
fn packed(module: &str, rows: usize, width: usize, bits: usize) -> [Tensor; 3] {
    [
        Tensor::new(format!("{module}.weight"), Dtype::U32, &[rows, width * bits / 32]),
        Tensor::new(format!("{module}.scales"), Dtype::BF16, &[rows, width / 64]),
        Tensor::new(format!("{module}.biases"), Dtype::BF16, &[rows, width / 64]),
    ]
}

/// Widths that differ by a factor of two would prove other bits, so each part is measured by its own tensors alone.
#[test]
fn a_part_is_not_measured_by_the_width_of_another() {
    let norm = |name: &str, width| Tensor::new(name, Dtype::BF16, &[width]);
    let mut tensors = vec![
        norm("language_model.model.layers.0.input_layernorm.weight", 256),
        norm("vision_tower.encoder.layers.0.layer_norm1.weight", 128),
    ];
    tensors.extend(packed("vision_tower.encoder.layers.0.self_attn.q_proj", 128, 128, 4));
    // A gate beside the queries doubles their rows: the output reads 256 and not 512.
    tensors.extend(packed("language_model.model.layers.0.self_attn.q_proj", 512, 256, 4));
    tensors.extend(packed("language_model.model.layers.0.self_attn.v_proj", 128, 256, 4));
    tensors.extend(packed("language_model.model.layers.0.self_attn.o_proj", 256, 256, 4));
    let config = serde_json::json!({
        "model_type": "some_vl",
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vision_config": { "hidden_size": 128 },
        "quantization": { "bits": 4, "group_size": 64 },
    });
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("vl");
    fs_err::create_dir(&model).unwrap();
    fs_err::write(model.join("config.json"), config.to_string()).unwrap();
    write_safetensors(&model.join("model.safetensors"), &tensors, &[("format", "mlx")]);
    let spec = StoreSpec::new(StoreKind::Folder, dir.path());
    let scan = layout_of(StoreKind::Folder).scan(&spec, &Progress::default()).unwrap();
    let found = inspect(&scan, &scan.models[0], &Progress::default());
    assert_eq!(found.health.problems.len(), 0, "{:?}", found.health.problems);
    assert_eq!(found.quantization.label.as_deref(), Some("4bit"));
    assert_eq!(found.quantization.overrides, Some(0));
    let elements = 256 + 128 + 128 * 128 + 512 * 256 + 128 * 256 + 256 * 256;
    assert_eq!(found.parameter_count, Some(elements));
}
