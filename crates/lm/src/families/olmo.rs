//! The olmo families.

use super::experts::Crowd;
use super::parts::{Sizes, full_layers, head, head_norm, layer, layer_name};
use crate::config::{Config, ConfigError};
use crate::decoder::{Choice, Decoder, Layer, Mlp, Precision, QkNorm, Residual, Rope, Scores};
use crate::rope::{Plan, rope};

/// llama with norms behind attention and MLP, and of all queries and all keys.
pub(super) fn olmo2(config: Config<'_>) -> Result<Decoder, ConfigError> {
    let sizes = Sizes::read(config, "rms_norm_eps", 1e-5)?;
    let bias = config.flag("attention_bias", false);
    let mlp_bias = config.flag("mlp_bias", false);
    let positions = rope(config, Plan::read(config, sizes.head_dim, 10_000.0)?)?;
    let layers = (0..sizes.layers).map(|index| norms_behind(sizes, index, &positions, bias, mlp_bias, None));
    Ok(sizes.decoder("olmo2", layers.collect(), head(config, true)))
}

/// olmo2 with windows on most layers, which have plain positions.
pub(super) fn olmo3(config: Config<'_>) -> Result<Decoder, ConfigError> {
    let sizes = Sizes::read(config, "rms_norm_eps", 1e-5)?;
    let bias = config.flag("attention_bias", false);
    let plan = Plan { traditional: false, ..Plan::read(config, sizes.head_dim, 10_000.0)? };
    let (near, far) = (plan.plain(), rope(config, plan)?);
    let full = full_layers(config, sizes.layers)?;
    let window = config.size("sliding_window")?;
    let layers = (0..sizes.layers).map(|index| {
        let sees_all = full.as_ref().map_or((index + 1) % 4 == 0, |full| full[index]);
        let (rope, window) = if sees_all { (&far, None) } else { (&near, Some(window)) };
        norms_behind(sizes, index, rope, bias, false, window)
    });
    Ok(sizes.decoder("olmo3", layers.collect(), head(config, false)))
}

/// llama with experts on every layer, and norms of all queries and all keys.
pub(super) fn olmoe(config: Config<'_>) -> Result<Decoder, ConfigError> {
    let sizes = Sizes::read(config, "rms_norm_eps", 1e-5)?;
    let bias = config.flag("attention_bias", false);
    let positions = rope(config, Plan::read(config, sizes.head_dim, 10_000.0)?)?;
    let crowd = Crowd::read(config, "num_experts", sizes.inner)?;
    let normalised = config.flag("norm_topk_prob", false).then_some(0.0);
    let choice = Choice { normalised, ..Choice::plain(Scores::Softmax, Precision::Activations) };
    let layers = (0..sizes.layers).map(|index| {
        let prefix = layer_name(index);
        let mut heads = sizes.heads(&prefix, &positions, bias, bias);
        heads.qk_norm = all_heads(sizes, &prefix);
        let experts = crowd.experts(sizes, &format!("{prefix}.mlp"), choice.clone());
        layer(heads, Mlp::Experts(Box::new(experts)), sizes.pre_norms(&prefix))
    });
    Ok(sizes.decoder("olmoe", layers.collect(), head(config, true)))
}

fn all_heads(sizes: Sizes, prefix: &str) -> QkNorm {
    QkNorm::AllHeads(
        head_norm(format!("{prefix}.self_attn.q_norm"), sizes.eps, sizes.q_size()),
        head_norm(format!("{prefix}.self_attn.k_norm"), sizes.eps, sizes.kv_size()),
    )
}

fn norms_behind(
    sizes: Sizes,
    index: usize,
    rope: &Rope,
    bias: bool,
    mlp_bias: bool,
    window: Option<usize>,
) -> Layer {
    let prefix = layer_name(index);
    let mut heads = sizes.heads(&prefix, rope, bias, bias);
    heads.qk_norm = all_heads(sizes, &prefix);
    heads.window = window;
    let residual = Residual::Sequential {
        before_attention: None,
        after_attention: Some(sizes.rms(format!("{prefix}.post_attention_layernorm"))),
        before_mlp: None,
        after_mlp: Some(sizes.rms(format!("{prefix}.post_feedforward_layernorm"))),
        scale: 1.0,
    };
    layer(heads, sizes.mlp(&prefix, mlp_bias), residual)
}
