//! How a GGUF model is quantized, as its header says.

use super::Found;
use super::label::by_name;
use crate::inspect::{Subject, gguf};

/// What the model's own files say: a projector, an adapter or an importance matrix beside them says nothing of it.
pub(super) fn find(subject: &mut Subject<'_>) -> Found {
    let mut found = Found::default();
    let sets = gguf::models(&subject.tensors);
    let Some(first) = sets.first().and_then(gguf::Set::head).map(|file| file.path.clone()) else {
        return found;
    };
    let labels: Vec<Option<(String, bool)>> = sets.iter().map(gguf::Set::label).collect();
    let by_quantizer = labels.iter().flatten().any(|(_, written)| *written);
    // Every quantization has the same parameters; of several models in one directory none is the model.
    let whole: Vec<u64> = sets.iter().filter_map(gguf::Set::elements).collect();
    let elements = whole.first().copied().filter(|first| whole.iter().all(|other| other == first));
    let bytes = match sets.as_slice() {
        [one] => one.bytes(),
        _ => None,
    };
    drop(sets);
    found.parameter_count = elements;
    if found.parameter_count.is_some() {
        subject.says("parameter_count", &first, "tensors' dimensions");
    }
    let mut names: Vec<String> = labels.iter().flatten().map(|(label, _)| plain(label)).collect();
    let known = names.len() == labels.len();
    names.sort_unstable();
    names.dedup();
    let quantization = &mut found.quantization;
    quantization.method = Some("gguf".to_owned());
    let key = if by_quantizer { "general.file_type" } else { "tensors' types" };
    match names.as_slice() {
        [one] if known => {
            quantization.label = Some(one.clone());
            subject.says("quantization.label", &first, key);
        }
        [] => by_name(subject, quantization),
        _ => {
            subject.says("quantization.variants", &first, key);
            quantization.variants = names.clone();
        }
    }
    let quantized = names.iter().any(|name| !is_float(name));
    if !names.is_empty() && !quantized {
        quantization.method = None;
        found.precision = quantization.label.clone();
    }
    if let (Some(elements), Some(bytes)) = (elements, bytes.filter(|bytes| *bytes > 0)) {
        quantization.bits_per_weight = Some((bytes as f64 * 8.0 / elements as f64 * 1000.0).round() / 1000.0);
    }
    found
}

/// A type that quantizes nothing goes by the word that other formats have for it.
fn plain(label: &str) -> String {
    let lower = label.to_ascii_lowercase();
    if is_float(&lower) { lower } else { label.to_owned() }
}

fn is_float(label: &str) -> bool {
    matches!(label, "f16" | "bf16" | "f32")
}
