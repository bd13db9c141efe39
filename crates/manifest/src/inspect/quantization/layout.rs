//! Matrices that other programs than MLX packed, told by their tensors.

use super::foreign::Settings;
use super::parts::Parts;
use crate::formats::safetensors::{Dtype, TensorInfo};

/// A packed matrix.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Laid {
    /// The method that lays a matrix out so; `None` where several do.
    pub(super) method: Option<&'static str>,
    /// How many weights it stands for, where that can be known.
    pub(super) elements: Option<u64>,
    /// What its tensors prove.
    pub(super) bits: Option<u64>,
    pub(super) group_size: Option<u64>,
    pub(super) label: Option<String>,
}

impl Laid {
    fn named(method: &'static str, label: &str, bits: u64, elements: Option<u64>) -> Self {
        Laid {
            method: Some(method),
            elements,
            bits: Some(bits),
            group_size: None,
            label: Some(label.to_owned()),
        }
    }

    /// A matrix of 8-bit floats, counted elsewhere.
    pub(super) fn fp8() -> Self {
        Laid::named("fp8", "fp8", 8, Some(0))
    }

    fn int(method: &'static str, bits: Option<u64>, elements: Option<u64>) -> Self {
        let label = bits.map(|bits| format!("{bits}bit"));
        Laid { method: Some(method), elements, bits, group_size: None, label }
    }

    fn in_groups(self, of: Option<u64>) -> Self {
        Laid { group_size: of, ..self }
    }
}

/// What is not known to be a weight in a module that is packed, and may stand there: a bias.
pub(super) fn is_plain(part: &str) -> bool {
    part == "bias"
}

/// The module of these tensors, where they are a packed matrix.
pub(super) fn laid(parts: &Parts<'_>, settings: Option<&Settings>) -> Option<Laid> {
    if parts.contains_key("qweight") {
        return Some(qweight(parts, settings));
    }
    if parts.contains_key("q_weight") && parts.contains_key("q_groups") {
        // As many bits a row as it needed.
        return Some(Laid { method: Some("exl2"), ..Laid::default() });
    }
    if let Some(weights) = parts.get("W_q") {
        let bits = settings.filter(|settings| settings.method == "hqq").and_then(Settings::bits);
        let elements = bits.filter(|bits| weights.dtype == Dtype::U8 && [1, 2, 4, 8].contains(bits));
        let elements = elements.and_then(|bits| weights.element_count()?.checked_mul(8 / bits));
        return Some(Laid { method: Some("hqq"), elements, ..Laid::default() });
    }
    if let Some(data) = parts.get("quanto_data") {
        let float = is_fp8(&data.dtype);
        let bits = if float || data.dtype == Dtype::I8 { Some(8) } else { settings.and_then(Settings::bits) };
        let per = bits.filter(|bits| [2, 4, 8].contains(bits) && data.dtype.bits() == Some(8));
        let elements = per.and_then(|bits| data.element_count()?.checked_mul(8 / bits));
        return Some(Laid { method: Some("quanto"), elements, ..Laid::default() });
    }
    if let (Some(blocks), Some(_)) = (parts.get("mxfp4_blocks"), parts.get("mxfp4_scales")) {
        let elements = blocks.element_count().and_then(|bytes| bytes.checked_mul(2));
        return Some(Laid::named("mxfp4", "mxfp4", 4, elements).in_groups(Some(32)));
    }
    if let Some(packed) = parts.get("weight_packed") {
        return Some(weight_packed(packed, parts, settings));
    }
    if ["codes", "codebooks"].iter().all(|part| parts.contains_key(part)) {
        return Some(Laid { method: Some("aqlm"), ..Laid::default() });
    }
    if parts.contains_key("compressed") || parts.contains_key("_weight_qdata") {
        return Some(Laid::default());
    }
    weight(parts, settings)
}

/// Whether this is a float of eight bits that weights are kept in.
pub(super) fn is_fp8(dtype: &Dtype) -> bool {
    matches!(dtype, Dtype::F8_E4M3 | Dtype::F8_E4M3FNUZ | Dtype::F8_E5M2 | Dtype::F8_E5M2FNUZ)
}

fn weight(parts: &Parts<'_>, settings: Option<&Settings>) -> Option<Laid> {
    let weight = parts.get("weight")?;
    let count = weight.element_count();
    let twice = || count.and_then(|bytes| bytes.checked_mul(2));
    let scale = parts.get("weight_scale").or_else(|| parts.get("scale"));
    if parts.contains_key("absmax") || parts.contains_key("quant_state") {
        // Bytes of two weights, in tensors of any type.
        let elements = weight.byte_len().checked_mul(2);
        let blocks = parts.get("absmax").and_then(|blocks| blocks.element_count()).filter(|n| *n > 0);
        let group = blocks.and_then(|n| elements.filter(|all| all % n == 0).map(|all| all / n));
        return Some(Laid::named("bitsandbytes", "4bit", 4, elements).in_groups(group));
    }
    match &weight.dtype {
        Dtype::I8 if parts.contains_key("SCB") => Some(Laid::named("bitsandbytes", "8bit", 8, count)),
        Dtype::U8 | Dtype::I8 => match four_bit_float(weight, scale) {
            Some((label, group)) => {
                let method = if label == "nvfp4" { "modelopt" } else { "mxfp4" };
                Some(Laid::named(method, label, 4, twice()).in_groups(Some(group)))
            }
            None if weight.dtype == Dtype::I8
                && parts.contains_key("weight_scale")
                && settings.and_then(Settings::bits).is_none_or(|bits| bits == 8) =>
            {
                Some(Laid::named("compressed-tensors", "8bit", 8, count))
            }
            // NVIDIA's integers of four bits.
            None if parts.contains_key("weight_scale") => {
                let of_nvidia = settings.filter(|settings| settings.method == "modelopt");
                let is_four = of_nvidia.and_then(Settings::bits) == Some(4);
                let elements = if is_four { twice() } else { None };
                Some(Laid { elements, ..Laid::default() })
            }
            None => (weight.shape.len() > 1).then(Laid::default),
        },
        Dtype::F4 => Some(Laid { elements: count, bits: Some(4), ..Laid::default() }),
        dtype if is_fp8(dtype) => {
            let scale = scale.filter(|scale| matches!(scale.dtype, Dtype::F8_E8M0 | Dtype::U8));
            let groups = scale.and_then(|scale| scale.shape.last()?.checked_mul(32));
            let is_micro = groups.is_some() && groups.as_ref() == weight.shape.last();
            let group = is_micro.then_some(32);
            Some(Laid::named("fp8", if is_micro { "mxfp8" } else { "fp8" }, 8, count).in_groups(group))
        }
        // Integers are no weights that anything computes with: some packing that is not known here.
        Dtype::I16 | Dtype::U16 | Dtype::I32 | Dtype::U32 if weight.shape.len() > 1 => Some(Laid::default()),
        _ => None,
    }
}

/// Four-bit floats, two to a byte, told by how many share a scale, and the scale's type.
fn four_bit_float(weight: &TensorInfo, scale: Option<&&TensorInfo>) -> Option<(&'static str, u64)> {
    let scale = scale?;
    let (bytes, groups) = (*weight.shape.last()?, *scale.shape.last()?);
    if groups == 0 || weight.shape.len() != scale.shape.len() || bytes.checked_mul(2)? % groups != 0 {
        return None;
    }
    match (&scale.dtype, bytes * 2 / groups) {
        (Dtype::F8_E4M3, 16) => Some(("nvfp4", 16)),
        (Dtype::F8_E8M0 | Dtype::U8, 32) => Some(("mxfp4", 32)),
        _ => None,
    }
}

/// GPTQ packs along the input, AWQ along the output.
fn qweight(parts: &Parts<'_>, settings: Option<&Settings>) -> Laid {
    let method = if parts.contains_key("g_idx") { "gptq" } else { "awq" };
    let claimed = settings.and_then(Settings::bits).filter(|bits| (1..=8).contains(bits));
    let Some(qweight) = parts.get("qweight") else { return Laid::default() };
    let word = qweight.dtype.bits().unwrap_or(32);
    // Whatever way it is packed, there are as many bits.
    let by_claim = || {
        let elements = claimed.and_then(|bits| Some(qweight.element_count()?.checked_mul(word)? / bits));
        Laid { method: Some(method), elements, ..Laid::default() }
    };
    let Some([rows, columns]) = last_two(qweight) else { return by_claim() };
    let whole = |bits: u64| [2, 3, 4, 5, 6, 8].contains(&bits).then_some(bits);
    let per = |words: Option<u64>, of: u64| {
        let all = words?.checked_mul(word)?;
        (of > 0 && all % of == 0).then(|| all / of).and_then(whole)
    };
    let scales = parts.get("scales").and_then(|scales| last_two(scales));
    let zeros = parts.get("qzeros").and_then(|zeros| last_two(zeros)).map(|[_, words]| words);
    let inputs = parts.get("g_idx").and_then(|index| index.element_count()).filter(|n| *n > 0);
    let by_index = inputs.and_then(|inputs| Some((per(Some(rows), inputs)?, inputs)));
    let along_input = by_index.or_else(|| {
        let [_, outputs] = scales.filter(|[_, outputs]| *outputs == columns)?;
        let bits = per(zeros, outputs).or(claimed)?;
        Some((bits, rows.checked_mul(word)? / bits))
    });
    let (method, bits, elements, inputs) = if let Some((bits, inputs)) = along_input {
        ("gptq", bits, inputs.checked_mul(columns), inputs)
    } else {
        let along_output = scales.and_then(|[groups, outputs]| {
            let bits = per(Some(columns), outputs)?;
            (groups > 0 && rows % groups == 0).then(|| (bits, rows.checked_mul(outputs)))
        });
        let Some((bits, elements)) = along_output else { return by_claim() };
        (method, bits, elements, rows)
    };
    let group = scales.filter(|[groups, _]| *groups > 0 && inputs % groups == 0);
    let proved = by_index.is_some() || per(zeros, scales.map_or(0, |[_, n]| n)).is_some() || method == "awq";
    let laid = Laid::int(method, Some(bits).filter(|_| proved), elements);
    laid.in_groups(group.map(|[groups, _]| inputs / groups).filter(|_| proved))
}

fn last_two(tensor: &TensorInfo) -> Option<[u64; 2]> {
    match tensor.shape[..] {
        [.., rows, columns] => Some([rows, columns]),
        _ => None,
    }
}

fn weight_packed(packed: &TensorInfo, parts: &Parts<'_>, settings: Option<&Settings>) -> Laid {
    let method = "compressed-tensors";
    if packed.dtype == Dtype::U8 {
        let elements = packed.element_count().and_then(|bytes| bytes.checked_mul(2));
        return match four_bit_float(packed, parts.get("weight_scale")) {
            Some((label, group)) => Laid::named(method, label, 4, elements).in_groups(Some(group)),
            None => Laid { method: Some(method), ..Laid::default() },
        };
    }
    // Half of the weights are left out.
    if parts.contains_key("meta") || parts.contains_key("scale_packed") {
        return Laid { method: Some(method), ..Laid::default() };
    }
    // As many bits as one of the ways says that fits the scales.
    let word = packed.dtype.bits().unwrap_or(32);
    let groups = parts.get("weight_scale").and_then(|scale| scale.shape.last().copied());
    let columns = packed.shape.last().copied().unwrap_or(0);
    let fits = |bits: u64, group: Option<u64>| match (group, groups) {
        (Some(group), Some(groups)) => {
            columns.checked_mul(word) == group.checked_mul(groups).and_then(|n| n.checked_mul(bits))
        }
        _ => true,
    };
    let ways = settings.map(|settings| settings.ways.as_slice()).unwrap_or_default();
    let fitting = ways.iter().filter(|way| way.bits.is_some_and(|bits| fits(bits, way.group_size)));
    let bits = super::foreign::one(fitting.map(|way| way.bits)).filter(|bits| [2, 4, 8].contains(bits));
    let elements = bits.and_then(|bits| Some(packed.element_count()?.checked_mul(word)? / bits));
    Laid { method: Some(method), elements, ..Laid::default() }
}
