//! The cohere families: attention and MLP side by side, paired neighbours, scaled logits of a tied head.

use super::parts::{Sizes, layer, layer_name};
use crate::config::{Config, ConfigError};
use crate::decoder::{Activation, Decoder, Head, Layer, Mlp, QkNorm, Residual, Rope};
use crate::rope::{Plan, scaled, theta};

pub(super) fn cohere(config: Config<'_>) -> Result<Decoder, ConfigError> {
    let sizes = Sizes::read(config, "layer_norm_eps", 1e-5)?.with_even_heads();
    let base = theta(config, 8_000_000.0)?;
    let positions = scaled(config, None, Plan { dims: sizes.head_dim, base, traditional: true })?;
    let has_norms = config.flag("use_qk_norm", false);
    let layers = (0..sizes.layers).map(|index| {
        let prefix = layer_name(index);
        let mut heads = heads(config, sizes, &prefix, positions.clone());
        if has_norms {
            heads.qk_norm = QkNorm::EachHeadOwnWeight {
                q: format!("{prefix}.self_attn.q_norm"),
                k: format!("{prefix}.self_attn.k_norm"),
                eps: sizes.eps,
            };
        }
        side_by_side(config, sizes, &prefix, heads)
    });
    decoder(config, sizes, "cohere", layers.collect())
}

/// Positions on the layers with a window, and none on the others.
pub(super) fn cohere2(config: Config<'_>) -> Result<Decoder, ConfigError> {
    let sizes = Sizes::read(config, "layer_norm_eps", 1e-5)?;
    let base = theta(config, 50_000.0)?;
    let positions = scaled(config, None, Plan { dims: sizes.head_dim, base, traditional: true })?;
    let window = config.size_or("sliding_window", 4096)?;
    let pattern = config.size_or("sliding_window_pattern", 4)?;
    let layers = (0..sizes.layers).map(|index| {
        let prefix = layer_name(index);
        let is_near = (index + 1) % pattern != 0;
        let rope = if is_near { positions.clone() } else { Rope::NONE };
        let mut heads = heads(config, sizes, &prefix, rope);
        heads.window = is_near.then_some(window);
        side_by_side(config, sizes, &prefix, heads)
    });
    decoder(config, sizes, "cohere2", layers.collect())
}

fn heads(config: Config<'_>, sizes: Sizes, prefix: &str, positions: Rope) -> crate::decoder::Heads {
    let bias = config.flag("attention_bias", false);
    let attention = format!("{prefix}.self_attn");
    sizes.attention(sizes.separate(&attention, bias), sizes.o_proj(&attention, bias), positions)
}

fn side_by_side(config: Config<'_>, sizes: Sizes, prefix: &str, heads: crate::decoder::Heads) -> Layer {
    let bias = config.flag("layer_norm_bias", false);
    let mlp = sizes.gated(&format!("{prefix}.mlp"), Activation::Silu, false);
    let before = sizes.layer_norm(format!("{prefix}.input_layernorm"), bias);
    layer(heads, Mlp::Gated(mlp), Residual::Parallel { before, before_mlp: None })
}

fn decoder(
    config: Config<'_>,
    sizes: Sizes,
    family: &'static str,
    layers: Vec<Layer>,
) -> Result<Decoder, ConfigError> {
    let scale = config.number("logit_scale", 0.0625)? as f32;
    let bias = config.flag("layer_norm_bias", false);
    let plain = sizes.decoder(family, layers, Head { scale, ..Head::plain(true) });
    Ok(Decoder { norm: sizes.layer_norm("model.norm", bias), ..plain })
}
