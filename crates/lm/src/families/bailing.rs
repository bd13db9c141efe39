//! bailing_moe: one matrix for queries, keys and values, and experts chosen in single precision.

use super::experts::{Crowd, dense_layers, groups};
use super::parts::{Sizes, gated, head, layer, layer_name};
use crate::config::{Config, ConfigError};
use crate::decoder::{
    Activation, Choice, Decoder, Embedding, Experts, Head, HeadNorm, Linear, Mix, Mlp, Precision, QkNorm,
    Qkv, Scores, Shared,
};
use crate::rope::{Plan, rope};

pub(super) fn bailing_moe(config: Config<'_>) -> Result<Decoder, ConfigError> {
    let sizes = Sizes::read(config, "rms_norm_eps", 1e-6)?.with_even_heads();
    let part = config.number("partial_rotary_factor", 1.0)?;
    let dims = config.size_or("rotary_dim", (sizes.head_dim as f64 * part) as usize)?;
    let positions = rope(config, Plan { traditional: false, ..Plan::read(config, dims, 10_000.0)? })?;
    let bias = config.flag("use_bias", false);
    let input_bias = config.flag("use_qkv_bias", false);
    let has_norms = config.flag("use_qk_norm", false);
    let dense = dense_layers(config, "first_k_dense_replace");
    let layers = (0..sizes.layers).map(|index| {
        let prefix = layer_name(index);
        let attention = format!("{prefix}.attention");
        let size = sizes.q_size() + 2 * sizes.kv_size();
        let input =
            Linear::new(format!("{attention}.query_key_value"), sizes.hidden, size).biased(input_bias);
        let output = Linear::new(format!("{attention}.dense"), sizes.q_size(), sizes.hidden).biased(bias);
        let mut heads = sizes.attention(Qkv::Stacked(input), output, positions.clone());
        if has_norms {
            let (q, k) = sizes.head_norms(&attention, "query_layernorm", "key_layernorm");
            heads.qk_norm = QkNorm::EachHead(q, k);
        }
        let mlp =
            if index < dense { sizes.mlp(&prefix, bias) } else { experts(config, sizes, &prefix, bias)? };
        Ok(layer(heads, mlp, sizes.pre_norms(&prefix)))
    });
    let layers = layers.collect::<Result<_, ConfigError>>()?;
    let normalised = config.flag("norm_head", false).then_some(HeadNorm::Elements);
    let head = Head { normalised, ..head(config, false) };
    let plain = sizes.decoder("bailing_moe", layers, head);
    Ok(Decoder { embedding: Embedding::plain("model.word_embeddings"), ..plain })
}

fn experts(config: Config<'_>, sizes: Sizes, prefix: &str, bias: bool) -> Result<Mlp, ConfigError> {
    let prefix = format!("{prefix}.mlp");
    let crowd = Crowd::read(config, "num_experts", config.size("moe_intermediate_size")?)?;
    let by_sigmoid = config.text("score_function") == Some("sigmoid");
    let scores = if by_sigmoid { Scores::Sigmoid } else { Scores::Softmax };
    let normalised = config.flag("norm_topk_prob", true) && crowd.chosen > 1;
    let corrected = config.flag("moe_router_enable_expert_bias", false);
    let choice = Choice {
        correction: corrected.then(|| format!("{prefix}.gate.expert_bias")),
        groups: groups(config, 2)?,
        normalised: normalised.then_some(1e-20),
        scale: config.number("routed_scaling_factor", 1.0)? as f32,
        ..Choice::plain(scores, Precision::Rounded)
    };
    let inner = config.size_or("moe_shared_expert_intermediate_size", crowd.inner)?;
    let is_shared = config.flag("moe_router_enable_shared_expert", true);
    let count = config.count_if("num_shared_experts")?.filter(|_| is_shared);
    let sharing = count.map(|count| Shared {
        mlp: gated(&format!("{prefix}.shared_experts"), sizes.hidden, inner * count, Activation::Silu, bias),
        mix: Mix::Sum,
    });
    Ok(Mlp::Experts(Box::new(Experts {
        router: Linear::new(format!("{prefix}.gate.gate_proj"), sizes.hidden, crowd.count),
        bias,
        shared: sharing,
        ..crowd.experts(sizes, &prefix, choice)
    })))
}
