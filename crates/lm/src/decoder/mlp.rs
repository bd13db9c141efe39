//! What happens to each token by itself.

use super::Linear;

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
#[derive(Debug, Clone, PartialEq)]
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
    /// apertus: a square above zero, an exponential below, with numbers of each layer's own below this name.
    XieLu(String),
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
    /// Gate and up in one tensor, as before conversion.
    pub fused: Option<Fused>,
}

/// Experts as some checkpoints have them before conversion: a tensor for gate and up, one for down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fused {
    /// Gate and up: the full name of the tensor, or how the names begin.
    pub gate_up: String,
    /// Down.
    pub down: String,
    /// How they lie.
    pub form: FusedForm,
}

/// How gate and up lie in one tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FusedForm {
    /// `[count, out, in]`: all of the gate, then all of up (granitemoe).
    Halves,
    /// The same, `[count, in, out]` (qwen3_vl_moe).
    SwappedHalves,
    /// A row of the gate, a row of up; packed in `_blocks` and `_scales`, with a `_bias` (gpt_oss).
    Blocks,
}

/// An expert that sees every token.
#[derive(Debug, Clone, PartialEq)]
pub struct Shared {
    /// It.
    pub mlp: Gated,
    /// How it joins the others.
    pub mix: Mix,
}

/// How the shared expert joins the others.
#[derive(Debug, Clone, PartialEq)]
pub enum Mix {
    /// Their sum.
    Sum,
    /// It is multiplied with the sigmoid of this product first (qwen2_moe).
    Gate(Linear),
    /// The softmax of this product has two weights: that of the others, then its own (Klear).
    Weights(Linear),
}

/// How experts are chosen and weighted.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// From the router's logits to scores.
    pub scores: Scores,
    /// In which type.
    pub precision: Precision,
    /// Added to the scores for the choice, and not for the weights: its tensor (deepseek_v3).
    pub correction: Option<String>,
    /// Only experts of the best groups are chosen.
    pub groups: Option<Groups>,
    /// Whether weights are made to add up to one, and what is added to their sum before.
    pub normalised: Option<f32>,
    /// What weights are multiplied with.
    pub scale: f32,
    /// Whether they are taken from the end of an ascending order: in half precision their sum depends on it (gpt_oss,
    /// qwen3_moe).
    pub from_the_end: bool,
}

impl Choice {
    /// Those with the greatest scores, with their scores as weights.
    pub fn plain(scores: Scores, precision: Precision) -> Self {
        Choice {
            scores,
            precision,
            correction: None,
            groups: None,
            normalised: None,
            scale: 1.0,
            from_the_end: false,
        }
    }
}

/// Experts' scores.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scores {
    /// Softmax over all.
    Softmax,
    /// Softmax over those with the greatest logits.
    SoftmaxOfChosen,
    /// A sigmoid each.
    Sigmoid,
    /// One after the other: softmax over those that come close enough to the greatest that is left (phimoe).
    Closest {
        /// Half of how far, as a part of it.
        jitter: f32,
    },
}

/// The type that experts are chosen in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// That of the activations.
    Activations,
    /// Single, and the weights stay so.
    Single,
    /// Single, with weights rounded to the activations' type in the end.
    Rounded,
    /// The same, and the router too is single (minimax).
    RoundedWithRouter,
}

/// Groups of experts. A group is as good as the sum of its best.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Groups {
    /// How many there are.
    pub count: usize,
    /// How many are chosen from.
    pub kept: usize,
    /// How many of its best count: one or two.
    pub best: usize,
}
