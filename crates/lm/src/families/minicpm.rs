//! The minicpm families: factors that depend on the depth and the width.

use super::latent::Latents;
use super::parts::{Sizes, layer, layer_name, with_scale};
use crate::config::{Config, ConfigError};
use crate::decoder::{Attention, Decoder, Embedding, Head, Layer};
use crate::rope::{Plan, rope};

pub(super) fn minicpm(config: Config<'_>) -> Result<Decoder, ConfigError> {
    let sizes = Sizes::read(config, "rms_norm_eps", 1e-5)?.with_even_heads();
    let positions = rope(config, Plan::read(config, sizes.head_dim, 1_000_000.0)?)?;
    let depth = depth(config, sizes)?;
    let layers = (0..sizes.layers).map(|index| {
        let prefix = layer_name(index);
        let heads = sizes.heads(&prefix, &positions, false, false);
        layer(heads, sizes.mlp(&prefix, false), with_scale(sizes.pre_norms(&prefix), depth))
    });
    decoder(config, sizes, "minicpm", layers.collect())
}

/// The same with latent attention.
pub(super) fn minicpm3(config: Config<'_>) -> Result<Decoder, ConfigError> {
    let sizes = Sizes::read(config, "rms_norm_eps", 1e-5)?;
    let plan = Plan::read(config, config.size("qk_rope_head_dim")?, 1_000_000.0)?;
    let positions = rope(config, Plan { traditional: false, ..plan })?;
    let value_dim = sizes.hidden / sizes.heads;
    let latents = Latents { value_dim, ..Latents::read(config, 1e-5, positions)? };
    let depth = depth(config, sizes)?;
    let layers = (0..sizes.layers).map(|index| {
        let prefix = layer_name(index);
        Ok(Layer {
            attention: Attention::Latent(Box::new(latents.attention(config, sizes, &prefix)?)),
            mlp: sizes.mlp(&prefix, false),
            residual: with_scale(sizes.pre_norms(&prefix), depth),
        })
    });
    decoder(config, sizes, "minicpm3", layers.collect::<Result<_, ConfigError>>()?)
}

fn depth(config: Config<'_>, sizes: Sizes) -> Result<f32, ConfigError> {
    Ok((config.needs_number("scale_depth")? / (sizes.layers as f64).sqrt()) as f32)
}

fn decoder(
    config: Config<'_>,
    sizes: Sizes,
    family: &'static str,
    layers: Vec<Layer>,
) -> Result<Decoder, ConfigError> {
    let tied = config.flag("tie_word_embeddings", false);
    let divisor = (sizes.hidden as f64 / config.needs_number("dim_model_base")?) as f32;
    let plain = sizes.decoder(family, layers, Head { divisor, ..Head::plain(tied) });
    let scale = Some(config.needs_number("scale_emb")? as f32);
    Ok(Decoder { embedding: Embedding { scale, ..plain.embedding }, ..plain })
}
