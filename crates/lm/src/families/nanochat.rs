//! nanochat: norms without weights, one before the first layer too, and a rotation the other way round.

use super::parts::{Sizes, layer, pre_norms};
use crate::config::{Config, ConfigError};
use crate::decoder::{Activation, Decoder, Embedding, Head, Linear, Mlp, Norm, QkNorm, Qkv, Rope, RopeSpeed};
use crate::rope::theta;

pub(super) fn nanochat(config: Config<'_>) -> Result<Decoder, ConfigError> {
    let sizes = Sizes { eps: 1e-5, ..Sizes::read(config, "rms_norm_eps", 1e-5)?.with_even_heads() };
    let base = theta(config, 10_000.0)?;
    let half = sizes.head_dim / 2;
    let wavelengths = (0..half).map(|pair| -base.powf(pair as f64 / half as f64) as f32);
    let speed = RopeSpeed::Wavelengths { wavelengths: wavelengths.collect(), input_scale: 1.0 };
    let positions = Rope { dims: sizes.head_dim, traditional: false, speed };
    let norm = || Norm { name: None, ..sizes.rms("") };
    let head_norm = || Norm { size: sizes.head_dim, ..norm() };
    let layers = (0..sizes.layers).map(|index| {
        let prefix = format!("transformer.h.{index}");
        let linear = |name: &str, from, to| Linear::new(format!("{prefix}.{name}"), from, to);
        let input = Qkv::Separate {
            q: linear("attn.c_q", sizes.hidden, sizes.q_size()),
            k: linear("attn.c_k", sizes.hidden, sizes.kv_size()),
            v: linear("attn.c_v", sizes.hidden, sizes.kv_size()),
        };
        let output = linear("attn.c_proj", sizes.hidden, sizes.hidden);
        let mut heads = sizes.attention(input, output, positions.clone());
        heads.qk_norm = QkNorm::EachHeadRotated(head_norm(), head_norm());
        let mlp = Mlp::Plain {
            up: linear("mlp.c_fc", sizes.hidden, sizes.inner),
            down: linear("mlp.c_proj", sizes.inner, sizes.hidden),
            activation: Activation::ReluSquared,
        };
        layer(heads, mlp, pre_norms(norm(), norm()))
    });
    let head = Head { soft_cap: Some(15.0), ..Head::plain(false) };
    Ok(Decoder {
        embedding: Embedding { norm: Some(norm()), ..Embedding::plain("transformer.wte") },
        norm: norm(),
        ..sizes.decoder("nanochat", layers.collect(), head)
    })
}
