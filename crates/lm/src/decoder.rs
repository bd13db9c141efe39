//! What a decoder is made of. A family says which parts its models have; the engine runs them; the structure check asks
//! for their tensors. Every name here is a tensor's full name without its last part (`.weight`, `.scales`, …).

mod attention;
mod mlp;

pub use attention::{
    Attention, Blend, Growth, Heads, Latent, LatentQuery, LatentUp, QkNorm, Qkv, Rope, RopeSpeed,
};
pub use mlp::{
    Activation, Choice, ExpertNames, Experts, Fused, FusedForm, GateUp, Gated, Groups, Mix, Mlp, Precision,
    Scores, Shared,
};

/// A decoder-only language model.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoder {
    /// The family's name, mostly `model_type`.
    pub family: &'static str,
    /// Size of the residual stream.
    pub hidden: usize,
    /// Rows of the embedding.
    pub vocab: usize,
    /// The embedding.
    pub embedding: Embedding,
    /// The layers, first to last.
    pub layers: Vec<Layer>,
    /// After the last layer.
    pub norm: Norm,
    /// From the residual stream to logits.
    pub head: Head,
    /// How names begin in checkpoints that call tensors otherwise, and how here.
    pub renames: &'static [(&'static str, &'static str)],
}

impl Decoder {
    /// What a tensor, or part of a model, of a checkpoint is called here.
    pub fn name_here(&self, name: &str) -> String {
        let renamed = self.renames.iter().find_map(|(theirs, ours)| {
            let rest = name.strip_prefix(theirs)?;
            Some(format!("{ours}{rest}"))
        });
        renamed.unwrap_or_else(|| name.to_owned())
    }
}

/// From tokens to the residual stream.
#[derive(Debug, Clone, PartialEq)]
pub struct Embedding {
    /// The table.
    pub name: String,
    /// What rows are multiplied with.
    pub scale: Option<f32>,
    /// Whether that factor is rounded to bfloat16 first (gemma3).
    pub scale_in_bfloat16: bool,
    /// A table of absolute positions, with its number of rows (gpt2, gpt_bigcode).
    pub positions: Option<(String, usize)>,
    /// Before the first layer (nanochat).
    pub norm: Option<Norm>,
}

impl Embedding {
    /// A plain table.
    pub fn plain(name: &str) -> Self {
        Embedding {
            name: name.to_owned(),
            scale: None,
            scale_in_bfloat16: false,
            positions: None,
            norm: None,
        }
    }
}

/// The output layer.
#[derive(Debug, Clone, PartialEq)]
pub struct Head {
    /// The matrix of its own; `None` where the embedding serves.
    pub name: Option<String>,
    /// Whether the embedding serves where the checkpoint has no such matrix.
    pub may_be_tied: bool,
    /// Whether it has a bias.
    pub bias: bool,
    /// Whether a matrix of its own is normalised, unless it is packed.
    pub normalised: Option<HeadNorm>,
    /// What the residual stream is divided by, before a matrix of its own (minicpm).
    pub divisor: f32,
    /// What logits are multiplied with.
    pub scale: f32,
    /// `cap * tanh(logits / cap)`.
    pub soft_cap: Option<f32>,
}

impl Head {
    /// `lm_head`, or the embedding.
    pub fn plain(tied: bool) -> Self {
        Head {
            name: (!tied).then(|| "lm_head".to_owned()),
            may_be_tied: false,
            bias: false,
            normalised: None,
            divisor: 1.0,
            scale: 1.0,
            soft_cap: None,
        }
    }
}

/// What of an output layer's matrix is made to have the length one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadNorm {
    /// What belongs to each token (baichuan_m1).
    Tokens,
    /// What belongs to each element of the residual stream (bailing_moe).
    Elements,
}

/// A normalisation.
#[derive(Debug, Clone, PartialEq)]
pub struct Norm {
    /// Its tensors; `None` where it has none.
    pub name: Option<String>,
    /// Which one.
    pub kind: NormKind,
    /// Added to the variance.
    pub eps: f32,
    /// Elements that are normalised together.
    pub size: usize,
}

/// Kinds of normalisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormKind {
    /// By the root of the mean square, times the weight.
    Rms,
    /// The same, times one more than the weight (gemma).
    RmsPlusOne,
    /// Mean and variance, with or without a bias.
    Layer {
        /// Whether there is a bias.
        bias: bool,
    },
    /// Mean and variance, times one more than the weight, with a bias (nemotron).
    LayerPlusOne,
}

/// One layer.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    /// How tokens see each other.
    pub attention: Attention,
    /// What happens to each token.
    pub mlp: Mlp,
    /// Where the norms are, and how the two are added.
    pub residual: Residual,
}

/// How attention and MLP are joined to the residual stream.
#[derive(Debug, Clone, PartialEq)]
pub enum Residual {
    /// One after the other: `h = x + s·after_attention(attention(before_attention(x)))`, then the same with the MLP.
    Sequential {
        /// Before attention.
        before_attention: Option<Norm>,
        /// After it.
        after_attention: Option<Norm>,
        /// Before the MLP.
        before_mlp: Option<Norm>,
        /// After it.
        after_mlp: Option<Norm>,
        /// What both are multiplied with (granite, minicpm).
        scale: f32,
    },
    /// Side by side: `x + attention(before(x)) + mlp(before_mlp(x))`.
    Parallel {
        /// Before attention, and before the MLP unless that has its own.
        before: Norm,
        /// Before the MLP.
        before_mlp: Option<Norm>,
    },
}

/// A matrix product, with or without a bias.
#[derive(Debug, Clone, PartialEq)]
pub struct Linear {
    /// Its tensors.
    pub name: String,
    /// Elements of what goes in.
    pub input: usize,
    /// Elements of what comes out.
    pub output: usize,
    /// Whether there is a bias.
    pub bias: bool,
    /// Whether the matrix lies the other way round where the checkpoint has another name for it (gpt2's Conv1D).
    pub transposed: bool,
}

impl Linear {
    /// A product without a bias.
    pub fn new(name: impl Into<String>, input: usize, output: usize) -> Self {
        Linear { name: name.into(), input, output, bias: false, transposed: false }
    }

    /// With a bias, if so.
    #[must_use]
    pub fn biased(mut self, bias: bool) -> Self {
        self.bias = bias;
        self
    }
}
