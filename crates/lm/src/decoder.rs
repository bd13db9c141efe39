//! What a decoder is made of. A family says which parts its models have; the engine runs them; the structure check asks
//! for their tensors. Every name here is a tensor's full name without its last part (`.weight`, `.scales`, …).

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
}

impl Embedding {
    /// A plain table.
    pub fn plain(name: &str) -> Self {
        Embedding { name: name.to_owned(), scale: None, scale_in_bfloat16: false, positions: None }
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
            scale: 1.0,
            soft_cap: None,
        }
    }
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

/// Attention.
#[derive(Debug, Clone, PartialEq)]
pub enum Attention {
    /// With a key and a value for each head, or group of heads.
    Heads(Box<Heads>),
    /// With one compressed vector a token (deepseek, minicpm3).
    Latent(Box<Latent>),
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
    /// Whether the matrix lies the other way round on the disk (gpt2's Conv1D).
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

/// Multi-head attention.
#[derive(Debug, Clone, PartialEq)]
pub struct Heads {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; a divisor of `heads`.
    pub kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Where queries, keys and values come from.
    pub input: Qkv,
    /// Back to the residual stream.
    pub output: Linear,
    /// Norms of queries and keys.
    pub qk_norm: QkNorm,
    /// Positions.
    pub rope: Rope,
    /// What scores are multiplied with.
    pub scale: f32,
    /// `cap * tanh(scores / cap)` (gemma2).
    pub soft_cap: Option<f32>,
    /// How many tokens back a token sees, itself included; `None` for all.
    pub window: Option<usize>,
    /// One logit a head that takes attention and gives nothing (gpt_oss).
    pub sinks: Option<String>,
    /// Whether queries go to float32 first, whatever the activations are (phi, stablelm).
    pub queries_in_float32: bool,
    /// Values are clipped to this before use (olmo's `clip_qkv`, dbrx).
    pub clip: Option<f32>,
}

/// Where queries, keys and values come from.
#[derive(Debug, Clone, PartialEq)]
pub enum Qkv {
    /// A matrix each.
    Separate {
        /// Queries.
        q: Linear,
        /// Keys.
        k: Linear,
        /// Values.
        v: Linear,
    },
    /// One matrix: all queries, all keys, all values.
    Stacked(Linear),
    /// One matrix: for each key head its queries, its key, its value (internlm2).
    Grouped(Linear),
}

/// Norms of queries and keys.
#[derive(Debug, Clone, PartialEq)]
pub enum QkNorm {
    /// None.
    None,
    /// Each head by itself, all with one weight, before the rotation.
    EachHead(Norm, Norm),
    /// The same, after the rotation (hunyuan).
    EachHeadRotated(Norm, Norm),
    /// All heads together, before they are told apart (olmo2).
    AllHeads(Norm, Norm),
    /// Each head by itself, by mean and variance, with a weight for each head: one table (cohere), or a tensor a head
    /// (stablelm).
    EachHeadOwnWeight {
        /// Name of the queries' table, or with `{}` for the head's number.
        q: String,
        /// Name of the keys'.
        k: String,
        /// Added to the variance.
        eps: f32,
    },
}

/// Rotary positions.
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    /// Elements of a head that are rotated; 0 for none.
    pub dims: usize,
    /// Whether neighbours are paired, instead of halves.
    pub traditional: bool,
    /// How fast each pair turns.
    pub speed: RopeSpeed,
}

/// How fast each pair of a rotation turns.
#[derive(Debug, Clone, PartialEq)]
pub enum RopeSpeed {
    /// `base ^ (-2i / dims)`, with positions multiplied by `scale`.
    Base {
        /// The base.
        base: f32,
        /// The positions' factor.
        scale: f32,
    },
    /// Wavelengths of its own for each pair, and a factor for what is rotated.
    Wavelengths {
        /// One a pair, over 2π.
        wavelengths: Vec<f32>,
        /// What the rotated elements are multiplied with.
        input_scale: f32,
    },
    /// The base grows with the length (dynamic NTK).
    Dynamic {
        /// The base.
        base: f32,
        /// The length from which on it grows.
        length: usize,
        /// How fast.
        factor: f32,
    },
}

impl Rope {
    /// No positions at all.
    pub const NONE: Rope =
        Rope { dims: 0, traditional: false, speed: RopeSpeed::Base { base: 10_000.0, scale: 1.0 } };
}

/// Multi-head latent attention.
#[derive(Debug, Clone, PartialEq)]
pub struct Latent {
    /// Heads.
    pub heads: usize,
    /// Elements of a query or key that carry no position.
    pub nope_dim: usize,
    /// Elements that do.
    pub rope_dim: usize,
    /// Elements of a value.
    pub value_dim: usize,
    /// Elements of the compressed vector.
    pub rank: usize,
    /// Queries, straight or through a rank of their own.
    pub query: LatentQuery,
    /// To the compressed vector and the key's positional part.
    pub down: Linear,
    /// Of the compressed vector.
    pub norm: Norm,
    /// From it to keys and values.
    pub up: LatentUp,
    /// Back to the residual stream.
    pub output: Linear,
    /// Positions.
    pub rope: Rope,
    /// What scores are multiplied with.
    pub scale: f32,
}

/// Queries of latent attention.
#[derive(Debug, Clone, PartialEq)]
pub enum LatentQuery {
    /// One product.
    Straight(Linear),
    /// Down, a norm, up.
    LowRank(Linear, Norm, Linear),
}

/// From the compressed vector to keys and values.
#[derive(Debug, Clone, PartialEq)]
pub enum LatentUp {
    /// One product to both, and a cache of both (deepseek_v2).
    Together(Linear),
    /// A matrix a head for each, and a cache of the compressed vector (deepseek_v3). `keys` is applied to queries when
    /// there is but one of them.
    Absorbed {
        /// `[heads, rank, nope_dim]`.
        keys: String,
        /// `[heads, value_dim, rank]`.
        values: String,
        /// The product of both, as it is before conversion.
        together: Linear,
    },
}

/// What happens to each token by itself.
#[derive(Debug, Clone, PartialEq)]
pub enum Mlp {
    /// `down(activation(gate(x)) * up(x))`.
    Gated(Gated),
    /// `down(activation(up(x)))`.
    Plain {
        /// Up.
        up: Linear,
        /// Down.
        down: Linear,
        /// Between them.
        activation: Activation,
    },
    /// Some of many.
    Experts(Box<Experts>),
}

/// A gated MLP.
#[derive(Debug, Clone, PartialEq)]
pub struct Gated {
    /// Gate and up.
    pub input: GateUp,
    /// Down.
    pub down: Linear,
    /// Of the gate.
    pub activation: Activation,
}

/// Gate and up.
#[derive(Debug, Clone, PartialEq)]
pub enum GateUp {
    /// A matrix each.
    Separate {
        /// The gate.
        gate: Linear,
        /// The other.
        up: Linear,
    },
    /// One matrix: all of the gate, then the other.
    Stacked(Linear),
}

/// Activations.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Activation {
    /// `x * sigmoid(x)`.
    Silu,
    /// By the error function.
    Gelu,
    /// By tanh.
    GeluTanh,
    /// `max(x, 0)`.
    Relu,
    /// `max(x, 0)²`.
    ReluSquared,
    /// gpt_oss: both sides clipped, a steeper sigmoid, one added to the other side.
    SwigluOai,
}

/// A mixture of experts.
#[derive(Debug, Clone, PartialEq)]
pub struct Experts {
    /// How many.
    pub count: usize,
    /// How many see a token.
    pub chosen: usize,
    /// Elements of the residual stream.
    pub hidden: usize,
    /// Elements inside an expert.
    pub inner: usize,
    /// Who chooses.
    pub router: Linear,
    /// How.
    pub choice: Choice,
    /// Gate, up and down of all experts, `[count, out, in]` each.
    pub names: ExpertNames,
    /// Whether each has a bias.
    pub bias: bool,
    /// Of the gate.
    pub activation: Activation,
    /// One that sees every token.
    pub shared: Option<Shared>,
}

/// Where the experts' tensors are.
#[derive(Debug, Clone, PartialEq)]
pub struct ExpertNames {
    /// Stacked: gate, up, down.
    pub stacked: [String; 3],
    /// One by one, as before conversion, with `{}` for the expert's number: gate, up, down.
    pub single: Option<[String; 3]>,
}

/// An expert that sees every token.
#[derive(Debug, Clone, PartialEq)]
pub struct Shared {
    /// It.
    pub mlp: Gated,
    /// What it is multiplied with, after a sigmoid (qwen2_moe).
    pub gate: Option<Linear>,
}

/// How experts are chosen and weighted.
#[derive(Debug, Clone, PartialEq)]
pub enum Choice {
    /// Softmax over all, then the greatest.
    Softmax {
        /// Whether the chosen ones' weights are made to add up to one.
        normalised: bool,
        /// What they are multiplied with.
        scale: f32,
        /// Only experts of the best groups: how many groups, how many of them (deepseek_v2).
        groups: Option<(usize, usize)>,
    },
    /// The greatest, then softmax over those.
    SoftmaxOfChosen,
    /// A sigmoid each; chosen with a correction, weighted without (deepseek_v3).
    Sigmoid {
        /// The correction's tensor.
        correction: Option<String>,
        /// Whether the chosen ones' weights are made to add up to one.
        normalised: bool,
        /// Added to their sum before.
        eps: f32,
        /// What they are multiplied with.
        scale: f32,
        /// How many groups, how many of them.
        groups: (usize, usize),
    },
}
