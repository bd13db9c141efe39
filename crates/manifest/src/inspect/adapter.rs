//! Whether a LoRA or another adapter is involved, as far as one model's own files say.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::tensors::{WeightFile, is_adapter_tensor, shard_of};
use super::{Subject, gguf};
use crate::formats::safetensors::TensorInfo;
use crate::record::{Adapter, AdapterKind, Format};

pub(super) fn find(subject: &mut Subject<'_>, format: Format) -> Adapter {
    let mut adapter = Adapter::default();
    if format == Format::Adapter {
        adapter.kind = AdapterKind::Adapter;
        let config = subject.json("adapter_config.json");
        if let Some(config) = &config {
            subject.says(
                "adapter.kind",
                "adapter_config.json",
                "an adapter's configuration, and no other weights",
            );
            from_config(subject, config, &mut adapter);
        } else if let Some(file) = subject.only_adapters() {
            subject.says("adapter.kind", &file, "nothing but adapter tensors");
        }
        from_tensors(subject, &mut adapter);
        if adapter.scale.is_none() {
            adapter.scale = config.and_then(|config| scale_by_alpha(&config, adapter.rank?));
        }
        from_gguf(subject, &mut adapter);
        if adapter.method.as_deref() == Some("full") {
            // Whole layers: the configuration's rank is that of a LoRA that was not made.
            (adapter.rank, adapter.scale) = (None, None);
            subject.evidence.remove("adapter.rank");
        }
        return adapter;
    }
    adapter.found_inside = subject
        .model
        .files
        .iter()
        .filter_map(|file| file.path.strip_suffix("/adapter_config.json"))
        .map(str::to_owned)
        .collect();
    let beside = |file: &WeightFile| file.is_adapter && file.component().is_empty();
    if subject.has("adapter_config.json") && subject.tensors.files.iter().any(beside) {
        adapter.found_inside.insert(0, ".".to_owned());
    }
    let relation = subject.front.base_model_relation.clone();
    match relation.as_deref() {
        Some("adapter") => {
            // The README is the author's word, but the weights of a whole model are here.
            adapter.kind = AdapterKind::Unknown;
            subject.says("adapter.kind", "README.md", "base_model_relation: adapter");
        }
        Some("merge") => {
            // Of whole models, of adapters, or of both: the README does not tell.
            adapter.kind = AdapterKind::Unknown;
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
        let inside = match adapter.found_inside[0].as_str() {
            "." => "adapter_config.json".to_owned(),
            dir => format!("{dir}/adapter_config.json"),
        };
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
    adapter.scale = in_parameters("scale").and_then(Value::as_f64);
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

/// PEFT's factor on the product of a pair of this rank.
fn scale_by_alpha(config: &Value, rank: u64) -> Option<f64> {
    let patterns = config.get("alpha_pattern").and_then(Value::as_object);
    if rank == 0 || patterns.is_some_and(|map| !map.is_empty()) {
        return None;
    }
    let root = config.get("use_rslora").and_then(Value::as_bool) == Some(true);
    let rank = rank as f64;
    Some(config.get("lora_alpha")?.as_f64()? / if root { rank.sqrt() } else { rank })
}

/// What one adapter file, or the shards of one, say.
#[derive(Debug, Default, PartialEq)]
struct Told {
    path: String,
    rank: Option<u64>,
    rank_key: String,
    alpha: Option<f64>,
    base: Option<(String, &'static str)>,
    keys: BTreeSet<String>,
    method: Option<&'static str>,
    /// Ranks that the tensors' shapes show.
    shapes: BTreeMap<u64, String>,
}

/// What the tensors themselves say, where the configuration does not.
fn from_tensors(subject: &mut Subject<'_>, adapter: &mut Adapter) {
    // The configuration is about the files beside it.
    let root_only = subject.has("adapter_config.json")
        && subject.tensors.files.iter().any(|file| file.is_adapter && file.component().is_empty());
    let mut adapters: BTreeMap<String, Told> = BTreeMap::new();
    for file in &subject.tensors.files {
        if !file.is_adapter || root_only && !file.component().is_empty() {
            continue;
        }
        let stem = file.path.strip_suffix(".safetensors").unwrap_or(&file.path);
        let name = shard_of(stem).map_or(stem, |(name, ..)| name);
        tell(file, adapters.entry(name.to_owned()).or_default());
    }
    let mut all: Vec<Told> = adapters.into_values().collect();
    let Some(first) = all.first() else { return };
    let alike = |of: &dyn Fn(&Told, &Told) -> bool| all.iter().all(|other| of(first, other));
    let same_rank = alike(&|a, b| a.rank == b.rank && a.shapes.keys().eq(b.shapes.keys()));
    let same_alpha = alike(&|a, b| a.alpha == b.alpha);
    let same_base = alike(&|a, b| a.base.as_ref().map(|base| &base.0) == b.base.as_ref().map(|base| &base.0));
    let same_method = alike(&|a, b| a.method == b.method);
    let same_keys = alike(&|a, b| a.keys == b.keys);
    let first = all.swap_remove(0);
    let (claimed, path) = (adapter.rank, first.path.clone());
    match (same_rank, claimed, first.rank, first.shapes.len()) {
        (false, ..) => adapter.rank = None,
        // What trained it says so, even where other layers have another rank.
        (true, None, Some(rank), _) => {
            adapter.rank = Some(rank);
            subject.says("adapter.rank", &path, first.rank_key);
        }
        (true, _, _, 1) => {
            adapter.rank = first.shapes.keys().next().copied();
            if claimed != adapter.rank
                && let Some(name) = first.shapes.values().next()
            {
                subject.says("adapter.rank", &path, format!("shape of {name}"));
            }
        }
        (true, _, _, 0) => {}
        (true, ..) => adapter.rank = None,
    }
    if adapter.rank.is_none() {
        subject.evidence.remove("adapter.rank");
    }
    if adapter.scale.is_none()
        && same_alpha
        && let (Some(alpha), Some(rank)) = (first.alpha, adapter.rank.filter(|rank| *rank > 0))
    {
        adapter.scale = Some(alpha / rank as f64);
        subject.says("adapter.scale", &path, "__metadata__.ss_network_alpha");
    }
    if adapter.base.is_none()
        && same_base
        && let Some((base, key)) = first.base
    {
        adapter.base = Some(base);
        subject.says("adapter.base", &path, format!("__metadata__.{key}"));
    }
    if adapter.keys.is_empty() && same_keys {
        adapter.keys = first.keys.into_iter().collect();
    }
    if adapter.method.is_none() && same_method {
        adapter.method = first.method.map(str::to_owned);
    }
}

fn tell(file: &WeightFile, told: &mut Told) {
    let header = &file.header;
    let said =
        |key: &'static str| header.metadata.get(key).filter(|text| !text.is_empty() && *text != "None");
    if told.path.is_empty() {
        told.path = file.path.clone();
    }
    if let Some(rank) = said("ss_network_dim").and_then(|dim| dim.parse().ok()) {
        told.rank = Some(rank);
        told.rank_key = "__metadata__.ss_network_dim".to_owned();
    }
    told.alpha = said("ss_network_alpha").and_then(|alpha| alpha.parse().ok()).or(told.alpha);
    if let Some(base) = ["ss_sd_model_name", "ss_base_model_version"]
        .into_iter()
        .find_map(|key| Some((said(key)?.clone(), key)))
    {
        told.base = Some(base);
    }
    for tensor in &header.tensors {
        if let Some(rank) = rank_by_shape(tensor) {
            told.shapes.entry(rank).or_insert_with(|| tensor.name.to_string());
        }
        told.keys.extend(key_by_name(&tensor.name));
        let has = |part: &str| tensor.name.contains(part);
        told.method = match told.method {
            Some("dora") => Some("dora"),
            _ if has("dora_scale") || has("lora_magnitude") => Some("dora"),
            None if has("hada_w") => Some("loha"),
            None if has("lokr_w") => Some("lokr"),
            None if is_adapter_tensor(&tensor.name) => Some("lora"),
            method => method,
        };
    }
}

/// The rank that the first of a pair of matrices shows.
fn rank_by_shape(tensor: &TensorInfo) -> Option<u64> {
    let has = |parts: &[&str]| parts.iter().any(|part| tensor.name.contains(part));
    match tensor.shape[..] {
        // PEFT, kohya and diffusers: rank x input, and for a convolution what it looks at behind.
        [rank, _, ..]
            if has(&["lora_A", "lora_embedding_A", "lora_down", "lora.down.", "lora_linear_layer.down"]) =>
        {
            Some(rank)
        }
        // mlx_lm: input x rank; of a mixture's experts, experts x rank x input.
        [_, rank] | [_, rank, _] if has(&[".lora_a"]) => Some(rank),
        _ => None,
    }
}

/// `model.layers.0.self_attn.q_proj.lora_a` is of the key `self_attn.q_proj`.
fn key_by_name(name: &str) -> Option<String> {
    const CUTS: [&str; 5] = [".lora_", ".lora.", "_lora.down.", "_lora.up.", "_lora."];
    if !is_adapter_tensor(name) {
        return None;
    }
    let cut = CUTS.iter().filter_map(|cut| name.find(cut)).min()?;
    let module = name[..cut].trim_start_matches("base_model.model.");
    if module.starts_with("lora_") && !module.contains('.') {
        return Some(last_projection(module));
    }
    let parts: Vec<&str> = module.split('.').filter(|part| *part != "processor").collect();
    // `to_out.0`: the number of a part in the layer, not that of a layer.
    let before_last = parts.len().saturating_sub(1);
    let after_number =
        parts[..before_last].iter().rposition(|part| part.parse::<u64>().is_ok()).map_or(0, |at| at + 1);
    let key = parts.get(after_number..)?.join(".");
    (!key.is_empty()).then_some(key)
}

/// `to_q` of kohya's `lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q`: the dots of its name are
/// not told from the underscores.
fn last_projection(module: &str) -> String {
    const KNOWN: [&str; 28] = [
        "to_q",
        "to_k",
        "to_v",
        "to_out_0",
        "to_out",
        "to_qkv",
        "add_q_proj",
        "add_k_proj",
        "add_v_proj",
        "to_add_out",
        "q_proj",
        "k_proj",
        "v_proj",
        "out_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
        "proj_in",
        "proj_out",
        "ff_net_0_proj",
        "ff_net_2",
        "fc1",
        "fc2",
        "conv_shortcut",
        "time_emb_proj",
        "conv1",
        "conv2",
    ];
    let is_end = |word: &&&str| module.strip_suffix(**word).is_some_and(|before| before.ends_with('_'));
    if let Some(known) = KNOWN.iter().filter(is_end).max_by_key(|word| word.len()) {
        return (*known).to_owned();
    }
    // What follows the last number is the name in its layer; where that number ends it, what follows the one before.
    let parts: Vec<&str> = module.split('_').collect();
    let start =
        parts[..parts.len() - 1].iter().rposition(|part| part.parse::<u64>().is_ok()).map_or(0, |at| at + 1);
    parts[start..].join("_")
}

/// What the header of llama.cpp's own form says.
fn from_gguf(subject: &mut Subject<'_>, adapter: &mut Adapter) {
    let sets = gguf::sets(&subject.tensors);
    let sets: Vec<_> = sets.into_iter().filter(|set| set.role == gguf::Role::Adapter).collect();
    let Some(head) = sets.first().and_then(gguf::Set::head) else { return };
    let path = head.path.clone();
    let text = |key: &'static str| gguf::agreed(&sets, |set| set.head()?.header.str(key)).map(str::to_owned);
    let alpha = gguf::agreed(&sets, |set| set.head()?.header.metadata.get("adapter.lora.alpha")?.as_f64());
    let (method, base) = (text("adapter.type"), text("general.base_model.0.repo_url"));
    // Dimensions stand innermost first: the input, then the rank.
    let mut ranks: BTreeMap<u64, String> = BTreeMap::new();
    for tensor in sets.iter().flat_map(|set| &set.parts).flat_map(|file| &file.header.tensors) {
        if tensor.name.ends_with(".lora_a")
            && let Some(rank) = tensor.dims.get(1)
        {
            ranks.entry(*rank).or_insert_with(|| tensor.name.to_string());
        }
    }
    drop(sets);
    if adapter.method.is_none() {
        adapter.method = method;
    }
    if adapter.rank.is_none()
        && ranks.len() == 1
        && let Some((rank, name)) = ranks.into_iter().next()
    {
        adapter.rank = Some(rank);
        subject.says("adapter.rank", &path, format!("dimensions of {name}"));
        if adapter.scale.is_none() && rank > 0 {
            adapter.scale = alpha.filter(|alpha| *alpha > 0.0).map(|alpha| alpha / rank as f64);
        }
    }
    let base = base.as_deref().and_then(|url| url.strip_prefix("https://huggingface.co/"));
    if let Some(base) = base.filter(|base| adapter.base.is_none() && !base.is_empty()) {
        adapter.base = Some(base.to_owned());
        subject.says("adapter.base", &path, "general.base_model.0.repo_url");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_the_last_names() {
        for (name, key) in [
            ("model.layers.0.self_attn.q_proj.lora_a", "self_attn.q_proj"),
            ("base_model.model.encoder.q_proj.lora_B.weight", "encoder.q_proj"),
            ("base_model.model.model.layers.0.mlp.up_proj.lora_A.default.weight", "mlp.up_proj"),
            (
                "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.processor.to_q_lora.down.weight",
                "attn1.to_q",
            ),
            ("transformer.transformer_blocks.3.attn.to_out.0.lora_A.weight", "attn.to_out.0"),
            ("unet.mid_block.attentions.0.proj_in.lora.down.weight", "proj_in"),
            ("lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q.lora_down.weight", "to_q"),
            (
                "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_out_0.lora_up.weight",
                "to_out_0",
            ),
            ("lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight", "img_attn_qkv"),
            ("lora_unet_double_blocks_0_img_mlp_0.lora_down.weight", "img_mlp_0"),
            ("lora_te_text_model_encoder_layers_0_self_attn_q_proj.lora_up.weight", "q_proj"),
        ] {
            assert_eq!(key_by_name(name).as_deref(), Some(key), "{name}");
        }
        assert_eq!(key_by_name("model.norm.weight"), None);
    }
}
