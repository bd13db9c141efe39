//! How a model is quantized, proved from the shapes and types of its tensors where they can prove it.
//!
//! MLX stores a quantized matrix of `out x in` weights as `weight` (U32, `out x in*bits/32`), `scales`
//! (`out x in/group`) and, in the affine mode, `biases`. So `32 * columns(weight) / columns(scales)` is
//! `bits * group`; the mode follows from the scales' type. Where the product leaves more than one pair, the width of
//! what the matrix reads decides, as other tensors show it ([`Widths`]); where they do not, the configuration's claim.
//! A matrix that neither settles leaves the numbers that depend on it unsaid.

mod gguf;

use std::collections::{BTreeMap, HashMap};

use mlxman_store::ProblemKind;
use serde_json::Value;

use super::Subject;
use super::tensors::{WeightFile, all};
use super::widths::Widths;
use crate::formats::safetensors::{Dtype, TensorInfo};
use crate::record::Quantization;

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) parameter_count: Option<u64>,
    pub(super) precision: Option<String>,
    pub(super) quantization: Quantization,
}

/// How one matrix is quantized.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Scheme {
    bits: u64,
    group_size: u64,
    mode: &'static str,
}

impl Scheme {
    /// Its part of a label: `4bit`, `mxfp4`.
    fn label(&self) -> String {
        if self.mode == "affine" { format!("{}bit", self.bits) } else { self.mode.to_owned() }
    }
}

pub(super) fn find(subject: &mut Subject<'_>) -> Found {
    if !subject.tensors.gguf.is_empty() {
        return gguf::find(subject);
    }
    let pipeline = subject.model_index.is_some() || subject.tensors.is_pipeline();
    let tensors = std::mem::take(&mut subject.tensors);
    let files = tensors.own(pipeline);
    let found = if files.is_empty() { without_tensors(subject) } else { from_tensors(subject, &files) };
    drop(files);
    subject.tensors = tensors;
    found
}

/// The object in which the configuration speaks of quantization, and its key.
fn claim(subject: &Subject<'_>) -> Option<(&'static str, Value)> {
    let config = subject.config.as_ref()?;
    let text = config.get("text_config");
    ["quantization", "quantization_config"].into_iter().find_map(|key| {
        let value = config.get(key).or_else(|| text?.get(key))?;
        value.is_object().then(|| (key, value.clone()))
    })
}

fn number(value: &Value, keys: &[&str]) -> Option<u64> {
    keys.iter().find_map(|key| value.get(key)?.as_u64())
}

fn without_tensors(subject: &mut Subject<'_>) -> Found {
    let mut found = Found::default();
    if let Some((key, claim)) = claim(subject) {
        found.quantization = from_claim(subject, key, &claim);
        return found;
    }
    if let Some(dtype) = subject.config.as_ref().and_then(|config| {
        config.get("torch_dtype").or_else(|| config.get("dtype"))?.as_str().map(precision_word)
    }) {
        found.precision = Some(dtype.clone());
        subject.says("precision", "config.json", "torch_dtype");
        if subject.model.files.iter().any(|file| file.path.ends_with(".bin") || file.path.ends_with(".npz")) {
            found.quantization.label = Some(dtype);
            subject.says("quantization.label", "config.json", "torch_dtype");
        }
    }
    if found.quantization.label.is_none() && !subject.tensors.seen.is_empty() {
        by_name(subject, &mut found.quantization);
    }
    found
}

/// `bfloat16` and its like in short.
fn precision_word(word: &str) -> String {
    match word.trim_start_matches("torch.").trim_start_matches("mlx.core.") {
        "bfloat16" => "bf16".to_owned(),
        "float16" | "half" => "f16".to_owned(),
        "float32" | "float" => "f32".to_owned(),
        "float64" | "double" => "f64".to_owned(),
        other => other.to_owned(),
    }
}

/// The last resort: a label that stands in the repo's name, and is marked so.
fn by_name(subject: &mut Subject<'_>, quantization: &mut Quantization) {
    let lower = subject.model.name.to_ascii_lowercase();
    let words: Vec<&str> = lower.split(['-', '_', '.', '/', ' ']).collect();
    let label = words.iter().find_map(|word| match *word {
        "2bit" | "3bit" | "4bit" | "5bit" | "6bit" | "8bit" | "mxfp4" | "mxfp8" | "nvfp4" | "bf16"
        | "fp8" => Some((*word).to_owned()),
        "fp16" | "f16" => Some("f16".to_owned()),
        "fp32" | "f32" | "float32" => Some("f32".to_owned()),
        _ => None,
    });
    if let Some(label) = label {
        quantization.label = Some(label);
        quantization.from_name = true;
        subject.says("quantization.label", "repo name", "nothing in the files proves it");
    }
}

/// What the configuration claims, where no tensor can prove it.
fn from_claim(subject: &mut Subject<'_>, key: &str, claim: &Value) -> Quantization {
    let mut quantization = Quantization::default();
    let method = claim.get("quant_method").and_then(Value::as_str);
    quantization.bits = number(claim, &["bits", "w_bit", "num_bits"]);
    quantization.group_size = number(claim, &["group_size", "q_group_size"]);
    match method {
        None => {
            quantization.method = Some("mlx".to_owned());
            let mode = claim.get("mode").and_then(Value::as_str).unwrap_or("affine");
            quantization.mode = Some(mode.to_owned());
            let over = overrides(claim);
            quantization.overrides = Some(over.len() as u64);
            let own = quantization
                .bits
                .map(|bits| if mode == "affine" { format!("{bits}bit") } else { mode.to_owned() });
            let parts = own.into_iter().chain(
                over.iter().filter(|(module, _)| !is_router(module)).filter_map(|(_, o)| {
                    let bits = o.get("bits")?.as_u64()?;
                    let mode = o.get("mode").and_then(Value::as_str).unwrap_or("affine");
                    Some(if mode == "affine" { format!("{bits}bit") } else { mode.to_owned() })
                }),
            );
            quantization.label = label_of(parts);
        }
        Some(method) => {
            apply_method(&mut quantization, method, claim);
        }
    }
    if quantization.label.is_some() {
        subject.says("quantization.label", "config.json", key);
    }
    quantization
}

/// Methods that are not MLX's own, by transformers' name for them.
fn apply_method(quantization: &mut Quantization, method: &str, claim: &Value) {
    let method = match method {
        "fbgemm_fp8" | "modelopt_fp8" => "fp8",
        "bitsandbytes_4bit" | "bitsandbytes_8bit" => "bitsandbytes",
        other => other,
    };
    quantization.method = Some(method.to_owned());
    let flag = |key: &str| claim.get(key).and_then(Value::as_bool) == Some(true);
    let bits = match method {
        "bitsandbytes" if flag("load_in_4bit") || flag("_load_in_4bit") => Some(4),
        "bitsandbytes" if flag("load_in_8bit") || flag("_load_in_8bit") => Some(8),
        "fp8" => Some(8),
        "mxfp4" => Some(4),
        "compressed-tensors" => claim.get("config_groups").and_then(Value::as_object).and_then(|groups| {
            groups.values().filter_map(|group| group.get("weights")?.get("num_bits")?.as_u64()).max()
        }),
        _ => quantization.bits,
    };
    quantization.bits = bits;
    if method == "compressed-tensors" {
        let weights = claim
            .get("config_groups")
            .and_then(Value::as_object)
            .and_then(|groups| groups.values().find_map(|group| group.get("weights").cloned()));
        let is_float = weights.as_ref().and_then(|w| w.get("type")).and_then(Value::as_str) == Some("float");
        quantization.group_size = weights.as_ref().and_then(|w| number(w, &["group_size"]));
        quantization.label = bits.map(|bits| match (bits, is_float) {
            (8, true) => "fp8".to_owned(),
            (4, true) => "nvfp4".to_owned(),
            (bits, _) => format!("{bits}bit"),
        });
        return;
    }
    quantization.label = match method {
        "fp8" => Some("fp8".to_owned()),
        "mxfp4" => Some("mxfp4".to_owned()),
        _ => bits.map(|bits| format!("{bits}bit")),
    };
}

/// Per-layer settings in MLX's claim: a module's name, and an object or `false`.
fn overrides(claim: &Value) -> Vec<(&String, &Value)> {
    claim
        .as_object()
        .map(|map| map.iter().filter(|(_, value)| value.is_object() || value.is_boolean()).collect())
        .unwrap_or_default()
}

/// A mixture's router: programs keep it finer than the rest, and nobody calls a model mixed for it.
fn is_router(module: &str) -> bool {
    let last = module.rsplit('.').next().unwrap_or(module);
    matches!(last, "gate" | "router" | "shared_expert_gate" | "wg")
}

fn label_of(parts: impl IntoIterator<Item = String>) -> Option<String> {
    let mut parts: Vec<String> = parts.into_iter().collect();
    parts.sort_unstable_by_key(|part| {
        (part.trim_end_matches("bit").parse::<u64>().unwrap_or(0), part.clone())
    });
    parts.dedup();
    match parts.as_slice() {
        [] => None,
        [one] => Some(one.clone()),
        several if several.iter().all(|part| part.ends_with("bit")) => {
            let bits: Vec<&str> = several.iter().map(|part| part.trim_end_matches("bit")).collect();
            Some(format!("mixed-{}bit", bits.join("-")))
        }
        several => Some(format!("mixed-{}", several.join("-"))),
    }
}

/// What is quantized in one way.
#[derive(Default)]
struct Extent {
    layers: u64,
    elements: u64,
    /// Of the packed weights.
    bytes: u64,
}

/// What is quantized in a way that neither shapes nor the configuration settle.
#[derive(Default)]
struct Unsettled {
    /// Routers left out.
    layers: u64,
    bytes: u64,
    /// Whether the number of weights somewhere is not known.
    elements: bool,
}

struct Sums {
    parameters: u64,
    bytes: u64,
    by_dtype: BTreeMap<String, u64>,
    scale_dtypes: BTreeMap<String, u64>,
    quantized: bool,
}

fn from_tensors(subject: &mut Subject<'_>, files: &[&WeightFile]) -> Found {
    let claim = claim(subject);
    // In order, so that of many proofs the same one is told each time.
    let mut modules: BTreeMap<(&str, &str), HashMap<&str, &TensorInfo>> = BTreeMap::new();
    for (file, tensor) in all(files) {
        let (module, part) = tensor.name.rsplit_once('.').unwrap_or(("", &tensor.name));
        // gpt_oss as OpenAI saves it: `<name>_blocks` and `<name>_scales`.
        let (module, part) = match (part.strip_suffix("_blocks"), part.strip_suffix("_scales")) {
            (Some(stem), _) => (&tensor.name[..module.len() + 1 + stem.len()], "mxfp4_blocks"),
            (_, Some(stem)) if !module.is_empty() => {
                (&tensor.name[..module.len() + 1 + stem.len()], "mxfp4_scales")
            }
            _ => (module, part),
        };
        modules.entry((file.component(), module)).or_default().insert(part, tensor);
    }
    let widths = Widths::new(files, subject.config.as_ref());
    // mflux writes what it quantized to, in text.
    let level = subject.tensors_metadata(files, "quantization_level").and_then(|(file, level)| {
        let bits = level.parse::<u64>().ok().filter(|bits| BITS.contains(bits))?;
        Some((file, bits))
    });
    let level_bits = level.as_ref().map(|(_, bits)| *bits);
    let claimed_scheme = |module: &str| claim.as_ref().and_then(|(_, claim)| scheme_claimed(claim, module));
    let mut sums = Sums {
        parameters: 0,
        bytes: 0,
        by_dtype: BTreeMap::new(),
        scale_dtypes: BTreeMap::new(),
        quantized: false,
    };
    let mut schemes: BTreeMap<Scheme, Extent> = BTreeMap::new();
    let mut labels: Vec<String> = Vec::new();
    let mut contradictions: Vec<String> = Vec::new();
    let mut unsettled = Unsettled::default();
    let mut proof: Option<(String, String)> = None;
    let mut other_method: Option<&'static str> = None;
    for ((component, module), parts) in &modules {
        for tensor in parts.values() {
            sums.bytes += tensor.byte_len();
        }
        let width = || widths.of(component, module);
        if let Some((elements, scheme)) =
            mlx_module(parts, width, claimed_scheme(module).as_ref(), level_bits)
        {
            sums.quantized = true;
            sums.parameters += elements.unwrap_or(0);
            if let Some(scales) = parts.get("scales").filter(|scales| scales.dtype.is_float()) {
                *sums.scale_dtypes.entry(scales.dtype.label()).or_default() +=
                    scales.element_count().unwrap_or(0);
            }
            match scheme {
                Some(scheme) => {
                    if claimed_scheme(module).is_some_and(|claimed| claimed != scheme) {
                        contradictions.push((*module).to_owned());
                    }
                    if !is_router(module) {
                        labels.push(scheme.label());
                    }
                    let entry = schemes.entry(scheme).or_default();
                    entry.layers += 1;
                    entry.elements += elements.unwrap_or(0);
                    entry.bytes += parts.get("weight").map_or(0, |weight| weight.byte_len());
                    if proof.is_none() {
                        let file = files.iter().find(|file| {
                            file.header.tensors.iter().any(|tensor| tensor.name.starts_with(module))
                        });
                        proof = file.map(|file| {
                            (file.path.clone(), format!("shapes of {module}.weight and .scales"))
                        });
                    }
                }
                None => {
                    unsettled.bytes += parts.get("weight").map_or(0, |weight| weight.byte_len());
                    unsettled.layers += u64::from(!is_router(module));
                }
            }
            unsettled.elements |= elements.is_none();
            // What stands beside the quantized matrix, such as a layer's bias, is not quantized; nvfp4's scale of a
            // whole matrix belongs to it.
            for (part, tensor) in parts
                .iter()
                .filter(|(part, _)| !["weight", "scales", "biases", "global_scale"].contains(*part))
            {
                count_plain(&mut sums, part, tensor);
            }
            continue;
        }
        if let Some((elements, method)) = foreign_module(parts, claim.as_ref().map(|(_, claim)| claim)) {
            sums.quantized = true;
            sums.parameters += elements;
            other_method.get_or_insert(method);
            if let Some(scales) = parts.get("scales").filter(|scales| scales.dtype.is_float()) {
                *sums.scale_dtypes.entry(scales.dtype.label()).or_default() += 1;
            }
            if let Some(bias) = parts.get("bias") {
                count_plain(&mut sums, "bias", bias);
            }
            continue;
        }
        for (part, tensor) in parts {
            count_plain(&mut sums, part, tensor);
        }
    }
    let parameters = Some(sums.parameters).filter(|count| *count > 0 && !unsettled.elements);
    let mut found = Found { parameter_count: parameters, ..Found::default() };
    if found.parameter_count.is_some() {
        subject.says("parameter_count", &files[0].path, "tensors' shapes");
    }
    let dtypes = if sums.scale_dtypes.is_empty() { &sums.by_dtype } else { &sums.scale_dtypes };
    found.precision = dtypes.iter().max_by_key(|(_, count)| **count).map(|(dtype, _)| dtype.clone());
    if found.precision.is_some() {
        subject.says("precision", &files[0].path, "tensors' types");
    }
    let quantization = &mut found.quantization;
    if !schemes.is_empty() {
        if let Some((main, extent)) =
            schemes.iter().max_by_key(|(_, extent)| (extent.elements, extent.layers))
            && extent.bytes > unsettled.bytes
        {
            quantization.bits = Some(main.bits);
            quantization.group_size = Some(main.group_size);
            quantization.mode = Some(main.mode.to_owned());
            let others = schemes.iter().filter(|(scheme, _)| *scheme != main);
            quantization.overrides =
                (unsettled.bytes == 0).then(|| others.map(|(_, extent)| extent.layers).sum());
        }
        quantization.method = Some("mlx".to_owned());
        // A model of nothing but routers is labelled by them.
        quantization.label = label_of(labels)
            .or_else(|| label_of(schemes.keys().map(Scheme::label)))
            .filter(|_| unsettled.layers == 0);
        if let Some((file, key)) = proof {
            let said = [
                ("quantization.label", quantization.label.is_some()),
                ("quantization.bits", quantization.bits.is_some()),
                ("quantization.group_size", quantization.group_size.is_some()),
                ("quantization.mode", quantization.mode.is_some()),
            ];
            for (field, _) in said.into_iter().filter(|(_, is_said)| *is_said) {
                subject.says(field, &file, key.clone());
            }
        }
    } else if sums.quantized || claim.as_ref().is_some_and(|(_, claim)| claim.get("quant_method").is_some()) {
        other(subject, quantization, claim.as_ref(), other_method, unsettled.bytes > 0);
    } else if let Some((file, bits)) = level {
        quantization.label = Some(format!("{bits}bit"));
        quantization.bits = Some(bits);
        quantization.method = Some("mlx".to_owned());
        subject.says("quantization.label", &file, "__metadata__.quantization_level");
    }
    if quantization.label.is_none() && !sums.quantized {
        quantization.label = main_dtype(&sums.by_dtype);
        if quantization.label.is_some() {
            subject.says("quantization.label", &files[0].path, "tensors' types");
        }
    }
    // A name settles nothing where shapes have proved a part.
    if quantization.label.is_none() && schemes.is_empty() {
        by_name(subject, quantization);
    }
    if let Some(parameters) = parameters.filter(|_| sums.quantized) {
        let bits = sums.bytes as f64 * 8.0 / parameters as f64;
        quantization.bits_per_weight = Some((bits * 1000.0).round() / 1000.0);
    }
    if let Some(first) = contradictions.first() {
        subject.problem(
            ProblemKind::QuantizationContradicted,
            Some("config.json"),
            format!(
                "config.json says one quantization and the tensors' shapes prove another in {} layers ({first} first); \
                 the shapes were believed",
                contradictions.len()
            ),
        );
    }
    found
}

impl Subject<'_> {
    fn tensors_metadata(&self, files: &[&WeightFile], key: &str) -> Option<(String, String)> {
        files.iter().find_map(|file| Some((file.path.clone(), file.header.metadata.get(key)?.clone())))
    }
}

fn main_dtype(by_dtype: &BTreeMap<String, u64>) -> Option<String> {
    let (dtype, _) = by_dtype.iter().max_by_key(|(_, count)| **count)?;
    Some(if dtype.starts_with("f8") { "fp8".to_owned() } else { dtype.clone() })
}

fn count_plain(sums: &mut Sums, part: &str, tensor: &TensorInfo) {
    let elements = tensor.element_count().unwrap_or(0);
    let scale_like =
        matches!(part, "weight_scale" | "weight_scale_inv" | "input_scale" | "g_idx" | "k_scale" | "v_scale");
    if scale_like {
        return;
    }
    sums.parameters = sums.parameters.saturating_add(elements);
    if tensor.dtype.is_float() {
        *sums.by_dtype.entry(tensor.dtype.label()).or_default() += elements;
    }
}

/// What the claim says of `module`: its own override, else the model's.
fn scheme_claimed(claim: &Value, module: &str) -> Option<Scheme> {
    if claim.get("quant_method").is_some_and(|method| method.as_str() != Some("mlx")) {
        return None;
    }
    let own = overrides(claim).into_iter().find(|(name, _)| *name == module).map(|(_, value)| value);
    let of = |value: &Value| {
        let mode =
            value.get("mode").or_else(|| claim.get("mode").filter(|_| own.is_none())).and_then(Value::as_str);
        Some(Scheme {
            bits: value.get("bits")?.as_u64()?,
            group_size: value.get("group_size").or_else(|| claim.get("group_size"))?.as_u64()?,
            mode: match mode.unwrap_or("affine") {
                "affine" => "affine",
                "mxfp4" => "mxfp4",
                "mxfp8" => "mxfp8",
                "nvfp4" => "nvfp4",
                _ => return None,
            },
        })
    };
    match own {
        Some(own) if own.is_object() => of(own),
        Some(_) => None,
        None => of(claim),
    }
}

const BITS: [u64; 6] = [2, 3, 4, 5, 6, 8];
/// Those of the affine mode; MLX refuses others.
const GROUPS: [u64; 3] = [32, 64, 128];

/// A matrix that MLX quantized: its elements, and its scheme where it can be settled.
fn mlx_module(
    parts: &HashMap<&str, &TensorInfo>,
    width: impl Fn() -> Option<u64>,
    claimed: Option<&Scheme>,
    level_bits: Option<u64>,
) -> Option<(Option<u64>, Option<Scheme>)> {
    let (weight, scales) = (parts.get("weight")?, parts.get("scales")?);
    if weight.dtype != Dtype::U32 || weight.shape.len() < 2 || weight.shape.len() != scales.shape.len() {
        return None;
    }
    let (columns, groups) = (*weight.shape.last()?, *scales.shape.last()?);
    let rows = weight.shape[..weight.shape.len() - 1].iter().try_fold(1u64, |n, dim| n.checked_mul(*dim));
    if columns == 0 || groups == 0 || columns.checked_mul(32)? % groups != 0 {
        return Some((None, None));
    }
    let product = columns * 32 / groups;
    let elements_at = |bits: u64| rows?.checked_mul(columns * 32 / bits);
    let floats = if scales.dtype == Dtype::U8 && !parts.contains_key("biases") {
        match product {
            128 => Some(Scheme { bits: 4, group_size: 32, mode: "mxfp4" }),
            256 => Some(Scheme { bits: 8, group_size: 32, mode: "mxfp8" }),
            64 => Some(Scheme { bits: 4, group_size: 16, mode: "nvfp4" }),
            _ => return Some((None, None)),
        }
    } else {
        None
    };
    if let Some(scheme) = floats {
        return Some((elements_at(scheme.bits), Some(scheme)));
    }
    let candidates: Vec<Scheme> = BITS
        .iter()
        .flat_map(|&bits| GROUPS.iter().map(move |&group_size| Scheme { bits, group_size, mode: "affine" }))
        .filter(|scheme| scheme.bits * scheme.group_size == product && columns * 32 % scheme.bits == 0)
        .collect();
    let settled = match candidates.as_slice() {
        [] => None,
        [one] => Some(one.clone()),
        several => {
            let reads = width();
            several
                .iter()
                .find(|scheme| Some(columns * 32 / scheme.bits) == reads)
                .or_else(|| several.iter().find(|scheme| Some(*scheme) == claimed))
                .or_else(|| several.iter().find(|scheme| Some(scheme.bits) == level_bits))
                .cloned()
        }
    };
    Some((settled.as_ref().and_then(|scheme| elements_at(scheme.bits)), settled))
}

/// A matrix that another program quantized: how many weights it stands for, and which method lays it out so.
fn foreign_module(parts: &HashMap<&str, &TensorInfo>, claim: Option<&Value>) -> Option<(u64, &'static str)> {
    let claimed_bits = claim.and_then(|claim| number(claim, &["bits", "w_bit"]));
    if let Some(qweight) = parts.get("qweight") {
        let packed = qweight.element_count()?;
        let bits = claimed_bits.filter(|bits| (1..=8).contains(bits)).unwrap_or(4);
        // AWQ packs along the output and has no g_idx; GPTQ packs along the input.
        let method = if parts.contains_key("g_idx") { "gptq" } else { "awq" };
        return Some((packed.checked_mul(32)? / bits, method));
    }
    if let (Some(blocks), true) = (parts.get("mxfp4_blocks"), parts.contains_key("mxfp4_scales")) {
        return Some((blocks.element_count()?.checked_mul(2)?, "mxfp4"));
    }
    if let Some(packed) = parts.get("weight_packed") {
        let bits = claim
            .and_then(|claim| {
                claim
                    .get("config_groups")?
                    .as_object()?
                    .values()
                    .next()?
                    .get("weights")?
                    .get("num_bits")?
                    .as_u64()
            })
            .filter(|bits| (1..=8).contains(bits))
            .unwrap_or(4);
        let per = packed.dtype.bits()?;
        return Some((packed.element_count()?.checked_mul(per)? / bits, "compressed-tensors"));
    }
    let weight = parts.get("weight")?;
    let bnb = parts.contains_key("absmax") || parts.keys().any(|part| part.starts_with("bitsandbytes__"));
    match &weight.dtype {
        Dtype::U8 if bnb => Some((weight.element_count()?.checked_mul(2)?, "bitsandbytes")),
        Dtype::I8 if parts.contains_key("SCB") => Some((weight.element_count()?, "bitsandbytes")),
        Dtype::I8 if parts.contains_key("weight_scale") => {
            Some((weight.element_count()?, "compressed-tensors"))
        }
        dtype if dtype.label().starts_with("f8") => Some((weight.element_count()?, "fp8")),
        _ => None,
    }
}

fn other(
    subject: &mut Subject<'_>,
    quantization: &mut Quantization,
    claim: Option<&(&'static str, Value)>,
    laid_out_as: Option<&'static str>,
    unsettled: bool,
) {
    match claim {
        Some((key, claim)) => {
            *quantization = from_claim(subject, key, claim);
        }
        None => {
            // GPTQ's own programs keep their settings in a file beside the configuration.
            if let Some(settings) = subject.json("quantize_config.json") {
                let method = settings
                    .get("quant_method")
                    .and_then(Value::as_str)
                    .unwrap_or(laid_out_as.unwrap_or("gptq"))
                    .to_owned();
                quantization.bits = number(&settings, &["bits", "w_bit"]);
                quantization.group_size = number(&settings, &["group_size"]);
                apply_method(quantization, &method, &settings);
                if quantization.label.is_some() {
                    subject.says("quantization.label", "quantize_config.json", "bits");
                }
            } else if let Some(method) = laid_out_as {
                quantization.method = Some(method.to_owned());
                let label = match method {
                    "fp8" => Some("fp8"),
                    "mxfp4" => Some("mxfp4"),
                    _ => None,
                };
                quantization.label = label.map(str::to_owned);
                if quantization.label.is_some() {
                    subject.says("quantization.label", "safetensors header", "tensors' types");
                }
            } else if unsettled {
                quantization.method = Some("mlx".to_owned());
            }
        }
    }
    if let Some(method) = quantization.method.clone() {
        subject.says("quantization.method", "config.json", format!("quant_method {method}"));
    }
}
