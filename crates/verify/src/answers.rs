//! Known answers: what a model said of a fixed prompt once, and whether it still does.

use std::fs::File;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use mlxman_manifest::AnswersCompared;
use mlxman_manifest::formats::json::read_json;
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::protocol::{Answers, Question};

/// Tokens of the prompt that `--record-answers` asks.
pub const PROMPT_TOKENS: u32 = 16;
/// Logits that are kept of its last position.
const LOGITS: usize = 64;
/// Tokens that follow it.
const GREEDY: usize = 16;

/// The longest prompt and the most tokens behind it that a file may ask for. A longer one says no more of a model, and takes
/// all the time that it has.
pub const MOST_PROMPT_TOKENS: usize = 8192;
/// See [`MOST_PROMPT_TOKENS`].
pub const MOST_GREEDY: usize = 1024;

/// The largest file of answers that is read.
pub(crate) const ANSWERS_LIMIT: u64 = 64 << 20;

/// Relative errors that pass: of two computations in float32, and where one of them was in a half type. MLX adds up in
/// another order on another device, and a half type has but 8 or 11 bits of a number.
const TOLERANCE: f64 = 1e-3;
const TOLERANCE_OF_HALVES: f64 = 2e-2;

/// The prompt that is asked of a model with so many tokens: always the same, and within the smallest vocabularies.
pub fn question(vocabulary: Option<u64>) -> Question {
    let vocabulary = u32::try_from(vocabulary.unwrap_or(256)).unwrap_or(u32::MAX).clamp(1, 1000);
    // 97 is prime: the tokens are spread and none comes twice.
    let prompt_ids = (0..PROMPT_TOKENS).map(|at| (at * 97 + 11) % vocabulary).collect();
    Question { prompt_ids, logits_head: LOGITS, greedy: GREEDY }
}

/// Answers as a file keeps them: the form of `reference.json`, and beside it how they came about, where that is known.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KeptAnswers {
    /// The answers.
    #[serde(flatten)]
    pub answers: Answers,
    /// The model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The type that they were computed in; the checkpoint's where it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dtype: Option<String>,
    /// The stamp of the files that they are of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<String>,
    /// When they were recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recorded_at: Option<DateTime<Utc>>,
}

impl KeptAnswers {
    /// Those of a file that somebody named.
    ///
    /// # Errors
    /// Why there are none, for people: it is no regular file, cannot be read, is too large, or holds something else.
    pub fn read(path: &Path) -> Result<Self, String> {
        // NONBLOCK: a pipe must not hang the open.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::open(path, flags, Mode::empty()).map_err(|error| error.to_string())?;
        let file = File::from(file);
        if !file.metadata().map_err(|error| error.to_string())?.is_file() {
            return Err("it is no regular file".to_owned());
        }
        let kept: Self =
            read_json(file, ANSWERS_LIMIT).map_err(|error| format!("it does not hold answers: {error}"))?;
        kept.check()?;
        Ok(kept)
    }

    /// Whether the question that they answer is one that can be asked.
    ///
    /// # Errors
    /// Why not, for people: said of the file that they stand in.
    pub fn check(&self) -> Result<(), String> {
        let (prompt, greedy) = (self.answers.prompt_ids.len(), self.answers.greedy.len());
        let (count, what, most) = match (prompt > MOST_PROMPT_TOKENS, greedy > MOST_GREEDY) {
            (true, _) => (prompt, "prompt_ids", MOST_PROMPT_TOKENS),
            (false, true) => (greedy, "greedy", MOST_GREEDY),
            (false, false) => return Ok(()),
        };
        Err(format!(
            "its `{what}` holds {count} tokens, and at most {most} are asked for: give a shorter one"
        ))
    }
}

/// Answers to compare with, and where they stand.
#[derive(Debug, Clone)]
pub struct Reference {
    /// The file.
    pub path: PathBuf,
    /// What it holds.
    pub kept: KeptAnswers,
}

impl Reference {
    /// What to ask so that the answers can be compared.
    pub(crate) fn question(&self) -> Question {
        let answers = &self.kept.answers;
        Question {
            prompt_ids: answers.prompt_ids.clone(),
            logits_head: answers.logits_head.len(),
            greedy: answers.greedy.len(),
        }
    }
}

/// Compares answers with a reference; `dtype` is what they were computed in, `checkpoint` what the weights are in. The
/// second is why they differ too much, if they do.
///
/// Greedy tokens count only where the answers were computed in the checkpoint's own type, or in the reference's: in another one two tokens that
/// are as good as equally likely may change places, and all that follows with them. The logits decide everywhere, those
/// of the ten likeliest tokens included.
pub fn compare(
    ours: &Answers,
    reference: &Reference,
    dtype: Option<&str>,
    checkpoint: Option<&str>,
) -> (AnswersCompared, Option<String>) {
    let theirs = &reference.kept.answers;
    let their_dtype = reference.kept.dtype.as_deref().or(checkpoint);
    let halves = [dtype, their_dtype].iter().any(|dtype| *dtype != Some("float32"));
    let tolerance = if halves { TOLERANCE_OF_HALVES } else { TOLERANCE };
    let error = relative_error(ours.logits_head.iter().copied(), theirs.logits_head.iter().copied());
    let matched = ours.greedy.iter().zip(&theirs.greedy).take_while(|(a, b)| a == b).count();
    let shared = theirs.top10.iter().filter(|(id, _)| logit_of(&ours.top10, *id).is_some()).count();
    let compared = AnswersCompared {
        max_relative_error: error.filter(|error| error.is_finite()),
        greedy_matched: matched as u64,
        greedy_total: theirs.greedy.len() as u64,
        tolerance,
        top10_matched: (!theirs.top10.is_empty()).then_some(shared as u64),
        reference: Some(reference.path.display().to_string()),
        computed_by: Some(theirs.computed_by.clone()),
        dtype: dtype.map(str::to_owned),
    };
    let path = reference.path.display();
    let flipped = matched < theirs.greedy.len();
    let nothing = theirs.logits_head.is_empty() && theirs.top10.is_empty() && theirs.greedy.is_empty();
    let likeliest = likeliest_error(ours, theirs);
    let why = if nothing {
        Some(format!("{path} has neither logits nor tokens to compare with"))
    } else if ours.logits_head.len() != theirs.logits_head.len() {
        let (a, b) = (ours.logits_head.len(), theirs.logits_head.len());
        Some(format!("it answered with {a} logits and {path} has {b}"))
    } else if let Some(error) = error.filter(|error| !passes(*error, tolerance)) {
        Some(differ("logits", error, &path, tolerance))
    } else if flipped && dtype.is_some() && (dtype == checkpoint || dtype == their_dtype) {
        let total = theirs.greedy.len();
        Some(format!("its greedy tokens are those of {path} only up to {matched} of {total}"))
    } else {
        likeliest
            .filter(|error| !passes(*error, tolerance))
            .map(|error| differ("likeliest tokens", error, &path, tolerance))
    };
    let why = why.map(|why| {
        format!(
            "{why}: the weights or the engine are not those that the answers are of; if that is meant, record them \
             again with --record-answers"
        )
    });
    (compared, why)
}

/// Whether an error is within the tolerance; what is no number is not.
fn passes(error: f64, tolerance: f64) -> bool {
    error <= tolerance
}

/// That something differs by too much, for people.
fn differ(what: &str, error: f64, path: &std::path::Display<'_>, tolerance: f64) -> String {
    if error.is_nan() {
        format!("its {what} or those of {path} have NaN or infinity")
    } else if error.is_infinite() {
        format!("its {what} differ from {path}, where all logits are 0")
    } else {
        format!("its {what} differ from {path} by {error:.2e}, where {tolerance:.0e} is allowed")
    }
}

fn logit_of(top: &[(u32, f32)], wanted: u32) -> Option<f32> {
    top.iter().find(|(id, _)| *id == wanted).map(|(_, logit)| *logit)
}

/// By how much the likeliest tokens differ, over the greatest magnitude of all logits of the reference; `None` where it
/// has none. A token that only one side has is as far off as it is greater than the other side's least: two that are
/// as good as equally likely may change places at the end of the ten.
fn likeliest_error(ours: &Answers, theirs: &Answers) -> Option<f64> {
    let finite = |answers: &Answers| answers.top10.iter().all(|(_, logit)| logit.is_finite());
    let least = |answers: &Answers| {
        answers.top10.iter().map(|(_, logit)| f64::from(*logit)).fold(f64::INFINITY, f64::min)
    };
    if theirs.top10.is_empty() {
        return None;
    }
    if ours.top10.is_empty() || !finite(ours) || !finite(theirs) {
        return Some(f64::NAN);
    }
    let magnitude = theirs.top10.iter().map(|(_, logit)| logit).chain(&theirs.logits_head);
    let magnitude = magnitude.map(|logit| f64::from(logit.abs())).fold(0.0, f64::max);
    let of_theirs = theirs.top10.iter().map(|(id, logit)| match logit_of(&ours.top10, *id) {
        Some(own) => (f64::from(own) - f64::from(*logit)).abs(),
        None => f64::from(*logit) - least(ours),
    });
    let of_ours = ours.top10.iter().filter(|(id, _)| logit_of(&theirs.top10, *id).is_none());
    let of_ours = of_ours.map(|(_, logit)| f64::from(*logit) - least(theirs));
    let difference = of_theirs.chain(of_ours).fold(0.0, f64::max);
    Some(if difference == 0.0 { 0.0 } else { difference / magnitude })
}

/// The greatest difference over the greatest magnitude of the reference; `None` where there is nothing to compare.
fn relative_error(ours: impl Iterator<Item = f32>, theirs: impl Iterator<Item = f32>) -> Option<f64> {
    let (mut difference, mut magnitude, mut any, mut finite) = (0.0_f64, 0.0_f64, false, true);
    for (a, b) in ours.zip(theirs) {
        let (a, b) = (f64::from(a), f64::from(b));
        finite &= a.is_finite() && b.is_finite();
        difference = difference.max((a - b).abs());
        magnitude = magnitude.max(b.abs());
        any = true;
    }
    match (any, finite) {
        (false, _) => None,
        (true, false) => Some(f64::NAN),
        (true, true) if difference == 0.0 => Some(0.0),
        (true, true) => Some(difference / magnitude),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers() -> Answers {
        Answers {
            prompt_ids: vec![1, 2],
            logits_head: vec![1.0, -4.0, 2.0],
            top10: vec![(2, 2.0), (0, 1.0)],
            greedy: vec![2, 0, 1],
            computed_by: "test".to_owned(),
        }
    }

    fn reference(dtype: &str) -> Reference {
        let kept = KeptAnswers {
            answers: answers(),
            model: None,
            dtype: Some(dtype.to_owned()),
            files: None,
            recorded_at: None,
        };
        Reference { path: PathBuf::from("reference.json"), kept }
    }

    #[test]
    fn the_tolerance_is_that_of_the_coarser_type() {
        let mut ours = answers();
        ours.logits_head[0] += 0.02;
        let (compared, why) = compare(&ours, &reference("float32"), Some("float32"), Some("float32"));
        assert!((compared.max_relative_error.unwrap() - 0.005).abs() < 1e-6);
        assert!(why.unwrap().contains("differ"));
        for (theirs, own) in [("bfloat16", "float32"), ("float32", "float16")] {
            let (compared, why) = compare(&ours, &reference(theirs), Some(own), Some("bfloat16"));
            assert_eq!((compared.tolerance, why), (TOLERANCE_OF_HALVES, None));
        }
    }

    #[test]
    fn greedy_tokens_count_in_the_checkpoints_own_type_alone() {
        let mut ours = answers();
        ours.greedy = vec![2, 1, 1];
        let (compared, why) = compare(&ours, &reference("bfloat16"), Some("bfloat16"), Some("bfloat16"));
        assert_eq!((compared.greedy_matched, compared.greedy_total), (1, 3));
        assert!(why.unwrap().contains("1 of 3"));
        assert_eq!(compare(&ours, &reference("bfloat16"), Some("float32"), Some("bfloat16")).1, None);
        ours.top10 = vec![(7, 9.0), (0, 3.0)];
        let (_, why) = compare(&ours, &reference("bfloat16"), Some("float32"), Some("bfloat16"));
        assert!(why.unwrap().contains("likeliest"));
    }

    #[test]
    fn the_likeliest_tokens_count_whatever_the_greedy_ones_are() {
        let why = |ours: &[(u32, f32)], theirs: &[(u32, f32)]| {
            let mut reference = reference("float32");
            reference.kept.answers.top10 = theirs.to_vec();
            let ours = Answers { top10: ours.to_vec(), ..answers() };
            compare(&ours, &reference, Some("float32"), Some("float32")).1
        };
        let own = [(2, 2.0), (0, 1.0)];
        // In any order, and another one at the end where the two are as good as equally likely.
        for same in [&[][..], &own, &[(0, 1.0), (2, 2.0)], &[(2, 2.001), (0, 0.999)], &[(2, 2.0), (9, 1.003)]]
        {
            assert_eq!(why(&own, same), None, "{same:?}");
        }
        for other in [
            &[(2, 999.0), (0, 999.0)][..],
            &[(1_000_000_000, 999.0)],
            &[(2, 2.0), (9, 1.5)],
            &[(2, 2.0), (0, 1.1)],
            &[(8, 0.5), (9, 0.4)],
            &[(2, f32::INFINITY), (0, 1.0)],
        ] {
            assert!(why(&own, other).is_some_and(|why| why.contains("likeliest")), "{other:?}");
        }
        assert!(why(&[], &own).is_some() && why(&[(2, f32::NAN), (0, 1.0)], &own).is_some());
    }

    #[test]
    fn logits_that_are_all_zero_are_told() {
        let mut zero = reference("float32");
        zero.kept.answers.logits_head = vec![0.0; 3];
        let (compared, why) = compare(&answers(), &zero, Some("float32"), Some("float32"));
        assert!(compared.max_relative_error.is_none() && why.unwrap().contains("all logits are 0"));
    }

    #[test]
    fn what_is_no_number_never_passes() {
        let mut ours = answers();
        ours.logits_head[1] = f32::NAN;
        let (compared, why) = compare(&ours, &reference("float16"), Some("float16"), Some("float16"));
        assert!(compared.max_relative_error.is_none() && why.is_some());
        ours.logits_head.pop();
        assert!(compare(&ours, &reference("float16"), Some("float16"), Some("float16")).1.is_some());
    }

    #[test]
    fn a_reference_that_says_nothing_passes_nothing() {
        let mut empty = reference("float32");
        empty.kept.answers.logits_head.clear();
        empty.kept.answers.greedy.clear();
        empty.kept.answers.top10.clear();
        let mut ours = answers();
        ours.logits_head.clear();
        ours.greedy.clear();
        let (_, why) = compare(&ours, &empty, Some("float32"), Some("float32"));
        assert!(why.unwrap().contains("neither"));
    }

    #[test]
    fn the_question_is_always_the_same_and_fits() {
        assert_eq!(question(Some(32_000)), question(Some(32_000)));
        assert!(question(Some(100)).prompt_ids.iter().all(|id| *id < 100));
        assert!(question(None).prompt_ids.iter().all(|id| *id < 256));
    }
}
