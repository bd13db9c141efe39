//! How tokens see each other.

use super::{Linear, Norm};

/// Attention.
#[derive(Debug, Clone, PartialEq)]
pub enum Attention {
    /// With a key and a value for each head, or group of heads.
    Heads(Box<Heads>),
    /// With one compressed vector a token (deepseek, minicpm3).
    Latent(Box<Latent>),
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
    /// Queries, keys and values are clipped to this before use (dbrx).
    pub clip: Option<f32>,
    /// What comes out is multiplied with the sigmoid of this product of what went in (afmoe).
    pub gate: Option<Linear>,
    /// Keys and values are blended with those of the token before.
    pub blend: Option<Blend>,
    /// Queries grow with their position.
    pub growth: Option<Growth>,
}

/// The part of the token before, and the token's own, for each key head: a tensor for keys, one for values (baichuan_m1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blend {
    /// Of keys.
    pub keys: String,
    /// Of values.
    pub values: String,
}

/// Queries times `1 + beta * ln(1 + floor(position / length))` (ministral3, mistral4).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Growth {
    /// How much.
    pub beta: f32,
    /// How many positions grow together.
    pub length: usize,
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
    /// Queries grow with their position (mistral4).
    pub growth: Option<Growth>,
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
