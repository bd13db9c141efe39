//! Which models a user means.

use std::collections::BTreeMap;

use anyhow::Result;
use mlxman_clean::facts_of;
use mlxman_clean::filter::{FilterArgs, FilterSet, near_misses, nearest};
use mlxman_manifest::Manifest;
use mlxman_manifest::registry::{Contents, Row, unusable};
use mlxman_store::{Problem, ProblemKind, StoreSpec};
use serde_json::Value;

use crate::args::Filters;
use crate::context::Context;
use crate::exit::wrong;
use crate::table::plural;

/// The filters of a call, `--store` among them.
pub(crate) fn filter_set(context: &Context, filters: &Filters) -> Result<FilterSet> {
    Ok(FilterSet::parse(&filters.args(context.store_words.clone()))?)
}

/// The rows that match; what near a value is that none has is told.
pub(crate) fn matching<'a>(context: &Context, contents: &'a Contents, filters: &FilterSet) -> Vec<&'a Row> {
    let rows: Vec<&Row> =
        contents.rows.iter().filter(|row| filters.matches(&facts_of(&row.summary), context.now)).collect();
    if !filters.is_empty() {
        let all: Vec<_> = contents.rows.iter().map(|row| facts_of(&row.summary)).collect();
        for miss in near_misses(filters, &all, &[], context.now) {
            context.printer.status(&miss.to_string());
        }
    }
    rows
}

/// The whole manifest of a row; of one that cannot be used or reached, what is known otherwise, with the problem on it,
/// and why.
pub(crate) fn document(context: &Context, row: &Row) -> (Value, Option<String>) {
    let why = match (&row.away, &row.invalid) {
        (Some(why), _) | (None, Some(why)) => why.clone(),
        (None, None) => match context.registry.document(row) {
            Ok(document) => return (document, None),
            Err(error) => error.to_string(),
        },
    };
    let problem = match &row.away {
        Some(why) => Problem::new(ProblemKind::StoreUnavailable, None, why.clone()),
        None => unusable(&row.path, &why).problem,
    };
    let summary = &row.summary;
    let mut document = serde_json::json!({
        "schema_version": mlxman_manifest::SCHEMA_VERSION,
        "model": summary.model,
        "model_path": summary.store.parse::<StoreSpec>().map(|spec| spec.root().join(&summary.key)).unwrap_or_default(),
        "store": summary.store,
        "key": summary.key,
        "source_id": summary.repo_id,
        "source": {"repo_id": summary.repo_id, "revision": summary.revision, "refs": summary.refs},
        "format": summary.format,
        "architecture": {"model_type": summary.arch, "modality": summary.modality},
        "parameter_count": summary.params,
        "precision": summary.precision,
        "quantization": {"label": summary.quantization},
        "adapter": {"kind": summary.adapter},
        "storage": {
            "present": summary.present,
            "file_count": summary.file_count,
            "size_bytes": summary.size_bytes,
            "reclaimable_bytes": summary.reclaimable_bytes,
        },
        "health": {"status": summary.health, "problems": [problem]},
        "tags": summary.tags,
        "pinned": summary.pinned,
        "generated_at": context.now,
        "generator": Manifest::generator(),
    });
    if row.away.is_none() {
        document["health"]["status"] = Value::from("damaged");
        document["quantization"]["label"] = Value::Null;
        document["adapter"]["kind"] = Value::from("unknown");
    }
    (document, Some(why))
}

/// Says how many rows were left out because what a filter asks of them is not known.
pub(crate) fn tell_unknown(context: &Context, contents: &Contents, filters: &FilterSet) -> Result<()> {
    let others = FilterSet::parse(&FilterArgs { filters: Vec::new(), ..filters.args().clone() })?;
    let mut unknown: BTreeMap<&str, usize> = BTreeMap::new();
    for row in &contents.rows {
        let facts = facts_of(&row.summary);
        if !others.matches(&facts, context.now) {
            continue;
        }
        let failing: Vec<_> =
            filters.exprs().iter().filter(|expr| !expr.matches(&facts, context.now)).collect();
        if !failing.is_empty() && failing.iter().all(|expr| expr.field().value(&facts).is_none()) {
            *unknown.entry(failing[0].field().name).or_default() += 1;
        }
    }
    for (field, count) in unknown {
        let models = plural(count, "model");
        context.printer.status(&format!(
            "{models} left out: `{field}` is not known of them (--filter {field}=unknown shows them)"
        ));
    }
    Ok(())
}

/// Rows in the stores that `--store` allows.
pub(crate) fn in_stores<'a>(context: &Context, contents: &'a Contents) -> Result<Vec<&'a Row>> {
    let filters = filter_set(context, &Filters::default())?;
    Ok(contents.rows.iter().filter(|row| filters.matches(&facts_of(&row.summary), context.now)).collect())
}

/// The one model that a name means: of several snapshots of a repo the one a loader gets.
pub(crate) fn one<'a>(context: &Context, contents: &'a Contents, asked: &str) -> Result<&'a Row> {
    let rows = in_stores(context, contents)?;
    let found: Vec<&Row> = rows.iter().filter(|row| row.summary.answers_to(asked)).copied().collect();
    narrow(&found, asked)?.ok_or_else(|| unknown(&rows, asked))
}

/// Of rows that answer to one name: the only one, the present one, the one a loader gets.
fn narrow<'a>(found: &[&'a Row], asked: &str) -> Result<Option<&'a Row>> {
    let exact: Vec<&Row> = found.iter().filter(|row| row.summary.model == asked).copied().collect();
    let mut found = if exact.is_empty() { found.to_vec() } else { exact };
    let keep = |rows: &mut Vec<&'a Row>, wanted: &dyn Fn(&Row) -> bool| {
        if rows.len() > 1 && rows.iter().any(|row| wanted(row)) {
            rows.retain(|row| wanted(row));
        }
    };
    keep(&mut found, &|row| row.summary.present);
    keep(&mut found, &|row| row.summary.current != Some(false));
    match found.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some(one)),
        several => {
            let names: Vec<String> =
                several.iter().map(|row| format!("{}:{}", row.summary.store, row.summary.model)).collect();
            Err(wrong(format!("`{asked}` means {} models; say which: {}", several.len(), names.join(", "))))
        }
    }
}

pub(crate) fn unknown(rows: &[&Row], asked: &str) -> anyhow::Error {
    if rows.is_empty() {
        return wrong(format!(
            "no model `{asked}`: the registry is empty here; run `mlxman sync --fast` first"
        ));
    }
    let near = nearest(asked, rows.iter().map(|row| row.summary.model.as_str()), 3);
    wrong(if near.is_empty() {
        format!("no model answers to `{asked}`; `mlxman list` shows those that there are")
    } else {
        format!("no model answers to `{asked}`; near: {}", near.join(", "))
    })
}
