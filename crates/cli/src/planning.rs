//! Making a plan: the stores are read, the registry is asked, and nothing is touched.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use anyhow::Result;
use mlxman_clean::filter::FilterSet;
use mlxman_clean::{Asked, Only, PinnedElsewhere, Plan, Policies, PolicyArgs, preview};
use mlxman_manifest::Summary;
use mlxman_manifest::registry::{Row, Survey};
use mlxman_store::{FileId, Scan, StoreSpec, watch};

use crate::args;
use crate::config::ConfigClean;
use crate::context::Context;
use crate::exit::wrong;

/// A plan, and how many of its stores could be read.
pub(crate) struct Planned {
    pub(crate) plan: Plan,
    pub(crate) read: usize,
}

/// The policies of a call: its own options, and for those that it does not give, the configuration's.
pub(crate) fn policies(args: &args::Policies, context: &Context) -> Result<Policies> {
    let usual = if args.no_policies { ConfigClean::default() } else { context.clean.clone() };
    // How long is waited is no policy that names anything: it holds with --no-policies as well.
    let grace = args.grace.clone().or_else(|| context.clean.grace.clone());
    let given = PolicyArgs {
        keep_last: args.keep_last.or(usual.keep_last),
        older_than: args.older_than.clone().or(usual.older_than),
        max_size: args.max_size.clone().or(usual.max_size),
        free: args.free.clone().or(usual.free),
        detached: args.detached || usual.detached,
        partials: args.partials || usual.partials,
        orphans: args.orphans || usual.orphans,
        broken: args.broken || usual.broken,
        duplicates: args.duplicates || usual.duplicates,
        superseded: args.superseded || usual.superseded,
        grace,
        include_irreplaceable: args.include_irreplaceable,
    };
    // Those of the call alone: whatever is wrong beyond them stands in the configuration.
    let own = PolicyArgs {
        older_than: args.older_than.clone(),
        max_size: args.max_size.clone(),
        free: args.free.clone(),
        grace: args.grace.clone(),
        ..PolicyArgs::default()
    };
    Policies::parse(&own)?;
    Policies::parse(&given).map_err(|error| {
        let file = context.config_file.display();
        wrong(format!(
            "the configuration {file} cannot be used: [clean] {}",
            error.to_string().trim_start_matches("--")
        ))
    })
}

/// Plans what is asked for in these stores; with `only`, of that what another plan names.
pub(crate) fn plan(
    context: &Context,
    by: (&FilterSet, &Policies),
    stores: &[StoreSpec],
    only: Option<&Only>,
) -> Result<Planned> {
    asked(context, by, stores, only, |survey, asked, read| Ok(Planned { plan: preview(survey, asked), read }))
}

/// Looks at the stores, and calls `answer` with what was seen, what is asked, and how many stores could be read.
pub(crate) fn asked<T>(
    context: &Context,
    (filters, policies): (&FilterSet, &Policies),
    stores: &[StoreSpec],
    only: Option<&Only>,
    answer: impl FnOnce(&Survey, Asked<'_>, usize) -> Result<T>,
) -> Result<T> {
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
        policies,
        files: &|known| context.registry.files_of(known),
        gone: &gone,
        pinned_elsewhere: &pinned_elsewhere,
        others: &others,
        only,
        now: context.now,
    };
    let answer = answer(&survey, asked, read);
    // A hundred thousand small pieces in a large store: nobody has to wait until they are freed.
    let _ =
        std::thread::Builder::new().name("drop".to_owned()).spawn(move || drop((survey, contents, others)));
    answer
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
