//! llama, and those that are one in all but name.

use super::parts::{Sizes, full_layers, layer, layer_name};
use crate::config::{Config, ConfigError};
use crate::decoder::{Activation, Decoder, Head, Mlp, Rope};
use crate::rope::{Plan, rope, theta};

pub(super) fn llama(config: Config<'_>) -> Result<Decoder, ConfigError> {
    decoder(config, "llama", |_| true)
}

/// llama without positions on some layers.
pub(super) fn smollm3(config: Config<'_>) -> Result<Decoder, ConfigError> {
    let uses = config.list("no_rope_layers", "a list of 0 and 1", |value| value.as_u64().map(|n| n != 0))?;
    let interval = config.size_or("no_rope_layer_interval", 4)?;
    decoder(config, "smollm3", |index| match &uses {
        Some(uses) => uses.get(index).copied().unwrap_or(true),
        None => (index + 1) % interval != 0,
    })
}

fn decoder(
    config: Config<'_>,
    family: &'static str,
    has_positions: impl Fn(usize) -> bool,
) -> Result<Decoder, ConfigError> {
    let sizes = Sizes::read(config, "rms_norm_eps", 1e-5)?;
    let attention_bias = config.flag("attention_bias", false);
    let mlp_bias = config.flag("mlp_bias", false);
    let plan = Plan {
        dims: sizes.head_dim,
        base: theta(config, 10_000.0)?,
        traditional: config.flag("rope_traditional", false),
    };
    let positions = rope(config, plan)?;
    // A window counts only where the layers' kinds are told: mlx_lm reads mistral's in no other case.
    let full = full_layers(config, sizes.layers)?;
    let window = config.size_if("sliding_window")?;
    let layers = (0..sizes.layers).map(|index| {
        let prefix = layer_name(index);
        let attention = format!("{prefix}.self_attn");
        let rope = if has_positions(index) { positions.clone() } else { Rope::NONE };
        let mut heads = sizes.attention(
            sizes.separate(&attention, attention_bias),
            sizes.o_proj(&attention, attention_bias),
            rope,
        );
        if full.as_ref().is_some_and(|full| !full[index]) {
            heads.window = window;
        }
        let mlp = sizes.gated(&format!("{prefix}.mlp"), Activation::Silu, mlp_bias);
        layer(heads, Mlp::Gated(mlp), sizes.pre_norms(&prefix))
    });
    let tied = config.flag("tie_word_embeddings", true);
    Ok(sizes.decoder(family, layers.collect(), Head::plain(tied)))
}
