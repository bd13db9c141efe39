//! Counting parameters: what a model learned, and not what it keeps beside.

use std::collections::BTreeMap;

use super::parts::Parts;
use crate::formats::safetensors::TensorInfo;

/// What was counted.
#[derive(Debug, Default)]
pub(super) struct Sums {
    pub(super) parameters: u64,
    /// Of all tensors.
    pub(super) bytes: u64,
    /// Elements that are not packed, by type.
    pub(super) by_dtype: BTreeMap<String, u64>,
    /// The types of the scales of what is packed.
    pub(super) scale_dtypes: BTreeMap<String, u64>,
}

impl Sums {
    /// Counts a tensor that is not packed.
    pub(super) fn plain(&mut self, module: &str, part: &str, tensor: &TensorInfo, parts: &Parts<'_>) {
        if !tensor.dtype.is_float() || is_buffer(module, part, tensor, parts) {
            return;
        }
        let elements = tensor.element_count().unwrap_or(0);
        self.parameters = self.parameters.saturating_add(elements);
        *self.by_dtype.entry(tensor.dtype.label()).or_default() += elements;
    }

    /// Notes the type of a packed matrix's scales.
    pub(super) fn scales(&mut self, parts: &Parts<'_>) {
        if let Some(scales) = parts.get("scales").filter(|scales| scales.dtype.is_float()) {
            let elements = scales.element_count().unwrap_or(0);
            *self.scale_dtypes.entry(scales.dtype.label()).or_default() += elements;
        }
    }
}

/// What is kept beside the weights: tables that follow from the configuration, statistics, scales of something packed.
fn is_buffer(module: &str, part: &str, tensor: &TensorInfo, parts: &Parts<'_>) -> bool {
    const BUFFERS: [&str; 17] = [
        "inv_freq",
        "original_inv_freq",
        "masked_bias",
        "running_mean",
        "running_var",
        "num_batches_tracked",
        "position_ids",
        "relative_position_index",
        "attn_mask",
        "g_idx",
        "scale_inv",
        "weight_scale",
        "input_scale",
        "output_scale",
        "activation_scale",
        "absmax",
        "quant_map",
    ];
    // A causal mask under the name of a bias, as old GPTs have it.
    let is_mask = part == "bias"
        && ["attention", "attn"].contains(&module.rsplit('.').next().unwrap_or(module))
        && matches!(tensor.shape[..], [1, 1, rows, columns] if rows == columns);
    let ends = ["_scale_2", "_scale_inv", "_zero_point", "_global_scale", "_weight_scale", "_input_scale"];
    // The scales of a cache's entries, and of a matrix that stands beside; `logit_scale` is learned.
    let of_cache = ["k_scale", "v_scale", "q_scale", "kv_scale", "prob_scale"].contains(&part);
    let of_matrix = part.strip_suffix("_scale").is_some_and(|matrix| parts.contains_key(matrix));
    is_mask
        || BUFFERS.contains(&part)
        || ends.iter().any(|end| part.ends_with(end))
        || of_cache
        || of_matrix
        || part.starts_with("nested_")
}
