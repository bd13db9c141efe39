//! stablelm: mean-and-variance norms, and a part of each head rotated.

use super::parts::{Sizes, layer, layer_name};
use crate::config::{Config, ConfigError};
use crate::decoder::{Activation, Decoder, Head, Mlp, QkNorm, Residual};
use crate::rope::{Plan, scaled, theta};

pub(super) fn stablelm(config: Config<'_>) -> Result<Decoder, ConfigError> {
    let sizes = Sizes::read(config, "layer_norm_eps", 1e-5)?.with_even_heads();
    let part = config.needs_number("partial_rotary_factor")?;
    let plan = Plan {
        dims: (sizes.head_dim as f64 * part) as usize,
        base: theta(config, 10_000.0)?,
        traditional: false,
    };
    let positions = scaled(config, None, plan)?;
    let bias = config.flag("use_qkv_bias", false);
    let has_norms = config.flag("qk_layernorm", false);
    let is_parallel = config.flag("use_parallel_residual", false);
    let layers = (0..sizes.layers).map(|index| {
        let prefix = layer_name(index);
        let attention = format!("{prefix}.self_attn");
        let mut heads = sizes.attention(
            sizes.separate(&attention, bias),
            sizes.o_proj(&attention, false),
            positions.clone(),
        );
        heads.queries_in_float32 = true;
        if has_norms {
            heads.qk_norm = QkNorm::EachHeadOwnWeight {
                q: format!("{attention}.q_layernorm.norms.{{}}"),
                k: format!("{attention}.k_layernorm.norms.{{}}"),
                eps: sizes.eps,
            };
        }
        let before = sizes.layer_norm(format!("{prefix}.input_layernorm"), true);
        let residual = if is_parallel {
            Residual::Parallel { before, before_mlp: None }
        } else {
            Residual::Sequential {
                before_attention: Some(before),
                after_attention: None,
                before_mlp: Some(sizes.layer_norm(format!("{prefix}.post_attention_layernorm"), true)),
                after_mlp: None,
                scale: 1.0,
            }
        };
        let mlp = sizes.gated(&format!("{prefix}.mlp"), Activation::Silu, false);
        layer(heads, Mlp::Gated(mlp), residual)
    });
    let head = Head { may_be_tied: true, ..Head::plain(false) };
    let plain = sizes.decoder("stablelm", layers.collect(), head);
    Ok(Decoder { norm: sizes.layer_norm("model.norm", true), ..plain })
}
