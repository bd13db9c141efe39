//! The qwen families.

use super::experts::{Crowd, expert_names, shared};
use super::parts::{Sizes, head_norm, layer, layer_name, pre_norms};
use crate::config::{Config, ConfigError};
use crate::decoder::{
    Activation, Choice, Decoder, Embedding, ExpertNames, Experts, Fused, FusedForm, GateUp, Gated, Head,
    Linear, Mix, Mlp, Precision, QkNorm, Qkv, Scores, Shared,
};
use crate::rope::{Plan, rope, theta};

/// The first one: one matrix for queries, keys and values, and half of the told width twice.
pub(super) fn qwen(config: Config<'_>) -> Result<Decoder, ConfigError> {
    let sizes = Sizes::read(config, "layer_norm_epsilon", 1e-6)?;
    let rotated = sizes.hidden / sizes.heads;
    let sizes = Sizes { kv_heads: sizes.heads, head_dim: config.size_or("kv_channels", 128)?, ..sizes };
    let positions = Plan { dims: rotated, base: 10_000.0, traditional: false }.plain();
    let bias = !config.flag("no_bias", true);
    let inner = sizes.inner / 2;
    let layers = (0..sizes.layers).map(|index| {
        let prefix = format!("transformer.h.{index}");
        let linear = |name: &str, from, to| Linear::new(format!("{prefix}.{name}"), from, to).biased(bias);
        let input = linear("attn.c_attn", sizes.hidden, 3 * sizes.q_size()).biased(true);
        let output = linear("attn.c_proj", sizes.q_size(), sizes.hidden);
        let mut heads = sizes.attention(Qkv::Stacked(input), output, positions.clone());
        heads.scale = (rotated as f32).powf(-0.5);
        let mlp = Gated {
            input: GateUp::Separate {
                gate: linear("mlp.w2", sizes.hidden, inner),
                up: linear("mlp.w1", sizes.hidden, inner),
            },
            down: linear("mlp.c_proj", inner, sizes.hidden),
            activation: Activation::Silu,
        };
        let norms = pre_norms(sizes.rms(format!("{prefix}.ln_1")), sizes.rms(format!("{prefix}.ln_2")));
        layer(heads, Mlp::Gated(mlp), norms)
    });
    Ok(Decoder {
        embedding: Embedding::plain("transformer.wte"),
        norm: sizes.rms("transformer.ln_f"),
        ..sizes.decoder("qwen", layers.collect(), Head { bias, ..Head::plain(false) })
    })
}

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
            let choice = Choice { normalised, from_the_end: true, ..plain };
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
    let fused = Fused {
        gate_up: format!("{prefix}.experts.gate_up_proj"),
        down: format!("{prefix}.experts.down_proj"),
        form: FusedForm::SwappedHalves,
    };
    let names = ExpertNames { fused: Some(fused), ..expert_names(prefix) };
    Ok(Experts { names, ..crowd.experts(sizes, prefix, choice) })
}
