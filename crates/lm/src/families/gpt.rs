//! The families that came of gpt2: mean-and-variance norms, biases, an MLP without a gate.

use super::parts::{Sizes, layer, pre_norms};
use crate::config::{Config, ConfigError};
use crate::decoder::{Activation, Decoder, Embedding, Head, Linear, Mlp, Qkv, Residual, Rope};
use crate::rope::Plan;

/// Absolute positions. The matrices of a checkpoint that was not converted lie the other way round.
pub(super) fn gpt2(config: Config<'_>) -> Result<Decoder, ConfigError> {
    let sizes = Sizes::read(config, "layer_norm_epsilon", 1e-5)?;
    let inner = 4 * sizes.hidden;
    let conv = |name: String, from, to| Linear { transposed: true, ..biased(name, from, to) };
    let layers = (0..sizes.layers).map(|index| {
        let prefix = format!("model.h.{index}");
        let input = conv(format!("{prefix}.attn.c_attn"), sizes.hidden, 3 * sizes.hidden);
        let output = conv(format!("{prefix}.attn.c_proj"), sizes.hidden, sizes.hidden);
        let mlp = Mlp::Plain {
            up: conv(format!("{prefix}.mlp.c_fc"), sizes.hidden, inner),
            down: conv(format!("{prefix}.mlp.c_proj"), inner, sizes.hidden),
            activation: Activation::GeluTanh,
        };
        let heads = sizes.attention(Qkv::Stacked(input), output, Rope::NONE);
        layer(heads, mlp, numbered_norms(sizes, &prefix))
    });
    let positions = Some(("model.wpe".to_owned(), config.size("n_positions")?));
    Ok(Decoder {
        embedding: Embedding { positions, ..Embedding::plain("model.wte") },
        norm: sizes.layer_norm("model.ln_f", true),
        renames: &[
            ("transformer.", "model."),
            ("h.", "model.h."),
            ("wte.", "model.wte."),
            ("wpe.", "model.wpe."),
            ("ln_f.", "model.ln_f."),
        ],
        ..sizes.decoder("gpt2", layers.collect(), Head::plain(true))
    })
}

/// gpt2 with a single key head.
pub(super) fn gpt_bigcode(config: Config<'_>) -> Result<Decoder, ConfigError> {
    let sizes = Sizes::read(config, "layer_norm_epsilon", 1e-5)?;
    let kv_heads = if config.flag("multi_query", true) { 1 } else { sizes.heads };
    let sizes = Sizes { kv_heads, inner: config.size_or("n_inner", 4 * sizes.hidden)?, ..sizes };
    let bias = config.flag("attention_bias", true);
    let mlp_bias = config.flag("mlp_bias", true);
    let layers = (0..sizes.layers).map(|index| {
        let prefix = format!("transformer.h.{index}");
        let linear = |name: &str, from, to| Linear::new(format!("{prefix}.{name}"), from, to);
        let input = linear("attn.c_attn", sizes.hidden, sizes.hidden + 2 * sizes.kv_size()).biased(bias);
        let output = linear("attn.c_proj", sizes.hidden, sizes.hidden).biased(bias);
        let mlp = Mlp::Plain {
            up: linear("mlp.c_fc", sizes.hidden, sizes.inner).biased(mlp_bias),
            down: linear("mlp.c_proj", sizes.inner, sizes.hidden).biased(mlp_bias),
            activation: Activation::Gelu,
        };
        let heads = sizes.attention(Qkv::Stacked(input), output, Rope::NONE);
        layer(heads, mlp, numbered_norms(sizes, &prefix))
    });
    let positions = Some(("transformer.wpe".to_owned(), config.size("n_positions")?));
    let head = super::parts::head(config, true);
    Ok(Decoder {
        embedding: Embedding { positions, ..Embedding::plain("transformer.wte") },
        norm: sizes.layer_norm("transformer.ln_f", true),
        ..sizes.decoder("gpt_bigcode", layers.collect(), head)
    })
}

/// Attention and MLP side by side, with a norm each; a part of each head is rotated.
pub(super) fn gpt_neox(config: Config<'_>) -> Result<Decoder, ConfigError> {
    let sizes = Sizes::read(config, "layer_norm_eps", 1e-5)?.with_even_heads();
    let sizes = Sizes { kv_heads: sizes.heads, ..sizes };
    let inner = 4 * sizes.hidden;
    let part = config.number("rotary_pct", 0.25)?;
    let base = config.number("rotary_emb_base", 10_000.0)?;
    let dims = (sizes.head_dim as f64 * part) as usize;
    let positions = Plan { dims, base, traditional: false }.plain();
    let is_parallel = config.flag("use_parallel_residual", true);
    let layers = (0..sizes.layers).map(|index| {
        let prefix = format!("model.h.{index}");
        let inside = |name: &str, from, to| biased(format!("{prefix}.{name}"), from, to);
        let input = inside("attention.query_key_value", sizes.hidden, 3 * sizes.hidden);
        let output = inside("attention.dense", sizes.hidden, sizes.hidden);
        let mlp = Mlp::Plain {
            up: inside("mlp.dense_h_to_4h", sizes.hidden, inner),
            down: inside("mlp.dense_4h_to_h", inner, sizes.hidden),
            activation: Activation::GeluTanh,
        };
        let before = sizes.layer_norm(format!("{prefix}.input_layernorm"), true);
        let before_mlp = sizes.layer_norm(format!("{prefix}.post_attention_layernorm"), true);
        let residual = if is_parallel {
            Residual::Parallel { before, before_mlp: Some(before_mlp) }
        } else {
            pre_norms(before, before_mlp)
        };
        layer(sizes.attention(Qkv::Grouped(input), output, positions.clone()), mlp, residual)
    });
    let head = Head { name: Some("model.embed_out".to_owned()), ..Head::plain(false) };
    Ok(Decoder {
        embedding: Embedding::plain("model.embed_in"),
        norm: sizes.layer_norm("model.final_layer_norm", true),
        renames: &[
            ("gpt_neox.layers.", "model.h."),
            ("gpt_neox.", "model."),
            ("embed_out.", "model.embed_out."),
        ],
        ..sizes.decoder("gpt_neox", layers.collect(), head)
    })
}

/// Attention and MLP side by side behind one norm; a part of each head is rotated in neighbours.
pub(super) fn gptj(config: Config<'_>) -> Result<Decoder, ConfigError> {
    let sizes = Sizes::read(config, "layer_norm_epsilon", 1e-5)?;
    let inner = 4 * sizes.hidden;
    let dims = config.size_or("rotary_dim", sizes.head_dim)?;
    let positions = Plan { dims, base: 10_000.0, traditional: true }.plain();
    let layers = (0..sizes.layers).map(|index| {
        let prefix = format!("model.h.{index}");
        let output = Linear::new(format!("{prefix}.attn.out_proj"), sizes.hidden, sizes.hidden);
        let input = sizes.separate(&format!("{prefix}.attn"), false);
        let mlp = Mlp::Plain {
            up: biased(format!("{prefix}.mlp.fc_in"), sizes.hidden, inner),
            down: biased(format!("{prefix}.mlp.fc_out"), inner, sizes.hidden),
            activation: Activation::GeluTanh,
        };
        let before = sizes.layer_norm(format!("{prefix}.ln_1"), true);
        let residual = Residual::Parallel { before, before_mlp: None };
        layer(sizes.attention(input, output, positions.clone()), mlp, residual)
    });
    Ok(Decoder {
        embedding: Embedding::plain("model.wte"),
        norm: sizes.layer_norm("model.ln_f", true),
        renames: &[("transformer.", "model.")],
        ..sizes.decoder("gptj", layers.collect(), Head { bias: true, ..Head::plain(false) })
    })
}

fn biased(name: String, from: usize, to: usize) -> Linear {
    Linear::new(name, from, to).biased(true)
}

fn numbered_norms(sizes: Sizes, prefix: &str) -> Residual {
    pre_norms(
        sizes.layer_norm(format!("{prefix}.ln_1"), true),
        sizes.layer_norm(format!("{prefix}.ln_2"), true),
    )
}
