use chrono::{DateTime, Utc};
use mlxman_store::UsedBy;
use serde::{Deserialize, Serialize};

use crate::record::{AdapterKind, Format, HealthStatus, Manifest};
use crate::verification::{Verdict, VerifiedSummary};

/// What a table and a filter need of a manifest; the registry's index keeps one for each, so that listing a thousand
/// models reads one file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Summary {
    /// See [`Manifest::model`].
    pub model: String,
    /// See [`Manifest::store`].
    pub store: String,
    /// See [`Manifest::key`].
    pub key: String,
    /// The catalog's short name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub catalog: Option<String>,
    /// The repo on the hub.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repo_id: Option<String>,
    /// The commit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// Refs that name it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub refs: Vec<String>,
    /// Whether no ref names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detached: Option<bool>,
    /// Whether a loader gets it for the repo.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current: Option<bool>,
    /// The first base model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base_model: Option<String>,
    /// The licence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub license: Option<String>,
    /// The format.
    pub format: Format,
    /// The model type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arch: Option<String>,
    /// The modality.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub modality: Option<String>,
    /// Longest context, in tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context_length: Option<u64>,
    /// Parameters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub params: Option<u64>,
    /// Floating-point type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub precision: Option<String>,
    /// The quantization's label.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quantization: Option<String>,
    /// The labels of several quantizations in one directory; then there is no one label.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub quantization_variants: Vec<String>,
    /// Whether only a name says so.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub quantization_from_name: bool,
    /// The quantization's method.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quantization_method: Option<String>,
    /// Whether an adapter is involved.
    pub adapter: AdapterKind,
    /// Whether one is fused in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fused: Option<bool>,
    /// The base that its tensors were compared with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compared_with: Option<String>,
    /// Health in a word.
    pub health: HealthStatus,
    /// The kinds of its problems.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
    /// Whether any of them weighs more than an information.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub ailing: bool,
    /// Whether it was there at the last sync.
    pub present: bool,
    /// Whether it is pinned.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub pinned: bool,
    /// Tags.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Files.
    pub file_count: u64,
    /// Apparent bytes.
    pub size_bytes: u64,
    /// Bytes that come back if it alone goes.
    pub reclaimable_bytes: u64,
    /// Whether more may come back.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub reclaimable_at_least: bool,
    /// When it was last written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub modified: Option<DateTime<Utc>>,
    /// When it was last read, as far as the filesystem keeps that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub used: Option<DateTime<Utc>>,
    /// When it was last used, as far as the registry's log knows. It stands in the log alone.
    #[serde(skip)]
    pub logged: Option<DateTime<Utc>>,
    /// What the newest verification found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verified: Option<VerifiedSummary>,
    /// What the newest verification of its contents found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub integrity: Option<VerifiedSummary>,
}

impl Summary {
    /// The summary of a manifest.
    pub fn of(manifest: &Manifest) -> Self {
        let Manifest { source, architecture, quantization, adapter, storage, health, .. } = manifest;
        Summary {
            model: manifest.model.clone(),
            store: manifest.store.clone(),
            key: manifest.key.clone(),
            catalog: manifest.catalog.clone(),
            repo_id: source.repo_id.clone(),
            revision: source.revision.clone(),
            refs: source.refs.clone(),
            detached: source.detached,
            current: source.current,
            base_model: source.base_model.first().cloned(),
            license: source.license.clone(),
            format: manifest.format,
            arch: architecture.model_type.clone(),
            modality: architecture.modality.clone(),
            context_length: architecture.context_length,
            params: manifest.parameter_count,
            precision: manifest.precision.clone(),
            quantization: quantization.label.clone(),
            quantization_variants: quantization.variants.clone(),
            quantization_from_name: quantization.from_name,
            quantization_method: quantization.method.clone(),
            adapter: adapter.kind,
            fused: adapter.currently_fused.or((adapter.kind == AdapterKind::Fused).then_some(true)),
            compared_with: adapter.comparison.as_ref().map(|comparison| comparison.base.clone()),
            health: health.status,
            problems: health.problems.iter().map(|problem| problem.kind.word().to_owned()).collect(),
            ailing: health.problems.iter().any(|problem| problem.severity > mlxman_store::Severity::Info),
            present: storage.present,
            pinned: manifest.pinned,
            tags: manifest.tags.clone(),
            file_count: storage.file_count,
            size_bytes: storage.size_bytes,
            reclaimable_bytes: storage.reclaimable_bytes,
            reclaimable_at_least: storage.reclaimable_at_least,
            modified: storage.last_modified,
            used: storage.last_accessed,
            logged: None,
            verified: manifest.verification.as_ref().map(VerifiedSummary::of),
            integrity: manifest.integrity.as_ref().map(VerifiedSummary::of),
        }
    }

    /// When it was last used, and what says so: the log of uses; where that has nothing since its files were written, their
    /// times.
    pub fn last_used(&self) -> Option<(DateTime<Utc>, UsedBy)> {
        match (self.logged, self.modified) {
            (Some(logged), modified) if modified.is_none_or(|modified| modified <= logged) => {
                Some((logged, UsedBy::Log))
            }
            // Written after it was last used: it is another one now.
            (Some(_), Some(modified)) => Some((modified, UsedBy::FileTimes)),
            // Where the filesystem keeps no access times, a file seems to have been read before it was written.
            _ => Some((self.used.max(self.modified)?, UsedBy::FileTimes)),
        }
    }

    /// Whether a check of its contents found damage, on the files that are there now.
    pub fn is_damaged(&self) -> bool {
        self.integrity.as_ref().is_some_and(|found| found.holds() && found.verdict == Verdict::Fail)
    }

    /// Whether it is whole as far as anybody knows: another one may go because this one stays.
    pub fn is_sound(&self) -> bool {
        self.health == HealthStatus::Complete && !self.is_damaged()
    }

    /// Whether `asked` is a name of this model: its own, its repo id, its catalog name, the last part of either, each
    /// also with `@` and a ref or the beginning of the revision, and with the store before it (`STORE:NAME`).
    pub fn answers_to(&self, asked: &str) -> bool {
        let asked = match asked.strip_prefix(self.store.as_str()).and_then(|rest| rest.strip_prefix(':')) {
            Some(rest) => rest,
            None => asked,
        };
        let (name, revision) = match asked.split_once('@') {
            Some((name, revision)) => (name, Some(revision)),
            None => (asked, None),
        };
        if asked == self.model || asked == self.key {
            return true;
        }
        let base = self.model.split('@').next().unwrap_or_default();
        let named =
            [Some(base), self.repo_id.as_deref(), self.catalog.as_deref()].into_iter().flatten().any(|own| {
                own.eq_ignore_ascii_case(name)
                    || own.rsplit('/').next().is_some_and(|last| last.eq_ignore_ascii_case(name))
            });
        named
            && revision.is_none_or(|revision| {
                let commit = self
                    .revision
                    .as_deref()
                    .is_some_and(|own| revision.len() >= 4 && own.starts_with(revision));
                commit || self.refs.iter().any(|own| own == revision)
            })
    }
}
