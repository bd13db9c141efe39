//! Latent attention, as several families have it.

use super::parts::{Sizes, head_norm};
use crate::config::{Config, ConfigError};
use crate::decoder::{Growth, Latent, LatentQuery, LatentUp, Linear, Rope};

/// What the latent attention of all layers shares.
#[derive(Debug, Clone)]
pub(super) struct Latents {
    pub(super) rank: usize,
    pub(super) rope_dim: usize,
    pub(super) nope_dim: usize,
    pub(super) value_dim: usize,
    /// Of the norms inside.
    pub(super) inner_eps: f32,
    pub(super) rope: Rope,
    /// Whether the cache has the compressed vectors.
    pub(super) absorbed: bool,
    /// What scores are multiplied with, where that is not the usual.
    pub(super) scale: Option<f32>,
    pub(super) growth: Option<Growth>,
}

impl Latents {
    pub(super) fn read(config: Config<'_>, inner_eps: f32, rope: Rope) -> Result<Self, ConfigError> {
        Ok(Latents {
            rank: config.size("kv_lora_rank")?,
            rope_dim: config.size("qk_rope_head_dim")?,
            nope_dim: config.size("qk_nope_head_dim")?,
            value_dim: config.size_or("v_head_dim", 128)?,
            inner_eps,
            rope,
            absorbed: false,
            scale: None,
            growth: None,
        })
    }

    /// One over the root of a head's elements.
    pub(super) fn scale(&self) -> f64 {
        ((self.nope_dim + self.rope_dim) as f64).powf(-0.5)
    }

    /// The attention below `prefix.self_attn`.
    pub(super) fn attention(
        &self,
        config: Config<'_>,
        sizes: Sizes,
        prefix: &str,
    ) -> Result<Latent, ConfigError> {
        let prefix = format!("{prefix}.self_attn");
        let bias = config.flag("attention_bias", false);
        let Latents { rank, rope_dim, nope_dim, value_dim, inner_eps, .. } = *self;
        let (heads, head) = (sizes.heads, nope_dim + rope_dim);
        let linear = |name: &str, from, to| Linear::new(format!("{prefix}.{name}"), from, to);
        let query = match config.size_if("q_lora_rank")? {
            None => LatentQuery::Straight(linear("q_proj", sizes.hidden, heads * head)),
            Some(rank) => LatentQuery::LowRank(
                linear("q_a_proj", sizes.hidden, rank).biased(bias),
                head_norm(format!("{prefix}.q_a_layernorm"), inner_eps, rank),
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
            norm: head_norm(format!("{prefix}.kv_a_layernorm"), inner_eps, rank),
            up: if self.absorbed {
                let (keys, values) = (format!("{prefix}.embed_q"), format!("{prefix}.unembed_out"));
                LatentUp::Absorbed { keys, values, together }
            } else {
                LatentUp::Together(together)
            },
            output: linear("o_proj", heads * value_dim, sizes.hidden).biased(bias),
            rope: self.rope.clone(),
            scale: self.scale.unwrap_or(self.scale() as f32),
            growth: self.growth,
        })
    }
}
