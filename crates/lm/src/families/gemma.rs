//! The gemma families: a scaled embedding, norms with one added to their weight, a tied head.

use super::parts::{Sizes, head_norm, layer, layer_name};
use crate::config::{Config, ConfigError};
use crate::decoder::{
    Activation, Decoder, Embedding, Head, Heads, Layer, Mlp, Norm, NormKind, QkNorm, Residual,
};
use crate::rope::{Plan, rope, scaled};

pub(super) fn gemma(config: Config<'_>) -> Result<Decoder, ConfigError> {
    let sizes = sizes(config, 256)?;
    let positions = scaled(config, None, plan(config, sizes, "rope_theta", 10_000.0)?)?;
    let layers = (0..sizes.layers).map(|index| {
        let prefix = layer_name(index);
        let heads = heads(sizes, &prefix, positions.clone());
        let mlp = sizes.gated(&format!("{prefix}.mlp"), Activation::Gelu, false);
        let residual = Residual::Sequential {
            before_attention: Some(norm(sizes, &prefix, "input_layernorm")),
            after_attention: None,
            before_mlp: Some(norm(sizes, &prefix, "post_attention_layernorm")),
            after_mlp: None,
            scale: 1.0,
        };
        layer(heads, Mlp::Gated(mlp), residual)
    });
    Ok(decoder(sizes, "gemma", layers.collect(), Head::plain(true), false))
}

/// Norms on both sides, and soft caps. mlx_lm lets every layer see all tokens, and so does this.
pub(super) fn gemma2(config: Config<'_>) -> Result<Decoder, ConfigError> {
    let sizes = sizes(config, 256)?;
    let positions = scaled(config, None, plan(config, sizes, "rope_theta", 10_000.0)?)?;
    let scale = config.number("query_pre_attn_scalar", 144.0)?.powf(-0.5) as f32;
    let soft_cap = config.number("attn_logit_softcapping", 50.0)? as f32;
    let layers = (0..sizes.layers).map(|index| {
        let prefix = layer_name(index);
        let mut heads = heads(sizes, &prefix, positions.clone());
        heads.scale = scale;
        heads.soft_cap = Some(soft_cap);
        sandwiched(sizes, &prefix, heads)
    });
    let soft_cap = Some(config.number("final_logit_softcapping", 30.0)? as f32);
    let head = Head { soft_cap, ..Head::plain(true) };
    Ok(decoder(sizes, "gemma2", layers.collect(), head, false))
}

/// Norms of queries and keys, and windows with a base of their own on most layers.
pub(super) fn gemma3_text(config: Config<'_>) -> Result<Decoder, ConfigError> {
    let sizes = sizes(config, 256)?;
    let all = rope(config, plan(config, sizes, "rope_theta", 1_000_000.0)?)?;
    let near = scaled(config, None, plan(config, sizes, "rope_local_base_freq", 10_000.0)?)?;
    let scale = config.number("query_pre_attn_scalar", 256.0)?.powf(-0.5) as f32;
    let window = config.size_or("sliding_window", 512)?;
    let pattern = config.size_or("sliding_window_pattern", 6)?;
    let layers = (0..sizes.layers).map(|index| {
        let prefix = layer_name(index);
        let is_near = (index + 1) % pattern != 0;
        let mut heads = heads(sizes, &prefix, if is_near { near.clone() } else { all.clone() });
        heads.scale = scale;
        heads.window = is_near.then_some(window);
        let norm = |name: &str| Norm {
            kind: NormKind::RmsPlusOne,
            ..head_norm(format!("{prefix}.self_attn.{name}"), sizes.eps, sizes.head_dim)
        };
        heads.qk_norm = QkNorm::EachHead(norm("q_norm"), norm("k_norm"));
        sandwiched(sizes, &prefix, heads)
    });
    let head = Head { may_be_tied: true, ..Head::plain(false) };
    Ok(decoder(sizes, "gemma3_text", layers.collect(), head, true))
}

fn sizes(config: Config<'_>, head_dim: usize) -> Result<Sizes, ConfigError> {
    let sizes = Sizes::read(config, "rms_norm_eps", 1e-6)?;
    Ok(Sizes { head_dim: config.size_or("head_dim", head_dim)?, ..sizes })
}

fn plan(config: Config<'_>, sizes: Sizes, key: &str, base: f64) -> Result<Plan, ConfigError> {
    let traditional = config.flag("rope_traditional", false);
    Ok(Plan { dims: sizes.head_dim, base: config.number(key, base)?, traditional })
}

fn norm(sizes: Sizes, prefix: &str, name: &str) -> Norm {
    Norm { kind: NormKind::RmsPlusOne, ..sizes.rms(format!("{prefix}.{name}")) }
}

fn heads(sizes: Sizes, prefix: &str, positions: crate::decoder::Rope) -> Heads {
    let attention = format!("{prefix}.self_attn");
    sizes.attention(sizes.separate(&attention, false), sizes.o_proj(&attention, false), positions)
}

fn sandwiched(sizes: Sizes, prefix: &str, heads: Heads) -> Layer {
    let mlp = sizes.gated(&format!("{prefix}.mlp"), Activation::GeluTanh, false);
    let residual = Residual::Sequential {
        before_attention: Some(norm(sizes, prefix, "input_layernorm")),
        after_attention: Some(norm(sizes, prefix, "post_attention_layernorm")),
        before_mlp: Some(norm(sizes, prefix, "pre_feedforward_layernorm")),
        after_mlp: Some(norm(sizes, prefix, "post_feedforward_layernorm")),
        scale: 1.0,
    };
    layer(heads, Mlp::Gated(mlp), residual)
}

fn decoder(
    sizes: Sizes,
    family: &'static str,
    layers: Vec<Layer>,
    head: Head,
    scale_in_bfloat16: bool,
) -> Decoder {
    let scale = Some((sizes.hidden as f32).sqrt());
    let plain = sizes.decoder(family, layers, head);
    Decoder {
        embedding: Embedding { scale, scale_in_bfloat16, ..plain.embedding },
        norm: Norm { kind: NormKind::RmsPlusOne, ..plain.norm },
        ..plain
    }
}
