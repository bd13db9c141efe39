//! The qwen families.

use super::experts::{Crowd, shared};
use super::parts::{Sizes, head_norm, layer, layer_name};
use crate::config::{Config, ConfigError};
use crate::decoder::{
    Activation, Choice, Decoder, Experts, Head, Linear, Mix, Mlp, Precision, QkNorm, Scores, Shared,
};
use crate::rope::{Plan, rope, theta};

/// llama with biases on queries, keys and values.
pub(super) fn qwen2(config: Config<'_>) -> Result<Decoder, ConfigError> {
    let sizes = Sizes::read(config, "rms_norm_eps", 1e-6)?.with_even_heads();
    let positions = rope(config, plan(config, sizes, 1_000_000.0)?)?;
    let layers = (0..sizes.layers).map(|index| {
        let prefix = layer_name(index);
        let attention = format!("{prefix}.self_attn");
        let input = sizes.separate(&attention, true);
        let heads = sizes.attention(input, sizes.o_proj(&attention, false), positions.clone());
        let mlp = sizes.gated(&format!("{prefix}.mlp"), Activation::Silu, false);
        layer(heads, Mlp::Gated(mlp), sizes.pre_norms(&prefix))
    });
    Ok(sizes.decoder("qwen2", layers.collect(), Head::plain(config.flag("tie_word_embeddings", true))))
}

/// qwen2 with experts, and one that sees every token.
pub(super) fn qwen2_moe(config: Config<'_>) -> Result<Decoder, ConfigError> {
    let sizes = Sizes::read(config, "rms_norm_eps", 1e-6)?.with_even_heads();
    let positions = rope_without_scaling(config, sizes, 1_000_000.0)?;
    let shared_inner = config.size("shared_expert_intermediate_size")?;
    let experts = |prefix: &str| -> Result<Mlp, ConfigError> {
        let shared = Shared {
            mix: Mix::Gate(Linear::new(format!("{prefix}.shared_expert_gate"), sizes.hidden, 1)),
            ..shared(sizes, &format!("{prefix}.shared_expert"), shared_inner)
        };
        let choice = Choice::plain(Scores::Softmax, Precision::Activations);
        Ok(Mlp::Experts(Box::new(Experts {
            shared: Some(shared),
            ..some_of(config, sizes, prefix, choice)?
        })))
    };
    let layers = (0..sizes.layers).map(|index| {
        let prefix = layer_name(index);
        let attention = format!("{prefix}.self_attn");
        let input = sizes.separate(&attention, true);
        let heads = sizes.attention(input, sizes.o_proj(&attention, false), positions.clone());
        Ok(layer(heads, experts(&format!("{prefix}.mlp"))?, sizes.pre_norms(&prefix)))
    });
    let head = Head { may_be_tied: true, ..Head::plain(false) };
    Ok(sizes.decoder("qwen2_moe", layers.collect::<Result<_, ConfigError>>()?, head))
}

/// qwen2 with norms of queries and keys instead of biases.
pub(super) fn qwen3(config: Config<'_>) -> Result<Decoder, ConfigError> {
    let sizes = Sizes::read(config, "rms_norm_eps", 1e-6)?;
    let positions = rope(config, Plan { traditional: false, ..plan(config, sizes, 1_000_000.0)? })?;
    let layers = (0..sizes.layers).map(|index| {
        let prefix = layer_name(index);
        let mut heads = sizes.attention(
            sizes.separate(&format!("{prefix}.self_attn"), false),
            sizes.o_proj(&format!("{prefix}.self_attn"), false),
            positions.clone(),
        );
        heads.qk_norm = each_head(&prefix, sizes);
        let mlp = sizes.gated(&format!("{prefix}.mlp"), Activation::Silu, false);
        layer(heads, Mlp::Gated(mlp), sizes.pre_norms(&prefix))
    });
    Ok(sizes.decoder("qwen3", layers.collect(), Head::plain(config.flag("tie_word_embeddings", true))))
}

/// qwen3 with experts on most layers.
pub(super) fn qwen3_moe(config: Config<'_>) -> Result<Decoder, ConfigError> {
    let sizes = Sizes::read(config, "rms_norm_eps", 1e-6)?;
    let positions = rope_without_scaling(config, sizes, 1_000_000.0)?;
    let step = config.size_or("decoder_sparse_step", 1)?;
    let dense = config.list("mlp_only_layers", "a list of numbers", serde_json::Value::as_u64)?;
    let dense = dense.unwrap_or_default();
    let has_experts = config.count_if("num_experts")?.is_some();
    let normalised = config.flag("norm_topk_prob", false).then_some(0.0);
    let layers = (0..sizes.layers).map(|index| {
        let prefix = layer_name(index);
        let mut heads = sizes.attention(
            sizes.separate(&format!("{prefix}.self_attn"), false),
            sizes.o_proj(&format!("{prefix}.self_attn"), false),
            positions.clone(),
        );
        heads.qk_norm = each_head(&prefix, sizes);
        let inside = format!("{prefix}.mlp");
        let mlp = if !dense.contains(&(index as u64)) && has_experts && (index + 1) % step == 0 {
            let plain = Choice::plain(Scores::Softmax, Precision::Activations);
            let choice = Choice { normalised, ..plain };
            Mlp::Experts(Box::new(some_of(config, sizes, &inside, choice)?))
        } else {
            Mlp::Gated(sizes.gated(&inside, Activation::Silu, false))
        };
        Ok(layer(heads, mlp, sizes.pre_norms(&prefix)))
    });
    let head = Head::plain(config.flag("tie_word_embeddings", false));
    Ok(sizes.decoder("qwen3_moe", layers.collect::<Result<_, ConfigError>>()?, head))
}

fn plan(config: Config<'_>, sizes: Sizes, base: f64) -> Result<Plan, ConfigError> {
    Ok(Plan {
        dims: sizes.head_dim,
        base: theta(config, base)?,
        traditional: config.flag("rope_traditional", false),
    })
}

fn rope_without_scaling(
    config: Config<'_>,
    sizes: Sizes,
    base: f64,
) -> Result<crate::decoder::Rope, ConfigError> {
    crate::rope::scaled(config, None, plan(config, sizes, base)?)
}

fn each_head(prefix: &str, sizes: Sizes) -> QkNorm {
    let norm = |name: &str| head_norm(format!("{prefix}.self_attn.{name}"), sizes.eps, sizes.head_dim);
    QkNorm::EachHead(norm("q_norm"), norm("k_norm"))
}

fn some_of(config: Config<'_>, sizes: Sizes, prefix: &str, choice: Choice) -> Result<Experts, ConfigError> {
    let crowd = Crowd::read(config, "num_experts", config.size("moe_intermediate_size")?)?;
    Ok(crowd.experts(sizes, prefix, choice))
}
