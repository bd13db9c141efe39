//! How a model is quantized, proved from the shapes and types of its tensors where they can prove it.
//!
//! What shapes leave open, the files' own words decide where the shapes allow them; what nothing settles leaves the
//! numbers that depend on it unsaid.

mod claim;
mod count;
mod foreign;
mod gguf;
mod label;
mod layout;
mod mlx;
mod parts;
#[cfg(test)]
mod tests;
mod verdict;
mod whole;

use super::Subject;
use super::tensors::WeightFile;
use super::widths::Widths;
use crate::record::Quantization;
use claim::{Claims, Level};
use count::Sums;
use label::{by_name, main_dtype, precision_word};
use layout::{Laid, laid};
use verdict::{Other, as_mlx, as_other, not_packed, says};
use whole::{dense_parts, is_whole};

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) parameter_count: Option<u64>,
    pub(super) precision: Option<String>,
    pub(super) quantization: Quantization,
}

pub(super) fn find(subject: &mut Subject<'_>) -> Found {
    if !subject.tensors.gguf.is_empty() {
        return gguf::find(subject);
    }
    let pipeline = subject.model_index.is_some() || subject.tensors.is_pipeline();
    let claims = Claims::read(subject, pipeline);
    let dense = dense_parts(subject);
    let whole = is_whole(subject);
    let tensors = std::mem::take(&mut subject.tensors);
    let mut files = tensors.own(pipeline);
    for file in &tensors.files {
        if dense.iter().any(|part| part == file.component()) && !files.iter().any(|it| it.path == file.path) {
            files.push(file);
        }
    }
    let found = if files.is_empty() {
        without_tensors(subject, &claims, !tensors.seen.is_empty())
    } else {
        from_tensors(subject, &files, &claims, whole)
    };
    drop(files);
    subject.tensors = tensors;
    found
}

fn without_tensors(subject: &mut Subject<'_>, claims: &Claims, seen: bool) -> Found {
    let mut found = Found::default();
    if let Some(claim) = claims.main() {
        found.quantization = claim.quantization();
        says(subject, &found.quantization, &claim.file, &claim.key);
        return found;
    }
    let dtype = subject.config.as_ref().and_then(|config| {
        ["torch_dtype", "dtype"]
            .into_iter()
            .find_map(|key| Some((key, precision_word(config.get(key)?.as_str()?))))
    });
    if let Some((key, dtype)) = dtype {
        found.precision = Some(dtype.clone());
        subject.says("precision", "config.json", key);
        if subject.model.files.iter().any(|file| file.path.ends_with(".bin") || file.path.ends_with(".npz")) {
            found.quantization.label = Some(dtype);
            subject.says("quantization.label", "config.json", key);
        }
    }
    if found.quantization.label.is_none() && seen {
        by_name(subject, &mut found.quantization);
    }
    found
}

fn from_tensors(subject: &mut Subject<'_>, files: &[&WeightFile], claims: &Claims, whole: bool) -> Found {
    let modules = parts::modules(files);
    let levels = Level::read(files);
    let widths = Widths::new(files, subject.config.as_ref());
    let packed = mlx::packed(&modules, &widths, claims, &levels);
    let mut sums = Sums::default();
    let mut others: Vec<Other<'_>> = Vec::new();
    let mut uncounted = false;
    for (&(component, name), module) in &modules {
        let parts = &module.parts;
        sums.bytes = parts.values().fold(sums.bytes, |sum, tensor| sum.saturating_add(tensor.byte_len()));
        if let Some(packed) = packed.get(&(component, name)) {
            sums.scales(parts);
            uncounted |= packed.elements().is_none();
            sums.parameters = sums.parameters.saturating_add(packed.elements().unwrap_or(0));
            // What stands beside the quantized matrix, such as a layer's bias, is not quantized; nvfp4's scale of a
            // whole matrix belongs to it.
            for (part, tensor) in parts {
                if !["weight", "scales", "biases", "global_scale"].contains(part) {
                    sums.plain(name, part, tensor, parts);
                }
            }
            continue;
        }
        let settings = claims.of(component).and_then(claim::Claim::foreign);
        if let Some(laid) = laid(parts, settings) {
            sums.scales(parts);
            uncounted |= laid.elements.is_none();
            sums.parameters = sums.parameters.saturating_add(laid.elements.unwrap_or(0));
            for (part, tensor) in parts.iter().filter(|(part, _)| layout::is_plain(part)) {
                sums.plain(name, part, tensor, parts);
            }
            others.push(Other { component, file: module.file, module: name, laid });
            continue;
        }
        for (part, tensor) in parts {
            sums.plain(name, part, tensor, parts);
            // A matrix that is no module's `weight`, such as fused experts.
            if layout::is_fp8(&tensor.dtype) && tensor.shape.len() > 1 {
                let laid = Laid::fp8();
                others.push(Other { component, file: module.file, module: name, laid });
            }
        }
    }
    let is_packed = !packed.is_empty() || !others.is_empty();
    let parameters = Some(sums.parameters).filter(|count| *count > 0 && !uncounted);
    let mut found = Found { parameter_count: parameters, ..Found::default() };
    if parameters.is_some() {
        subject.says("parameter_count", &files[0].path, "tensors' shapes");
    }
    let dtypes = if sums.scale_dtypes.is_empty() { &sums.by_dtype } else { &sums.scale_dtypes };
    let dtypes = dtypes.iter().filter(|(dtype, _)| !dtype.starts_with("f8"));
    found.precision = dtypes.max_by_key(|(_, count)| **count).map(|(dtype, _)| dtype.clone());
    if found.precision.is_some() {
        subject.says("precision", &files[0].path, "tensors' types");
    }
    let quantization = &mut found.quantization;
    if !packed.is_empty() {
        as_mlx(subject, quantization, &modules, &packed, claims, &levels);
    } else if !others.is_empty() {
        as_other(subject, quantization, &others, claims);
    }
    not_packed(subject, &packed, &others, claims, whole);
    if !is_packed {
        match claims.main().filter(|claim| !whole && claim.foreign().is_none_or(|said| said.of_weights)) {
            // What it speaks of may be in what is missing.
            Some(claim) => {
                *quantization = claim.quantization();
                says(subject, quantization, &claim.file, &claim.key);
            }
            None => {
                quantization.label = main_dtype(&sums.by_dtype);
                if quantization.label.is_some() {
                    subject.says("quantization.label", &files[0].path, "tensors' types");
                }
            }
        }
    }
    // A name settles nothing where shapes have proved a part.
    if quantization.label.is_none() && packed.values().all(|packed| packed.settled.is_none()) {
        by_name(subject, quantization);
    }
    if let Some(parameters) = parameters.filter(|_| is_packed) {
        let bits = sums.bytes as f64 * 8.0 / parameters as f64;
        quantization.bits_per_weight = Some((bits * 1000.0).round() / 1000.0);
    }
    found
}
