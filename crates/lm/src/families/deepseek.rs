//! The deepseek families and those like them: latent attention, and experts in groups.

use super::experts::{Crowd, corrected, dense_layers, groups, shared_experts};
use super::latent::Latents;
use super::parts::{Sizes, head, layer, layer_name};
use crate::config::{Config, ConfigError};
use crate::decoder::{
    Attention, Choice, Decoder, Experts, Fused, FusedForm, Growth, Head, Layer, Mlp, Precision, Scores,
};
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
    let latents = latents(config, INNER_EPS)?;
    decoder(config, "deepseek_v2", &latents, choice)
}

pub(super) fn v3(config: Config<'_>) -> Result<Decoder, ConfigError> {
    let choice = |prefix: &str| corrected(config, format!("{prefix}.gate.e_score_correction_bias"), 0.0);
    let latents = Latents { absorbed: true, ..latents(config, INNER_EPS)? };
    decoder(config, "deepseek_v3", &latents, choice)
}

/// `deepseek_v3` with the config's epsilon everywhere.
pub(super) fn glm4_moe_lite(config: Config<'_>) -> Result<Decoder, ConfigError> {
    let choice = |prefix: &str| corrected(config, format!("{prefix}.gate.e_score_correction_bias"), 1e-20);
    let inner_eps = config.number("rms_norm_eps", 1e-5)? as f32;
    let latents = Latents { absorbed: true, ..latents(config, inner_eps)? };
    decoder(config, "glm4_moe_lite", &latents, choice)
}

/// `deepseek_v3` with queries that grow with their position, and experts chosen by softmax.
pub(super) fn mistral4(config: Config<'_>) -> Result<Decoder, ConfigError> {
    let parameters = config
        .section("rope_parameters")
        .ok_or_else(|| ConfigError::Missing("rope_parameters".to_owned()))?;
    let growth = Some(Growth::read(parameters)?);
    let mut latents = Latents { absorbed: true, growth, ..latents(config, INNER_EPS)? };
    latents.rope.traditional = config.flag("rope_interleave", true);
    let choice = |_: &str| {
        Ok(Choice {
            groups: groups(config, 2)?,
            normalised: config.flag("norm_topk_prob", true).then_some(1e-20),
            scale: config.number("routed_scaling_factor", 1.0)? as f32,
            ..Choice::plain(Scores::Softmax, Precision::Single)
        })
    };
    let mut decoder = decoder(config, "mistral4", &latents, choice)?;
    // Gate and up are one tensor before conversion.
    for (index, layer) in decoder.layers.iter_mut().enumerate() {
        if let Mlp::Experts(experts) = &mut layer.mlp {
            let prefix = format!("{}.mlp.experts", layer_name(index));
            let (gate_up, down) = (format!("{prefix}.gate_up_proj"), format!("{prefix}.down_proj"));
            experts.names.fused = Some(Fused { gate_up, down, form: FusedForm::Halves });
        }
    }
    decoder.head = head(config, false);
    Ok(decoder)
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

/// What the latent attention of all layers shares.
fn latents(config: Config<'_>, inner_eps: f32) -> Result<Latents, ConfigError> {
    let plan = Plan::read(config, config.size("qk_rope_head_dim")?, 10_000.0)?.traditional();
    let latents = Latents::read(config, inner_eps, rope(config, plan)?)?;
    let scale = latents.scale() * longer(config)?;
    Ok(Latents { scale: Some(scale as f32), ..latents })
}

fn decoder(
    config: Config<'_>,
    family: &'static str,
    latents: &Latents,
    choice: impl Fn(&str) -> Result<Choice, ConfigError>,
) -> Result<Decoder, ConfigError> {
    let sizes = Sizes::read(config, "rms_norm_eps", 1e-6)?;
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
    let scaling = config.section("rope_scaling").or_else(|| config.section("rope_parameters"));
    let Some(scaling) = scaling else { return Ok(1.0) };
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
        && index.is_multiple_of(config.size_or("moe_layer_freq", 1)?);
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
