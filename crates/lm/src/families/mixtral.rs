//! mixtral: llama with experts.

use super::parts::{Sizes, layer, layer_name};
use crate::config::{Config, ConfigError};
use crate::decoder::{
    Activation, Choice, Decoder, ExpertNames, Experts, Head, Linear, Mlp, Precision, Scores,
};
use crate::rope::{Plan, scaled, theta};

pub(super) fn mixtral(config: Config<'_>) -> Result<Decoder, ConfigError> {
    let sizes = Sizes::read(config, "rms_norm_eps", 1e-5)?.with_even_heads();
    let plan = Plan {
        dims: sizes.head_dim,
        base: theta(config, 1e6)?,
        traditional: config.flag("rope_traditional", false),
    };
    let positions = scaled(config, None, plan)?;
    let count = config.count("num_local_experts")?;
    let chosen = config.count("num_experts_per_tok")?.min(count);
    let layers = (0..sizes.layers).map(|index| {
        let prefix = layer_name(index);
        let attention = format!("{prefix}.self_attn");
        let heads = sizes.attention(
            sizes.separate(&attention, false),
            sizes.o_proj(&attention, false),
            positions.clone(),
        );
        let inside = format!("{prefix}.block_sparse_moe");
        let experts = Experts {
            count,
            chosen,
            hidden: sizes.hidden,
            inner: sizes.inner,
            router: Linear::new(format!("{inside}.gate"), sizes.hidden, count),
            choice: Choice::plain(Scores::SoftmaxOfChosen, Precision::Activations),
            names: ExpertNames {
                stacked: ["gate_proj", "up_proj", "down_proj"]
                    .map(|name| format!("{inside}.switch_mlp.{name}")),
                single: Some(["w1", "w3", "w2"].map(|name| format!("{inside}.experts.{{}}.{name}"))),
            },
            bias: false,
            activation: Activation::Silu,
            shared: None,
        };
        layer(heads, Mlp::Experts(Box::new(experts)), sizes.pre_norms(&prefix))
    });
    Ok(sizes.decoder("mixtral", layers.collect(), Head::plain(config.flag("tie_word_embeddings", false))))
}
