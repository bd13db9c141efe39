//! From what a worker said, or how it ended, to a verdict.

use chrono::{DateTime, Utc};
use mlxman_manifest::{Spread, Verdict, Verification, VerifiedLevel};

use crate::protocol::{EngineInfo, Level, Rate, Report};
use crate::structure::Structure;
use crate::words;
use crate::worker::Ended;

/// What is judged against.
pub(crate) struct Judge<'a> {
    pub(crate) structure: &'a Structure,
    pub(crate) path: &'a str,
    /// What the model was to pass.
    pub(crate) wanted: Level,
    /// Whether an architecture that no decoder is known for is a failure.
    pub(crate) strict: bool,
    pub(crate) now: DateTime<Utc>,
}

impl Judge<'_> {
    fn about(&self, level: VerifiedLevel, verdict: Verdict) -> Verification {
        Verification::new(level, verdict, self.now, self.structure.stamp.clone())
    }

    /// A pass of the structure, and why it goes no further.
    pub(crate) fn structure_alone(&self, instead: Option<String>) -> Verification {
        let (level, verdict) = match &self.structure.failure {
            Some(_) => (VerifiedLevel::Structure, Verdict::Fail),
            None => (VerifiedLevel::Structure, Verdict::Pass),
        };
        Verification { reason: self.structure.failure.clone(), instead, ..self.about(level, verdict) }
    }

    /// What was wanted was not tried.
    pub(crate) fn skipped(&self, reason: String) -> Verification {
        let passed = self.structure.failure.is_none().then_some(VerifiedLevel::Structure);
        Verification { reason: Some(reason), passed, ..self.about(self.wanted.into(), Verdict::Skipped) }
    }

    /// The worker ended without a report. `phase` is what it was at, `complaint` what it said last.
    pub(crate) fn ended(&self, ended: &Ended, phase: Option<&str>, complaint: Option<&str>) -> Verification {
        let level = match phase {
            None | Some("load") => VerifiedLevel::Load,
            Some(_) => VerifiedLevel::Generate,
        };
        let at = phase.map_or_else(|| "before it loaded anything".to_owned(), words::phase);
        let said = complaint.map(|text| format!("; it said: {text}")).unwrap_or_default();
        let path = self.path;
        let reason = match ended {
            Ended::Signal(9) => format!(
                "the worker was killed (SIGKILL) {at}: by somebody, or by the system because memory ran out{said}; \
                 then close other programs, or refuse such models with --memory-limit"
            ),
            Ended::Signal(signal) => format!(
                "the worker crashed ({}) {at}{said}; if the files in {path} are whole, this is worth a report",
                words::signal(*signal)
            ),
            Ended::Exit(code) => format!("the worker ended with status {code} {at}{said}"),
            Ended::TooSlow(limit) => format!(
                "the worker did not finish within {} s, it was stopped {at}{said}; --timeout gives it longer",
                limit.as_secs_f64()
            ),
            Ended::TooMuchMemory { held, limit } => format!(
                "the worker held {} {at}, where {} are allowed, and was stopped; --memory-limit allows more",
                words::bytes(*held),
                words::bytes(*limit)
            ),
            Ended::Garbage(text) => format!(
                "the worker said something that is not of the protocol {at}: `{text}`; `cargo xtask install` installs \
                 one that fits this mlxman"
            ),
            Ended::Silent => format!("the worker closed its output {at} and did not end{said}"),
            Ended::Interrupted => return self.skipped("interrupted before it was done".to_owned()),
        };
        let passed = match level {
            VerifiedLevel::Generate => VerifiedLevel::Load,
            _ => VerifiedLevel::Structure,
        };
        let signal = match ended {
            Ended::Signal(signal) => Some(words::signal(*signal)),
            _ => None,
        };
        Verification {
            reason: Some(reason),
            signal,
            passed: Some(passed),
            ..self.about(level, Verdict::Fail)
        }
    }

    /// The worker reported.
    pub(crate) fn reported(&self, report: &Report, engine: &EngineInfo) -> Verification {
        let passed = report.level.unwrap_or(Level::Structure);
        let failed = match passed {
            Level::Structure => VerifiedLevel::Load,
            Level::Load | Level::Generate => VerifiedLevel::Generate,
        };
        let (level, verdict, reason) = if let Some(failure) = &report.failure {
            (failed, Verdict::Fail, Some(failure.message.clone()))
        } else if passed >= self.wanted {
            (passed.into(), Verdict::Pass, None)
        } else if self.strict && self.is_unknown(report) {
            let instead =
                report.instead.clone().unwrap_or_else(|| "its architecture is not known".to_owned());
            (failed, Verdict::Fail, Some(format!("{instead} (--strict makes that a failure)")))
        } else if report.instead.is_some() {
            (passed.into(), Verdict::Pass, None)
        } else {
            let reason = "the worker did not say why it went no further; this is worth a report";
            (failed, Verdict::Fail, Some(reason.to_owned()))
        };
        let spread = |rate: Rate| Spread {
            median: rate.median,
            min: rate.min,
            max: rate.max,
            trials: rate.trials,
            tokens: rate.tokens,
        };
        Verification {
            reason,
            prompt_tps: report.prompt_tps.map(|rate| rate.median),
            generation_tps: report.generation_tps.map(|rate| rate.median),
            peak_memory_bytes: report.peak_memory_bytes.or(report.process_peak_bytes),
            load_seconds: report.load_seconds,
            dtype: report.dtype.clone(),
            device: Some(engine.device.clone()).filter(|device| !device.is_empty()),
            passed: Some(passed.into()).filter(|passed| *passed != level),
            instead: report.instead.clone(),
            notes: report.notes.clone(),
            prompt_spread: report.prompt_tps.map(spread),
            generation_spread: report.generation_tps.map(spread),
            first_token_seconds: report.first_token_seconds,
            family: report.family.clone(),
            tensors: (report.tensors > 0).then_some(report.tensors),
            text: report.text.clone(),
            mlx_version: Some(engine.mlx_version.clone()).filter(|version| !version.is_empty()),
            blas: engine.blas.clone(),
            ..self.about(level, verdict)
        }
    }

    /// Whether what was done instead was done because nobody knows the architecture, or the kind of adapter, and not because
    /// it is no language model.
    fn is_unknown(&self, report: &Report) -> bool {
        let modality = self.structure.observation.architecture.modality.as_deref();
        report.unknown_architecture.is_some()
            || report.instead.is_some() && modality.is_none_or(|modality| modality == "text")
    }
}
