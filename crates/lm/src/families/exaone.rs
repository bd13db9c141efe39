//! The exaone families.

use super::experts::{Crowd, corrected, shared_experts};
use super::parts::{Sizes, full_layers, head, layer, layer_name, pre_norms};
use crate::config::{Config, ConfigError};
use crate::decoder::{
    Activation, Decoder, Embedding, Experts, GateUp, Gated, Linear, Mlp, QkNorm, Residual, Rope,
};
use crate::rope::{Plan, rope};

/// llama with other names.
pub(super) fn exaone(config: Config<'_>) -> Result<Decoder, ConfigError> {
    let sizes = Sizes::read(config, "layer_norm_epsilon", 1e-5)?;
    let positions = rope(config, Plan::read(config, sizes.head_dim, 10_000.0)?)?;
    let bias = config.flag("attention_bias", false);
    let mlp_bias = config.flag("mlp_bias", false);
    let layers = (0..sizes.layers).map(|index| {
        let prefix = format!("transformer.h.{index}");
        let attention = format!("{prefix}.attn.attention");
        let output = Linear::new(format!("{attention}.out_proj"), sizes.q_size(), sizes.hidden).biased(bias);
        let heads = sizes.attention(sizes.separate(&attention, bias), output, positions.clone());
        let inside =
            |name: &str, from, to| Linear::new(format!("{prefix}.mlp.{name}"), from, to).biased(mlp_bias);
        let mlp = Gated {
            input: GateUp::Separate {
                gate: inside("c_fc_0", sizes.hidden, sizes.inner),
                up: inside("c_fc_1", sizes.hidden, sizes.inner),
            },
            down: inside("c_proj", sizes.inner, sizes.hidden),
            activation: Activation::Silu,
        };
        let norms = pre_norms(sizes.rms(format!("{prefix}.ln_1")), sizes.rms(format!("{prefix}.ln_2")));
        layer(heads, Mlp::Gated(mlp), norms)
    });
    Ok(Decoder {
        embedding: Embedding::plain("transformer.wte"),
        norm: sizes.rms("transformer.ln_f"),
        ..sizes.decoder("exaone", layers.collect(), head(config, true))
    })
}

/// Norms behind attention and MLP and of each head; layers with a window, and some without, nor positions.
pub(super) fn exaone4(config: Config<'_>) -> Result<Decoder, ConfigError> {
    let sizes = Sizes::read(config, "rms_norm_eps", 1e-5)?;
    let positions = rope(config, Plan { traditional: false, ..Plan::read(config, sizes.head_dim, 1e6)? })?;
    // L for a layer with a window, G for one that sees all.
    let pattern = config.text("sliding_window_pattern").unwrap_or_default();
    let window = config.size_if("sliding_window")?;
    let layers = (0..sizes.layers).map(|index| {
        let prefix = layer_name(index);
        let is_near = pattern.chars().cycle().nth(index % pattern.len().max(1)).map(|letter| letter == 'L');
        let rope = if is_near == Some(false) { &Rope::NONE } else { &positions };
        let mut heads = sizes.heads(&prefix, rope, false, false);
        heads.window = window.filter(|_| is_near == Some(true));
        let (q, k) = sizes.head_norms(&format!("{prefix}.self_attn"), "q_norm", "k_norm");
        heads.qk_norm = QkNorm::EachHead(q, k);
        let residual = Residual::Sequential {
            before_attention: None,
            after_attention: Some(sizes.rms(format!("{prefix}.post_attention_layernorm"))),
            before_mlp: None,
            after_mlp: Some(sizes.rms(format!("{prefix}.post_feedforward_layernorm"))),
            scale: 1.0,
        };
        layer(heads, sizes.mlp(&prefix, false), residual)
    });
    Ok(sizes.decoder("exaone4", layers.collect(), head(config, false)))
}

/// Experts as deepseek_v3 has them. Where there are windows, only layers with one have positions.
pub(super) fn exaone_moe(config: Config<'_>) -> Result<Decoder, ConfigError> {
    let sizes = Sizes::read(config, "rms_norm_eps", 1e-5)?;
    let positions = rope(config, Plan { traditional: false, ..Plan::read(config, sizes.head_dim, 1e6)? })?;
    let full = full_layers(config, sizes.layers)?.unwrap_or_else(|| vec![true; sizes.layers]);
    let has_windows = full.contains(&false);
    let window = config.size_if("sliding_window")?;
    let has_experts = config.list("is_moe_layer", "a list of truths", serde_json::Value::as_bool)?;
    let has_experts = has_experts.unwrap_or_default();
    let crowd = Crowd::read(config, "num_experts", config.size("moe_intermediate_size")?)?;
    let layers = (0..sizes.layers).map(|index| {
        let prefix = layer_name(index);
        let rope = if has_windows && full[index] { &Rope::NONE } else { &positions };
        let mut heads = sizes.heads(&prefix, rope, false, false);
        heads.window = window.filter(|_| !full[index]);
        let (q, k) = sizes.head_norms(&format!("{prefix}.self_attn"), "q_norm", "k_norm");
        heads.qk_norm = QkNorm::EachHead(q, k);
        let mlp = if has_experts.get(index) == Some(&true) {
            let inside = format!("{prefix}.mlp");
            let mut choice = corrected(config, format!("{inside}.gate.e_score_correction_bias"), 1e-20)?;
            choice.scale = config.number("routed_scaling_factor", 2.5)? as f32;
            Mlp::Experts(Box::new(Experts {
                shared: shared_experts(config, sizes, "num_shared_experts", &inside, crowd.inner)?,
                ..crowd.experts(sizes, &inside, choice)
            }))
        } else {
            sizes.mlp(&prefix, false)
        };
        Ok(layer(heads, mlp, sizes.pre_norms(&prefix)))
    });
    Ok(sizes.decoder("exaone_moe", layers.collect::<Result<_, ConfigError>>()?, head(config, false)))
}
