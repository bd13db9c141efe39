//! afmoe: norms on both sides, gated attention, experts as deepseek_v3 has them.

use super::experts::{Crowd, dense_layers, groups, names_in_experts, shared};
use super::parts::{Sizes, full_layers, head, layer, layer_name};
use crate::config::{Config, ConfigError};
use crate::decoder::{
    Choice, Decoder, Embedding, Experts, Linear, Mlp, Precision, QkNorm, Residual, Rope, Scores,
};
use crate::rope::{Plan, rope};

/// Layers with a window have positions, and the others none.
pub(super) fn afmoe(config: Config<'_>) -> Result<Decoder, ConfigError> {
    let sizes = Sizes::read(config, "rms_norm_eps", 1e-5)?;
    let plan = Plan { traditional: false, ..Plan::read(config, sizes.head_dim, 10_000.0)? };
    let positions = rope(config, plan)?;
    let full =
        full_layers(config, sizes.layers)?.ok_or_else(|| ConfigError::Missing("layer_types".to_owned()))?;
    let window = config.size_or("sliding_window", 2048)?;
    let dense =
        if config.get("num_dense_layers").is_some() { dense_layers(config, "num_dense_layers") } else { 2 };
    let layers = (0..sizes.layers).map(|index| {
        let prefix = layer_name(index);
        let attention = format!("{prefix}.self_attn");
        let rope = if full[index] { &Rope::NONE } else { &positions };
        let mut heads = sizes.heads(&prefix, rope, false, false);
        heads.window = (!full[index]).then_some(window);
        heads.gate = Some(Linear::new(format!("{attention}.gate_proj"), sizes.hidden, sizes.q_size()));
        let (q, k) = sizes.head_norms(&attention, "q_norm", "k_norm");
        heads.qk_norm = QkNorm::EachHead(q, k);
        let mlp = if index < dense { sizes.mlp(&prefix, false) } else { experts(config, sizes, &prefix)? };
        let norm = |name: &str| Some(sizes.rms(format!("{prefix}.{name}")));
        let residual = Residual::Sequential {
            before_attention: norm("input_layernorm"),
            after_attention: norm("post_attention_layernorm"),
            before_mlp: norm("pre_mlp_layernorm"),
            after_mlp: norm("post_mlp_layernorm"),
            scale: 1.0,
        };
        Ok(layer(heads, mlp, residual))
    });
    let layers = layers.collect::<Result<_, ConfigError>>()?;
    let plain = sizes.decoder("afmoe", layers, head(config, false));
    let scale = config.flag("mup_enabled", true).then_some((sizes.hidden as f32).sqrt());
    Ok(Decoder { embedding: Embedding { scale, ..plain.embedding }, ..plain })
}

fn experts(config: Config<'_>, sizes: Sizes, prefix: &str) -> Result<Mlp, ConfigError> {
    let prefix = format!("{prefix}.mlp");
    let crowd = Crowd::read(config, "num_experts", config.size_or("moe_intermediate_size", 1024)?)?;
    let scores = if config.text("score_func") == Some("softmax") { Scores::Softmax } else { Scores::Sigmoid };
    let normalised = config.flag("route_norm", true) && crowd.chosen > 1;
    let choice = Choice {
        correction: Some(format!("{prefix}.expert_bias")),
        groups: groups(config, 2)?,
        normalised: normalised.then_some(0.0),
        scale: config.number("route_scale", 2.826)? as f32,
        ..Choice::plain(scores, Precision::Single)
    };
    // One, where the config says nothing.
    let sharing = match config.get("num_shared_experts") {
        Some(_) => config.count_if("num_shared_experts")?,
        None => Some(1),
    };
    Ok(Mlp::Experts(Box::new(Experts {
        router: Linear::new(format!("{prefix}.router.gate"), sizes.hidden, crowd.count),
        names: names_in_experts(&prefix),
        shared: sharing.map(|count| shared(sizes, &format!("{prefix}.shared_experts"), crowd.inner * count)),
        ..crowd.experts(sizes, &prefix, choice)
    })))
}
