//! What a verification of a model found: the newest one stands in the manifest, all of them in the history.

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::integrity::Integrity;

/// What came of a verification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It is as it should be, as far as the level goes.
    Pass,
    /// It is not, and `reason` says why.
    Fail,
    /// The level was not tried, and `reason` says why.
    Skipped,
}

impl Verdict {
    /// The word in JSON, tables and filters.
    pub fn word(self) -> &'static str {
        match self {
            Verdict::Pass => "pass",
            Verdict::Fail => "fail",
            Verdict::Skipped => "skipped",
        }
    }
}

/// How far a model was verified. `load` has `structure` in it, and `generate` both; `integrity` has `structure` in it
/// and stands beside the other two, for a damaged model may well load, and a whole one may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum VerifiedLevel {
    /// The files are there, and agree with each other and with their headers.
    Structure,
    /// The contents are those that hashes name.
    Integrity,
    /// Every tensor was read through MLX and is finite.
    Load,
    /// A prompt was read and tokens were generated.
    Generate,
}

impl VerifiedLevel {
    /// The word in JSON, tables and filters.
    pub fn word(self) -> &'static str {
        match self {
            VerifiedLevel::Structure => "structure",
            VerifiedLevel::Integrity => "integrity",
            VerifiedLevel::Load => "load",
            VerifiedLevel::Generate => "generate",
        }
    }

    /// Whether passing this level says more than passing `other`: all that it says, and something beside.
    pub fn surpasses(self, other: VerifiedLevel) -> bool {
        match self {
            VerifiedLevel::Structure => false,
            VerifiedLevel::Integrity | VerifiedLevel::Load => other == VerifiedLevel::Structure,
            VerifiedLevel::Generate => matches!(other, VerifiedLevel::Structure | VerifiedLevel::Load),
        }
    }
}

/// Tokens a second over several trials.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Spread {
    /// The median.
    pub median: f64,
    /// The slowest trial.
    pub min: f64,
    /// The fastest trial.
    pub max: f64,
    /// Trials.
    pub trials: u32,
    /// Tokens of each.
    pub tokens: u32,
}

/// Known answers, compared.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AnswersCompared {
    /// The greatest difference of a logit, over the greatest magnitude of the reference's logits. Null where that is no
    /// number.
    pub max_relative_error: Option<f64>,
    /// The greedy tokens that agree, from the first one on.
    pub greedy_matched: u64,
    /// The greedy tokens that the reference has.
    pub greedy_total: u64,
    /// The greatest relative error that passes.
    pub tolerance: f64,
    /// How many of the reference's ten likeliest tokens are among the ten here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top10_matched: Option<u64>,
    /// The file with the reference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// What computed the reference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub computed_by: Option<String>,
    /// The type that the answers here were computed in: the checkpoint's own, where another one's rounding hid whether
    /// they agree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dtype: Option<String>,
}

/// What a verification of one model found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Verification {
    /// The level that the verdict is about: of a pass the highest one passed, of a failure the one that failed, else
    /// the one that was not tried.
    pub level: VerifiedLevel,
    /// What came of it.
    pub verdict: Verdict,
    /// Why it is no pass: what happened, where, and what to do.
    pub reason: Option<String>,
    /// Prompt tokens a second, the median of the trials.
    pub prompt_tps: Option<f64>,
    /// Generated tokens a second, the median of the trials.
    pub generation_tps: Option<f64>,
    /// Most bytes of memory held at once.
    pub peak_memory_bytes: Option<u64>,
    /// Seconds from the first file to the last tensor in memory.
    pub load_seconds: Option<f64>,
    /// The type that activations were computed in.
    pub dtype: Option<String>,
    /// What it was computed on.
    pub device: Option<String>,
    /// The known answers, where they were compared.
    pub answers: Option<AnswersCompared>,
    /// The highest level passed, where that is another than `level`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passed: Option<VerifiedLevel>,
    /// What was done in place of a higher level, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instead: Option<String>,
    /// What is worth knowing and decides nothing: a chat template that could not be rendered, answers that there was
    /// nothing to compare with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// The signal that ended the worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// The trials behind `prompt_tps`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_spread: Option<Spread>,
    /// The trials behind `generation_tps`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation_spread: Option<Spread>,
    /// Seconds from the prompt to the first token, without a warm-up's help.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_token_seconds: Option<f64>,
    /// The family whose decoder ran it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub family: Option<String>,
    /// Tensors read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tensors: Option<u64>,
    /// What was generated for a short prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// MLX's version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mlx_version: Option<String>,
    /// Which BLAS multiplied matrices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blas: Option<String>,
    /// What reading the contents found, at the level `integrity`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub integrity: Option<Integrity>,
    /// When the run began.
    pub verified_at: DateTime<Utc>,
    /// The program that verified it, such as `mlxman 0.1.0`.
    pub generator: String,
    /// A stamp of the files that were verified: their names, sizes, times and inodes.
    pub files: String,
    /// Whether the files are others now, so that this says nothing of them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stale: bool,
}

impl Verification {
    /// One with nothing measured.
    pub fn new(level: VerifiedLevel, verdict: Verdict, verified_at: DateTime<Utc>, files: String) -> Self {
        Verification {
            level,
            verdict,
            reason: None,
            prompt_tps: None,
            generation_tps: None,
            peak_memory_bytes: None,
            load_seconds: None,
            dtype: None,
            device: None,
            answers: None,
            passed: None,
            instead: None,
            notes: Vec::new(),
            signal: None,
            prompt_spread: None,
            generation_spread: None,
            first_token_seconds: None,
            family: None,
            tensors: None,
            text: None,
            mlx_version: None,
            blas: None,
            integrity: None,
            verified_at,
            generator: crate::Manifest::generator(),
            files,
            stale: false,
        }
    }

    /// Whether the manifest should say this in place of `before`. What says less than is known of the same files (a
    /// level that was not tried, or a lower one that passed again) stands in the history alone.
    pub(crate) fn replaces(&self, before: &Verification) -> bool {
        let known = !before.stale && before.files == self.files && before.verdict != Verdict::Skipped;
        match self.verdict {
            Verdict::Fail => true,
            Verdict::Skipped => !known,
            Verdict::Pass => {
                !(known && before.verdict == Verdict::Pass && before.level.surpasses(self.level))
            }
        }
    }
}

/// A model and what a verification found of it: a row of `verify --json`, and a line of the history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct VerifiedModel {
    /// The model.
    pub model: String,
    /// Its directory.
    pub path: String,
    /// Its store, as `KIND=PATH`; absent where the directory lies in none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
    /// Its place in the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// What was found.
    #[serde(flatten)]
    pub verification: Verification,
}

/// What tables and filters need of a verification.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VerifiedSummary {
    /// The level that the verdict is about.
    pub level: VerifiedLevel,
    /// What came of it.
    pub verdict: Verdict,
    /// When.
    pub at: DateTime<Utc>,
    /// Generated tokens a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation_tps: Option<f64>,
    /// Prompt tokens a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_tps: Option<f64>,
    /// The type that activations were computed in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dtype: Option<String>,
    /// Whether the files are others now.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stale: bool,
}

impl VerifiedSummary {
    /// The summary of a verification.
    pub fn of(verification: &Verification) -> Self {
        VerifiedSummary {
            level: verification.level,
            verdict: verification.verdict,
            at: verification.verified_at,
            generation_tps: verification.generation_tps,
            prompt_tps: verification.prompt_tps,
            dtype: verification.dtype.clone(),
            stale: verification.stale,
        }
    }

    /// Whether it says something of the files that are there now.
    pub fn holds(&self) -> bool {
        !self.stale && self.verdict != Verdict::Skipped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_says_less_does_not_replace_what_says_more() {
        let of = |level, verdict, files: &str| {
            Verification::new(level, verdict, DateTime::<Utc>::UNIX_EPOCH, files.to_owned())
        };
        let best = of(VerifiedLevel::Generate, Verdict::Pass, "a");
        assert!(!of(VerifiedLevel::Structure, Verdict::Pass, "a").replaces(&best));
        assert!(!of(VerifiedLevel::Generate, Verdict::Skipped, "a").replaces(&best));
        assert!(of(VerifiedLevel::Structure, Verdict::Fail, "a").replaces(&best));
        assert!(of(VerifiedLevel::Generate, Verdict::Pass, "a").replaces(&best));
        assert!(of(VerifiedLevel::Structure, Verdict::Pass, "b").replaces(&best));
        let stale = Verification { stale: true, ..best };
        assert!(of(VerifiedLevel::Structure, Verdict::Pass, "a").replaces(&stale));
        let failed = of(VerifiedLevel::Load, Verdict::Fail, "a");
        assert!(of(VerifiedLevel::Structure, Verdict::Pass, "a").replaces(&failed));
        assert!(!of(VerifiedLevel::Load, Verdict::Skipped, "a").replaces(&failed));
    }

    #[test]
    fn integrity_stands_beside_loading() {
        use VerifiedLevel::{Generate, Integrity, Load, Structure};
        assert!(Integrity.surpasses(Structure) && Load.surpasses(Structure) && Generate.surpasses(Load));
        for (one, other) in [(Integrity, Load), (Integrity, Generate), (Structure, Structure)] {
            assert!(!one.surpasses(other) && !other.surpasses(one), "{one:?} and {other:?}");
        }
    }
}
