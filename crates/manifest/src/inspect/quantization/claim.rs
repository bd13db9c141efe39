//! What a model's files say of its quantization.

use std::collections::BTreeMap;

use serde_json::Value;

use super::foreign::Settings;
use super::label::{is_router, label_of};
use super::mlx::Scheme;
use super::parts::Place;
use crate::inspect::Subject;
use crate::inspect::tensors::WeightFile;
use crate::record::Quantization;

/// Components of a pipeline that make it what it is.
pub(super) const MAIN: [&str; 3] = ["transformer", "unet", "prior"];

/// What one file says.
#[derive(Debug, Clone)]
pub(super) struct Claim {
    pub(super) file: String,
    pub(super) key: String,
    /// The settings of a method that is not MLX's own.
    foreign: Option<Settings>,
    value: Value,
}

/// What the configurations of a model, or of a pipeline's components, say.
#[derive(Debug, Default)]
pub(super) struct Claims(BTreeMap<String, Claim>);

impl Claims {
    pub(super) fn read(subject: &mut Subject<'_>, pipeline: bool) -> Self {
        let mut claims = BTreeMap::new();
        let config = subject.config.take();
        if let Some(claim) = config.as_ref().and_then(|config| in_config("config.json", config)) {
            claims.insert(String::new(), claim);
        } else if let Some(claim) = beside_config(subject) {
            claims.insert(String::new(), claim);
        }
        subject.config = config;
        if pipeline {
            let of_parts: Vec<String> = subject
                .model
                .files
                .iter()
                .filter_map(|file| Some(file.path.strip_suffix("/config.json")?.to_owned()))
                .filter(|part| subject.tensors.files.iter().any(|file| file.component() == part))
                .collect();
            for part in of_parts {
                let path = format!("{part}/config.json");
                if let Some(claim) = subject.json(&path).and_then(|config| in_config(&path, &config)) {
                    claims.insert(part, claim);
                }
            }
        }
        Claims(claims)
    }

    /// What holds for this component.
    pub(super) fn of(&self, component: &str) -> Option<&Claim> {
        self.0.get(component).or_else(|| self.0.get(""))
    }

    /// Each, with its component.
    pub(super) fn each(&self) -> impl Iterator<Item = (&str, &Claim)> {
        self.0.iter().map(|(component, claim)| (component.as_str(), claim))
    }

    /// That of the model, or of the component that makes it what it is.
    pub(super) fn main(&self) -> Option<&Claim> {
        let parts = std::iter::once("").chain(MAIN).find_map(|part| self.0.get(part));
        parts.or_else(|| self.0.values().next())
    }

    /// What is said of this module in MLX's terms.
    pub(super) fn scheme(&self, (component, module): Place<'_>) -> Option<Scheme> {
        self.of(component)?.scheme(module)
    }
}

fn in_config(file: &str, config: &Value) -> Option<Claim> {
    let parts = [None, Some("text_config"), Some("language_config"), Some("llm_config")];
    parts.into_iter().find_map(|part| {
        let within = part.map_or(Some(config), |part| config.get(part))?;
        ["quantization", "quantization_config"].into_iter().find_map(|key| {
            let path = part.map_or_else(|| key.to_owned(), |part| format!("{part}.{key}"));
            Claim::new(file, path, within.get(key)?.clone(), None)
        })
    })
}

/// GPTQ's, AWQ's and NVIDIA's own programs keep their settings in a file beside the configuration.
fn beside_config(subject: &mut Subject<'_>) -> Option<Claim> {
    for (file, key, method) in [
        ("hf_quant_config.json", "quantization", "modelopt"),
        ("quantize_config.json", "", "gptq"),
        ("quant_config.json", "", "awq"),
    ] {
        let Some(mut value) = subject.json(file) else { continue };
        if !key.is_empty() {
            let Some(inner) = value.get(key) else { continue };
            value = inner.clone();
        }
        let said = BITS.iter().chain(&["quant_algo"]).find(|key| value.get(**key).is_some());
        if let Some(said) = said {
            let key = if key.is_empty() { *said } else { key };
            return Claim::new(file, key.to_owned(), value, Some(method));
        }
    }
    None
}

const BITS: &[&str] = &["bits", "w_bit", "num_bits", "nbits"];

/// A number under the first of these keys that has one; some programs write `4.0`.
pub(super) fn number(value: &Value, keys: &[&str]) -> Option<u64> {
    keys.iter().find_map(|key| {
        let value = value.get(key)?;
        let whole = |float: &f64| float.fract() == 0.0 && (0.0..1e9).contains(float);
        value.as_u64().or_else(|| value.as_f64().filter(whole).map(|float| float as u64))
    })
}

impl Claim {
    fn new(file: &str, key: String, value: Value, method: Option<&str>) -> Option<Self> {
        let map = value.as_object()?;
        let named = value.get("quant_method").and_then(Value::as_str);
        let method = match named.or(method) {
            Some("mlx") => None,
            Some(method) => Some(method.to_owned()),
            None if map.contains_key("quant_algo") => Some("modelopt".to_owned()),
            None if map.keys().any(|key| key.trim_start_matches('_').starts_with("load_in_")) => {
                Some("bitsandbytes".to_owned())
            }
            None => {
                let speaks = |value: &Value| value.get("bits").is_some() || value.get("mode").is_some();
                if !speaks(&value) && !map.values().any(speaks) {
                    return None;
                }
                None
            }
        };
        let foreign = method.map(|method| Settings::read(&method, &value));
        Some(Claim { file: file.to_owned(), key, foreign, value })
    }

    /// What it says with a method that is not MLX's own.
    pub(super) fn foreign(&self) -> Option<&Settings> {
        self.foreign.as_ref()
    }

    /// What it says, where nothing can prove it.
    pub(super) fn quantization(&self) -> Quantization {
        if let Some(settings) = self.foreign() {
            return settings.quantization();
        }
        let mode = self.value.get("mode").and_then(Value::as_str).unwrap_or("affine");
        let bits = number(&self.value, BITS);
        let over = self.overrides();
        let word = |bits: u64, mode: &str| {
            if mode == "affine" { format!("{bits}bit") } else { mode.to_owned() }
        };
        let own = bits.map(|bits| word(bits, mode));
        let layers = over.iter().filter(|(module, _)| !is_router(module)).filter_map(|(_, layer)| {
            let mode = layer.get("mode").and_then(Value::as_str).unwrap_or("affine");
            Some(word(number(layer, BITS)?, mode))
        });
        Quantization {
            label: label_of(own.into_iter().chain(layers)),
            method: Some("mlx".to_owned()),
            bits,
            group_size: number(&self.value, &["group_size", "q_group_size"]),
            mode: Some(mode.to_owned()),
            overrides: Some(over.len() as u64),
            ..Quantization::default()
        }
    }

    /// Per-layer settings in MLX's claim: a module's name, and an object or `false`.
    fn overrides(&self) -> Vec<(&String, &Value)> {
        let map = self.value.as_object().into_iter().flatten();
        map.filter(|(_, value)| value.is_object() || value.is_boolean()).collect()
    }

    /// What it says of `module`: the module's own setting, else the model's.
    fn scheme(&self, module: &str) -> Option<Scheme> {
        if self.foreign.is_some() {
            return None;
        }
        let own = self.value.get(module).filter(|value| value.is_object() || value.is_boolean());
        let of = |value: &Value| {
            let whole = self.value.get("mode").filter(|_| own.is_none());
            let mode = value.get("mode").or(whole).and_then(Value::as_str);
            Some(Scheme {
                bits: number(value, &["bits"])?,
                group_size: number(value, &["group_size"])
                    .or_else(|| number(&self.value, &["group_size"]))?,
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
            None => of(&self.value),
        }
    }
}

/// What mflux and programs like it write into a weight file's metadata, in text.
#[derive(Debug, Clone)]
pub(super) struct Level {
    pub(super) file: String,
    bits: u64,
    group_size: Option<u64>,
}

impl Level {
    /// That of each component.
    pub(super) fn read<'a>(files: &[&'a WeightFile]) -> BTreeMap<&'a str, Level> {
        let mut levels = BTreeMap::new();
        for file in files {
            let number = |key: &str| file.header.metadata.get(key)?.parse::<u64>().ok();
            if let Some(bits) = number("quantization_level") {
                let group_size = number("group_size");
                levels.entry(file.component()).or_insert(Level { file: file.path.clone(), bits, group_size });
            }
        }
        levels
    }

    /// The one of these that it means.
    pub(super) fn among(&self, schemes: &[Scheme]) -> Option<Scheme> {
        let fits = |scheme: &&Scheme| {
            scheme.bits == self.bits && self.group_size.is_none_or(|group| group == scheme.group_size)
        };
        schemes.iter().find(fits).cloned()
    }
}
