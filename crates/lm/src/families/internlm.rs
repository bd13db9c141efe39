//! internlm2: llama with other names, and one matrix for queries, keys and values.

use super::parts::{Sizes, layer, layer_name};
use crate::config::{Config, ConfigError};
use crate::decoder::{Activation, Decoder, Embedding, GateUp, Gated, Head, Linear, Mlp, Qkv, Residual};
use crate::rope::{Plan, rope, theta};

pub(super) fn internlm2(config: Config<'_>) -> Result<Decoder, ConfigError> {
    let sizes = Sizes::read(config, "rms_norm_eps", 1e-5)?.with_even_heads();
    let bias = config.flag("bias", true);
    let plan = Plan {
        dims: sizes.head_dim,
        base: theta(config, 10_000.0)?,
        traditional: config.flag("rope_traditional", false),
    };
    let positions = rope(config, plan)?;
    let layers = (0..sizes.layers).map(|index| {
        let prefix = layer_name(index);
        let size = sizes.q_size() + 2 * sizes.kv_size();
        let input = Linear::new(format!("{prefix}.attention.wqkv"), sizes.hidden, size).biased(bias);
        let output = Linear::new(format!("{prefix}.attention.wo"), sizes.q_size(), sizes.hidden).biased(bias);
        let heads = sizes.attention(Qkv::Grouped(input), output, positions.clone());
        let inside = |name: &str, from, to| Linear::new(format!("{prefix}.feed_forward.{name}"), from, to);
        let mlp = Gated {
            input: GateUp::Separate {
                gate: inside("w1", sizes.hidden, sizes.inner),
                up: inside("w3", sizes.hidden, sizes.inner),
            },
            down: inside("w2", sizes.inner, sizes.hidden),
            activation: Activation::Silu,
        };
        let residual = Residual::Sequential {
            before_attention: Some(sizes.rms(format!("{prefix}.attention_norm"))),
            after_attention: None,
            before_mlp: Some(sizes.rms(format!("{prefix}.ffn_norm"))),
            after_mlp: None,
            scale: 1.0,
        };
        layer(heads, Mlp::Gated(mlp), residual)
    });
    let tied = config.flag("tie_word_embeddings", false);
    let head = Head { name: (!tied).then(|| "output".to_owned()), ..Head::plain(tied) };
    let plain = sizes.decoder("internlm2", layers.collect(), head);
    let plain = Decoder { embedding: Embedding::plain("model.tok_embeddings"), ..plain };
    // The head is beside `model` in mlx_lm's checkpoints and in the originals.
    Ok(plain)
}
