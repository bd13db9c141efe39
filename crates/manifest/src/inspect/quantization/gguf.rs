//! How a GGUF model is quantized, as its header says.

use std::collections::BTreeMap;

use super::Found;
use super::label::by_name;
use crate::inspect::Subject;

pub(super) fn find(subject: &mut Subject<'_>) -> Found {
    let mut found = Found::default();
    let mut labels: Vec<String> = Vec::new();
    let mut elements = 0u64;
    let mut bytes = 0u64;
    // A split model's parts each name the same type; several files may also be one model in several quantizations.
    let split = subject.tensors.gguf.iter().any(|file| file.header.split().is_some());
    for (index, file) in subject.tensors.gguf.iter().enumerate() {
        if let Some(label) = file.header.file_type_label() {
            labels.push(label.to_owned());
        }
        if split || index == 0 {
            elements = elements.saturating_add(file.header.element_count().unwrap_or(0));
            bytes = bytes.saturating_add(file.header.tensor_bytes().unwrap_or(0));
        }
    }
    let first = subject.tensors.gguf[0].path.clone();
    labels.sort_unstable();
    labels.dedup();
    found.parameter_count = (elements > 0).then_some(elements);
    if found.parameter_count.is_some() {
        subject.says("parameter_count", &first, "tensors' dimensions");
    }
    let quantization = &mut found.quantization;
    quantization.method = Some("gguf".to_owned());
    quantization.label = match labels.as_slice() {
        [] => None,
        [one] => Some(one.clone()),
        several => Some(format!("mixed-{}", several.join("-"))),
    };
    if quantization.label.is_some() {
        subject.says("quantization.label", &first, "general.file_type");
    } else if let Some(main) = main_ggml_type(subject) {
        quantization.label = Some(main);
        subject.says("quantization.label", &first, "tensors' types");
    } else {
        by_name(subject, quantization);
    }
    let floats = ["F16", "BF16", "F32"];
    if let Some(label) = quantization.label.clone().filter(|label| floats.contains(&label.as_str())) {
        found.precision = Some(label.to_ascii_lowercase());
        quantization.label = found.precision.clone();
        quantization.method = None;
    }
    if elements > 0 && bytes > 0 {
        quantization.bits_per_weight = Some((bytes as f64 * 8.0 / elements as f64 * 1000.0).round() / 1000.0);
    }
    found
}

fn main_ggml_type(subject: &Subject<'_>) -> Option<String> {
    let mut by_type: BTreeMap<&'static str, u64> = BTreeMap::new();
    for tensor in subject.tensors.gguf.iter().flat_map(|file| &file.header.tensors) {
        if let Some(name) = tensor.ggml_type.name() {
            *by_type.entry(name).or_default() += tensor.element_count().unwrap_or(0);
        }
    }
    by_type.into_iter().max_by_key(|(_, count)| *count).map(|(name, _)| name.to_owned())
}
