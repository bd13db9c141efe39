//! The phi families.

use super::parts::{Sizes, layer, layer_name};
use crate::config::{Config, ConfigError};
use crate::decoder::{Activation, Decoder, Head, Linear, Mlp, Qkv, Residual};
use crate::rope::{Plan, kind_of, rope_of_phi, scaled, theta};

/// Attention and MLP side by side, biases everywhere, a part of each head rotated.
pub(super) fn phi(config: Config<'_>) -> Result<Decoder, ConfigError> {
    let sizes = Sizes::read(config, "layer_norm_eps", 1e-5)?.with_even_heads();
    let part = config.number("partial_rotary_factor", 0.4)?;
    let plan = Plan {
        dims: (sizes.head_dim as f64 * part) as usize,
        base: theta(config, 10_000.0)?,
        traditional: false,
    };
    let positions = scaled(config, None, plan)?;
    let layers = (0..sizes.layers).map(|index| {
        let prefix = layer_name(index);
        let attention = format!("{prefix}.self_attn");
        let output = Linear::new(format!("{attention}.dense"), sizes.q_size(), sizes.hidden).biased(true);
        let mut heads = sizes.attention(sizes.separate(&attention, true), output, positions.clone());
        heads.queries_in_float32 = true;
        let mlp = Mlp::Plain {
            up: Linear::new(format!("{prefix}.mlp.fc1"), sizes.hidden, sizes.inner).biased(true),
            down: Linear::new(format!("{prefix}.mlp.fc2"), sizes.inner, sizes.hidden).biased(true),
            activation: Activation::GeluTanh,
        };
        let before = sizes.layer_norm(format!("{prefix}.input_layernorm"), true);
        layer(heads, mlp, Residual::Parallel { before, before_mlp: None })
    });
    let head = Head { bias: true, ..Head::plain(false) };
    let plain = sizes.decoder("phi", layers.collect(), head);
    Ok(Decoder { norm: sizes.layer_norm("model.final_layernorm", true), ..plain })
}

/// llama with its matrices stacked, and long rotations.
pub(super) fn phi3(config: Config<'_>) -> Result<Decoder, ConfigError> {
    let sizes = Sizes::read(config, "rms_norm_eps", 1e-5)?.with_even_heads();
    let part = config.number("partial_rotary_factor", 1.0)?;
    let plan = Plan {
        dims: (sizes.head_dim as f64 * part) as usize,
        base: theta(config, 10_000.0)?,
        traditional: config.flag("rope_traditional", false),
    };
    // As mlx_lm has it: what it knows no other way of scaling for is not scaled.
    let knows = ["longrope", "su", "linear"];
    let positions = match config.section("rope_scaling") {
        Some(scaling) if !knows.contains(&kind_of(scaling)) => scaled(config, None, plan)?,
        _ => rope_of_phi(config, plan)?,
    };
    let layers = (0..sizes.layers).map(|index| {
        let prefix = layer_name(index);
        let attention = format!("{prefix}.self_attn");
        let size = sizes.q_size() + 2 * sizes.kv_size();
        let input = Qkv::Stacked(Linear::new(format!("{attention}.qkv_proj"), sizes.hidden, size));
        let heads = sizes.attention(input, sizes.o_proj(&attention, false), positions.clone());
        let mlp = sizes.gated_stacked(&format!("{prefix}.mlp"), Activation::Silu);
        layer(heads, Mlp::Gated(mlp), sizes.pre_norms(&prefix))
    });
    Ok(sizes.decoder("phi3", layers.collect(), Head::plain(config.flag("tie_word_embeddings", false))))
}
