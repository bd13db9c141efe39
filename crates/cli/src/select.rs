//! Which models a user means.

use anyhow::Result;
use mlxman_clean::facts_of;
use mlxman_clean::filter::{FilterSet, near_misses, nearest};
use mlxman_manifest::registry::{Contents, Row};

use crate::args::Filters;
use crate::context::Context;
use crate::exit::wrong;

/// The filters of a call, `--store` among them.
pub(crate) fn filter_set(context: &Context, filters: &Filters) -> Result<FilterSet> {
    Ok(FilterSet::parse(&filters.args(context.store_words.clone()))?)
}

/// The rows that match; where none does, the near ones are told.
pub(crate) fn matching<'a>(context: &Context, contents: &'a Contents, filters: &FilterSet) -> Vec<&'a Row> {
    let rows: Vec<&Row> =
        contents.rows.iter().filter(|row| filters.matches(&facts_of(&row.summary), context.now)).collect();
    if rows.is_empty() && !filters.is_empty() {
        let all: Vec<_> = contents.rows.iter().map(|row| facts_of(&row.summary)).collect();
        for miss in near_misses(filters, &all, context.now) {
            context.printer.status(&miss.to_string());
        }
    }
    rows
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
