//! What can go wrong with a model.

/// Why a model could not be loaded or run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct EngineError {
    /// In a word.
    pub kind: Kind,
    /// For a person: what, and where.
    pub message: String,
}

/// Kinds of errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// A file cannot be read, or is none that MLX reads.
    BadFile,
    /// The config describes no model.
    BadConfig,
    /// No decoder is known for the architecture.
    UnknownFamily,
    /// A tensor is not there.
    MissingTensor,
    /// A tensor has a shape or a type that does not fit.
    WrongShape,
    /// NaN or Inf in weights.
    NotFiniteWeights,
    /// NaN or Inf in logits.
    NotFiniteLogits,
    /// The same logits whatever the prompt.
    Degenerate,
    /// The tokenizer knows tokens that the model has no embedding for.
    Vocabulary,
    /// MLX said no.
    Engine,
}

impl EngineError {
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Self {
        EngineError { kind, message: message.into() }
    }
}

impl From<mlx_rs::error::Exception> for EngineError {
    fn from(error: mlx_rs::error::Exception) -> Self {
        EngineError::new(Kind::Engine, format!("MLX said: {}", error.what()))
    }
}

/// A file that cannot be read; fs_err's errors name it.
impl From<std::io::Error> for EngineError {
    fn from(error: std::io::Error) -> Self {
        EngineError::new(Kind::BadFile, error.to_string())
    }
}

pub(crate) type Result<T> = std::result::Result<T, EngineError>;
