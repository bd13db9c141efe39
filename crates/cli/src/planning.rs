//! Making a plan: the stores are read, the registry is asked, and nothing is touched.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use anyhow::Result;
use mlxman_clean::filter::FilterSet;
use mlxman_clean::{Asked, Only, PinnedElsewhere, Plan, preview};
use mlxman_manifest::Summary;
use mlxman_manifest::registry::{Row, Survey};
use mlxman_store::{FileId, Scan, StoreSpec, watch};

use crate::context::Context;

/// A plan, and how many of its stores could be read.
pub(crate) struct Planned {
    pub(crate) plan: Plan,
    pub(crate) read: usize,
}

/// Plans what `filters` ask for in these stores; with `only`, of that what another plan names.
pub(crate) fn plan(
    context: &Context,
    filters: &FilterSet,
    stores: &[StoreSpec],
    only: Option<&Only>,
) -> Result<Planned> {
    let survey = context.registry.survey(stores, &context.catalog()?, &context.looking())?;
    let contents = context.contents()?;
    let read = survey.stores.iter().filter(|store| store.scan.is_ok()).count();
    let seen: HashSet<(&str, &str)> = survey
        .stores
        .iter()
        .flat_map(|store| &store.models)
        .map(|model| (model.summary.store.as_str(), model.summary.key.as_str()))
        .collect();
    let gone = if filters.is_empty() { Vec::new() } else { gone(&contents.rows, &seen, &survey) };
    let pinned_elsewhere = pinned_elsewhere(&contents.rows, &seen, context);
    let others = context.other_stores(stores, &contents);
    let asked = Asked {
        filters,
        gone: &gone,
        pinned_elsewhere: &pinned_elsewhere,
        others: &others,
        only,
        now: context.now,
    };
    Ok(Planned { plan: preview(&survey, asked), read })
}

/// Records of models that are not in their stores any more.
fn gone(rows: &[Row], seen: &HashSet<(&str, &str)>, survey: &Survey) -> Vec<Row> {
    let scans: HashMap<String, &Scan> =
        survey.stores.iter().filter_map(|store| Some((store.spec.id(), store.scan.as_ref().ok()?))).collect();
    let is_gone = |summary: &Summary| {
        let Some(scan) = scans.get(&summary.store) else { return false };
        // The registry was read after the stores: what is there now came meanwhile.
        !seen.contains(&(summary.store.as_str(), summary.key.as_str()))
            && (!summary.present || scan.has_lost(&summary.key))
    };
    let gone = rows.iter().filter(|row| is_gone(&row.summary)).cloned();
    gone.map(|mut row| {
        row.summary.present = false;
        row
    })
    .collect()
}

/// Pinned models that were not seen where they were, each with what is in its place: their volume may be mounted
/// elsewhere now, or at two places.
fn pinned_elsewhere(rows: &[Row], seen: &HashSet<(&str, &str)>, context: &Context) -> Vec<PinnedElsewhere> {
    let mut by_store: BTreeMap<StoreSpec, Vec<&Row>> = BTreeMap::new();
    let unseen = |row: &&Row| !seen.contains(&(row.summary.store.as_str(), row.summary.key.as_str()));
    for row in rows.iter().filter(|row| row.summary.pinned).filter(unseen) {
        if let Ok(spec) = row.summary.store.parse() {
            by_store.entry(spec).or_default().push(row);
        }
    }
    let silent = context.silent_stores();
    let jobs: Vec<(PathBuf, Vec<String>)> = by_store
        .iter()
        .filter(|(spec, _)| !silent.contains(spec))
        .map(|(spec, rows)| {
            (spec.root().to_owned(), rows.iter().map(|row| row.summary.key.clone()).collect())
        })
        .collect();
    let mut places = watch(jobs, context.store_limit, |(root, keys): (PathBuf, Vec<String>), _| {
        let id_of = |key: &String| {
            let place = if key.is_empty() { root.clone() } else { root.join(key) };
            place.symlink_metadata().ok().map(|meta| (meta.dev(), meta.ino()))
        };
        keys.iter().map(id_of).collect::<Vec<Option<FileId>>>()
    })
    .into_iter();
    let mut pinned = Vec::new();
    for (spec, rows) in by_store {
        let answer = if silent.contains(&spec) { None } else { places.next().and_then(Result::ok) };
        let places = answer.unwrap_or_else(|| vec![None; rows.len()]);
        pinned.extend(
            rows.into_iter().zip(places).map(|(row, place)| PinnedElsewhere { row: row.clone(), place }),
        );
    }
    pinned
}
