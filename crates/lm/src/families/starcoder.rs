//! starcoder2: biases everywhere, and an MLP without a gate.

use super::parts::{Sizes, layer, layer_name};
use crate::config::{Config, ConfigError};
use crate::decoder::{Activation, Decoder, Head, Linear, Mlp, Residual};
use crate::rope::{Plan, scaled, theta};

pub(super) fn starcoder2(config: Config<'_>) -> Result<Decoder, ConfigError> {
    let sizes = Sizes::read(config, "norm_epsilon", 1e-5)?.with_even_heads();
    let base = theta(config, 100_000.0)?;
    let positions = scaled(config, None, Plan { dims: sizes.head_dim, base, traditional: false })?;
    let layers = (0..sizes.layers).map(|index| {
        let prefix = layer_name(index);
        let attention = format!("{prefix}.self_attn");
        let heads = sizes.attention(
            sizes.separate(&attention, true),
            sizes.o_proj(&attention, true),
            positions.clone(),
        );
        let mlp = Mlp::Plain {
            up: Linear::new(format!("{prefix}.mlp.c_fc"), sizes.hidden, sizes.inner).biased(true),
            down: Linear::new(format!("{prefix}.mlp.c_proj"), sizes.inner, sizes.hidden).biased(true),
            activation: Activation::Gelu,
        };
        let residual = Residual::Sequential {
            before_attention: Some(sizes.layer_norm(format!("{prefix}.input_layernorm"), true)),
            after_attention: None,
            before_mlp: Some(sizes.layer_norm(format!("{prefix}.post_attention_layernorm"), true)),
            after_mlp: None,
            scale: 1.0,
        };
        layer(heads, mlp, residual)
    });
    let head = Head::plain(config.flag("tie_word_embeddings", true));
    let plain = sizes.decoder("starcoder2", layers.collect(), head);
    Ok(Decoder { norm: sizes.layer_norm("model.norm", true), ..plain })
}
