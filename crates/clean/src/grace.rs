//! When a model was last used, and how long a revision that no ref names is left alone.

use chrono::{DateTime, TimeDelta, Utc};
use mlxman_manifest::registry::SurveyedModel;
use mlxman_store::{FoundModel, UsedBy};

use crate::filter::quantity::{format_age, format_exact_age};
use crate::plan::Keep;

/// A snapshot written this much later than any ref was asked for by its commit. What is written in one go, such as a
/// copy of a store, does not count.
const AFTER_REFS_NS: i64 = 10 * 60 * 1_000_000_000;

/// The last time that anything is known to have happened to a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LastUse {
    pub(crate) time: DateTime<Utc>,
    pub(crate) by: UsedBy,
}

impl LastUse {
    /// By the log of uses; where that has nothing, by when its files were last read or written. `None` where it has no
    /// file.
    pub(crate) fn of(known: &SurveyedModel) -> Option<Self> {
        known.summary.last_used().map(|(time, by)| LastUse { time, by })
    }

    /// How long ago it was, in words, with what says so.
    pub(crate) fn describe(self, now: DateTime<Utc>) -> String {
        format!(
            "last used {} ago, by {}",
            format_age(now.signed_duration_since(self.time)),
            self.by.describe()
        )
    }
}

/// Why a snapshot that no ref names is left alone for now, if it is: a download by commit writes no ref, so somebody may
/// have asked for just this one.
pub(crate) fn in_grace(
    found: &FoundModel,
    known: &SurveyedModel,
    grace: TimeDelta,
    now: DateTime<Utc>,
) -> Option<(Keep, String)> {
    let repo = found.repo.as_ref().filter(|repo| repo.detached() == Some(true))?;
    let used = LastUse::of(known);
    let written = found.dirs.first().map(|(_, stat)| stat.mtime_ns);
    let since = used.map(|used| used.time).max(written.map(DateTime::from_timestamp_nanos))?;
    // What is dated in the future is as fresh as can be.
    let passed = now.signed_duration_since(since).max(TimeDelta::zero());
    let left = grace - passed;
    if left <= TimeDelta::zero() {
        return None;
    }
    // The last day counts as a whole one.
    let days = left.num_seconds().saturating_add(86_399) / 86_400;
    let days = if days == 1 { "1 more day".to_owned() } else { format!("{days} more days") };
    let by = match used {
        Some(used) if used.time == since => used.describe(now),
        _ => format!("fetched {} ago", format_age(passed)),
    };
    let after_refs = written.zip(repo.refs_changed_ns);
    let asked_for = after_refs.is_some_and(|(written, refs)| written > refs.saturating_add(AFTER_REFS_NS));
    let grace = format_exact_age(grace);
    Some(if asked_for {
        let reason = format!(
            "it was fetched after the repo's refs were last written, so somebody asked for this revision by its \
             commit; {by}: kept for {days} (--grace {grace})"
        );
        (Keep::AskedForByCommit, reason)
    } else {
        let reason = format!(
            "no ref names it, and somebody may have asked for it by its commit; {by}: kept for {days} (--grace {grace})"
        );
        (Keep::Grace, reason)
    })
}
