//! The words for a quantization.

use std::collections::BTreeMap;

use crate::inspect::Subject;
use crate::record::Quantization;

/// `bfloat16` and its like in short.
pub(super) fn precision_word(word: &str) -> String {
    match word.trim_start_matches("torch.").trim_start_matches("mlx.core.") {
        "bfloat16" => "bf16".to_owned(),
        "float16" | "half" => "f16".to_owned(),
        "float32" | "float" => "f32".to_owned(),
        "float64" | "double" => "f64".to_owned(),
        other => other.to_owned(),
    }
}

/// The last resort: a label that stands in the repo's name, and is marked so.
pub(super) fn by_name(subject: &mut Subject<'_>, quantization: &mut Quantization) {
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

/// One label for what is quantized in these ways.
pub(super) fn label_of(parts: impl IntoIterator<Item = String>) -> Option<String> {
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

/// The type of most elements, as a label.
pub(super) fn main_dtype(by_dtype: &BTreeMap<String, u64>) -> Option<String> {
    let (dtype, _) = by_dtype.iter().max_by_key(|(_, count)| **count)?;
    Some(if dtype.starts_with("f8") { "fp8".to_owned() } else { dtype.clone() })
}

/// A mixture's router: programs keep it finer than the rest, and nobody calls a model mixed for it.
pub(super) fn is_router(module: &str) -> bool {
    let mut parts = module.rsplit('.');
    let last = parts.next().unwrap_or(module);
    let (before, mlp) = (parts.next(), parts.next());
    matches!(last, "gate" | "shared_expert_gate" | "wg")
        || (before == Some("gate") && (matches!(last, "gate_proj" | "proj") || mlp == Some("mlp")))
        || module.split('.').any(|part| part == "router")
}
