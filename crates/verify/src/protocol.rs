//! What this side and the worker say to each other: one JSON object a line, requests on the worker's standard input,
//! events on its standard output. What the worker writes to its standard error is for people.
//!
//! The worker begins with [`Event::Ready`], then answers one request after the other, each with any number of
//! [`Event::Phase`] and one [`Event::Done`]. It ends when its input does.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Changes when a line's form does; the two sides must agree.
pub const VERSION: u32 = 1;

/// How far a model is verified; each level has the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// The files are there, agree with each other, and hold the tensors that the family expects.
    Structure,
    /// Every tensor was read through MLX and is finite.
    Load,
    /// A prompt was read and tokens were generated.
    Generate,
}

/// In what type activations are computed, and what of the weights is no packed integer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DtypeChoice {
    /// The checkpoint's own on Metal and CUDA; float32 on the CPU, whose half types are slow.
    #[default]
    Auto,
    /// The checkpoint's own.
    Checkpoint,
    /// IEEE single precision.
    Float32,
    /// The upper half of a float32.
    Bfloat16,
    /// IEEE half precision.
    Float16,
}

/// What the worker is asked about one model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Comes back in every event about it.
    pub id: u64,
    /// The model's directory (for a single file, the file). A path is a text; one that is no UTF-8 is the list of its
    /// bytes.
    #[serde(with = "path")]
    pub model: PathBuf,
    /// The directory of an adapter to load over it.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "path::maybe")]
    pub adapter: Option<PathBuf>,
    /// How far to go: [`Level::Load`] or [`Level::Generate`].
    pub level: Level,
    /// See [`DtypeChoice`].
    #[serde(default)]
    pub dtype: DtypeChoice,
    /// What to measure.
    #[serde(default)]
    pub measure: Measure,
    /// Compute known answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answers: Option<Question>,
}

/// What to measure, as `mlx_lm.benchmark` does: a prompt of random tokens, a warm-up, then trials.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Measure {
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Tokens to generate.
    pub generated_tokens: u32,
    /// Trials after the warm-up.
    pub trials: u32,
    /// Stop asking for more trials after this many seconds; the first one always ends.
    pub seconds: f64,
}

impl Default for Measure {
    fn default() -> Self {
        Measure { prompt_tokens: 16, generated_tokens: 8, trials: 3, seconds: 5.0 }
    }
}

/// A prompt whose answers are wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// The prompt.
    pub prompt_ids: Vec<u32>,
    /// How many of the last position's logits, from the first on.
    pub logits_head: usize,
    /// How many tokens to choose greedily.
    pub greedy: usize,
}

/// The answers to a [`Question`]: the form of `reference.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answers {
    /// The prompt.
    pub prompt_ids: Vec<u32>,
    /// The first logits of the prompt's last position.
    pub logits_head: Vec<f32>,
    /// The ten tokens with the greatest logits there, with these, greatest first. A reference may be without them.
    #[serde(default)]
    pub top10: Vec<(u32, f32)>,
    /// The tokens that follow when the most likely one is taken each time.
    pub greedy: Vec<u32>,
    /// The program, its version and the device.
    pub computed_by: String,
}

/// What the worker says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// It has started.
    Ready {
        /// Its [`VERSION`].
        protocol: u32,
        /// What it computes with; `None` where it was built without MLX.
        engine: Option<EngineInfo>,
    },
    /// What it is at.
    Phase {
        /// The request's.
        id: u64,
        /// In a word: `load`, `warm_up`, `prompt`, `generate`, `answers`.
        phase: String,
        /// How much of it is done.
        done: u64,
        /// Of how much: bytes for `load`, tokens for the others.
        total: u64,
    },
    /// It is done with a model.
    Done {
        /// The request's.
        id: u64,
        /// What came of it.
        report: Box<Report>,
    },
}

/// What a worker computes with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineInfo {
    /// MLX's version.
    pub mlx_version: String,
    /// `cpu`, `metal` or `cuda`, with the device's name where it has one.
    pub device: String,
    /// Which BLAS multiplies matrices, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blas: Option<String>,
    /// Bytes of memory that the device can use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
}

/// What came of one model.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The highest level that it passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<Level>,
    /// Why it did not pass what was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// The family whose decoder ran it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub family: Option<String>,
    /// What was done instead, where it is no language model, its architecture is not known, or it is an adapter of a kind
    /// that is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instead: Option<String>,
    /// The architecture, where it is one that no decoder is known for: `instead` then says what was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown_architecture: Option<String>,
    /// Tensors read.
    pub tensors: u64,
    /// Bytes of them.
    pub tensor_bytes: u64,
    /// Seconds from the first file to the last tensor in memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_seconds: Option<f64>,
    /// Seconds from the prompt to the first token, without a warm-up's help.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_token_seconds: Option<f64>,
    /// Prompt tokens a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_tps: Option<Rate>,
    /// Generated tokens a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation_tps: Option<Rate>,
    /// Most bytes that MLX held at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_memory_bytes: Option<u64>,
    /// Most bytes that the process held at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process_peak_bytes: Option<u64>,
    /// The type of the activations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dtype: Option<String>,
    /// What was generated for a short prompt, where there is a tokenizer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// What is worth knowing and is no failure, such as a chat template that cannot be rendered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// The known answers that were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answers: Option<Answers>,
}

/// Tokens a second over several trials.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// The median.
    pub median: f64,
    /// The slowest.
    pub min: f64,
    /// The fastest.
    pub max: f64,
    /// Trials.
    pub trials: u32,
    /// Tokens of each.
    pub tokens: u32,
}

/// Why a model did not pass.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// In a word.
    pub kind: FailureKind,
    /// For a person: what, where, what to do.
    pub message: String,
}

/// Kinds of failures that a worker names itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FailureKind {
    /// A file cannot be read, or is not what it should be.
    BadFile,
    /// `config.json` says something that no model of the family can have.
    BadConfig,
    /// A tensor that the family needs is not there.
    MissingTensor,
    /// A tensor has another shape than the family needs.
    WrongShape,
    /// NaN or Inf in weights.
    NotFiniteWeights,
    /// NaN or Inf in logits.
    NotFiniteLogits,
    /// The model says the same whatever it is told.
    Degenerate,
    /// The tokenizer knows tokens that the model has no embedding for.
    Vocabulary,
    /// MLX said no.
    Engine,
}

/// Paths on the wire: JSON has texts, and a directory's name need be none.
mod path {
    use std::ffi::OsString;
    use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
    use std::path::{Path, PathBuf};

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Form {
        Text(String),
        Bytes(Vec<u8>),
    }

    fn form(path: &Path) -> Form {
        match path.to_str() {
            Some(text) => Form::Text(text.to_owned()),
            None => Form::Bytes(path.as_os_str().as_bytes().to_owned()),
        }
    }

    fn path(form: Form) -> PathBuf {
        match form {
            Form::Text(text) => text.into(),
            Form::Bytes(bytes) => OsString::from_vec(bytes).into(),
        }
    }

    pub(super) fn serialize<S: Serializer>(path: &Path, to: S) -> Result<S::Ok, S::Error> {
        form(path).serialize(to)
    }

    pub(super) fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<PathBuf, D::Error> {
        Form::deserialize(from).map(path)
    }

    pub(super) mod maybe {
        use super::*;

        pub(in super::super) fn serialize<S: Serializer>(
            path: &Option<PathBuf>,
            to: S,
        ) -> Result<S::Ok, S::Error> {
            path.as_deref().map(form).serialize(to)
        }

        pub(in super::super) fn deserialize<'a, D: Deserializer<'a>>(
            from: D,
        ) -> Result<Option<PathBuf>, D::Error> {
            Ok(Option::<Form>::deserialize(from)?.map(path))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;

    use super::*;

    #[test]
    fn a_path_goes_there_and_back_whatever_its_bytes() {
        for bytes in [&b"/models/ok"[..], b"/models/d\xff"] {
            let path = PathBuf::from(OsStr::from_bytes(bytes));
            let request = Request {
                id: 1,
                model: path.clone(),
                adapter: Some(path),
                level: Level::Load,
                dtype: DtypeChoice::Auto,
                measure: Measure::default(),
                answers: None,
            };
            let line = serde_json::to_string(&request).unwrap();
            assert_eq!(serde_json::from_str::<Request>(&line).unwrap(), request, "{line}");
        }
        let plain = r#"{"id": 1, "model": "/m", "level": "load"}"#;
        assert_eq!(serde_json::from_str::<Request>(plain).unwrap().adapter, None);
    }
}
