//! The olmo families.

use super::parts::{Sizes, head_norm, layer, layer_name};
use crate::config::{Config, ConfigError};
use crate::decoder::{Activation, Decoder, Head, Mlp, QkNorm, Residual};
use crate::rope::{Plan, rope};

/// llama with norms behind attention and MLP, and of all queries and all keys.
pub(super) fn olmo2(config: Config<'_>) -> Result<Decoder, ConfigError> {
    let sizes = Sizes::read(config, "rms_norm_eps", 1e-5)?;
    let bias = config.flag("attention_bias", false);
    let mlp_bias = config.flag("mlp_bias", false);
    let plan = Plan {
        dims: sizes.head_dim,
        base: config.number("rope_theta", 10_000.0)?,
        traditional: config.flag("rope_traditional", false),
    };
    let positions = rope(config, plan)?;
    let layers = (0..sizes.layers).map(|index| {
        let prefix = layer_name(index);
        let attention = format!("{prefix}.self_attn");
        let mut heads = sizes.attention(
            sizes.separate(&attention, bias),
            sizes.o_proj(&attention, bias),
            positions.clone(),
        );
        heads.qk_norm = QkNorm::AllHeads(
            head_norm(format!("{attention}.q_norm"), sizes.eps, sizes.q_size()),
            head_norm(format!("{attention}.k_norm"), sizes.eps, sizes.kv_size()),
        );
        let mlp = sizes.gated(&format!("{prefix}.mlp"), Activation::Silu, mlp_bias);
        let residual = Residual::Sequential {
            before_attention: None,
            after_attention: Some(sizes.rms(format!("{prefix}.post_attention_layernorm"))),
            before_mlp: None,
            after_mlp: Some(sizes.rms(format!("{prefix}.post_feedforward_layernorm"))),
            scale: 1.0,
        };
        layer(heads, Mlp::Gated(mlp), residual)
    });
    Ok(sizes.decoder("olmo2", layers.collect(), Head::plain(config.flag("tie_word_embeddings", true))))
}
