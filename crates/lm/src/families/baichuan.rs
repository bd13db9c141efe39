//! baichuan_m1: keys and values are blended with those of the token before, and some layers have a window.

use super::parts::{Sizes, layer, layer_name};
use crate::config::{Config, ConfigError};
use crate::decoder::{Blend, Decoder, Head, HeadNorm, Linear, Qkv};
use crate::rope::Plan;

pub(super) fn baichuan_m1(config: Config<'_>) -> Result<Decoder, ConfigError> {
    let sizes = Sizes::read(config, "rms_norm_eps", 1e-6)?.with_even_heads();
    let near_heads = config.count_if("num_swa_attention_heads")?.unwrap_or(sizes.heads);
    let near_kv_heads = config.count_if("num_swa_key_value_heads")?.unwrap_or(sizes.kv_heads);
    if near_heads % near_kv_heads != 0 {
        return Err(ConfigError::Value {
            key: "num_swa_key_value_heads".to_owned(),
            value: near_kv_heads.to_string(),
            wanted: "a divisor of num_swa_attention_heads",
        });
    }
    let near = Sizes { heads: near_heads, kv_heads: near_kv_heads, ..sizes }.with_even_heads();
    let windows = config.list("sliding_window_layers", "a list of numbers", serde_json::Value::as_u64)?;
    let windows = windows.unwrap_or_default();
    let window = config.size_if("sliding_window")?;
    let base = Plan::read(config, sizes.head_dim, 10_000.0)?.base;
    let layers = (0..sizes.layers).map(|index| {
        let prefix = layer_name(index);
        let attention = format!("{prefix}.self_attn");
        let is_near = windows.contains(&(index as u64));
        let sizes = if is_near { near } else { sizes };
        let positions = Plan { dims: sizes.head_dim, base, traditional: false }.plain();
        let size = sizes.q_size() + 2 * sizes.kv_size();
        let input = Linear::new(format!("{attention}.W_pack"), sizes.hidden, size);
        let mut heads = sizes.attention(Qkv::Stacked(input), sizes.o_proj(&attention, false), positions);
        heads.window = window.filter(|_| is_near);
        let (keys, values) = (format!("{attention}.conv_k"), format!("{attention}.conv_v"));
        heads.blend = Some(Blend { keys, values });
        layer(heads, sizes.mlp(&prefix, false), sizes.pre_norms(&prefix))
    });
    let head = Head { normalised: Some(HeadNorm::Tokens), ..Head::plain(false) };
    Ok(sizes.decoder("baichuan_m1", layers.collect(), head))
}
