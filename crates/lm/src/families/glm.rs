//! The glm families.

use super::parts::{Sizes, layer, layer_name};
use crate::config::{Config, ConfigError};
use crate::decoder::{Activation, Decoder, Head, Mlp, Residual};
use crate::rope::{Plan, scaled};

/// Norms on both sides, and half of each head rotated in neighbours.
pub(super) fn glm4(config: Config<'_>) -> Result<Decoder, ConfigError> {
    let sizes = Sizes::read(config, "rms_norm_eps", 1e-5)?;
    let part = config.number("partial_rotary_factor", 0.5)?;
    let plan = Plan {
        dims: (sizes.head_dim as f64 * part) as usize,
        base: config.number("rope_theta", 10_000.0)?,
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
