//! What may go by rules of its own: how old, how many, how much. Each policy names models with a reason; what is pinned,
//! in use or needed stays whatever they say.
//!
//! Filters limit what policies may name. `--keep-last` also holds: what it keeps, no other policy names.

mod budget;
mod choose;
mod duplicates;
mod explain;
mod keep_last;
mod superseded;
mod world;

use chrono::TimeDelta;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::filter::quantity::{QuantityError, format_exact_age, parse_age, parse_bytes};

pub(crate) use choose::{Choice, choose};
pub use explain::{Explanation, GuardAnswer, Outcome, PolicyAnswer, explain, explain_schema};
pub(crate) use world::{Holds, World, facts_of_stray, stray_rule};

/// How long a revision that no ref names is left alone, where nothing is said.
const GRACE: TimeDelta = TimeDelta::days(14);

/// The policies as they were given, in words: what the command line and the configuration fill, and what a plan records.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct PolicyArgs {
    /// `--keep-last`: of each repo so many of the most recent snapshots are kept, and the others may go.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_last: Option<u32>,
    /// `--older-than`: models that were not used for so long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub older_than: Option<String>,
    /// `--max-size`: the least recently used go until the stores take no more than this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_size: Option<String>,
    /// `--free`: what is missed least goes until so much is free on the disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub free: Option<String>,
    /// `--detached`: snapshots that no ref names, where another of the repo is named by one.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub detached: bool,
    /// `--partials`: partial downloads that nobody writes.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub partials: bool,
    /// `--orphans`: blobs that no snapshot uses.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub orphans: bool,
    /// `--broken`: repos without a snapshot, snapshots without a file or with links whose blobs are gone, stale locks.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub broken: bool,
    /// `--duplicates`: models that lie in the stores once more, in a better place.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub duplicates: bool,
    /// `--superseded`: models of which a newer revision or a finer precision is here and was verified.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub superseded: bool,
    /// `--grace`: how long a revision that no ref names is left alone after it was last written or used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grace: Option<String>,
    /// `--include-irreplaceable`: also what cannot be had again.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub include_irreplaceable: bool,
}

/// Why policies cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// It is no size or no age.
    #[error("--{option} {given}: {source}")]
    Quantity {
        /// Which policy.
        option: &'static str,
        /// As given.
        given: String,
        /// Why not.
        source: QuantityError,
    },
    /// Nothing, where that would name every model.
    #[error("--{option} {given} would name every model; give it more, or choose models with filters")]
    Everything {
        /// Which policy.
        option: &'static str,
        /// As given.
        given: String,
    },
}

/// Policies that can be asked.
#[derive(Debug, Clone)]
pub struct Policies {
    args: PolicyArgs,
    pub(crate) older_than: Option<TimeDelta>,
    pub(crate) max_size: Option<u64>,
    pub(crate) free: Option<u64>,
    pub(crate) grace: TimeDelta,
}

impl Default for Policies {
    fn default() -> Self {
        Policies { args: PolicyArgs::default(), older_than: None, max_size: None, free: None, grace: GRACE }
    }
}

impl Policies {
    /// Reads them.
    ///
    /// # Errors
    /// The first that is no size or age, or that would name everything.
    pub fn parse(args: &PolicyArgs) -> Result<Self, PolicyError> {
        let older_than = read("older-than", args.older_than.as_deref(), parse_age)?;
        let max_size = read("max-size", args.max_size.as_deref(), parse_bytes)?;
        let everything = |option, given: &str| PolicyError::Everything { option, given: given.to_owned() };
        if args.keep_last == Some(0) {
            return Err(everything("keep-last", "0"));
        }
        if let (Some(age), Some(given)) = (older_than, &args.older_than)
            && age <= TimeDelta::zero()
        {
            return Err(everything("older-than", given));
        }
        if let (Some(0), Some(given)) = (max_size, &args.max_size) {
            return Err(everything("max-size", given));
        }
        Ok(Policies {
            args: args.clone(),
            older_than,
            max_size,
            free: read("free", args.free.as_deref(), parse_bytes)?,
            grace: read("grace", args.grace.as_deref(), parse_age)?.unwrap_or(GRACE),
        })
    }

    /// What they were read from.
    #[must_use]
    pub fn args(&self) -> &PolicyArgs {
        &self.args
    }

    /// Whether none names anything, so that the filters alone choose.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let args = PolicyArgs { grace: None, include_irreplaceable: false, ..self.args.clone() };
        args == PolicyArgs::default()
    }

    /// In words, for a plan's preview.
    #[must_use]
    pub fn describe(&self) -> Vec<String> {
        let args = &self.args;
        let mut words: Vec<String> = Vec::new();
        words.extend(args.keep_last.map(|count| format!("of each repo the last {count} are kept")));
        words.extend(self.older_than.map(|age| format!("not used for {}", format_exact_age(age))));
        for (is_asked, what) in [
            (args.detached, "no ref names it"),
            (args.partials, "a partial download that nobody writes"),
            (args.orphans, "a blob that no snapshot uses"),
            (args.broken, "broken or empty"),
            (args.superseded, "superseded by what was verified"),
            (args.duplicates, "here once more"),
        ] {
            words.extend(is_asked.then(|| what.to_owned()));
        }
        words.extend(args.max_size.as_ref().map(|size| format!("until the stores take {size}")));
        words.extend(args.free.as_ref().map(|size| format!("until {size} are free")));
        words
    }
}

fn read<T>(
    option: &'static str,
    given: Option<&str>,
    parse: fn(&str) -> Result<T, QuantityError>,
) -> Result<Option<T>, PolicyError> {
    let quantity = |given: &str| {
        parse(given).map_err(|source| PolicyError::Quantity { option, given: given.to_owned(), source })
    };
    given.map(quantity).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_name_everything_is_refused() {
        let refused =
            |args: PolicyArgs| matches!(Policies::parse(&args), Err(PolicyError::Everything { .. }));
        assert!(refused(PolicyArgs { keep_last: Some(0), ..PolicyArgs::default() }));
        assert!(refused(PolicyArgs { older_than: Some("0d".to_owned()), ..PolicyArgs::default() }));
        assert!(refused(PolicyArgs { max_size: Some("0".to_owned()), ..PolicyArgs::default() }));
        let none = Policies::parse(&PolicyArgs { grace: Some("0d".to_owned()), ..PolicyArgs::default() });
        assert!(none.is_ok_and(|none| none.is_empty() && none.grace == TimeDelta::zero()));
        assert_eq!(Policies::default().grace, TimeDelta::days(14));
    }

    #[test]
    fn what_is_no_quantity_is_told_with_its_option() {
        let args = PolicyArgs { free: Some("lots".to_owned()), ..PolicyArgs::default() };
        let error = Policies::parse(&args).expect_err("no size").to_string();
        assert!(error.starts_with("--free lots: "), "{error}");
    }
}
