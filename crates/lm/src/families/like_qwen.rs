//! Families that are qwen3_moe but for how experts are chosen and joined.

use super::experts::{Crowd, corrected, dense_layers, names_in_experts, shared};
use super::parts::{Sizes, full_layers, gated, head, layer, layer_name};
use crate::config::{Config, ConfigError};
use crate::decoder::{
    Activation, Choice, Decoder, Experts, Head, Heads, Linear, Mix, Mlp, Precision, QkNorm, Rope, Scores,
    Shared,
};
use crate::rope::{Plan, rope, scaled};

/// The shared expert and the others have a weight each.
pub(super) fn klear(config: Config<'_>) -> Result<Decoder, ConfigError> {
    let sizes = Sizes::read(config, "rms_norm_eps", 1e-6)?.with_even_heads();
    let positions = Plan { traditional: false, ..Plan::read(config, sizes.head_dim, 10_000.0)? }.plain();
    let bias = config.flag("attention_bias", false);
    let step = config.size_or("decoder_sparse_step", 1)?;
    let dense = config.list("mlp_only_layers", "a list of numbers", serde_json::Value::as_u64)?;
    let dense = dense.unwrap_or_default();
    let crowd = Crowd::read(config, "num_experts", config.size("moe_intermediate_size")?)?;
    let sharing = config.count("n_shared_experts")?;
    let normalised = config.flag("norm_topk_prob", false).then_some(0.0);
    let layers = (0..sizes.layers).map(|index| {
        let prefix = layer_name(index);
        let heads = normed(sizes, &prefix, &positions, bias);
        let mlp = if !dense.contains(&(index as u64)) && (index + 1) % step == 0 {
            let inside = format!("{prefix}.mlp");
            let choice = Choice {
                correction: Some(format!("{inside}.expert_bias")),
                normalised,
                ..Choice::plain(Scores::Sigmoid, Precision::Rounded)
            };
            let weights = Linear::new(format!("{inside}.coefficient"), sizes.hidden, 2).biased(true);
            let one = shared(sizes, &format!("{inside}.shared_experts"), crowd.inner * sharing);
            Mlp::Experts(Box::new(Experts {
                names: names_in_experts(&inside),
                shared: Some(Shared { mix: Mix::Weights(weights), ..one }),
                ..crowd.experts(sizes, &inside, choice)
            }))
        } else {
            sizes.mlp(&prefix, false)
        };
        layer(heads, mlp, sizes.pre_norms(&prefix))
    });
    Ok(sizes.decoder("klear", layers.collect(), Head::plain(false)))
}

/// Experts as deepseek_v3 has them.
pub(super) fn dots1(config: Config<'_>) -> Result<Decoder, ConfigError> {
    let sizes = Sizes::read(config, "rms_norm_eps", 1e-6)?;
    let positions =
        rope(config, Plan { traditional: false, ..Plan::read(config, sizes.head_dim, 10_000.0)? })?;
    let bias = config.flag("mlp_bias", false);
    let dense = dense_layers(config, "first_k_dense_replace");
    let crowd = Crowd::read(config, "n_routed_experts", config.size("moe_intermediate_size")?)?;
    let sharing = config.count("n_shared_experts")?;
    let layers = (0..sizes.layers).map(|index| {
        let prefix = layer_name(index);
        let heads = normed(sizes, &prefix, &positions, false);
        let mlp = if index < dense {
            sizes.mlp(&prefix, bias)
        } else {
            let inside = format!("{prefix}.mlp");
            let choice = corrected(config, format!("{inside}.gate.e_score_correction_bias"), 0.0)?;
            let (name, inner) = (format!("{inside}.shared_experts"), crowd.inner * sharing);
            let mlp = gated(&name, sizes.hidden, inner, Activation::Silu, bias);
            Mlp::Experts(Box::new(Experts {
                names: names_in_experts(&inside),
                shared: Some(Shared { mlp, mix: Mix::Sum }),
                ..crowd.experts(sizes, &inside, choice)
            }))
        };
        Ok(layer(heads, mlp, sizes.pre_norms(&prefix)))
    });
    Ok(sizes.decoder("dots1", layers.collect::<Result<_, ConfigError>>()?, head(config, false)))
}

/// Windows on some layers, and a rotation for each kind of layer.
pub(super) fn mellum(config: Config<'_>) -> Result<Decoder, ConfigError> {
    let sizes = Sizes::read(config, "rms_norm_eps", 1e-6)?;
    let missing = |key: &str| ConfigError::Missing(key.to_owned());
    let full = full_layers(config, sizes.layers)?.ok_or_else(|| missing("layer_types"))?;
    let parameters = config.section("rope_parameters").ok_or_else(|| missing("rope_parameters"))?;
    let positions = |kind: &str| -> Result<Rope, ConfigError> {
        let own = parameters.section(kind).ok_or_else(|| missing(kind))?;
        let plan = Plan { dims: sizes.head_dim, base: own.needs_number("rope_theta")?, traditional: false };
        // Of a linear scaling mlx_lm makes nothing here.
        let is_scaled = !matches!(own.text("rope_type"), None | Some("default" | "linear"));
        scaled(config, Some(own).filter(|_| is_scaled), plan)
    };
    let window = config.size("sliding_window")?;
    let crowd = Crowd::read(config, "num_experts", config.size("moe_intermediate_size")?)?;
    let normalised = config.flag("norm_topk_prob", false).then_some(0.0);
    let choice = Choice { normalised, ..Choice::plain(Scores::Softmax, Precision::Activations) };
    let layers = (0..sizes.layers).map(|index| {
        let prefix = layer_name(index);
        let kind = if full[index] { "full_attention" } else { "sliding_attention" };
        let mut heads = normed(sizes, &prefix, &positions(kind)?, false);
        heads.window = (!full[index]).then_some(window);
        let experts = crowd.experts(sizes, &format!("{prefix}.mlp"), choice.clone());
        Ok(layer(heads, Mlp::Experts(Box::new(experts)), sizes.pre_norms(&prefix)))
    });
    Ok(sizes.decoder("mellum", layers.collect::<Result<_, ConfigError>>()?, head(config, false)))
}

/// Attention with norms of each head's queries and keys.
fn normed(sizes: Sizes, prefix: &str, rope: &Rope, bias: bool) -> Heads {
    let (q, k) = sizes.head_norms(&format!("{prefix}.self_attn"), "q_norm", "k_norm");
    Heads { qk_norm: QkNorm::EachHead(q, k), ..sizes.heads(prefix, rope, bias, bias) }
}
