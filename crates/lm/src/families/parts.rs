//! What most families share.

use crate::config::{Config, ConfigError};
use crate::decoder::{
    Activation, Attention, Decoder, Embedding, GateUp, Gated, Head, Heads, Layer, Linear, Mlp, Norm,
    NormKind, QkNorm, Qkv, Residual, Rope,
};

/// Sizes that every config has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    pub(super) hidden: usize,
    pub(super) layers: usize,
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    pub(super) head_dim: usize,
    pub(super) inner: usize,
    pub(super) vocab: usize,
    pub(super) eps: f32,
}

impl Sizes {
    /// The sizes of a config whose epsilon is `eps_key`; a head is `head_dim`, or the residual stream's share.
    pub(super) fn read(config: Config<'_>, eps_key: &str, eps: f64) -> Result<Self, ConfigError> {
        let hidden = config.size(named(config, &["hidden_size", "n_embd", "d_model", "model_dim"]))?;
        let heads = config.count(named(config, &["num_attention_heads", "n_head", "n_heads"]))?;
        let layers = ["num_hidden_layers", "num_layers", "n_layer", "n_layers", "num_transformer_layers"];
        let kv_heads = config.count_if("num_key_value_heads")?.unwrap_or(heads);
        if heads % kv_heads != 0 {
            return Err(ConfigError::Value {
                key: "num_key_value_heads".to_owned(),
                value: kv_heads.to_string(),
                wanted: "a divisor of num_attention_heads",
            });
        }
        Ok(Sizes {
            hidden,
            layers: config.count(named(config, &layers))?,
            heads,
            kv_heads,
            head_dim: config.size_or("head_dim", hidden / heads)?,
            inner: config.size_or("intermediate_size", hidden)?,
            vocab: config.size("vocab_size")?,
            eps: config.number(eps_key, eps)? as f32,
        })
    }

    /// The same with heads that share the residual stream, whatever `head_dim` says.
    pub(super) fn with_even_heads(mut self) -> Self {
        self.head_dim = self.hidden / self.heads;
        self
    }

    pub(super) fn q_size(&self) -> usize {
        self.heads * self.head_dim
    }

    pub(super) fn kv_size(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    pub(super) fn scale(&self) -> f32 {
        (self.head_dim as f32).powf(-0.5)
    }

    pub(super) fn rms(&self, name: impl Into<String>) -> Norm {
        Norm { name: Some(name.into()), kind: NormKind::Rms, eps: self.eps, size: self.hidden }
    }

    pub(super) fn layer_norm(&self, name: impl Into<String>, bias: bool) -> Norm {
        Norm { kind: NormKind::Layer { bias }, ..self.rms(name) }
    }

    /// `q_proj`, `k_proj` and `v_proj` below `prefix`.
    pub(super) fn separate(&self, prefix: &str, bias: bool) -> Qkv {
        let linear =
            |name: &str, size| Linear::new(format!("{prefix}.{name}"), self.hidden, size).biased(bias);
        Qkv::Separate {
            q: linear("q_proj", self.q_size()),
            k: linear("k_proj", self.kv_size()),
            v: linear("v_proj", self.kv_size()),
        }
    }

    /// `o_proj` below `prefix`.
    pub(super) fn o_proj(&self, prefix: &str, bias: bool) -> Linear {
        Linear::new(format!("{prefix}.o_proj"), self.q_size(), self.hidden).biased(bias)
    }

    /// Attention with everything usual.
    pub(super) fn attention(&self, input: Qkv, output: Linear, rope: Rope) -> Heads {
        Heads {
            heads: self.heads,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            input,
            output,
            qk_norm: QkNorm::None,
            rope,
            scale: self.scale(),
            soft_cap: None,
            window: None,
            sinks: None,
            queries_in_float32: false,
            clip: None,
            gate: None,
            blend: None,
            growth: None,
        }
    }

    /// Attention below `prefix.self_attn`, with its usual names.
    pub(super) fn heads(&self, prefix: &str, rope: &Rope, input_bias: bool, output_bias: bool) -> Heads {
        let prefix = format!("{prefix}.self_attn");
        let (input, output) = (self.separate(&prefix, input_bias), self.o_proj(&prefix, output_bias));
        self.attention(input, output, rope.clone())
    }

    /// llama's MLP below `prefix.mlp`.
    pub(super) fn mlp(&self, prefix: &str, bias: bool) -> Mlp {
        Mlp::Gated(self.gated(&format!("{prefix}.mlp"), Activation::Silu, bias))
    }

    /// Norms of each head's queries and keys, with these names below `prefix`.
    pub(super) fn head_norms(&self, prefix: &str, q: &str, k: &str) -> (Norm, Norm) {
        let norm = |name: &str| head_norm(format!("{prefix}.{name}"), self.eps, self.head_dim);
        (norm(q), norm(k))
    }

    /// `gate_proj`, `up_proj` and `down_proj` below `prefix`.
    pub(super) fn gated(&self, prefix: &str, activation: Activation, bias: bool) -> Gated {
        gated(prefix, self.hidden, self.inner, activation, bias)
    }

    /// `gate_up_proj` and `down_proj` below `prefix`.
    pub(super) fn gated_stacked(&self, prefix: &str, activation: Activation) -> Gated {
        Gated {
            input: GateUp::Stacked(Linear::new(
                format!("{prefix}.gate_up_proj"),
                self.hidden,
                2 * self.inner,
            )),
            down: Linear::new(format!("{prefix}.down_proj"), self.inner, self.hidden),
            activation,
        }
    }

    /// `input_layernorm` and `post_attention_layernorm` below `prefix`, before attention and before the MLP.
    pub(super) fn pre_norms(&self, prefix: &str) -> Residual {
        pre_norms(
            self.rms(format!("{prefix}.input_layernorm")),
            self.rms(format!("{prefix}.post_attention_layernorm")),
        )
    }

    /// A decoder with the usual names.
    pub(super) fn decoder(&self, family: &'static str, layers: Vec<Layer>, head: Head) -> Decoder {
        Decoder {
            family,
            hidden: self.hidden,
            vocab: self.vocab,
            embedding: Embedding::plain("model.embed_tokens"),
            layers,
            norm: self.rms("model.norm"),
            head,
            renames: &[],
        }
    }
}

/// The first of these keys that is there, or the first of all.
fn named<'k>(config: Config<'_>, keys: &[&'k str]) -> &'k str {
    keys.iter().find(|key| config.get(key).is_some()).or(keys.first()).copied().unwrap_or_default()
}

/// Norms before attention and before the MLP.
pub(super) fn pre_norms(before_attention: Norm, before_mlp: Norm) -> Residual {
    Residual::Sequential {
        before_attention: Some(before_attention),
        after_attention: None,
        before_mlp: Some(before_mlp),
        after_mlp: None,
        scale: 1.0,
    }
}

/// `residual` with a factor at both joins.
pub(super) fn with_scale(residual: Residual, factor: f32) -> Residual {
    match residual {
        Residual::Sequential { before_attention, after_attention, before_mlp, after_mlp, .. } => {
            Residual::Sequential { before_attention, after_attention, before_mlp, after_mlp, scale: factor }
        }
        parallel @ Residual::Parallel { .. } => parallel,
    }
}

/// `lm_head`, or the embedding where `tie_word_embeddings` says so.
pub(super) fn head(config: Config<'_>, tied: bool) -> Head {
    Head::plain(config.flag("tie_word_embeddings", tied))
}

/// `model.layers.N`.
pub(super) fn layer_name(index: usize) -> String {
    format!("model.layers.{index}")
}

/// A layer of plain attention.
pub(super) fn layer(attention: Heads, mlp: Mlp, residual: Residual) -> Layer {
    Layer { attention: Attention::Heads(Box::new(attention)), mlp, residual }
}

/// `gate_proj`, `up_proj` and `down_proj` below `prefix`.
pub(super) fn gated(prefix: &str, hidden: usize, inner: usize, activation: Activation, bias: bool) -> Gated {
    let linear = |name: &str, from, to| Linear::new(format!("{prefix}.{name}"), from, to).biased(bias);
    Gated {
        input: GateUp::Separate {
            gate: linear("gate_proj", hidden, inner),
            up: linear("up_proj", hidden, inner),
        },
        down: linear("down_proj", inner, hidden),
        activation,
    }
}

/// A norm of one head's queries or keys.
pub(super) fn head_norm(name: String, eps: f32, size: usize) -> Norm {
    Norm { name: Some(name), kind: NormKind::Rms, eps, size }
}

/// Which layers see all tokens, by `layer_types`, where that is there.
pub(super) fn full_layers(config: Config<'_>, layers: usize) -> Result<Option<Vec<bool>>, ConfigError> {
    let full = config.list("layer_types", "a list of words", |word| {
        word.as_str().map(|word| word != "sliding_attention")
    })?;
    match full {
        Some(full) if full.len() != layers => Err(ConfigError::Value {
            key: "layer_types".to_owned(),
            value: format!("{} words", full.len()),
            wanted: "one for each layer",
        }),
        other => Ok(other),
    }
}
