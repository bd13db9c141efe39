//! `mlxman clean preview`: what could go. Nothing is touched.

use std::collections::{BTreeSet, HashSet};

use anyhow::{Context as _, Result};
use mlxman_clean::{Asked, Candidate, Plan, preview};
use mlxman_manifest::registry::Row;
use mlxman_store::{Severity, StoreSpec, resolve};

use crate::args::Preview;
use crate::context::Context;
use crate::exit::Verdict;
use crate::select::filter_set;
use crate::table::{age, number, plural, reclaim, render, text};

pub(super) fn run(args: &Preview, context: &Context) -> Result<Verdict> {
    // Of the filters, --store is the one that says where to look, not what matches.
    let filters = mlxman_clean::filter::FilterSet::parse(&args.filters.args(Vec::new()))?;
    let stores = context.some_stores()?;
    filter_set(context, &args.filters)?;
    let survey = context.registry.survey(&stores, &context.catalog()?, &context.looking())?;
    let rows = context.contents()?.rows;
    let read: Vec<String> =
        survey.stores.iter().filter(|store| store.scan.is_ok()).map(|store| store.spec.id()).collect();
    let gone: Vec<Row> = if filters.is_empty() {
        Vec::new()
    } else {
        let seen: HashSet<(&str, &str)> = survey
            .stores
            .iter()
            .flat_map(|store| &store.models)
            .map(|model| (model.summary.store.as_str(), model.summary.key.as_str()))
            .collect();
        let gone = rows.iter().filter(|row| {
            let summary = &row.summary;
            read.contains(&summary.store) && !seen.contains(&(summary.store.as_str(), summary.key.as_str()))
        });
        gone.cloned()
            .map(|mut row| {
                row.summary.present = false;
                row
            })
            .collect()
    };
    let found: HashSet<(&str, &str)> = survey
        .stores
        .iter()
        .flat_map(|store| &store.models)
        .map(|model| (model.summary.store.as_str(), model.summary.key.as_str()))
        .collect();
    let pinned_elsewhere = pinned_elsewhere(&rows, &found, context);
    let plan = preview(
        &survey,
        Asked { filters: &filters, gone: &gone, pinned_elsewhere: &pinned_elsewhere, now: context.now },
    );
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
    let wrong = plan.problems.iter().any(|problem| problem.problem.severity > Severity::Info);
    Ok(Verdict::of_stores(read.len(), wrong))
}

/// Pinned models that are not where they were: their volume may be mounted elsewhere now.
fn pinned_elsewhere(rows: &[Row], found: &HashSet<(&str, &str)>, context: &Context) -> Vec<Row> {
    let pinned: Vec<&Row> = rows
        .iter()
        .filter(|row| {
            row.summary.pinned && !found.contains(&(row.summary.store.as_str(), row.summary.key.as_str()))
        })
        .collect();
    let stores: BTreeSet<StoreSpec> =
        pinned.iter().filter_map(|row| row.summary.store.parse().ok()).collect();
    let silent = context.silent_stores();
    let asked = stores.into_iter().filter(|spec| !silent.contains(spec)).collect();
    let here: HashSet<String> = resolve(asked, context.store_limit)
        .into_iter()
        .filter(|store| store.there == Ok(true))
        .map(|store| store.spec.id())
        .collect();
    // The store answers, so asking for a directory in it does not hang; an empty mount point has none.
    let is_there = |row: &Row| {
        here.contains(&row.summary.store)
            && row.summary.store.split_once('=').is_some_and(|(_, root)| {
                std::path::Path::new(root).join(&row.summary.key).symlink_metadata().is_ok()
            })
    };
    pinned.into_iter().filter(|row| !is_there(row)).cloned().collect()
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
                age(row.last_used.or(row.last_modified), context.now),
                match &row.problem {
                    Some(problem) => format!("{problem}: {}", row.reason),
                    None => row.reason.clone(),
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
    for miss in &plan.near_misses {
        printer.status(&miss.to_string());
    }
    let total = reclaim(plan.total_reclaimable_bytes, plan.total_reclaimable_at_least);
    printer.status(&match (plan.candidates.len(), plan.filters_in_words.is_empty()) {
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
