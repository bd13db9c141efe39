//! Tensors that belong together: a matrix, packed or not, and what stands beside it.

use std::collections::{BTreeMap, HashSet};

use crate::formats::safetensors::TensorInfo;
use crate::inspect::tensors::{WeightFile, all};

/// The tensors of one module, by what they are to it: `weight`, `scales`, `absmax`.
pub(super) type Parts<'a> = BTreeMap<&'a str, &'a TensorInfo>;

/// One module's tensors, and the file of the first of them.
#[derive(Debug, Default)]
pub(super) struct Module<'a> {
    pub(super) file: &'a str,
    pub(super) parts: Parts<'a>,
}

/// Where a module is: its component's directory, and its name.
pub(super) type Place<'a> = (&'a str, &'a str);

/// Every module of these files; in order, so that of many proofs the same one is told each time.
pub(super) fn modules<'a>(files: &[&'a WeightFile]) -> BTreeMap<Place<'a>, Module<'a>> {
    let names: HashSet<Place<'_>> =
        all(files).map(|(file, tensor)| (file.component(), &*tensor.name)).collect();
    // Parameters that are not called `weight` and yet have something beside them, such as fused experts.
    let bare: HashSet<Place<'_>> = all(files)
        .filter_map(|(file, tensor)| {
            let place = (file.component(), beside(&tensor.name)?.0);
            (names.contains(&place) && !place.1.ends_with(".weight")).then_some(place)
        })
        .collect();
    let mut modules: BTreeMap<Place<'_>, Module<'_>> = BTreeMap::new();
    for (file, tensor) in all(files) {
        let component = file.component();
        let (module, part) = match beside(&tensor.name) {
            Some((matrix, part)) if matrix.ends_with(".weight") || bare.contains(&(component, matrix)) => {
                (matrix.strip_suffix(".weight").unwrap_or(matrix), part)
            }
            _ if bare.contains(&(component, &*tensor.name)) => (&*tensor.name, "weight"),
            _ => plain(&tensor.name),
        };
        let module = modules.entry((component, module)).or_default();
        if module.file.is_empty() {
            module.file = &file.path;
        }
        module.parts.insert(part, tensor);
    }
    modules
}

fn plain(name: &str) -> (&str, &str) {
    let (module, part) = name.rsplit_once('.').unwrap_or(("", name));
    let start = if module.is_empty() { 0 } else { module.len() + 1 };
    // gpt_oss as OpenAI saves it: `<name>_blocks` and `<name>_scales`.
    match (part.strip_suffix("_blocks"), part.strip_suffix("_scales")) {
        (Some(stem), _) => (&name[..start + stem.len()], "mxfp4_blocks"),
        (_, Some(stem)) => (&name[..start + stem.len()], "mxfp4_scales"),
        _ => (module, part),
    }
}

/// For a tensor that is named after the matrix that it belongs to: that matrix, and what this is to it.
fn beside(name: &str) -> Option<(&str, &'static str)> {
    // bitsandbytes: `X.weight.absmax`; quanto: `X.weight._data`.
    const DOTTED: [(&str, &str); 8] = [
        (".absmax", "absmax"),
        (".nested_absmax", "nested_absmax"),
        (".quant_map", "quant_map"),
        (".nested_quant_map", "nested_quant_map"),
        ("._data", "quanto_data"),
        ("._scale", "quanto_scale"),
        ("._shift", "quanto_shift"),
        ("._zeropoint", "quanto_shift"),
    ];
    // Fused experts: `X.gate_up_proj_scale_inv`.
    const JOINED: [(&str, &str); 7] = [
        ("_weight_scale_inv", "weight_scale_inv"),
        ("_weight_scale_2", "weight_scale_2"),
        ("_weight_scale", "weight_scale"),
        ("_input_scale", "input_scale"),
        ("_scale_inv", "weight_scale_inv"),
        ("_scale_2", "weight_scale_2"),
        ("_scale", "weight_scale"),
    ];
    if let Some((matrix, _)) = name.split_once(".quant_state.") {
        return Some((matrix, "quant_state"));
    }
    if let Some(found) = DOTTED.iter().find_map(|(end, part)| Some((name.strip_suffix(end)?, *part))) {
        return Some(found);
    }
    let (matrix, part) = JOINED.iter().find_map(|(end, part)| Some((name.strip_suffix(end)?, *part)))?;
    // `X.weight_scale` is a part of X already.
    (!matrix.ends_with('.') && matrix.rsplit('.').next() != Some("weight")).then_some((matrix, part))
}
