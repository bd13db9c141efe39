//! granite: llama with a factor at every join.

use super::parts::{Sizes, layer, layer_name};
use crate::config::{Config, ConfigError};
use crate::decoder::{Activation, Decoder, Embedding, Head, Mlp, Residual};
use crate::rope::{Plan, rope, theta};

pub(super) fn granite(config: Config<'_>) -> Result<Decoder, ConfigError> {
    let sizes = Sizes::read(config, "rms_norm_eps", 1e-6)?.with_even_heads();
    let bias = config.flag("attention_bias", false);
    let mlp_bias = config.flag("mlp_bias", false);
    let base = theta(config, 10_000.0)?;
    let positions = rope(config, Plan { dims: sizes.head_dim, base, traditional: false })?;
    let scale = config.needs_number("attention_multiplier")? as f32;
    let residual_scale = config.needs_number("residual_multiplier")? as f32;
    let layers = (0..sizes.layers).map(|index| {
        let prefix = layer_name(index);
        let attention = format!("{prefix}.self_attn");
        let mut heads = sizes.attention(
            sizes.separate(&attention, bias),
            sizes.o_proj(&attention, bias),
            positions.clone(),
        );
        heads.scale = scale;
        let mlp = sizes.gated(&format!("{prefix}.mlp"), Activation::Silu, mlp_bias);
        let residual = Residual::Sequential {
            before_attention: Some(sizes.rms(format!("{prefix}.input_layernorm"))),
            after_attention: None,
            before_mlp: Some(sizes.rms(format!("{prefix}.post_attention_layernorm"))),
            after_mlp: None,
            scale: residual_scale,
        };
        layer(heads, Mlp::Gated(mlp), residual)
    });
    let tied = config.flag("tie_word_embeddings", true);
    let scale = (1.0 / config.needs_number("logits_scaling")?) as f32;
    let plain = sizes.decoder("granite", layers.collect(), Head { scale, ..Head::plain(tied) });
    let scale = Some(config.needs_number("embedding_multiplier")? as f32);
    Ok(Decoder { embedding: Embedding { scale, ..plain.embedding }, ..plain })
}
