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
    /// An adapter of a kind that is not known.
    UnknownAdapter,
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
        EngineError::new(Kind::Engine, format!("MLX said: {}", said(error.what())))
    }
}

/// What MLX said, without the places in its own sources and in those of its bindings that both put behind it: nobody
/// who has a broken model is helped by them, and they tell where somebody's home directory was.
pub(crate) fn said(what: impl std::fmt::Display) -> String {
    let text = what.to_string();
    let mut text = text.trim();
    loop {
        let before = text;
        if let Some(start) = place_of(text) {
            text = text[..start].trim_end();
        }
        // What the bindings print is a text in quotes, with their own place behind it.
        if let Some(quoted) = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')) {
            text = quoted.trim();
        }
        if text == before {
            return text.replace("\\\"", "\"").replace("\\n", " ");
        }
    }
}

/// Where ` at FILE:LINE` or ` at FILE:LINE:COLUMN` begins, if the text ends so.
fn place_of(text: &str) -> Option<usize> {
    let places = || text.match_indices(" at ").filter(|(start, word)| is_place(&text[start + word.len()..]));
    // A directory may have the word in its name: the path begins where its root does.
    let whole = places().filter(|(start, word)| text[start + word.len()..].starts_with('/')).last();
    whole.or_else(|| places().last()).map(|(start, _)| start)
}

fn is_place(text: &str) -> bool {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let Some((mut file, line)) = text.rsplit_once(':') else { return false };
    if let Some((shorter, _)) = file.rsplit_once(':').filter(|(_, line)| number(line)) {
        file = shorter;
    }
    let sources = [".rs", ".cpp", ".cc", ".c", ".h", ".hpp", ".mm", ".cu"];
    number(line) && sources.iter().any(|ending| file.ends_with(ending))
}

/// A file that cannot be read; fs_err's errors name it.
impl From<std::io::Error> for EngineError {
    fn from(error: std::io::Error) -> Self {
        EngineError::new(Kind::BadFile, error.to_string())
    }
}

pub(crate) type Result<T> = std::result::Result<T, EngineError>;
