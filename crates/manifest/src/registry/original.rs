//! Manifests that the original scripts wrote, before a sync has seen their models.

use chrono::{DateTime, Utc};
use mlxman_store::{StoreSpec, is_safe_component};
use serde_json::Value;

use super::merge;
use crate::record::{Manifest, SCHEMA_VERSION, Storage};
use crate::schema::{Form, Rejected};
use crate::summary::Summary;

/// What one says, as far as it can be believed before its store was read. Of its `model_path` the last name alone is
/// looked at, to know which directory of the folder it is about; it is never a path to open.
pub(super) fn summary(document: &Value, store: &str, names: &[String]) -> Result<Summary, String> {
    let text = |key: &str| document.get(key).and_then(Value::as_str).map(str::to_owned);
    let model = text("model").unwrap_or_default();
    if !is_safe_component(&model) {
        return Err(format!("model: `{}` is not a name", model.escape_debug()));
    }
    let path = text("model_path").unwrap_or_default();
    let last = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let there = |name: &str| names.iter().any(|known| known == name);
    let key = if !there(&model) && is_safe_component(last) && last != "manifests" && there(last) {
        last.to_owned()
    } else {
        model.clone()
    };
    let storage = document.get("storage");
    let number =
        |key: &str| storage.and_then(|storage| storage.get(key)).and_then(Value::as_u64).unwrap_or(0);
    let mut summary = Summary {
        key,
        model,
        store: store.to_owned(),
        repo_id: text("source_id").filter(|id| !id.is_empty()),
        precision: text("precision"),
        quantization: text("quantization"),
        present: storage.and_then(|s| s.get("present")).and_then(Value::as_bool).unwrap_or(false),
        file_count: number("file_count"),
        size_bytes: number("size_bytes"),
        modified: time(storage.and_then(|storage| storage.get("last_modified"))),
        ..Summary::default()
    };
    let user = merge::words_of(Form::Original, document);
    summary.tags.clone_from(&user.tags);
    summary.pinned = user.pinned;
    Ok(summary)
}

/// The same in the record's own form.
pub(super) fn upgraded(document: &Value, summary: &Summary) -> Result<Value, Rejected> {
    let root = summary.store.parse::<StoreSpec>().map(|spec| spec.root().join(&summary.key));
    let manifest = Manifest {
        schema_version: SCHEMA_VERSION,
        model: summary.model.clone(),
        model_path: root.map(|path| path.to_string_lossy().into_owned()).unwrap_or_default(),
        store: summary.store.clone(),
        key: summary.key.clone(),
        source_id: None,
        variant: None,
        catalog: None,
        source: Default::default(),
        format: summary.format,
        architecture: Default::default(),
        parameter_count: None,
        precision: None,
        quantization: Default::default(),
        adapter: Default::default(),
        storage: Storage {
            present: summary.present,
            file_count: summary.file_count,
            size_bytes: summary.size_bytes,
            last_modified: summary.modified,
            ..Storage::default()
        },
        verification: None,
        integrity: None,
        health: Default::default(),
        tags: Vec::new(),
        notes: None,
        pinned: false,
        user: Default::default(),
        evidence: Default::default(),
        generated_at: time(document.get("generated_at")).unwrap_or(DateTime::UNIX_EPOCH),
        generator: Manifest::generator(),
    };
    merge::merge(manifest, Some((Form::Original, document)), false, &merge::Known::default())
}

/// Whether a manifest was upgraded under this name, which the original scripts gave it.
pub(super) fn had_name(manifest: &Manifest, name: &str) -> bool {
    let stem = name.strip_suffix(".manifest.json");
    manifest
        .evidence
        .get("key")
        .is_some_and(|evidence| evidence.file == merge::ORIGINAL && evidence.key.as_deref() == stem)
}

fn time(value: Option<&Value>) -> Option<DateTime<Utc>> {
    let text = value?.as_str()?;
    let with_zone = DateTime::parse_from_rfc3339(text).map(|time| time.to_utc());
    // Python's isoformat() says no zone where it was given none.
    with_zone.ok().or_else(|| Some(text.parse::<chrono::NaiveDateTime>().ok()?.and_utc()))
}
