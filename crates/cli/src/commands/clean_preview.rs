//! `mlxman clean preview`: what could go. Nothing is touched.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use mlxman_clean::{Asked, Candidate, PinnedElsewhere, Plan, Policies, PolicyArgs, preview};
use mlxman_manifest::Summary;
use mlxman_manifest::registry::{Row, Survey};
use mlxman_store::{FileId, Scan, Severity, StoreSpec, watch};

use crate::args::{self, Preview};
use crate::config::ConfigClean;
use crate::context::Context;
use crate::exit::{Verdict, wrong};
use crate::select::filter_set;
use crate::table::{last_use, number, plural, reclaim, render, text};

/// The policies of a call: its own options, and for those that it does not give, the configuration's.
pub(super) fn policies(args: &args::Policies, context: &Context) -> Result<Policies> {
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

pub(super) fn run(args: &Preview, context: &Context) -> Result<Verdict> {
    let policies = policies(&args.policies, context)?;
    // Of the filters, --store is the one that says where to look, not what matches.
    let filters = mlxman_clean::filter::FilterSet::parse(&args.filters.args(Vec::new()))?;
    let stores = context.some_stores()?;
    filter_set(context, &args.filters)?;
    let survey = context.registry.survey(&stores, &context.catalog()?, &context.looking())?;
    let contents = context.contents()?;
    let read: Vec<String> =
        survey.stores.iter().filter(|store| store.scan.is_ok()).map(|store| store.spec.id()).collect();
    let seen: HashSet<(&str, &str)> = survey
        .stores
        .iter()
        .flat_map(|store| &store.models)
        .map(|model| (model.summary.store.as_str(), model.summary.key.as_str()))
        .collect();
    let gone = if filters.is_empty() { Vec::new() } else { gone(&contents.rows, &seen, &survey) };
    let pinned_elsewhere = pinned_elsewhere(&contents.rows, &seen, context);
    let others = context.other_stores(&stores, &contents);
    let asked = Asked {
        filters: &filters,
        policies: &policies,
        files: &|known| context.registry.files_of(known),
        gone: &gone,
        pinned_elsewhere: &pinned_elsewhere,
        others: &others,
        now: context.now,
    };
    if let Some(model) = &args.explain {
        return super::clean_explain::run(model, &survey, asked, context);
    }
    let plan = preview(&survey, asked);
    if let Some(path) = &args.out {
        let mut bytes = serde_json::to_vec_pretty(&plan)?;
        bytes.push(b'\n');
        mlxman_manifest::registry::write_whole(path, &bytes)
            .with_context(|| format!("the plan cannot be written to {}", path.display()))?;
        context.printer.status(&format!("the plan is in {}", path.display()));
    }
    if context.printer.json {
        context.printer.json(&plan)?;
    } else {
        table(&plan, context)?;
    }
    let wrong = !plan.shortfalls.is_empty()
        || plan.problems.iter().any(|problem| problem.problem.severity > Severity::Info);
    Ok(Verdict::of_stores(read.len(), wrong))
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

fn table(plan: &Plan, context: &Context) -> Result<()> {
    let printer = &context.printer;
    for problem in &plan.problems {
        printer.warning(&problem.problem.message);
    }
    let columns = [text("WHAT", 0), number("FREES", 0), number("USED", 2), text("WHY", 1)];
    let cells: Vec<Vec<String>> = plan
        .candidates
        .iter()
        .map(|row| {
            vec![
                what(row),
                reclaim(row.reclaimable_bytes, row.reclaimable_at_least),
                last_use(row.last_used.or(row.last_modified), row.last_used_by, context.now),
                match (&row.problem, &row.irreplaceable_reason) {
                    (Some(problem), _) => format!("{problem}: {}", row.reason),
                    (None, Some(why)) => format!("CANNOT BE HAD AGAIN ({why}): {}", row.reason),
                    (None, None) => row.reason.clone(),
                },
            ]
        })
        .collect();
    if !cells.is_empty() {
        printer.data(&render(printer, &columns, &cells))?;
    }
    if !plan.kept.is_empty() {
        let columns = [text("KEPT", 0), text("WHY", 0)];
        let cells: Vec<Vec<String>> =
            plan.kept.iter().map(|kept| vec![kept.model.clone(), kept.reason.clone()]).collect();
        printer.data("")?;
        printer.data(&render(printer, &columns, &cells))?;
    }
    for shortfall in &plan.shortfalls {
        printer.warning(&shortfall.message);
    }
    for miss in &plan.near_misses {
        printer.status(&miss.to_string());
    }
    let total = reclaim(plan.total_reclaimable_bytes, plan.total_reclaimable_at_least);
    let by_policy = !plan.policies_in_words.is_empty();
    if by_policy {
        printer.status(&format!("policies: {}", plan.policies_in_words.join("; ")));
    }
    printer.status(&match (plan.candidates.len(), plan.filters_in_words.is_empty()) {
        (0, _) if by_policy => "the policies name nothing that may go".to_owned(),
        (0, true) => "nothing is safe to go without being asked for; filters choose models".to_owned(),
        (0, false) => "no model matches".to_owned(),
        (rows, _) => format!(
            "{}: the disk would get back {total} ({} bytes); nothing was touched",
            plural(rows, "row"),
            plan.total_reclaimable_bytes
        ),
    });
    Ok(())
}

fn what(row: &Candidate) -> String {
    row.model.clone().or_else(|| row.path.clone()).unwrap_or_default()
}
