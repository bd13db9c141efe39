//! gpt_oss: experts with biases on every layer, attention sinks, a window on every other layer.

use super::parts::{Sizes, full_layers, layer, layer_name};
use crate::config::{Config, ConfigError};
use crate::decoder::{
    Activation, Choice, Decoder, ExpertNames, Experts, Fused, FusedForm, Head, Linear, Mlp, Precision, Scores,
};
use crate::rope::{Plan, rope, theta};

pub(super) fn gpt_oss(config: Config<'_>) -> Result<Decoder, ConfigError> {
    let sizes = Sizes::read(config, "rms_norm_eps", 1e-5)?;
    let sizes = Sizes { head_dim: config.size_or("head_dim", 64)?, ..sizes };
    let base = theta(config, 150_000.0)?;
    let positions = rope(config, Plan { dims: sizes.head_dim, base, traditional: false })?;
    let window = config.size_or("sliding_window", 128)?;
    let full = full_layers(config, sizes.layers)?;
    let count = config.count("num_local_experts")?;
    let chosen = config.count("num_experts_per_tok")?.min(count);
    let layers = (0..sizes.layers).map(|index| {
        let prefix = layer_name(index);
        let attention = format!("{prefix}.self_attn");
        let mut heads = sizes.attention(
            sizes.separate(&attention, true),
            sizes.o_proj(&attention, true),
            positions.clone(),
        );
        heads.sinks = Some(format!("{attention}.sinks"));
        let sees_all = full.as_ref().map_or(index % 2 == 1, |full| full[index]);
        heads.window = (!sees_all).then_some(window);
        let experts = Experts {
            count,
            chosen,
            hidden: sizes.hidden,
            inner: sizes.inner,
            router: Linear::new(format!("{prefix}.mlp.router"), sizes.hidden, count).biased(true),
            choice: Choice {
                from_the_end: true,
                ..Choice::plain(Scores::SoftmaxOfChosen, Precision::Activations)
            },
            names: ExpertNames {
                stacked: ["gate_proj", "up_proj", "down_proj"]
                    .map(|name| format!("{prefix}.mlp.experts.{name}")),
                single: None,
                fused: Some(Fused {
                    gate_up: format!("{prefix}.mlp.experts.gate_up_proj"),
                    down: format!("{prefix}.mlp.experts.down_proj"),
                    form: FusedForm::Blocks,
                }),
            },
            bias: true,
            activation: Activation::SwigluOai,
            shared: None,
        };
        layer(heads, Mlp::Experts(Box::new(experts)), sizes.pre_norms(&prefix))
    });
    Ok(sizes.decoder("gpt_oss", layers.collect(), Head { may_be_tied: true, ..Head::plain(false) }))
}
