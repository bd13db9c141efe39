//! ernie4_5_moe: neighbours paired, and experts on some layers.

use super::experts::Crowd;
use super::parts::{Sizes, gated, head, layer, layer_name};
use crate::config::{Config, ConfigError};
use crate::decoder::{Activation, Choice, Decoder, Experts, Mix, Mlp, Precision, Scores, Shared};
use crate::rope::Plan;

pub(super) fn ernie4_5_moe(config: Config<'_>) -> Result<Decoder, ConfigError> {
    let sizes = Sizes::read(config, "rms_norm_eps", 1e-5)?;
    let positions = Plan::read(config, sizes.head_dim, 10_000.0)?.traditional().plain();
    let bias = config.flag("use_bias", false);
    let interval = config.size_or("moe_layer_interval", 1)?;
    let first = numbers(config, "moe_layer_start_index").into_iter().min().unwrap_or(0);
    let last = numbers(config, "moe_layer_end_index").into_iter().max().unwrap_or(u64::MAX);
    let layers = (0..sizes.layers).map(|index| {
        let prefix = layer_name(index);
        let heads = sizes.heads(&prefix, &positions, bias, bias);
        let is_between = (first..=last).contains(&(index as u64));
        let mlp = if is_between && (index + 1) % interval == 0 {
            experts(config, sizes, &format!("{prefix}.mlp"), bias)?
        } else {
            sizes.mlp(&prefix, bias)
        };
        Ok(layer(heads, mlp, sizes.pre_norms(&prefix)))
    });
    let layers = layers.collect::<Result<_, ConfigError>>()?;
    Ok(sizes.decoder("ernie4_5_moe", layers, head(config, true)))
}

/// A number, or those of a list: one for text, one for pictures.
fn numbers(config: Config<'_>, key: &str) -> Vec<u64> {
    let Some(value) = config.get(key) else { return Vec::new() };
    match value.as_array() {
        Some(list) => list.iter().filter_map(serde_json::Value::as_u64).collect(),
        None => value.as_u64().into_iter().collect(),
    }
}

fn experts(config: Config<'_>, sizes: Sizes, prefix: &str, bias: bool) -> Result<Mlp, ConfigError> {
    let count = config.count("moe_num_experts")?;
    let chosen = config.count_if("moe_k")?.unwrap_or(1).min(count);
    // 0 stands for that of the layers without experts.
    let own = config.get("moe_intermediate_size").and_then(serde_json::Value::as_u64).unwrap_or(0);
    let inner = if own == 0 { sizes.inner } else { config.size("moe_intermediate_size")? };
    let by_sigmoid = config.text("moe_gate_act") == Some("sigmoid");
    let scores = if by_sigmoid { Scores::Sigmoid } else { Scores::Softmax };
    let choice = Choice { normalised: Some(0.0), ..Choice::plain(scores, Precision::Single) };
    let shared = config.count_if("moe_num_shared_experts")?.map(|count| Shared {
        mlp: gated(&format!("{prefix}.shared_experts"), sizes.hidden, inner * count, Activation::Silu, bias),
        mix: Mix::Sum,
    });
    let crowd = Crowd { count, chosen, inner };
    Ok(Mlp::Experts(Box::new(Experts { bias, shared, ..crowd.experts(sizes, prefix, choice) })))
}
