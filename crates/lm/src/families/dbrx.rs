//! dbrx: norms without biases, clipped queries, keys and values, experts on every layer.

use super::experts::{Crowd, expert_names};
use super::parts::{Sizes, layer, pre_norms};
use crate::config::{Config, ConfigError};
use crate::decoder::{
    Choice, Decoder, Embedding, ExpertNames, Experts, Head, Linear, Mlp, Precision, Qkv, Scores,
};
use crate::rope::Plan;

pub(super) fn dbrx(config: Config<'_>) -> Result<Decoder, ConfigError> {
    let section = |key: &str| config.section(key).ok_or_else(|| ConfigError::Missing(key.to_owned()));
    let (attention, inside) = (section("attn_config")?, section("ffn_config")?);
    // These epsilons are in no config.
    let sizes = Sizes { eps: 1e-5, ..Sizes::read(config, "layer_norm_eps", 1e-5)? };
    let kv_heads = attention.count("kv_n_heads")?;
    if !sizes.heads.is_multiple_of(kv_heads) {
        return Err(ConfigError::Value {
            key: "attn_config.kv_n_heads".to_owned(),
            value: kv_heads.to_string(),
            wanted: "a divisor of n_heads",
        });
    }
    let sizes = Sizes { kv_heads, ..sizes };
    let base = attention.needs_number("rope_theta")?;
    let positions = Plan { dims: sizes.head_dim, base, traditional: false }.plain();
    let clip = attention.needs_number("clip_qkv")? as f32;
    let count = inside.count("moe_num_experts")?;
    let chosen = inside.count("moe_top_k")?.min(count);
    let crowd = Crowd { count, chosen, inner: inside.size("ffn_hidden_size")? };
    let choice = Choice { normalised: Some(0.0), ..Choice::plain(Scores::Softmax, Precision::Rounded) };
    let layers = (0..sizes.layers).map(|index| {
        let prefix = format!("transformer.blocks.{index}");
        let both = format!("{prefix}.norm_attn_norm");
        let size = sizes.q_size() + 2 * sizes.kv_size();
        let input = Linear::new(format!("{both}.attn.Wqkv"), sizes.hidden, size);
        let output = Linear::new(format!("{both}.attn.out_proj"), sizes.q_size(), sizes.hidden);
        let mut heads = sizes.attention(Qkv::Stacked(input), output, positions.clone());
        heads.clip = Some(clip);
        let inside = format!("{prefix}.ffn");
        let single = ["w1", "v1", "w2"].map(|name| format!("{inside}.experts.{{}}.{name}"));
        let experts = Experts {
            router: Linear::new(format!("{inside}.router.layer"), sizes.hidden, count),
            names: ExpertNames { single: Some(single), ..expert_names(&inside) },
            ..crowd.experts(sizes, &inside, choice.clone())
        };
        let norm = |name: &str| sizes.layer_norm(format!("{both}.{name}"), false);
        layer(heads, Mlp::Experts(Box::new(experts)), pre_norms(norm("norm_1"), norm("norm_2")))
    });
    Ok(Decoder {
        embedding: Embedding::plain("transformer.wte"),
        norm: sizes.layer_norm("transformer.norm_f", false),
        ..sizes.decoder("dbrx", layers.collect(), Head::plain(false))
    })
}
