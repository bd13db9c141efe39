//! Whether a LoRA or another adapter is involved, as far as one model's own files say.

use serde_json::Value;

use super::Subject;
use crate::formats::safetensors::SafetensorsHeader;
use crate::record::{Adapter, AdapterKind, Format};

pub(super) fn find(subject: &mut Subject<'_>, format: Format) -> Adapter {
    let mut adapter = Adapter::default();
    if format == Format::Adapter {
        adapter.kind = AdapterKind::Adapter;
        if let Some(config) = subject.json("adapter_config.json") {
            subject.says(
                "adapter.kind",
                "adapter_config.json",
                "an adapter's configuration, and no other weights",
            );
            from_config(subject, &config, &mut adapter);
        } else {
            let file = subject.tensors.files.first().map(|file| file.path.clone()).unwrap_or_default();
            subject.says("adapter.kind", &file, "nothing but adapter tensors");
        }
        from_tensors(subject, &mut adapter);
        return adapter;
    }
    adapter.found_inside = subject
        .model
        .files
        .iter()
        .filter_map(|file| file.path.strip_suffix("/adapter_config.json"))
        .map(str::to_owned)
        .collect();
    let relation = subject.front.base_model_relation.clone();
    match relation.as_deref() {
        Some("adapter") => {
            // The README is the author's word, but the weights of a whole model are here.
            adapter.kind = AdapterKind::Unknown;
            subject.says("adapter.kind", "README.md", "base_model_relation: adapter");
        }
        Some("merge") => {
            adapter.kind = AdapterKind::Fused;
            adapter.currently_fused = Some(true);
            adapter.fused_from = subject.front.base_model.last().cloned();
            subject.says("adapter.kind", "README.md", "base_model_relation: merge");
        }
        Some("finetune") => {
            adapter.kind = AdapterKind::Unknown;
            adapter.base = subject.front.base_model.first().cloned();
            subject.says("adapter.kind", "README.md", "base_model_relation: finetune");
        }
        _ => {}
    }
    if let Some((file, key)) = lora_metadata(subject) {
        adapter.kind = AdapterKind::Fused;
        adapter.currently_fused = Some(true);
        subject.says("adapter.kind", &file, key);
    }
    if adapter.kind == AdapterKind::None && !adapter.found_inside.is_empty() {
        adapter.kind = AdapterKind::Unknown;
        let inside = format!("{}/adapter_config.json", adapter.found_inside[0]);
        subject.says("adapter.kind", &inside, "an adapter lies inside the model's directory");
    }
    adapter
}

/// Keys by which a program that saved a whole model says that it baked a LoRA in: mflux's `lora_paths`, and the like.
fn lora_metadata(subject: &Subject<'_>) -> Option<(String, String)> {
    subject.tensors.files.iter().filter(|file| !file.is_adapter).find_map(|file| {
        let (key, _) = file.header.metadata.iter().find(|(key, value)| {
            let lower = key.to_ascii_lowercase();
            let empty = matches!(value.trim(), "" | "[]" | "None" | "null" | "{}" | "false" | "False");
            (lower.contains("lora") || lower.contains("adapter")) && !empty
        })?;
        Some((file.path.clone(), format!("__metadata__.{key}")))
    })
}

fn from_config(subject: &mut Subject<'_>, config: &Value, adapter: &mut Adapter) {
    let file = "adapter_config.json";
    let text = |key: &str| config.get(key).and_then(Value::as_str).map(str::to_owned);
    // mlx_lm's form, then PEFT's.
    let parameters = config.get("lora_parameters");
    let in_parameters = |key: &str| parameters.and_then(|parameters| parameters.get(key));
    adapter.method =
        text("fine_tune_type").or_else(|| text("peft_type").map(|word| word.to_ascii_lowercase()));
    if config.get("use_dora").and_then(Value::as_bool) == Some(true) {
        adapter.method = Some("dora".to_owned());
    }
    adapter.rank = in_parameters("rank").or_else(|| config.get("r")).and_then(Value::as_u64);
    if adapter.rank.is_some() {
        subject.says("adapter.rank", file, if parameters.is_some() { "lora_parameters.rank" } else { "r" });
    }
    adapter.scale = in_parameters("scale").and_then(Value::as_f64).or_else(|| {
        let alpha = config.get("lora_alpha")?.as_f64()?;
        let rank = adapter.rank.filter(|rank| *rank > 0)? as f64;
        let root = config.get("use_rslora").and_then(Value::as_bool) == Some(true);
        Some(alpha / if root { rank.sqrt() } else { rank })
    });
    let keys = in_parameters("keys").or_else(|| config.get("target_modules"));
    adapter.keys = match keys {
        Some(Value::Array(keys)) => keys.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        Some(Value::String(pattern)) => vec![pattern.clone()],
        _ => Vec::new(),
    };
    adapter.keys.sort_unstable();
    adapter.base = text("base_model_name_or_path").or_else(|| text("model")).filter(|base| !base.is_empty());
    if adapter.base.is_some() {
        subject.says("adapter.base", file, "model or base_model_name_or_path");
    }
}

/// What the tensors themselves say, where the configuration does not.
fn from_tensors(subject: &mut Subject<'_>, adapter: &mut Adapter) {
    let mut said: Vec<(&str, String, String)> = Vec::new();
    for file in subject.tensors.files.iter().filter(|file| file.is_adapter) {
        let header = &file.header;
        let mut meta = |key: &str, field: &'static str| {
            let value = header.metadata.get(key)?;
            said.push((field, file.path.clone(), format!("__metadata__.{key}")));
            Some(value.clone())
        };
        if adapter.rank.is_none() {
            adapter.rank = meta("ss_network_dim", "adapter.rank").and_then(|dim| dim.parse().ok());
            if adapter.scale.is_none()
                && let Some(rank) = adapter.rank.filter(|rank| *rank > 0)
            {
                adapter.scale = meta("ss_network_alpha", "adapter.scale")
                    .and_then(|alpha| alpha.parse::<f64>().ok())
                    .map(|alpha| alpha / rank as f64);
            }
        }
        if adapter.base.is_none() {
            adapter.base = meta("ss_sd_model_name", "adapter.base")
                .or_else(|| meta("ss_base_model_version", "adapter.base"));
        }
        if adapter.rank.is_none()
            && let Some((name, rank)) = rank_by_shape(header)
        {
            adapter.rank = Some(rank);
            said.push(("adapter.rank", file.path.clone(), format!("shape of {name}")));
        }
        if adapter.keys.is_empty() {
            adapter.keys = keys_by_name(header);
        }
        if adapter.method.is_none() {
            adapter.method = Some("lora".to_owned());
        }
    }
    for (field, file, key) in said {
        subject.says(field, &file, key);
    }
}

fn rank_by_shape(header: &SafetensorsHeader) -> Option<(String, u64)> {
    header.tensors.iter().find_map(|tensor| {
        let is_down = ["lora_A", "lora_a", "lora_down"].iter().any(|part| tensor.name.contains(part));
        let rank = *tensor.shape.iter().min()?;
        (is_down && tensor.shape.len() >= 2).then(|| (tensor.name.to_string(), rank))
    })
}

/// `model.layers.0.self_attn.q_proj.lora_a` is of the key `self_attn.q_proj`.
fn keys_by_name(header: &SafetensorsHeader) -> Vec<String> {
    let mut keys: Vec<String> = header
        .tensors
        .iter()
        .filter_map(|tensor| {
            let name: &str = &tensor.name;
            let cut = name.find(".lora_")?;
            let parts: Vec<&str> = name[..cut].split('.').collect();
            let after_number =
                parts.iter().rposition(|part| part.parse::<u64>().is_ok()).map_or(0, |at| at + 1);
            let key = parts.get(after_number..)?.join(".");
            (!key.is_empty()).then_some(key)
        })
        .collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}
