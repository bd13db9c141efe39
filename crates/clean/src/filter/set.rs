//! The filters together.

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::error::{FilterError, FilterErrorKind};
use super::expr::Expr;
use super::fields::Facts;
use super::label::LabelPattern;
use super::pattern::{Pattern, compile, is_glob};
use super::read::parse_exprs;

/// The filters as they were given, in words: what the command line fills, and what a plan records.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct FilterArgs {
    /// `--models`: a model's name, its repository, the last component of either, each with `@REVISION` or without; or a
    /// glob over them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<String>,
    /// `--pattern` of `clean hf`: repos by their id, or globs over it; what lies in them and is no model is meant too.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub repos: Vec<String>,
    /// `--tags`: tags, or globs over them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// `--quantization`: labels in any spelling, or globs over them; `mixed` is every mixed one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub quantization: Vec<String>,
    /// `--store`: `KIND=PATH`, a kind, a path, or a glob over the path.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stores: Vec<String>,
    /// `--fused-only`: only models with an adapter fused into the weights.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub fused_only: bool,
    /// `--missing-only`: only models whose files are not on the disk.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub missing_only: bool,
    /// `--filter`: conditions, as [`parse_exprs`] reads them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<String>,
}

/// Filters that can be asked about a model.
#[derive(Debug, Clone, Default)]
pub struct FilterSet {
    args: FilterArgs,
    models: Vec<ModelPattern>,
    repos: Vec<Pattern>,
    tags: Vec<Pattern>,
    quantization: Vec<LabelPattern>,
    stores: Vec<StorePattern>,
    exprs: Vec<Expr>,
}

impl FilterSet {
    /// Reads the filters.
    ///
    /// # Errors
    /// The first one that is empty or can't be understood.
    pub fn parse(args: &FilterArgs) -> Result<Self, FilterError> {
        let mut exprs = Vec::new();
        for given in &args.filters {
            exprs.extend(parse_exprs(given)?);
        }
        Ok(Self {
            args: args.clone(),
            models: read("--models", &args.models, ModelPattern::new)?,
            repos: read("--pattern", &args.repos, Pattern::new)?,
            tags: read("--tags", &args.tags, Pattern::new)?,
            quantization: read("--quantization", &args.quantization, LabelPattern::new)?,
            stores: read("--store", &args.stores, StorePattern::new)?,
            exprs,
        })
    }

    /// What it was read from. Read again, it selects the same.
    #[must_use]
    pub fn args(&self) -> &FilterArgs {
        &self.args
    }

    /// Whether there is no condition at all, so that every model matches. What removes models must refuse such a set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.args == FilterArgs::default()
    }

    /// The conditions of all `--filter` options.
    #[must_use]
    pub fn exprs(&self) -> &[Expr] {
        &self.exprs
    }

    /// Whether every kind of filter that was given holds of the model. Ages are taken from `now`.
    #[must_use]
    pub fn matches(&self, facts: &Facts<'_>, now: DateTime<Utc>) -> bool {
        (!self.args.fused_only || facts.fused == Some(true))
            && (!self.args.missing_only || !facts.present)
            && any(&self.models, |model| model.matches(facts))
            && any(&self.repos, |pattern| facts.repo_id.is_some_and(|id| pattern.matches(id)))
            && any(&self.tags, |pattern| facts.tags.iter().any(|tag| pattern.matches(tag)))
            && any(&self.quantization, |label| {
                let variants = facts.quantization_variants.iter().map(String::as_str);
                facts.quantization.into_iter().chain(variants).any(|has| label.matches(has))
            })
            && any(&self.stores, |store| store.matches(facts.store))
            && self.exprs.iter().all(|expr| expr.matches(facts, now))
    }

    /// Whether they ask for nothing but repos, and this is one of them: then what lies in it and is no model is meant too.
    #[must_use]
    pub fn mean_repo(&self, repo_id: Option<&str>) -> bool {
        let only = FilterArgs { repos: self.args.repos.clone(), ..FilterArgs::default() };
        let is_one = |id: &str| self.repos.iter().any(|pattern| pattern.matches(id));
        self.args == only && repo_id.is_some_and(is_one)
    }

    /// The conditions in words, for a plan's preview; all of them must hold.
    #[must_use]
    pub fn describe(&self) -> Vec<String> {
        let args = &self.args;
        let kinds = [
            ("model", &args.models),
            ("repo", &args.repos),
            ("tag", &args.tags),
            ("quantization", &args.quantization),
            ("store", &args.stores),
        ];
        let mut words: Vec<String> = kinds
            .into_iter()
            .filter(|(_, values)| !values.is_empty())
            .map(|(what, values)| format!("{what} is {}", values.join(" or ")))
            .collect();
        words.extend(args.fused_only.then(|| "an adapter is fused in".to_owned()));
        words.extend(args.missing_only.then(|| "its files are missing".to_owned()));
        words.extend(self.exprs.iter().map(ToString::to_string));
        words
    }

    pub(super) fn model_values(&self) -> impl Iterator<Item = (&str, &ModelPattern)> {
        self.args.models.iter().map(String::as_str).zip(&self.models)
    }

    pub(super) fn tag_values(&self) -> impl Iterator<Item = (&str, &Pattern)> {
        self.args.tags.iter().map(String::as_str).zip(&self.tags)
    }

    pub(super) fn quantization_values(&self) -> impl Iterator<Item = (&str, &LabelPattern)> {
        self.args.quantization.iter().map(String::as_str).zip(&self.quantization)
    }

    pub(super) fn store_values(&self) -> impl Iterator<Item = (&str, &StorePattern)> {
        self.args.stores.iter().map(String::as_str).zip(&self.stores)
    }
}

fn any<T>(filters: &[T], holds: impl Fn(&T) -> bool) -> bool {
    filters.is_empty() || filters.iter().any(holds)
}

fn read<T>(
    option: &'static str,
    values: &[String],
    new: fn(&str) -> Result<T, globset::Error>,
) -> Result<Vec<T>, FilterError> {
    let read_one = |given: &String| {
        let error = |kind| FilterError { option, given: given.clone(), at: None, kind: Box::new(kind) };
        match given.trim() {
            "" => Err(error(FilterErrorKind::Empty)),
            value => new(value).map_err(|why| error(FilterErrorKind::Glob { why: why.kind().to_string() })),
        }
    };
    values.iter().map(read_one).collect()
}

/// One value of `--models`.
#[derive(Debug, Clone)]
pub(super) struct ModelPattern {
    whole: Pattern,
    /// The name and the revision around the last `@`.
    parts: Option<(Pattern, Pattern, String)>,
}

impl ModelPattern {
    fn new(text: &str) -> Result<Self, globset::Error> {
        let parts = match text.rsplit_once('@') {
            Some((name, revision)) if !name.is_empty() && !revision.is_empty() => {
                Some((Pattern::new(name)?, Pattern::new(revision)?, revision.to_lowercase()))
            }
            _ => None,
        };
        Ok(Self { whole: Pattern::new(text)?, parts })
    }

    pub(super) fn matches(&self, facts: &Facts<'_>) -> bool {
        let last = |name: &'_ str| name.rsplit('/').next().map(str::len).unwrap_or_default();
        let full = [Some(facts.model), facts.repo_id];
        let names = full.into_iter().flatten().flat_map(|name| [name, &name[name.len() - last(name)..]]);
        if names.clone().any(|name| self.whole.matches(name)) {
            return true;
        }
        let Some((name, revision, text)) = &self.parts else { return false };
        names.clone().any(|candidate| name.matches(candidate))
            && (facts.revision.is_some_and(|has| revision.matches(has) || is_short_for(text, has))
                || facts.refs.iter().any(|has| revision.matches(has)))
    }
}

/// Whether `short` is the beginning of the commit `full`, and long enough to mean it.
fn is_short_for(short: &str, full: &str) -> bool {
    short.len() >= 4
        && short.bytes().all(|byte| byte.is_ascii_hexdigit())
        && full.to_lowercase().starts_with(short)
}

/// One value of `--store`. Paths are compared letter for letter; in a glob, `*` matches across components.
#[derive(Debug, Clone)]
pub(super) struct StorePattern {
    text: String,
    glob: Option<globset::GlobMatcher>,
}

impl StorePattern {
    fn new(text: &str) -> Result<Self, globset::Error> {
        let glob = if is_glob(text) { Some(compile(text, false)?) } else { None };
        Ok(Self { text: text.to_owned(), glob })
    }

    pub(super) fn matches(&self, store: &str) -> bool {
        let (kind, path) = store.split_once('=').unwrap_or((store, store));
        let trimmed = match self.text.trim_end_matches('/') {
            "" => &self.text,
            trimmed => trimmed,
        };
        let is = |candidate: &str| {
            candidate == self.text
                || candidate == trimmed
                || self.glob.as_ref().is_some_and(|glob| glob.is_match(candidate))
        };
        kind.eq_ignore_ascii_case(&self.text) || is(path) || is(store)
    }
}
