//! The deepseek families and those like them: latent attention, and experts in groups.

use super::experts::{Crowd, corrected, dense_layers, groups, shared_experts};
use super::latent::Latents;
use super::parts::{Sizes, head, layer, layer_name};
use crate::config::{Config, ConfigError};
use crate::decoder::{Attention, Choice, Decoder, Experts, Head, Layer, Mlp, Precision, Scores};
use crate::rope::{Plan, rope, yarn_scale};

/// Epsilon of the norms inside attention, whatever the config says.
const INNER_EPS: f32 = 1e-6;

/// The first one: plain attention.
pub(super) fn v1(config: Config<'_>) -> Result<Decoder, ConfigError> {
    let sizes = Sizes::read(config, "rms_norm_eps", 1e-6)?.with_even_heads();
    let positions =
        rope(config, Plan { traditional: false, ..Plan::read(config, sizes.head_dim, 10_000.0)? })?;
    let bias = config.flag("attention_bias", false);
    let choice = |_: &str| Ok(Choice::plain(Scores::Softmax, Precision::Activations));
    let layers = (0..sizes.layers).map(|index| {
        let prefix = layer_name(index);
        let heads = sizes.heads(&prefix, &positions, bias, bias);
        Ok(layer(heads, mlp(config, sizes, &prefix, index, &choice)?, sizes.pre_norms(&prefix)))
    });
    let layers = layers.collect::<Result<_, ConfigError>>()?;
    Ok(sizes.decoder("deepseek", layers, Head { may_be_tied: true, ..Head::plain(false) }))
}

pub(super) fn v2(config: Config<'_>) -> Result<Decoder, ConfigError> {
    let limited = config.text("topk_method") == Some("group_limited_greedy");
    let scale = config.number("routed_scaling_factor", 1.0)? as f32;
    let choice = |_: &str| {
        let groups = if limited { groups(config, 1)? } else { None };
        Ok(Choice { scale, groups, ..Choice::plain(Scores::Softmax, Precision::Activations) })
    };
    decoder(config, "deepseek_v2", false, |_| INNER_EPS, choice)
}

pub(super) fn v3(config: Config<'_>) -> Result<Decoder, ConfigError> {
    let choice = |prefix: &str| corrected(config, format!("{prefix}.gate.e_score_correction_bias"), 0.0);
    decoder(config, "deepseek_v3", true, |_| INNER_EPS, choice)
}

/// `deepseek_v3` with the config's epsilon everywhere.
pub(super) fn glm4_moe_lite(config: Config<'_>) -> Result<Decoder, ConfigError> {
    let choice = |prefix: &str| corrected(config, format!("{prefix}.gate.e_score_correction_bias"), 1e-20);
    decoder(config, "glm4_moe_lite", true, |sizes| sizes.eps, choice)
}

/// `deepseek_v2`'s attention, and no experts.
pub(super) fn youtu_llm(config: Config<'_>) -> Result<Decoder, ConfigError> {
    let sizes = Sizes::read(config, "rms_norm_eps", 1e-6)?;
    let bias = config.flag("mlp_bias", false);
    let traditional = config.flag("rope_traditional", true);
    let plan = Plan::read(config, config.size("qk_rope_head_dim")?, 1_600_000.0)?;
    let positions = rope(config, Plan { traditional, ..plan })?;
    let latents = Latents::read(config, sizes.eps, positions)?;
    let layers = (0..sizes.layers).map(|index| {
        let prefix = layer_name(index);
        Ok(Layer {
            attention: Attention::Latent(Box::new(latents.attention(config, sizes, &prefix)?)),
            mlp: sizes.mlp(&prefix, bias),
            residual: sizes.pre_norms(&prefix),
        })
    });
    Ok(sizes.decoder("youtu_llm", layers.collect::<Result<_, ConfigError>>()?, head(config, true)))
}

fn decoder(
    config: Config<'_>,
    family: &'static str,
    absorbed: bool,
    inner_eps: impl Fn(Sizes) -> f32,
    choice: impl Fn(&str) -> Result<Choice, ConfigError>,
) -> Result<Decoder, ConfigError> {
    let sizes = Sizes::read(config, "rms_norm_eps", 1e-6)?;
    let plan = Plan::read(config, config.size("qk_rope_head_dim")?, 10_000.0)?.traditional();
    let latents = Latents::read(config, inner_eps(sizes), rope(config, plan)?)?;
    let scale = latents.scale() * longer(config)?;
    let latents = Latents { absorbed, scale: Some(scale as f32), ..latents };
    let layers = (0..sizes.layers).map(|index| {
        let prefix = layer_name(index);
        Ok(Layer {
            attention: Attention::Latent(Box::new(latents.attention(config, sizes, &prefix)?)),
            mlp: mlp(config, sizes, &prefix, index, &choice)?,
            residual: sizes.pre_norms(&prefix),
        })
    });
    let layers = layers.collect::<Result<_, ConfigError>>()?;
    Ok(sizes.decoder(family, layers, Head { may_be_tied: true, ..Head::plain(false) }))
}

/// yarn's second half: the scores grow with the length.
fn longer(config: Config<'_>) -> Result<f64, ConfigError> {
    let Some(scaling) = config.section("rope_scaling") else { return Ok(1.0) };
    let all = scaling.number("mscale_all_dim", 0.0)?;
    Ok(if all == 0.0 { 1.0 } else { yarn_scale(scaling.needs_number("factor")?, all).powi(2) })
}

/// Experts from some layer on.
fn mlp(
    config: Config<'_>,
    sizes: Sizes,
    prefix: &str,
    index: usize,
    choice: &impl Fn(&str) -> Result<Choice, ConfigError>,
) -> Result<Mlp, ConfigError> {
    let has_experts = config.count_if("n_routed_experts")?.is_some()
        && index >= dense_layers(config, "first_k_dense_replace")
        && index % config.size_or("moe_layer_freq", 1)? == 0;
    if !has_experts {
        return Ok(sizes.mlp(prefix, false));
    }
    let prefix = format!("{prefix}.mlp");
    let crowd = Crowd::read(config, "n_routed_experts", config.size("moe_intermediate_size")?)?;
    Ok(Mlp::Experts(Box::new(Experts {
        shared: shared_experts(config, sizes, "n_shared_experts", &prefix, crowd.inner)?,
        ..crowd.experts(sizes, &prefix, choice(&prefix)?)
    })))
}
