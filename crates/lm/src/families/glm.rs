//! The glm families.

use super::experts::{Crowd, corrected, dense_layers, shared_experts};
use super::parts::{Sizes, head, layer, layer_name};
use crate::config::{Config, ConfigError};
use crate::decoder::{Activation, Decoder, Experts, Head, Mlp, QkNorm, Residual};
use crate::rope::{Plan, scaled, theta};

/// Norms on both sides, and half of each head rotated in neighbours.
pub(super) fn glm4(config: Config<'_>) -> Result<Decoder, ConfigError> {
    let sizes = Sizes::read(config, "rms_norm_eps", 1e-5)?;
    let part = config.number("partial_rotary_factor", 0.5)?;
    let plan = Plan {
        dims: (sizes.head_dim as f64 * part) as usize,
        base: theta(config, 10_000.0)?,
        traditional: config.flag("rope_traditional", true),
    };
    let positions = scaled(config, None, plan)?;
    let bias = config.flag("attention_bias", false);
    let layers = (0..sizes.layers).map(|index| {
        let prefix = layer_name(index);
        let attention = format!("{prefix}.self_attn");
        let heads = sizes.attention(
            sizes.separate(&attention, bias),
            sizes.o_proj(&attention, false),
            positions.clone(),
        );
        let mlp = sizes.gated_stacked(&format!("{prefix}.mlp"), Activation::Silu);
        let norm = |name: &str| Some(sizes.rms(format!("{prefix}.{name}")));
        let residual = Residual::Sequential {
            before_attention: norm("input_layernorm"),
            after_attention: norm("post_self_attn_layernorm"),
            before_mlp: norm("post_attention_layernorm"),
            after_mlp: norm("post_mlp_layernorm"),
            scale: 1.0,
        };
        layer(heads, Mlp::Gated(mlp), residual)
    });
    Ok(sizes.decoder("glm4", layers.collect(), Head { may_be_tied: true, ..Head::plain(false) }))
}

/// llama with neighbours paired, and gate and up in one matrix.
pub(super) fn glm(config: Config<'_>) -> Result<Decoder, ConfigError> {
    let sizes = Sizes::read(config, "rms_norm_eps", 1e-5)?;
    let positions = Plan::read(config, sizes.head_dim, 10_000.0)?.traditional().plain();
    let bias = config.flag("attention_bias", false);
    let layers = (0..sizes.layers).map(|index| {
        let prefix = layer_name(index);
        let heads = sizes.heads(&prefix, &positions, bias, false);
        let mlp = sizes.gated_stacked(&format!("{prefix}.mlp"), Activation::Silu);
        layer(heads, Mlp::Gated(mlp), sizes.pre_norms(&prefix))
    });
    Ok(sizes.decoder("glm", layers.collect(), head(config, true)))
}

pub(super) fn glm4_moe(config: Config<'_>) -> Result<Decoder, ConfigError> {
    with_experts(config, "glm4_moe")
}

pub(super) fn solar_open(config: Config<'_>) -> Result<Decoder, ConfigError> {
    with_experts(config, "solar_open")
}

/// Plain attention, and experts as deepseek_v3 has them.
fn with_experts(config: Config<'_>, family: &'static str) -> Result<Decoder, ConfigError> {
    let sizes = Sizes::read(config, "rms_norm_eps", 1e-5)?;
    let part = config.number("partial_rotary_factor", 1.0)?;
    let dims = (sizes.head_dim as f64 * part) as usize;
    let positions = Plan { traditional: false, ..Plan::read(config, dims, 10_000.0)? }.plain();
    let bias = config.flag("attention_bias", false);
    let has_norms = config.flag("use_qk_norm", false);
    let dense = dense_layers(config, "first_k_dense_replace");
    let crowd = Crowd::read(config, "n_routed_experts", config.size("moe_intermediate_size")?)?;
    let layers = (0..sizes.layers).map(|index| {
        let prefix = layer_name(index);
        let mut heads = sizes.heads(&prefix, &positions, bias, false);
        if has_norms {
            let (q, k) = sizes.head_norms(&format!("{prefix}.self_attn"), "q_norm", "k_norm");
            heads.qk_norm = QkNorm::EachHead(q, k);
        }
        let mlp = if index < dense {
            sizes.mlp(&prefix, false)
        } else {
            let inside = format!("{prefix}.mlp");
            let choice = corrected(config, format!("{inside}.gate.e_score_correction_bias"), 0.0)?;
            Mlp::Experts(Box::new(Experts {
                shared: shared_experts(config, sizes, "n_shared_experts", &inside, crowd.inner)?,
                ..crowd.experts(sizes, &inside, choice)
            }))
        };
        Ok(layer(heads, mlp, sizes.pre_norms(&prefix)))
    });
    let layers = layers.collect::<Result<_, ConfigError>>()?;
    Ok(sizes.decoder(family, layers, Head { may_be_tied: true, ..Head::plain(false) }))
}
