//! What configurations say of methods that are not MLX's own.

use serde_json::Value;

use super::claim::number;
use super::label::label_of;
use crate::record::Quantization;

/// One way in which a configuration says that weights are quantized.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Way {
    pub(super) bits: Option<u64>,
    pub(super) group_size: Option<u64>,
    pub(super) label: Option<String>,
}

impl Way {
    fn int(bits: Option<u64>, group_size: Option<u64>) -> Self {
        Way { bits, group_size, label: bits.map(|bits| format!("{bits}bit")) }
    }

    fn named(label: &str, bits: u64, group_size: Option<u64>) -> Self {
        Way { bits: Some(bits), group_size, label: Some(label.to_owned()) }
    }
}

/// A method and how it was set.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) method: String,
    /// Several where parts of the model differ.
    pub(super) ways: Vec<Way>,
    /// Whether it says that weights are packed; else it speaks of caches and activations only.
    pub(super) of_weights: bool,
}

impl Settings {
    pub(super) fn read(method: &str, value: &Value) -> Self {
        let method = match method {
            "fbgemm_fp8" | "modelopt_fp8" => "fp8",
            "bitsandbytes_4bit" | "bitsandbytes_8bit" => "bitsandbytes",
            other => other,
        };
        let flag = |key: &str| value.get(key).and_then(Value::as_bool) == Some(true);
        let text = |key: &str| value.get(key).and_then(Value::as_str);
        let group = number(value, &["group_size", "q_group_size", "weight_block_size"]);
        let plain = Way::int(number(value, &["bits", "w_bit", "nbits"]), group);
        let mut of_weights = true;
        let ways = match method {
            "bitsandbytes" if flag("load_in_4bit") || flag("_load_in_4bit") => vec![Way::int(Some(4), None)],
            "bitsandbytes" if flag("load_in_8bit") || flag("_load_in_8bit") => vec![Way::int(Some(8), None)],
            "fp8" => vec![Way::named("fp8", 8, None)],
            "mxfp4" => vec![Way::named("mxfp4", 4, Some(32))],
            "compressed-tensors" => {
                let ways = of_groups(value);
                of_weights = !ways.is_empty() && text("format") != Some("dense");
                ways
            }
            "modelopt" => {
                of_weights = text("quant_algo").is_some();
                modelopt(value)
            }
            "hqq" => hqq(value),
            "torchao" => vec![torchao(value)],
            _ => match text("weights").and_then(word) {
                Some(way) => vec![way],
                None => vec![plain],
            },
        };
        Settings { method: method.to_owned(), ways, of_weights }
    }

    /// The bits of every weight, where they are the same.
    pub(super) fn bits(&self) -> Option<u64> {
        one(self.ways.iter().map(|way| way.bits))
    }

    pub(super) fn label(&self) -> Option<String> {
        let labels: Option<Vec<String>> = self.ways.iter().map(|way| way.label.clone()).collect();
        label_of(labels?)
    }

    pub(super) fn quantization(&self) -> Quantization {
        Quantization {
            label: self.label(),
            method: Some(self.method.clone()),
            bits: self.bits(),
            group_size: one(self.ways.iter().map(|way| way.group_size)),
            ..Quantization::default()
        }
    }
}

/// The value that all have.
pub(super) fn one<T: PartialEq>(mut values: impl Iterator<Item = Option<T>>) -> Option<T> {
    let first = values.next()??;
    values.all(|value| value.as_ref() == Some(&first)).then_some(first)
}

/// `int4`, `float8`, and torchao's longer words with such a one before `weight`.
fn word(text: &str) -> Option<Way> {
    let text = text.to_ascii_lowercase().replace(['_', '-'], "");
    let text = text.split("weight").next().unwrap_or_default();
    let digits = text.len() - text.bytes().rev().take_while(u8::is_ascii_digit).count();
    let bits = text[digits..].parse::<u64>().ok().filter(|bits| (1..=8).contains(bits))?;
    match &text[..digits] {
        kind if kind.ends_with("uint") || kind.ends_with("int") => Some(Way::int(Some(bits), None)),
        kind if kind.ends_with("float") && bits == 8 => Some(Way::named("fp8", 8, None)),
        _ => None,
    }
}

/// The groups of compressed-tensors, as far as they speak of weights; modelopt writes such ones too.
fn of_groups(value: &Value) -> Vec<Way> {
    let groups = value.get("config_groups").and_then(Value::as_object);
    let mut ways: Vec<Way> = Vec::new();
    for group in groups.into_iter().flat_map(|groups| groups.values()) {
        let Some(weights) = group.get("weights").filter(|weights| weights.is_object()) else { continue };
        let format = [group, value].iter().find_map(|from| from.get("format")?.as_str()).unwrap_or_default();
        let bits = number(weights, &["num_bits"]);
        let size = number(weights, &["group_size"]);
        let is_float = weights.get("type").and_then(Value::as_str) == Some("float");
        let way = match (is_float, bits) {
            (true, Some(8)) if format.starts_with("mxfp8") => Way::named("mxfp8", 8, size),
            (true, Some(8)) => Way::named("fp8", 8, size),
            (true, Some(4)) if format.starts_with("nvfp4") => Way::named("nvfp4", 4, size.or(Some(16))),
            (true, Some(4)) if format.starts_with("mxfp4") => Way::named("mxfp4", 4, size.or(Some(32))),
            (true, Some(4)) if size == Some(16) => Way::named("nvfp4", 4, size),
            (true, Some(4)) if size == Some(32) => Way::named("mxfp4", 4, size),
            (true, bits) => Way { bits, group_size: size, label: None },
            (false, bits) => Way::int(bits, size),
        };
        if !ways.contains(&way) {
            ways.push(way);
        }
    }
    ways
}

fn modelopt(value: &Value) -> Vec<Way> {
    let algorithm = |value: &Value| -> Option<Way> {
        let name = value.get("quant_algo")?.as_str()?.to_ascii_uppercase();
        let size = number(value, &["group_size"]);
        // `W4A16_AWQ`, `INT4_AWQ`, `INT8_SQ`.
        let of_int = || {
            let bits = name.strip_prefix('W').or_else(|| name.strip_prefix("INT"))?.chars().next()?;
            Some(Way::int(bits.to_digit(10).map(u64::from), size))
        };
        match name.as_str() {
            name if name.contains("NVFP4") => Some(Way::named("nvfp4", 4, size.or(Some(16)))),
            name if name.contains("MXFP4") => Some(Way::named("mxfp4", 4, size.or(Some(32)))),
            name if name.contains("MXFP8") => Some(Way::named("mxfp8", 8, size.or(Some(32)))),
            name if name.contains("FP8") => Some(Way::named("fp8", 8, None)),
            _ => of_int(),
        }
    };
    if let Some(way) = algorithm(value) {
        return vec![way];
    }
    let layers = value.get("quantized_layers").and_then(Value::as_object);
    let mut ways: Vec<Way> = Vec::new();
    for layer in layers.into_iter().flat_map(|layers| layers.values()) {
        let way = algorithm(layer).unwrap_or_default();
        if !ways.contains(&way) {
            ways.push(way);
        }
    }
    if ways.is_empty() { of_groups(value) } else { ways }
}

fn hqq(value: &Value) -> Vec<Way> {
    let config = value.get("quant_config").unwrap_or(value);
    let way = |params: &Value| {
        let params = params.get("weight_quant_params").unwrap_or(params);
        Way::int(number(params, &["nbits"]), number(params, &["group_size"]))
    };
    if number(config, &["nbits"]).is_some() || config.get("weight_quant_params").is_some() {
        return vec![way(config)];
    }
    // Settings for each kind of layer.
    let mut ways: Vec<Way> = Vec::new();
    for params in config.as_object().into_iter().flat_map(|map| map.values()).filter(|v| v.is_object()) {
        let way = way(params);
        if !ways.contains(&way) {
            ways.push(way);
        }
    }
    ways
}

fn torchao(value: &Value) -> Way {
    let Some(kind) = value.get("quant_type").or_else(|| value.get("weights")) else { return Way::default() };
    let kind = kind.get("default").unwrap_or(kind);
    let name = kind.as_str().or_else(|| kind.get("_type")?.as_str()).unwrap_or_default();
    // `int8_dynamic_activation_int4_weight`: the word before the last `weight` is meant.
    let weights = name.to_ascii_lowercase().replace("activation", " ").replace("weightonly", "weight");
    let words: Vec<&str> = weights.split([' ', '_']).collect();
    let group = kind.get("_data").or_else(|| value.get("quant_type_kwargs"));
    let way = word(words.last().filter(|word| !word.starts_with("weight")).unwrap_or(&weights.as_str()));
    let way = way.or_else(|| words.iter().rev().find_map(|text| word(text)));
    let group = group.and_then(|data| number(data, &["group_size"]));
    way.map(|way| Way { group_size: group, ..way }).unwrap_or_default()
}
