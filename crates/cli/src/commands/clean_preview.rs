//! `mlxman clean preview`: what could go. Nothing is touched.

use anyhow::{Context as _, Result};
use mlxman_clean::{Candidate, Plan};
use mlxman_store::Severity;

use crate::args::Preview;
use crate::context::Context;
use crate::exit::Verdict;
use crate::planning::{Planned, plan};
use crate::select::filter_set;
use crate::table::{age, number, plural, reclaim, render, text};
use crate::trash::recover;

pub(super) fn run(args: &Preview, context: &Context) -> Result<Verdict> {
    // Of the filters, --store is the one that says where to look, not what matches.
    let filters = mlxman_clean::filter::FilterSet::parse(&args.filters.args(Vec::new()))?;
    let stores = context.some_stores()?;
    filter_set(context, &args.filters)?;
    recover(context, &stores);
    let Planned { plan, read } = plan(context, &filters, &stores, None)?;
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
        context.printer.status(&in_total(&plan));
    }
    let wrong = plan.problems.iter().any(|problem| problem.problem.severity > Severity::Info);
    Ok(Verdict::of_stores(read, wrong))
}

/// Shows a plan's rows, what it keeps, and what is wrong.
pub(super) fn table(plan: &Plan, context: &Context) -> Result<()> {
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
    Ok(())
}

pub(super) fn in_total(plan: &Plan) -> String {
    match (plan.candidates.len(), plan.filters_in_words.is_empty()) {
        (0, true) => "nothing is safe to go without being asked for; filters choose models".to_owned(),
        (0, false) => "no model matches".to_owned(),
        (rows, _) => format!(
            "{}: the disk would get back {} ({} bytes); nothing was touched; `mlxman clean apply` does it",
            plural(rows, "row"),
            reclaim(plan.total_reclaimable_bytes, plan.total_reclaimable_at_least),
            plan.total_reclaimable_bytes
        ),
    }
}

fn what(row: &Candidate) -> String {
    row.model.clone().or_else(|| row.path.clone()).unwrap_or_default()
}
