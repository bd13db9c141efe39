//! Families that are llama but for a few numbers.

use super::parts::{Sizes, full_layers, head, layer, layer_name, pre_norms};
use crate::config::{Config, ConfigError};
use crate::decoder::{Activation, Linear};
use crate::decoder::{Decoder, Growth, Head, Layer, Mlp, Norm, NormKind, QkNorm, Rope, RopeSpeed};
use crate::rope::{Plan, rope, scaled};

/// Which products have a bias.
#[derive(Debug, Clone, Copy, Default)]
struct Biases {
    qkv: bool,
    output: bool,
    mlp: bool,
}

/// llama's layers, each changed by `change`.
fn layers(
    sizes: Sizes,
    rope: &Rope,
    biases: Biases,
    change: impl Fn(usize, &mut crate::decoder::Heads),
) -> Vec<Layer> {
    let layers = (0..sizes.layers).map(|index| {
        let prefix = layer_name(index);
        let mut heads = sizes.heads(&prefix, rope, biases.qkv, biases.output);
        change(index, &mut heads);
        layer(heads, sizes.mlp(&prefix, biases.mlp), sizes.pre_norms(&prefix))
    });
    layers.collect()
}

/// An MLP without a gate whose activation is learnt, and norms of each head's queries and keys.
pub(super) fn apertus(config: Config<'_>) -> Result<Decoder, ConfigError> {
    let sizes = Sizes::read(config, "rms_norm_eps", 1e-5)?.with_even_heads();
    let positions = rope(config, Plan::read(config, sizes.head_dim, 12_000_000.0)?)?;
    let bias = config.flag("mlp_bias", false);
    let layers = (0..sizes.layers).map(|index| {
        let prefix = layer_name(index);
        let mut heads = sizes.heads(&prefix, &positions, false, false);
        let (q, k) = sizes.head_norms(&format!("{prefix}.self_attn"), "q_norm", "k_norm");
        heads.qk_norm = QkNorm::EachHead(q, k);
        let mlp = Mlp::Plain {
            up: Linear::new(format!("{prefix}.mlp.up_proj"), sizes.hidden, sizes.inner).biased(bias),
            down: Linear::new(format!("{prefix}.mlp.down_proj"), sizes.inner, sizes.hidden).biased(bias),
            activation: Activation::XieLu(format!("{prefix}.mlp.act_fn")),
        };
        let norm = |name: &str| sizes.rms(format!("{prefix}.{name}"));
        layer(heads, mlp, pre_norms(norm("attention_layernorm"), norm("feedforward_layernorm")))
    });
    Ok(sizes.decoder("apertus", layers.collect(), head(config, false)))
}

/// Neighbours are paired, and one switch is for all biases.
pub(super) fn ernie4_5(config: Config<'_>) -> Result<Decoder, ConfigError> {
    let sizes = Sizes::read(config, "rms_norm_eps", 1e-5)?;
    let positions = Plan::read(config, sizes.head_dim, 10_000.0)?.traditional().plain();
    let bias = config.flag("use_bias", false);
    let layers = layers(sizes, &positions, Biases { qkv: bias, output: bias, mlp: bias }, |_, _| ());
    Ok(sizes.decoder("ernie4_5", layers, head(config, true)))
}

/// Neighbours are paired.
pub(super) fn helium(config: Config<'_>) -> Result<Decoder, ConfigError> {
    let sizes = Sizes::read(config, "rms_norm_eps", 1e-8)?.with_even_heads();
    let positions = Plan::read(config, sizes.head_dim, 100_000.0)?.traditional().plain();
    let qkv = config.flag("attention_bias", false);
    let biases = Biases { qkv, output: false, mlp: config.flag("mlp_bias", false) };
    Ok(sizes.decoder("helium", layers(sizes, &positions, biases, |_, _| ()), head(config, false)))
}

/// The base of the rotation grows once and for all, and queries and keys have norms behind it.
pub(super) fn hunyuan_v1_dense(config: Config<'_>) -> Result<Decoder, ConfigError> {
    let sizes = Sizes::read(config, "rms_norm_eps", 1e-5)?;
    let bias = config.flag("attention_bias", false);
    let positions = hunyuan_positions(config, sizes)?;
    let has_norms = config.flag("use_qk_norm", true);
    let layers = (0..sizes.layers).map(|index| {
        let prefix = layer_name(index);
        let mut heads = sizes.heads(&prefix, &positions, bias, bias);
        if has_norms {
            heads.qk_norm = hunyuan_norms(sizes, &prefix);
        }
        layer(heads, sizes.mlp(&prefix, false), sizes.pre_norms(&prefix))
    });
    Ok(sizes.decoder("hunyuan_v1_dense", layers.collect(), head(config, false)))
}

/// hunyuan's rotation: `rope_scaling.alpha` makes the base greater.
pub(super) fn hunyuan_positions(config: Config<'_>, sizes: Sizes) -> Result<Rope, ConfigError> {
    let plan = Plan::read(config, sizes.head_dim, 10_000.0)?;
    let alpha = match config.section("rope_scaling") {
        Some(scaling) => scaling.number("alpha", 1.0)?,
        None => 1.0,
    };
    let dims = plan.dims as f64;
    let base = plan.base * alpha.powf(dims / (dims - 2.0));
    let wavelengths = (0..plan.dims / 2).map(|pair| base.powf(2.0 * pair as f64 / dims) as f32);
    let speed = RopeSpeed::Wavelengths { wavelengths: wavelengths.collect(), input_scale: 1.0 };
    Ok(Rope { dims: plan.dims, traditional: false, speed })
}

/// hunyuan's norms of queries and keys.
pub(super) fn hunyuan_norms(sizes: Sizes, prefix: &str) -> QkNorm {
    let attention = format!("{prefix}.self_attn");
    let (q, k) = sizes.head_norms(&attention, "query_layernorm", "key_layernorm");
    QkNorm::EachHeadRotated(q, k)
}

/// One switch for the biases of attention, one for the MLP's.
pub(super) fn internlm3(config: Config<'_>) -> Result<Decoder, ConfigError> {
    let sizes = Sizes::read(config, "rms_norm_eps", 1e-5)?.with_even_heads();
    let positions = rope(config, Plan::read(config, sizes.head_dim, 10_000.0)?)?;
    let bias = config.flag("qkv_bias", false);
    let biases = Biases { qkv: bias, output: bias, mlp: config.flag("bias", false) };
    Ok(sizes.decoder("internlm3", layers(sizes, &positions, biases, |_, _| ()), head(config, false)))
}

/// Biases on queries, keys and values. The layers that predict further tokens are left aside.
pub(super) fn mimo(config: Config<'_>) -> Result<Decoder, ConfigError> {
    let sizes = Sizes::read(config, "rms_norm_eps", 1e-5)?.with_even_heads();
    let positions = rope(config, Plan::read(config, sizes.head_dim, 10_000.0)?)?;
    let layers = layers(sizes, &positions, Biases { qkv: true, ..Biases::default() }, |_, _| ());
    Ok(sizes.decoder("mimo", layers, head(config, false)))
}

/// Queries that grow with their position, and windows on some layers.
pub(super) fn ministral3(config: Config<'_>) -> Result<Decoder, ConfigError> {
    let sizes = Sizes::read(config, "rms_norm_eps", 1e-5)?;
    let parameters = config
        .section("rope_parameters")
        .ok_or_else(|| ConfigError::Missing("rope_parameters".to_owned()))?;
    let base = parameters.needs_number("rope_theta")?;
    let plan = Plan { dims: sizes.head_dim, base, traditional: false };
    let positions = scaled(config, Some(parameters), plan)?;
    let growth = Growth::read(parameters)?;
    let full = full_layers(config, sizes.layers)?;
    let window = config.size_if("sliding_window")?;
    let layers = layers(sizes, &positions, Biases::default(), |index, heads| {
        heads.growth = Some(growth);
        if full.as_ref().is_some_and(|full| !full[index]) {
            heads.window = window;
        }
    });
    Ok(sizes.decoder("ministral3", layers, head(config, true)))
}

/// Mean-and-variance norms with one added to their weight, and an MLP of a square.
pub(super) fn nemotron(config: Config<'_>) -> Result<Decoder, ConfigError> {
    let sizes = Sizes::read(config, "norm_eps", 1e-5)?;
    let part = config.number("partial_rotary_factor", 0.5)?;
    let dims = (sizes.head_dim as f64 * part) as usize;
    let positions = rope(config, Plan { traditional: false, ..Plan::read(config, dims, 10_000.0)? })?;
    let bias = config.flag("attention_bias", false);
    let mlp_bias = config.flag("mlp_bias", false);
    let norm = |name: String| Norm { kind: NormKind::LayerPlusOne, ..sizes.rms(name) };
    let layers = (0..sizes.layers).map(|index| {
        let prefix = layer_name(index);
        let mlp =
            |name: &str, from, to| Linear::new(format!("{prefix}.mlp.{name}"), from, to).biased(mlp_bias);
        let mlp = Mlp::Plain {
            up: mlp("up_proj", sizes.hidden, sizes.inner),
            down: mlp("down_proj", sizes.inner, sizes.hidden),
            activation: Activation::ReluSquared,
        };
        let residual = pre_norms(
            norm(format!("{prefix}.input_layernorm")),
            norm(format!("{prefix}.post_attention_layernorm")),
        );
        layer(sizes.heads(&prefix, &positions, bias, bias), mlp, residual)
    });
    let plain = sizes.decoder("nemotron", layers.collect(), head(config, false));
    Ok(Decoder { norm: norm("model.norm".to_owned()), ..plain })
}

/// Biases of queries, keys and values, of the output, and of the MLP by a switch each.
pub(super) fn seed_oss(config: Config<'_>) -> Result<Decoder, ConfigError> {
    let sizes = Sizes::read(config, "rms_norm_eps", 1e-5)?;
    let positions = rope(config, Plan::read(config, sizes.head_dim, 10_000.0)?)?;
    let biases = Biases {
        qkv: config.flag("attention_bias", false),
        output: config.flag("attention_out_bias", false),
        mlp: config.flag("mlp_bias", false),
    };
    Ok(sizes.decoder("seed_oss", layers(sizes, &positions, biases, |_, _| ()), head(config, true)))
}

/// Not even that: only the defaults differ.
pub(super) fn telechat3(config: Config<'_>) -> Result<Decoder, ConfigError> {
    let sizes = Sizes::read(config, "rms_norm_eps", 1e-5)?;
    let positions =
        rope(config, Plan { traditional: false, ..Plan::read(config, sizes.head_dim, 10_000.0)? })?;
    let bias = config.flag("attention_bias", false);
    let biases = Biases { qkv: bias, output: bias, mlp: config.flag("mlp_bias", false) };
    let head: Head = head(config, false);
    Ok(sizes.decoder("telechat3", layers(sizes, &positions, biases, |_, _| ()), head))
}

/// Norms without weights, positions on some layers only, other names for MLP and head.
pub(super) fn llama4_text(config: Config<'_>) -> Result<Decoder, ConfigError> {
    let sizes = Sizes::read(config, "rms_norm_eps", 1e-5)?;
    let sizes = Sizes { inner: config.size("intermediate_size_mlp")?, ..sizes };
    let positions = Plan::read(config, sizes.head_dim, 500_000.0)?.traditional().plain();
    let has_norms = config.flag("use_qk_norm", true);
    let uses = config.list("no_rope_layers", "a list of 0 and 1", |value| value.as_u64().map(|n| n != 0))?;
    let uses = uses.ok_or_else(|| ConfigError::Missing("no_rope_layers".to_owned()))?;
    let norm = || Norm { name: None, size: sizes.head_dim, ..sizes.rms("") };
    let layers = (0..sizes.layers).map(|index| {
        let prefix = layer_name(index);
        let rope = if uses.get(index) == Some(&true) { &positions } else { &Rope::NONE };
        let mut heads = sizes.heads(&prefix, rope, false, false);
        if has_norms {
            heads.qk_norm = QkNorm::EachHead(norm(), norm());
        }
        let mlp = sizes.gated(&format!("{prefix}.feed_forward"), Activation::Silu, false);
        layer(heads, Mlp::Gated(mlp), sizes.pre_norms(&prefix))
    });
    let head = head(config, false);
    let head = Head { name: head.name.as_ref().map(|_| "output".to_owned()), ..head };
    Ok(sizes.decoder("llama4_text", layers.collect(), head))
}
