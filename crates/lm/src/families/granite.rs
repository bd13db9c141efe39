//! The granite families: llama with a factor at every join.

use super::experts::{Crowd, expert_names};
use super::parts::{Sizes, head, layer, layer_name, with_scale};
use crate::config::{Config, ConfigError};
use crate::decoder::{
    Choice, Decoder, Embedding, ExpertNames, Experts, Fused, FusedForm, Head, Linear, Mlp, Precision, Scores,
};
use crate::rope::{Plan, rope};

pub(super) fn granite(config: Config<'_>) -> Result<Decoder, ConfigError> {
    let bias = config.flag("mlp_bias", false);
    decoder(config, "granite", |sizes, prefix| Ok(sizes.mlp(prefix, bias)))
}

/// The same with experts.
pub(super) fn granitemoe(config: Config<'_>) -> Result<Decoder, ConfigError> {
    decoder(config, "granitemoe", |sizes, prefix| {
        let crowd = Crowd::read(config, "num_local_experts", sizes.inner)?;
        let inside = format!("{prefix}.block_sparse_moe");
        let fused = Fused {
            gate_up: format!("{inside}.input_linear.weight"),
            down: format!("{inside}.output_linear.weight"),
            form: FusedForm::Halves,
        };
        let choice = Choice::plain(Scores::SoftmaxOfChosen, Precision::Single);
        Ok(Mlp::Experts(Box::new(Experts {
            names: ExpertNames { fused: Some(fused), ..expert_names(&inside) },
            router: Linear::new(format!("{inside}.router.layer"), sizes.hidden, crowd.count),
            ..crowd.experts(sizes, &inside, choice)
        })))
    })
}

fn decoder(
    config: Config<'_>,
    family: &'static str,
    mlp: impl Fn(Sizes, &str) -> Result<Mlp, ConfigError>,
) -> Result<Decoder, ConfigError> {
    let sizes = Sizes::read(config, "rms_norm_eps", 1e-6)?.with_even_heads();
    let bias = config.flag("attention_bias", false);
    let plan = Plan { traditional: false, ..Plan::read(config, sizes.head_dim, 10_000.0)? };
    let positions = rope(config, plan)?;
    let scale = config.needs_number("attention_multiplier")? as f32;
    let join = config.needs_number("residual_multiplier")? as f32;
    let layers = (0..sizes.layers).map(|index| {
        let prefix = layer_name(index);
        let mut heads = sizes.heads(&prefix, &positions, bias, bias);
        heads.scale = scale;
        Ok(layer(heads, mlp(sizes, &prefix)?, with_scale(sizes.pre_norms(&prefix), join)))
    });
    let scale = (1.0 / config.needs_number("logits_scaling")?) as f32;
    let head = Head { scale, ..head(config, true) };
    let plain = sizes.decoder(family, layers.collect::<Result<_, ConfigError>>()?, head);
    let scale = Some(config.needs_number("embedding_multiplier")? as f32);
    Ok(Decoder { embedding: Embedding { scale, ..plain.embedding }, ..plain })
}
