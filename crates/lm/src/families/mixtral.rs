//! mixtral and those whose experts are called as mixtral's are.

use super::experts::{Crowd, names_of_mixtral};
use super::parts::{Sizes, head, head_norm, layer, layer_name, pre_norms};
use crate::config::{Config, ConfigError};
use crate::decoder::{Choice, Decoder, Experts, Head, Mlp, Precision, QkNorm, RopeSpeed, Scores};
use crate::rope::{Plan, rope_of_phi};

/// llama with experts.
pub(super) fn mixtral(config: Config<'_>) -> Result<Decoder, ConfigError> {
    let sizes = Sizes::read(config, "rms_norm_eps", 1e-5)?.with_even_heads();
    let positions = Plan::read(config, sizes.head_dim, 1e6)?.plain();
    let crowd = Crowd::read(config, "num_local_experts", sizes.inner)?;
    let choice = Choice::plain(Scores::SoftmaxOfChosen, Precision::Activations);
    let layers = (0..sizes.layers).map(|index| {
        let prefix = layer_name(index);
        let heads = sizes.heads(&prefix, &positions, false, false);
        layer(heads, experts(crowd, sizes, &prefix, choice.clone()), sizes.pre_norms(&prefix))
    });
    Ok(sizes.decoder("mixtral", layers.collect(), head(config, false)))
}

/// Norms of all queries and all keys, a part of each head rotated, and experts by sigmoids with a correction.
pub(super) fn minimax(config: Config<'_>) -> Result<Decoder, ConfigError> {
    let sizes = Sizes::read(config, "rms_norm_eps", 1e-6)?;
    let dims = config.size_or("rotary_dim", sizes.head_dim)?;
    let positions = Plan { traditional: false, ..Plan::read(config, dims, 10_000.0)? }.plain();
    let has_norms = config.flag("use_qk_norm", true);
    let crowd = Crowd::read(config, "num_local_experts", sizes.inner)?;
    let layers = (0..sizes.layers).map(|index| {
        let prefix = layer_name(index);
        let mut heads = sizes.heads(&prefix, &positions, false, false);
        if has_norms {
            heads.qk_norm = QkNorm::AllHeads(
                head_norm(format!("{prefix}.self_attn.q_norm"), sizes.eps, sizes.q_size()),
                head_norm(format!("{prefix}.self_attn.k_norm"), sizes.eps, sizes.kv_size()),
            );
        }
        let choice = Choice {
            correction: Some(format!("{prefix}.block_sparse_moe.e_score_correction_bias")),
            normalised: Some(1e-20),
            ..Choice::plain(Scores::Sigmoid, Precision::RoundedWithRouter)
        };
        layer(heads, experts(crowd, sizes, &prefix, choice), sizes.pre_norms(&prefix))
    });
    Ok(sizes.decoder("minimax", layers.collect(), head(config, false)))
}

/// phi's biases, phi3's long rotation, and experts that come close to the best one.
pub(super) fn phimoe(config: Config<'_>) -> Result<Decoder, ConfigError> {
    let sizes = Sizes::read(config, "rms_norm_eps", 1e-6)?.with_even_heads();
    let plan = Plan { traditional: false, ..Plan::read(config, sizes.head_dim, 10_000.0)? };
    let mut positions = rope_of_phi(config, plan)?;
    if let RopeSpeed::Wavelengths { input_scale, .. } = &mut positions.speed
        && let Some(scaling) = config.section("rope_scaling")
    {
        *input_scale = scaling.number("long_mscale", f64::from(*input_scale))? as f32;
    }
    let crowd = Crowd::read(config, "num_local_experts", sizes.inner)?;
    let jitter = config.number("router_jitter_noise", 0.01)? as f32;
    let choice = Choice::plain(Scores::Closest { jitter }, Precision::Activations);
    let norm = |name: String| sizes.layer_norm(name, true);
    let layers = (0..sizes.layers).map(|index| {
        let prefix = layer_name(index);
        let heads = sizes.heads(&prefix, &positions, true, true);
        let norms = pre_norms(
            norm(format!("{prefix}.input_layernorm")),
            norm(format!("{prefix}.post_attention_layernorm")),
        );
        layer(heads, experts(crowd, sizes, &prefix, choice.clone()), norms)
    });
    let head = Head { bias: true, ..Head::plain(false) };
    let plain = sizes.decoder("phimoe", layers.collect(), head);
    Ok(Decoder { norm: norm("model.norm".to_owned()), ..plain })
}

fn experts(crowd: Crowd, sizes: Sizes, prefix: &str, choice: Choice) -> Mlp {
    let prefix = format!("{prefix}.block_sparse_moe");
    let names = names_of_mixtral(&prefix);
    Mlp::Experts(Box::new(Experts { names, ..crowd.experts(sizes, &prefix, choice) }))
}
