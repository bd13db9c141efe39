//! Names that were meant, perhaps, by a name that does not exist.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::expr::Op;
use super::fields::{Facts, Kind, Value};
use super::set::FilterSet;

/// How many names a [`NearMiss`] gives at most.
const NAMES: usize = 3;

/// A value of a filter that no model has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct NearMiss {
    /// What was asked for: `model`, `tag`, `quantization`, `store`, or a field's name.
    pub what: String,
    /// The value as given.
    pub value: String,
    /// Values that models do have and that are like it, the likest first; at most three.
    pub near: Vec<String>,
    /// Where none is like it: some of the values that models have; at most three.
    pub existing: Vec<String>,
    /// How many different values models have.
    pub existing_count: usize,
}

impl fmt::Display for NearMiss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} \"{}\": no model has it; ", self.what, self.value)?;
        if !self.near.is_empty() {
            return write!(f, "near: {}", self.near.join(", "));
        }
        if self.existing.is_empty() {
            return write!(f, "no model has any");
        }
        write!(f, "there is: {}", self.existing.join(", "))?;
        match self.existing_count.saturating_sub(self.existing.len()) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// Of `names`, up to `most` that are like `name`, the likest first: in letters, or in that one contains the other.
#[must_use]
pub fn nearest<'n, I>(name: &str, names: I, most: usize) -> Vec<&'n str>
where
    I: IntoIterator<Item = &'n str>,
{
    let wanted = name.to_lowercase();
    let bare: String = wanted.chars().filter(|c| !matches!(c, '*' | '?' | '[' | ']')).collect();
    if bare.is_empty() {
        return Vec::new();
    }
    let mut scored: Vec<(f64, &'n str)> = Vec::new();
    for candidate in names {
        let lower = candidate.to_lowercase();
        let last = lower.rsplit('/').next().unwrap_or(&lower);
        let mut score = strsim::normalized_damerau_levenshtein(&bare, &lower)
            .max(strsim::normalized_damerau_levenshtein(&bare, last))
            .max(strsim::jaro_winkler(&bare, last) - 0.2);
        let contained = |long: &str, short: &str| short.chars().count() >= 3 && long.contains(short);
        if contained(&lower, &bare) || contained(&bare, last) {
            score = score.max(0.7);
        }
        if score >= 0.6 && !scored.iter().any(|(_, other)| *other == candidate) {
            scored.push((score, candidate));
        }
    }
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(b.1)));
    scored.into_iter().take(most).map(|(_, name)| name).collect()
}

/// For each name in the filter that not one of the models has: what it could have been.
///
/// It is empty when every single value is met by some model, even if never by one model together with the others. What is
/// `beside` the models can meet a value too, and is never what was meant. `now` is as in [`FilterSet::matches`].
#[must_use]
pub fn near_misses(
    set: &FilterSet,
    all: &[Facts<'_>],
    beside: &[Facts<'_>],
    now: DateTime<Utc>,
) -> Vec<NearMiss> {
    let mut misses = Vec::new();
    let mut miss = |what: &str, value: &str, existing: &BTreeSet<&str>| {
        let near = nearest(value, existing.iter().copied(), NAMES);
        let some = if near.is_empty() { NAMES } else { 0 };
        misses.push(NearMiss {
            what: what.to_owned(),
            value: value.to_owned(),
            near: near.into_iter().map(str::to_owned).collect(),
            existing: existing.iter().take(some).map(|&value| value.to_owned()).collect(),
            existing_count: existing.len(),
        });
    };
    let models = || all.iter().map(|facts| facts.repo_id.unwrap_or(facts.model)).collect();
    for (value, filter) in set.model_values() {
        if !all.iter().chain(beside).any(|facts| filter.matches(facts)) {
            miss("model", value, &models());
        }
    }
    for (value, pattern) in set.tag_values() {
        if !all.iter().chain(beside).any(|facts| facts.tags.iter().any(|tag| pattern.matches(tag))) {
            miss("tag", value, &all.iter().flat_map(|facts| facts.tags).map(String::as_str).collect());
        }
    }
    for (value, label) in set.quantization_values() {
        if !all.iter().chain(beside).any(|facts| facts.quantization.is_some_and(|has| label.matches(has))) {
            miss("quantization", value, &all.iter().filter_map(|facts| facts.quantization).collect());
        }
    }
    for (value, store) in set.store_values() {
        if !all.iter().chain(beside).any(|facts| store.matches(facts.store)) {
            miss("store", value, &all.iter().map(|facts| facts.store).collect());
        }
    }
    let mut values: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for expr in set.exprs() {
        let field = expr.field();
        let is_text = matches!(field.kind, Kind::Text | Kind::Label | Kind::List);
        if !is_text
            || !matches!(expr.op(), Op::Equal | Op::Like)
            || all.iter().chain(beside).any(|facts| expr.matches(facts, now))
        {
            continue;
        }
        let existing = values.entry(field.name).or_insert_with(|| {
            let known = all.iter().filter_map(|facts| field.value(facts));
            known.fold(BTreeSet::new(), |mut existing, value| {
                match value {
                    Value::Text(text) => existing.extend([text]),
                    Value::List(texts) => existing.extend(texts),
                    _ => {}
                }
                existing
            })
        });
        miss(field.name, expr.value(), existing);
    }
    misses
}
