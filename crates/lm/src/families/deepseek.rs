//! The deepseek families: latent attention, and experts in groups.

use super::parts::{Sizes, expert_names, gated, head_norm, layer_name};
use crate::config::{Config, ConfigError};
use crate::decoder::{
    Activation, Attention, Choice, Decoder, Experts, Head, Latent, LatentQuery, LatentUp, Layer, Linear, Mlp,
    Rope, Shared,
};
use crate::rope::{Plan, rope, yarn_scale};

/// Epsilon of the norms inside attention, whatever the config says.
const INNER_EPS: f32 = 1e-6;

pub(super) fn v2(config: Config<'_>) -> Result<Decoder, ConfigError> {
    let limited = config.text("topk_method") == Some("group_limited_greedy");
    let groups = match (config.count_if("n_group")?, config.count_if("topk_group")?) {
        (Some(groups), Some(kept)) if limited => Some((groups, kept)),
        _ => None,
    };
    let scale = config.number("routed_scaling_factor", 1.0)? as f32;
    let choice = |_: &str| Choice::Softmax { normalised: false, scale, groups };
    decoder(config, "deepseek_v2", false, choice)
}

pub(super) fn v3(config: Config<'_>) -> Result<Decoder, ConfigError> {
    let groups = (config.count_if("n_group")?.unwrap_or(1), config.count_if("topk_group")?.unwrap_or(1));
    let scale = config.number("routed_scaling_factor", 1.0)? as f32;
    let chosen = config.count_if("num_experts_per_tok")?.unwrap_or(1);
    let normalised = config.flag("norm_topk_prob", true) && chosen > 1;
    let choice = |prefix: &str| Choice::Sigmoid {
        correction: Some(format!("{prefix}.gate.e_score_correction_bias")),
        normalised,
        eps: 0.0,
        scale,
        groups,
    };
    decoder(config, "deepseek_v3", true, choice)
}

fn decoder(
    config: Config<'_>,
    family: &'static str,
    absorbed: bool,
    choice: impl Fn(&str) -> Choice,
) -> Result<Decoder, ConfigError> {
    let sizes = Sizes::read(config, "rms_norm_eps", 1e-6)?;
    let experts = config.count_if("n_routed_experts")?;
    let dense = config.get("first_k_dense_replace").and_then(serde_json::Value::as_u64).unwrap_or(0);
    let step = config.size_or("moe_layer_freq", 1)?;
    let layers = (0..sizes.layers).map(|index| {
        let prefix = layer_name(index);
        let inside = format!("{prefix}.mlp");
        let mlp = match experts {
            Some(count) if index as u64 >= dense && index % step == 0 => {
                some_of(config, sizes, &inside, count, choice(&inside))?
            }
            _ => Mlp::Gated(sizes.gated(&inside, Activation::Silu, false)),
        };
        let attention = latent(config, sizes, &format!("{prefix}.self_attn"), absorbed)?;
        Ok(Layer {
            attention: Attention::Latent(Box::new(attention)),
            mlp,
            residual: sizes.pre_norms(&prefix),
        })
    });
    let layers = layers.collect::<Result<_, ConfigError>>()?;
    Ok(sizes.decoder(family, layers, Head { may_be_tied: true, ..Head::plain(false) }))
}

fn latent(config: Config<'_>, sizes: Sizes, prefix: &str, absorbed: bool) -> Result<Latent, ConfigError> {
    let rank = config.size("kv_lora_rank")?;
    let rope_dim = config.size("qk_rope_head_dim")?;
    let nope_dim = config.size("qk_nope_head_dim")?;
    let value_dim = config.size("v_head_dim")?;
    let bias = config.flag("attention_bias", false);
    let head = nope_dim + rope_dim;
    let heads = sizes.heads;
    let linear = |name: &str, from, to| Linear::new(format!("{prefix}.{name}"), from, to);
    let query = match config.size_if("q_lora_rank")? {
        None => LatentQuery::Straight(linear("q_proj", sizes.hidden, heads * head)),
        Some(rank) => LatentQuery::LowRank(
            linear("q_a_proj", sizes.hidden, rank).biased(bias),
            head_norm(format!("{prefix}.q_a_layernorm"), INNER_EPS, rank),
            linear("q_b_proj", rank, heads * head),
        ),
    };
    let together = linear("kv_b_proj", rank, heads * (nope_dim + value_dim));
    Ok(Latent {
        heads,
        nope_dim,
        rope_dim,
        value_dim,
        rank,
        query,
        down: linear("kv_a_proj_with_mqa", sizes.hidden, rank + rope_dim).biased(bias),
        norm: head_norm(format!("{prefix}.kv_a_layernorm"), INNER_EPS, rank),
        up: if absorbed {
            let (keys, values) = (format!("{prefix}.embed_q"), format!("{prefix}.unembed_out"));
            LatentUp::Absorbed { keys, values, together }
        } else {
            LatentUp::Together(together)
        },
        output: linear("o_proj", heads * value_dim, sizes.hidden).biased(bias),
        rope: positions(config, rope_dim)?,
        scale: scale(config, head)?,
    })
}

fn positions(config: Config<'_>, dims: usize) -> Result<Rope, ConfigError> {
    let base = config.number("rope_theta", 10_000.0)?;
    rope(config, Plan { dims, base, traditional: true })
}

/// yarn's second half: the scores grow with the length.
fn scale(config: Config<'_>, head: usize) -> Result<f32, ConfigError> {
    let mut scale = (head as f64).powf(-0.5);
    if let Some(scaling) = config.section("rope_scaling") {
        let all = scaling.number("mscale_all_dim", 0.0)?;
        if all != 0.0 {
            scale *= yarn_scale(scaling.needs_number("factor")?, all).powi(2);
        }
    }
    Ok(scale as f32)
}

fn some_of(
    config: Config<'_>,
    sizes: Sizes,
    prefix: &str,
    count: usize,
    choice: Choice,
) -> Result<Mlp, ConfigError> {
    let inner = config.size("moe_intermediate_size")?;
    let shared = config.count_if("n_shared_experts")?.map(|shared| Shared {
        mlp: gated(
            &format!("{prefix}.shared_experts"),
            sizes.hidden,
            inner * shared,
            Activation::Silu,
            false,
        ),
        gate: None,
    });
    Ok(Mlp::Experts(Box::new(Experts {
        count,
        chosen: config.count("num_experts_per_tok")?.min(count),
        hidden: sizes.hidden,
        inner,
        router: Linear::new(format!("{prefix}.gate"), sizes.hidden, count),
        choice,
        names: expert_names(prefix),
        bias: false,
        activation: Activation::Silu,
        shared,
    })))
}
