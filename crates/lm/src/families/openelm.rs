//! openelm: every layer has its own number of heads and its own width.

use super::parts::{Sizes, layer, pre_norms};
use crate::config::{Config, ConfigError};
use crate::decoder::{Activation, Decoder, Embedding, GateUp, Gated, Head, Linear, Mlp, QkNorm, Qkv};
use crate::rope::Plan;

pub(super) fn openelm(config: Config<'_>) -> Result<Decoder, ConfigError> {
    let heads = numbers(config, "num_query_heads")?;
    let kv_heads = numbers(config, "num_kv_heads")?;
    let factors = numbers(config, "ffn_multipliers")?;
    let sizes = Sizes {
        hidden: config.size("model_dim")?,
        layers: config.count("num_transformer_layers")?,
        heads: 1,
        kv_heads: 1,
        head_dim: config.size("head_dim")?,
        inner: 1,
        vocab: config.size("vocab_size")?,
        eps: config.number("rms_norm_eps", 1e-6)? as f32,
    };
    let base = config.number("rope_freq_constant", 10_000.0)?;
    let positions = Plan { dims: sizes.head_dim, base, traditional: false }.plain();
    let divisor = config.size("ffn_dim_divisor")?;
    let has_norms = config.flag("normalize_qk_projections", true);
    let layers = (0..sizes.layers).map(|index| {
        let of = |list: &[f64], key: &str| -> Result<f64, ConfigError> {
            let number = list.get(index).copied().filter(|number| *number > 0.0 && *number <= 4096.0);
            number.ok_or_else(|| ConfigError::Missing(format!("{key}[{index}]")))
        };
        let heads = of(&heads, "num_query_heads")? as usize;
        let kv_heads = of(&kv_heads, "num_kv_heads")? as usize;
        if kv_heads == 0 || !heads.is_multiple_of(kv_heads) {
            return Err(ConfigError::Missing(format!("num_kv_heads[{index}] that divides its query heads")));
        }
        let inner = width(of(&factors, "ffn_multipliers")? * sizes.hidden as f64, divisor);
        let sizes = Sizes { heads, kv_heads, inner, ..sizes };
        let prefix = format!("transformer.layers.{index}");
        let size = sizes.q_size() + 2 * sizes.kv_size();
        let input = Linear::new(format!("{prefix}.attn.qkv_proj"), sizes.hidden, size);
        let output = Linear::new(format!("{prefix}.attn.out_proj"), sizes.q_size(), sizes.hidden);
        let mut heads = sizes.attention(Qkv::Stacked(input), output, positions.clone());
        if has_norms {
            let (q, k) = sizes.head_norms(&format!("{prefix}.attn"), "q_norm", "k_norm");
            heads.qk_norm = QkNorm::EachHead(q, k);
        }
        let mlp = Gated {
            input: GateUp::Stacked(Linear::new(format!("{prefix}.ffn.proj_1"), sizes.hidden, 2 * inner)),
            down: Linear::new(format!("{prefix}.ffn.proj_2"), inner, sizes.hidden),
            activation: Activation::Silu,
        };
        let norm = |name: &str| sizes.rms(format!("{prefix}.{name}"));
        Ok(layer(heads, Mlp::Gated(mlp), pre_norms(norm("attn_norm"), norm("ffn_norm"))))
    });
    let layers = layers.collect::<Result<_, ConfigError>>()?;
    let head = Head::plain(config.flag("share_input_output_layers", true));
    Ok(Decoder {
        embedding: Embedding::plain("transformer.token_embeddings"),
        norm: sizes.rms("transformer.norm"),
        ..sizes.decoder("openelm", layers, head)
    })
}

fn numbers(config: Config<'_>, key: &str) -> Result<Vec<f64>, ConfigError> {
    let list = config.list(key, "a list of numbers", serde_json::Value::as_f64)?;
    list.ok_or_else(|| ConfigError::Missing(key.to_owned()))
}

/// The multiple of `divisor` that is nearest, and not much less.
fn width(wanted: f64, divisor: usize) -> usize {
    let rounded = (wanted + divisor as f64 / 2.0) as usize / divisor * divisor;
    let width = rounded.max(divisor);
    if (width as f64) < 0.9 * wanted { width + divisor } else { width }
}
